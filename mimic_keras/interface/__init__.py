"""From the command line to a call, and from its result to an exit code."""
