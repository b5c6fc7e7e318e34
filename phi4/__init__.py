"""What every side of the service agrees on: jobs, states, errors, settings, the store, and blobs."""

__version__ = "0.1.0"
