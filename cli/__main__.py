"""`python -m cli` is `phi4`, where the package is not installed."""

from cli.entry import main

main()
