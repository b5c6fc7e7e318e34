"""Makes the inputs of the benchmarks: pages of text, PDFs, photos and recordings, new content for every seed."""

from __future__ import annotations

import importlib.util
import io
import random
import textwrap
import zlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import soundfile
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

WORD_LIST = (
    "able about above across after again against along already although always among answer apple around autumn "
    "beach because become before begin behind believe below between beyond board bottle bread bridge bright brother "
    "building business butter button camera candle captain carpet castle change chapter church circle city clear "
    "clock cloud coast coffee colour common copper corner country cousin cover credit cross current daily danger "
    "daughter decide degree depend desert detail direct distance doctor double doubt dozen dream early east easy "
    "effort either engine enough equal evening event every example expect explain family farmer father field figure "
    "finger finish flight floor flower follow forest forget forward free fresh friend front future garden general "
    "gentle glass grain green ground group harbour harvest heavy history holiday honest horse house hundred island "
    "journey kitchen ladder language large later leather letter level library light listen little machine market "
    "matter meadow measure member middle minute modern moment morning mountain museum music narrow nation nature "
    "needle neighbour never north notice number object ocean office often orange order other outside paper parent "
    "people perhaps picture plain plant plenty pocket point possible potato present promise public purple quarter "
    "question quick quiet railway rather reason record region remember repeat report river season second senior "
    "several shadow silver simple single slow smooth south spring square station steady stone story street strong "
    "sudden sugar summer supper surface table teacher theatre though ticket timber today together tomorrow toward "
    "travel under unless until upper useful valley village visit voice water weather welcome while window winter "
    "without wonder wooden worker yellow yesterday young"
)
WORDS = WORD_LIST.split()

A4 = (1240, 1754)  #: pixels at 150 dpi
MARGIN = 110  #: pixels
COLUMNS = 80  #: letters in a line
PAGES_PER_PDF = 10_000  #: Page seeds of one PDF: no two PDFs share a page.

RATE = 16_000  #: samples per second
PAUSE_SECONDS = 0.7
SHORTEST_SPEECH = 3.0  #: seconds; the package's sound effects are shorter

JPEG_HEADER_BYTES = 650
JPEG_BYTES_PER_PIXEL = 0.62  #: measured for what `photo` draws


def page_lines(seed: int, lines: int = 45) -> list[str]:
    """Return the lines on page `seed`: random words, and numbers as papers have them."""
    chance = random.Random(seed)
    tokens = (
        str(chance.randrange(10_000)) if chance.random() < 0.05 else chance.choice(WORDS) for _ in range(lines * 16)
    )
    return textwrap.wrap(" ".join(tokens), COLUMNS)[:lines]


def page_font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    """Open DejaVu Sans if this machine has it, else the font inside Pillow."""
    try:
        return ImageFont.truetype("DejaVuSans.ttf", size)
    except OSError:
        return ImageFont.load_default(size)


def text_page(seed: int, lines: int = 45) -> Image.Image:
    """Return a full grey A4 page at 150 dpi with `lines` lines of text."""
    page = Image.new("L", A4, "white")
    pitch = (A4[1] - 2 * MARGIN) / lines
    font = page_font(min(22, round(pitch * 0.65)))
    pen = ImageDraw.Draw(page)
    for n, line in enumerate(page_lines(seed, lines)):
        pen.text((MARGIN, MARGIN + n * pitch), line, "black", font)
    return page


def _text_stream(lines: list[str]) -> bytes:
    """Return the PDF operators that print `lines` on an A4 page."""
    shown = " ".join(f"({line}) '" for line in lines)
    stream = zlib.compress(f"BT /F 11 Tf 16 TL 53 790 Td {shown} ET".encode("ascii"))
    return b"<</Length %d /Filter /FlateDecode>>stream\n%b\nendstream" % (len(stream), stream)


def _pdf_objects(pages: int, seed: int) -> Iterator[bytes]:
    """Yield the objects of a PDF in the order of their numbers: catalogue, page tree, font, then two for each page."""
    kids = b" ".join(b"%d 0 R" % (4 + 2 * n) for n in range(pages))
    yield b"<</Type /Catalog /Pages 2 0 R>>"
    yield b"<</Type /Pages /Count %d /Kids [%b] /MediaBox [0 0 595 842] /Resources <</Font <</F 3 0 R>>>>>>" % (
        pages,
        kids,
    )
    yield b"<</Type /Font /Subtype /Type1 /BaseFont /Helvetica>>"
    for n in range(pages):
        yield b"<</Type /Page /Parent 2 0 R /Contents %d 0 R>>" % (5 + 2 * n)
        yield _text_stream(page_lines(seed * PAGES_PER_PDF + n))


def text_pdf(path: Path, pages: int, seed: int) -> None:
    """Write a PDF of `pages` A4 pages of vector text; page n holds `page_lines(seed * PAGES_PER_PDF + n)`."""
    places = []
    with path.open("wb") as file:
        file.write(b"%PDF-1.4\n")
        for number, content in enumerate(_pdf_objects(pages, seed), 1):
            places.append(file.tell())
            file.write(b"%d 0 obj %b endobj\n" % (number, content))
        start, size = file.tell(), len(places) + 1
        file.write(b"xref\n0 %d\n0000000000 65535 f \n" % size)
        file.writelines(b"%010d 00000 n \n" % place for place in places)
        file.write(b"trailer <</Size %d /Root 1 0 R>>\nstartxref\n%d\n%%%%EOF\n" % (size, start))


def photo(kilobytes: int, seed: int) -> bytes:
    """Return a JPEG of about `kilobytes` × 1 000 bytes: coloured clouds with the grain of a sensor."""
    rng = np.random.default_rng(seed)
    side = round((max(kilobytes * 1000 - JPEG_HEADER_BYTES, 64) / JPEG_BYTES_PER_PIXEL) ** 0.5)
    clouds = Image.fromarray(rng.integers(40, 216, (9, 9, 3), dtype=np.uint8)).resize(
        (side, side), Image.Resampling.BICUBIC
    )
    grain = rng.normal(0, 14, (side, side, 1))
    pixels = (np.asarray(clouds) + grain).clip(0, 255).astype(np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "JPEG", quality=95)
    return file.getvalue()


def _resampled(samples: NDArray[np.float32], rate: int) -> NDArray[np.float32]:
    """Return `samples`, taken at the same or a higher `rate`, at RATE."""
    count = round(len(samples) * RATE / rate)
    spectrum = np.fft.rfft(samples)[: count // 2 + 1]
    return (np.fft.irfft(spectrum, count) * (count / len(samples))).astype(np.float32)


def recordings() -> list[NDArray[np.float32]]:
    """Return the speech inside the moonshine-voice package; raises FileNotFoundError when there is none."""
    package = importlib.util.find_spec("moonshine_voice")
    folders = package.submodule_search_locations if package else None
    files = sorted(file for folder in folders or () for file in Path(folder).glob("assets/*.wav"))
    found = [_resampled(*soundfile.read(file, dtype="float32")) for file in files]
    speech = [samples for samples in found if len(samples) >= SHORTEST_SPEECH * RATE]
    if not speech:
        raise FileNotFoundError("No recordings: install moonshine-voice 0.0.73.")
    return speech


def speech_wav(path: Path, seconds: float) -> None:
    """Write a 16 kHz mono WAV of `seconds`: the recordings with pauses, over and over. Memory does not grow with it."""
    pause = np.zeros(round(PAUSE_SECONDS * RATE), dtype=np.float32)
    pieces = [piece for samples in recordings() for piece in (samples, pause)]
    left = round(seconds * RATE)
    with soundfile.SoundFile(path, "w", RATE, 1, "PCM_16") as file:
        while left > 0:
            for piece in pieces:
                file.write(piece[:left])
                left -= min(left, len(piece))
