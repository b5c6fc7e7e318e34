"""Faults: breaks the running service at random moments and counts what was lost, doubled or stuck."""
