"""The example inputs: they are what their names say, small, and each has its truth written down."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pypdfium2
import pytest
import soundfile
from PIL import Image

INPUTS = Path(__file__).parent.parent / "examples" / "inputs"
EXPECTED: dict[str, Any] = json.loads((INPUTS / "expected.json").read_text(encoding="utf-8"))


def test_every_input_has_its_truth_and_every_truth_its_input() -> None:
    """`expected.json` names exactly the files beside it."""
    files = {path.name for path in INPUTS.iterdir()} - {"expected.json"}
    assert files == set(EXPECTED)


def test_the_inputs_are_small_enough_to_ship() -> None:
    """All inputs together stay under 900 kB."""
    assert sum(path.stat().st_size for path in INPUTS.iterdir()) < 900_000


@pytest.mark.parametrize(("name", "size"), [("invoice.jpg", (1240, 1754)), ("sign.jpg", (1200, 900))])
def test_a_picture_is_a_whole_jpeg_of_its_size(name: str, size: tuple[int, int]) -> None:
    """The invoice is A4 at 150 dpi and the sign a landscape photo, both decodable to the end."""
    with Image.open(INPUTS / name) as image:
        image.load()
        assert (image.format, image.mode, image.size) == ("JPEG", "RGB", size)


@pytest.mark.parametrize("name", ["invoice.jpg", "sign.jpg"])
def test_every_answer_stands_in_the_picture(name: str) -> None:
    """A question's answer is part of one of the lines of its picture."""
    answers = EXPECTED[name]["questions"].values()
    assert len(answers) == 3
    assert [answer for answer in answers if not any(answer in line for line in EXPECTED[name]["lines"])] == []


def test_the_report_holds_the_lines_it_claims() -> None:
    """Each of the three pages has a text layer with exactly the expected words in the expected order."""
    with pypdfium2.PdfDocument(INPUTS / "report.pdf") as document:
        found = [page.get_textpage().get_text_bounded().split() for page in document]
    claimed = [" ".join(page["lines"]).split() for page in EXPECTED["report.pdf"]["pages"]]
    assert len(found) == 3
    assert found == claimed


def test_the_talk_is_mono_speech_longer_than_one_clip() -> None:
    """The talk is 16 kHz mono and longer than 30 s, so that it has to be cut."""
    about = soundfile.info(INPUTS / "talk.mp3")
    assert (about.format, about.samplerate, about.channels) == ("MP3", 16_000, 1)
    assert 30 < about.duration < 40
    assert len(EXPECTED["talk.mp3"]["sentences"]) == 8
