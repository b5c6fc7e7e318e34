"""Makes the example inputs, and `expected.json` with the truth about each.

The same fonts and tools give the same files. Needed: the program espeak-ng, the Liberation fonts (Debian:
fonts-liberation), and the Python packages fpdf2, numpy, pillow and soundfile.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from makers.invoice import make_invoice
from makers.report import make_report
from makers.sheet import font
from makers.sign import make_sign
from makers.talk import make_talk

MAKERS: dict[str, Callable[[Path], dict[str, Any]]] = {
    "invoice.jpg": make_invoice,
    "report.pdf": make_report,
    "sign.jpg": make_sign,
    "talk.mp3": make_talk,
}


def missing_tools() -> list[str]:
    """Name what this machine lacks to make the inputs."""
    missing = [] if shutil.which("espeak-ng") else ["the program espeak-ng"]
    try:
        font("Sans-Regular", 10)
    except OSError:
        missing.append("the Liberation fonts (Debian: fonts-liberation)")
    return missing


def make_inputs(folder: Path) -> None:
    """Write every input and the truth about them all into `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    expected = {name: make(folder / name) for name, make in MAKERS.items()}
    truth = json.dumps(expected, indent=2, ensure_ascii=False)
    (folder / "expected.json").write_text(truth + "\n", encoding="utf-8")


def main() -> None:
    """Read the command line and make the inputs; exits with a message when a tool is missing."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out_dir", nargs="?", type=Path, default=Path(__file__).parent / "inputs")
    out_dir: Path = parser.parse_args().out_dir
    if missing := missing_tools():
        sys.exit(f"Cannot make the example inputs without {' and '.join(missing)}.")
    make_inputs(out_dir)


if __name__ == "__main__":
    main()
