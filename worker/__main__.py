"""`python -m worker infer` serves an engine; `python -m worker side` prepares jobs, delivers webhooks, and reaps."""

from __future__ import annotations

import sys

from phi4.settings import SettingsError, load
from worker.app import run


def main() -> None:
    """Run the role named on the command line."""
    role = sys.argv[1] if len(sys.argv) > 1 else ""
    if role not in ("infer", "side"):
        sys.exit("usage: python -m worker infer|side")
    try:
        settings = load()
    except SettingsError as error:
        sys.exit(str(error))
    run(settings, "infer" if role == "infer" else "side")


if __name__ == "__main__":
    main()
