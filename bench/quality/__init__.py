"""How right an engine's answers are: files with known answers, sent through the API of a running service."""
