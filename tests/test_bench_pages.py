"""The benchmarks' inputs: the size that was asked for, valid, and new for every seed."""

from __future__ import annotations

import io
from pathlib import Path

import pypdfium2
import pytest
import soundfile
from PIL import Image

from bench.pages import PAGES_PER_PDF, page_lines, photo, recordings, speech_wav, text_page, text_pdf


@pytest.mark.parametrize("lines", [1, 45, 100])
def test_a_page_has_as_many_lines_as_asked(lines: int) -> None:
    """`page_lines` gives exactly that many, none empty, the same for the same seed."""
    assert [bool(line) for line in page_lines(7, lines)] == [True] * lines
    assert page_lines(7, lines) == page_lines(7, lines)


def test_two_seeds_never_give_the_same_page() -> None:
    """Of a hundred pages no two share even their first line."""
    assert len({page_lines(seed)[0] for seed in range(100)}) == 100


@pytest.mark.parametrize("lines", [10, 45, 100])
def test_the_text_of_a_page_keeps_its_margins(lines: int) -> None:
    """Text fills the A4 page from top to bottom and leaves every edge white."""
    page = text_page(7, lines)
    box = page.point(lambda value: 255 - value).getbbox()
    assert page.size == (1240, 1754)
    assert box is not None
    left, top, right, bottom = box
    assert left >= 100
    assert top >= 100
    assert right <= 1140
    assert 1400 < bottom <= 1660


def test_a_pdf_holds_the_lines_of_its_pages(tmp_path: Path) -> None:
    """Every page can be opened and its text layer has the lines of that page."""
    text_pdf(tmp_path / "three.pdf", 3, seed=5)
    with pypdfium2.PdfDocument(tmp_path / "three.pdf") as document:
        found = [page.get_textpage().get_text_bounded().splitlines() for page in document]
    assert found == [page_lines(5 * PAGES_PER_PDF + n) for n in range(3)]


@pytest.mark.parametrize("kilobytes", [20, 200, 2_000])
def test_a_photo_has_about_the_size_that_was_asked_for(kilobytes: int) -> None:
    """The JPEG is within a quarter of it, and another seed gives another photo."""
    content = photo(kilobytes, seed=1)
    assert 0.75 < len(content) / (kilobytes * 1000) < 1.25
    assert Image.open(io.BytesIO(content)).format == "JPEG"
    assert content != photo(kilobytes, seed=2)


@pytest.mark.parametrize("seconds", [0.5, 61.25, 200.0])
def test_a_recording_has_exactly_the_length_that_was_asked_for(tmp_path: Path, seconds: float) -> None:
    """The WAV is 16 kHz mono and as long as asked, also when the recordings have to be repeated."""
    speech_wav(tmp_path / "speech.wav", seconds)
    about = soundfile.info(tmp_path / "speech.wav")
    assert (about.samplerate, about.channels, about.frames) == (16_000, 1, round(seconds * 16_000))


def test_sound_effects_are_not_taken_for_speech() -> None:
    """Every recording that is used lasts at least three seconds."""
    assert all(len(samples) >= 3 * 16_000 for samples in recordings())
