"""The `phi4` command's way in: what is said when it cannot even begin, or has nowhere to write."""

from __future__ import annotations

import errno
import os
import sys
from pathlib import Path

_PROGRAM = "phi4"
_NOWHERE = Path(os.devnull)
_NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO)


def main() -> None:
    """Run the command; a missing package or a full disk behind stdout is one line and exit code 1."""
    try:
        from cli.main import app
    except ModuleNotFoundError as error:
        sys.exit(f'{_PROGRAM}: {error.name} is not installed; the command wants pip install "phi4-service[local]"')
    if sys.stdout is None:  # closed by whoever started this
        sys.stdout = _NOWHERE.open("w", encoding="utf-8")
    try:
        app(prog_name=_PROGRAM)
    except OSError as error:
        if error.errno not in _NO_ROOM:
            raise
        sys.stdout = _NOWHERE.open("w", encoding="utf-8")  # what is left cannot be written at exit either
        sys.exit(f"{_PROGRAM}: the output cannot be written: {error.strerror}")
