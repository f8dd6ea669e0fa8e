"""mimic-keras: train small student nets to mimic deep teacher nets, and export them for serving."""

__version__ = "0.1.0"
