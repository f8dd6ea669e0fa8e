"""From a typed experiment and the installed plugins to a checked plan; no data is read."""
