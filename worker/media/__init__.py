"""Turns untrusted files into pages and clips; knows nothing of jobs, stores or engines."""
