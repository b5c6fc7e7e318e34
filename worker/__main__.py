"""`python -m worker infer` serves an engine, `side` prepares, delivers webhooks and reaps, `healthy` asks how it is."""

from __future__ import annotations

import sys

from phi4.settings import SettingsError, load


def main() -> None:
    """Run the role named on the command line."""
    role = sys.argv[1] if len(sys.argv) > 1 else ""
    if role not in ("infer", "side", "healthy"):
        sys.exit("usage: python -m worker infer|side|healthy")
    try:
        settings = load()
    except SettingsError as error:
        sys.exit(str(error))
    if role == "healthy":
        # Here, not above: it runs every few seconds and needs no engine.
        from worker.health import problem

        sys.exit(problem(settings) or None)
    from worker.app import run

    run(settings, "infer" if role == "infer" else "side")


if __name__ == "__main__":
    main()
