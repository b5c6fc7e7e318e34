"""The `phi4` command."""
