"""The cpu engine with its real models: pages, questions and recordings."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageFont
from rapidfuzz.distance import Levenshtein

from bench.pages import page_lines, recordings, text_page
from phi4.errors import Cancelled, CannotAnswer
from worker.engines.asr import RATE
from worker.engines.base import Answer, AskImages, Call, ReadPage, Task, TranscribeClip
from worker.engines.cpu import CpuEngine


@pytest.fixture(scope="session")
def engine() -> Iterator[CpuEngine]:
    """One running engine for all tests."""
    engine = CpuEngine(threads=2)
    engine.start(lambda _: None)
    yield engine
    engine.stop()


def drawn(*texts: tuple[float, float, str], size: tuple[int, int] = (900, 420), letters: int = 26) -> Image.Image:
    """A white picture with texts at (x, y)."""
    image = Image.new("RGB", size, "white")
    pen, font = ImageDraw.Draw(image), ImageFont.load_default(letters)
    for x, y, text in texts:
        pen.text((x, y), text, "black", font)
    return image


INVOICE = drawn(
    (40, 30, "Invoice number: HL-2026-0417"),
    (40, 80, "Due date: 1 April 2026"),
    (40, 160, "Bill to"),
    (40, 200, "Tern & Plover Architects"),
    (40, 300, "Total"),
    (600, 300, "900.00"),
)


def read(engine: CpuEngine, image: Image.Image, **fields: Any) -> Answer:
    """Read a page."""
    return engine.run(ReadPage(image, **fields), Call())


def test_a_page_is_read_line_by_line_without_errors(engine: CpuEngine) -> None:
    """Ten lines of ordinary print come back in order, each with its box on the page and a confidence."""
    answer = read(engine, text_page(3, 10).convert("RGB").crop((0, 0, 1240, 1754)), format="text")

    truth = "\n".join(page_lines(3, 10))
    got = "\n".join(line.text for line in answer.lines)
    assert Levenshtein.distance(got, truth) <= 0.01 * len(truth)
    assert " ".join(answer.text.split()) == " ".join(got.split())
    assert all(0 <= x1 < x2 <= 1240 and 0 <= y1 < y2 <= 1754 for x1, y1, x2, y2 in (ln.box for ln in answer.lines))
    assert all(0.5 <= line.confidence <= 1 for line in answer.lines)


def test_small_print_is_read(engine: CpuEngine) -> None:
    """Letters of 12 pixels, six points at 150 dpi, are read with at most 2 % of errors."""
    lines = page_lines(8, 8)
    page = drawn(*((60, 60 + 22 * n, line) for n, line in enumerate(lines)), size=(1240, 1754), letters=12)

    truth = "\n".join(lines)
    assert Levenshtein.distance("\n".join(ln.text for ln in read(engine, page).lines), truth) <= 0.02 * len(truth)


def test_two_columns_are_read_one_after_the_other(engine: CpuEngine) -> None:
    """A heading above two columns is read first, then the left, then the right column."""
    left = ["the river ran slowly past", "the old mill and the town", "where nobody lived then"]
    right = ["in spring the water rose", "so high that boats stood", "at the upper windows"]
    texts = [(40.0, 110.0 + 50 * n, text) for n, text in enumerate(left)]
    texts += [(520.0, 110.0 + 50 * n, text) for n, text in enumerate(right)]

    answer = read(engine, drawn((150, 20, "The history of the mill on the river"), *texts), format="text")

    assert [line.text for line in answer.lines] == ["The history of the mill on the river", *left, *right]


def test_a_table_becomes_markdown(engine: CpuEngine) -> None:
    """Rows of single figures keep their columns."""
    rows = [("Item", "Count", "Price"), ("Paper", "1", "21.50"), ("Lamp", "7", "38.75")]
    page = drawn(*((60 + 250 * x, 60 + 60 * y, text) for y, row in enumerate(rows) for x, text in enumerate(row)))

    assert read(engine, page).text == (
        "| Item | Count | Price |\n| --- | --- | --- |\n| Paper | 1 | 21.50 |\n| Lamp | 7 | 38.75 |"
    )


def test_rows_of_a_tilted_photo_stay_together(engine: CpuEngine) -> None:
    """Far apart words of one row are one row although the picture is tilted by three degrees."""
    days = [("Monday opens", "at nine"), ("Friday opens", "at ten"), ("Sunday opens", "at noon")]
    texts = [(120 + 480 * x, 120 + 45 * y, text) for y, row in enumerate(days) for x, text in enumerate(row)]
    page = drawn(*texts).rotate(3, fillcolor="white", resample=Image.Resampling.BICUBIC)

    assert read(engine, page, format="text").text.split("\n") == [" ".join(row) for row in days]


def test_a_long_till_receipt_is_read_to_its_end(engine: CpuEngine) -> None:
    """A page eight times as high as wide keeps its small letters."""
    lines = [f"article number {n} at {n + 2}.50" for n in range(40)]
    page = drawn(*((20, 20 + 80 * n, line) for n, line in enumerate(lines)), size=(400, 3240), letters=20)

    assert [line.text for line in read(engine, page).lines] == lines


@pytest.mark.parametrize("size", [(900, 420), (40, 20), (3, 500), (3000, 40)])
def test_nothing_printed_gives_empty_text(engine: CpuEngine, size: tuple[int, int]) -> None:
    """An empty page of any shape is no error."""
    answer = read(engine, Image.new("RGB", size, "white"))

    assert (answer.text, answer.lines) == ("", ())


def test_a_prompt_cannot_be_followed(engine: CpuEngine) -> None:
    """A page with an instruction of its own is refused rather than read as if there were none."""
    with pytest.raises(CannotAnswer, match="follows no prompt"):
        read(engine, INVOICE, prompt="Only the totals, in French")


@pytest.mark.parametrize(
    ("question", "answer"),
    [
        ("What is the invoice number?", "HL-2026-0417"),
        ("When is it due?", "1 April 2026"),
        ("What is the total?", "900.00"),
        ("Who is the invoice for?", "Tern & Plover Architects"),
    ],
)
def test_questions_are_answered_from_print(engine: CpuEngine, question: str, answer: str) -> None:
    """The value comes off a picture, whichever of the images it is on."""
    blank = Image.new("RGB", (200, 200), "white")

    assert engine.run(AskImages((blank, INVOICE), question), Call()).text == answer


@pytest.mark.parametrize(
    ("image", "question"),
    [
        (INVOICE, "What colour is the car?"),
        (INVOICE, "What is the order number?"),
        (Image.new("RGB", (300, 200), "red"), "What does the sign say?"),
    ],
)
def test_other_questions_are_refused(engine: CpuEngine, image: Image.Image, question: str) -> None:
    """What is not printed cannot be answered, and the error says whose limit that is."""
    with pytest.raises(CannotAnswer, match="cpu engine") as refusal:
        engine.run(AskImages((image,), question), Call())

    assert (refusal.value.code, refusal.value.retryable) == ("engine_cannot_answer", False)


def test_a_schema_is_filled_from_a_picture(engine: CpuEngine) -> None:
    """The answer is JSON, and the same as data."""
    schema = {
        "type": "object",
        "properties": {"invoice_number": {"type": "string"}, "total": {"type": "number"}},
        "required": ["total"],
    }

    answer = engine.run(AskImages((INVOICE,), "Extract", response_schema=schema), Call())

    assert answer.data == json.loads(answer.text) == {"invoice_number": "HL-2026-0417", "total": 900.0}


def test_a_schema_that_no_page_could_fill_is_refused_before_reading(engine: CpuEngine) -> None:
    """A picture that cannot even be read shows that nothing was."""
    broken = INVOICE.copy()
    broken.close()

    with pytest.raises(CannotAnswer, match="plain values only"):
        engine.run(
            AskImages((broken,), "?", response_schema={"type": "object", "properties": {"a": {"type": "array"}}}),
            Call(),
        )


def test_speech_is_written_down_with_times(engine: CpuEngine) -> None:
    """A real voice gives its words, in spans that follow each other within the clip."""
    clip = recordings()[0][: 8 * RATE]

    answer = engine.run(TranscribeClip(clip), Call())

    assert "Try again" in answer.text
    assert answer.text == " ".join(span.text for span in answer.spans)
    assert answer.language == "en"
    times = [time for span in answer.spans for time in (span.start, span.end)]
    assert times == sorted(times)
    assert 0 <= times[0] < times[-1] <= 8


@pytest.mark.parametrize(
    "samples",
    [np.zeros(3 * RATE), np.random.default_rng(1).normal(0, 0.02, 3 * RATE), np.zeros(160), np.zeros(0)],
    ids=["silence", "noise", "a hundredth of a second", "nothing"],
)
def test_a_clip_without_speech_gives_empty_text(engine: CpuEngine, samples: np.ndarray[Any, Any]) -> None:
    """Silence is an answer, not an error."""
    answer = engine.run(TranscribeClip(samples.astype(np.float32)), Call())

    assert (answer.text, answer.spans, answer.language) == ("", (), "en")


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"task": "translate"}, "cannot translate"),
        ({"task": "translate", "language": "de", "target_language": "en"}, "cannot translate"),
        ({"language": "de"}, 'English speech only, and `language` is "de"'),
    ],
)
def test_other_languages_are_refused(engine: CpuEngine, fields: dict[str, Any], message: str) -> None:
    """The sentence says what this engine can do."""
    with pytest.raises(CannotAnswer, match=message):
        engine.run(TranscribeClip(np.zeros(RATE, np.float32), **fields), Call())


class SetAfter(threading.Event):
    """A flag that is set once it was asked a number of times."""

    def __init__(self, asked: int) -> None:
        super().__init__()
        self._left = asked

    def is_set(self) -> bool:
        """Count down."""
        self._left -= 1
        return self._left < 0


@pytest.mark.parametrize("steps", [0, 1, 3])
@pytest.mark.parametrize(
    "task",
    [ReadPage(INVOICE), AskImages((INVOICE, INVOICE), "What is the total?")],
    ids=["page", "question"],
)
def test_a_cancelled_call_ends_between_two_steps(engine: CpuEngine, task: ReadPage | AskImages, steps: int) -> None:
    """Before the start, after the search for lines, or between lines: the answer is `Cancelled`, and work goes on."""
    with pytest.raises(Cancelled):
        engine.run(task, Call(cancelled=SetAfter(steps)))

    assert "900.00" in read(engine, INVOICE).text


def test_a_cancelled_clip_ends(engine: CpuEngine) -> None:
    """What was written down after the cancel is dropped."""
    with pytest.raises(Cancelled):
        engine.run(TranscribeClip(recordings()[0][: 2 * RATE]), Call(cancelled=SetAfter(1)))


def test_a_clip_does_not_hear_the_clip_before(engine: CpuEngine) -> None:
    """A clip that ends in the middle of a word leaves nothing behind for the next job."""
    clip = recordings()[0][: 4 * RATE]
    alone = engine.run(TranscribeClip(clip), Call()).text

    engine.run(TranscribeClip(recordings()[1][: 2 * RATE]), Call())

    assert engine.run(TranscribeClip(clip), Call()).text == alone == "Ever tried. Ever failed. No matter."


def test_many_threads_get_the_answers_they_would_get_alone(engine: CpuEngine) -> None:
    """Pages and clips that run at once do not mix."""
    clips = [TranscribeClip(recordings()[0][: seconds * RATE]) for seconds in (4, 6)]
    pages = [ReadPage(drawn((40, 40 + n, f"page number {n}")), format="text") for n in range(4)]
    tasks: list[Task] = [*clips, *pages] * 2
    alone = [engine.run(task, Call()).text for task in tasks]

    with ThreadPoolExecutor(engine.slots + 2) as threads:
        together = list(threads.map(lambda task: engine.run(task, Call()).text, tasks))

    assert together == alone


def test_the_whole_answer_is_heard_as_one_delta(engine: CpuEngine) -> None:
    """A listener gets the text although this engine does not stream."""
    heard: list[str] = []

    answer = engine.run(ReadPage(INVOICE), Call(on_delta=heard.append))

    assert heard == [answer.text]
