"""`python -m cli` is `phi4`, where the package is not installed."""

from cli.main import app

app(prog_name="phi4")
