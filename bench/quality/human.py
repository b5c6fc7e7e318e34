"""`python -m bench.quality.human FOLDER` writes a set of one human recording whose words are known.

The recording comes with the package moonshine-voice: the beginning of "A Tale of Two Cities" (Charles Dickens, 1859, in
the public domain), read aloud. The recordings in `examples/` are synthetic speech, which is easier.
"""

from __future__ import annotations

import json
import shutil
import sys
from importlib.util import find_spec
from pathlib import Path

from bench.quality.cases import MANIFEST

WORDS = """It was the best of times, it was the worst of times, it was the age of wisdom, it was the age of foolishness,
it was the epoch of belief, it was the epoch of incredulity, it was the season of Light, it was the season of Darkness,
it was the spring of hope, it was the winter of despair, we had everything before us, we had nothing before us, we were
all going direct to Heaven, we were all going direct the other way--in short, the period was so far like the present
period, that some of its noisiest authorities insisted on its being received, for good or for evil, in the superlative
degree of comparison only."""


def write(folder: Path) -> None:
    """Copy the recording and write its manifest; raises FileNotFoundError without the package."""
    package = find_spec("moonshine_voice")
    if package is None or package.origin is None:
        raise FileNotFoundError("Install moonshine-voice 0.0.73.")
    folder.mkdir(parents=True, exist_ok=True)
    shutil.copy(Path(package.origin).parent / "assets" / "two_cities.wav", folder)
    case = {
        "file": "two_cities.wav",
        "type": "asr",
        "answers": [WORDS],
        "params": {"language": "en"},
        "source": "read by a person; Moonshine's own example",
    }
    (folder / MANIFEST).write_text(json.dumps(case) + "\n", encoding="utf-8")


if __name__ == "__main__":
    write(Path(sys.argv[1]))
