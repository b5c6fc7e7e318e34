"""What a caller may ask of each type of job: bounds, defaults, and the choice of pages."""

from __future__ import annotations

from typing import Any, get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from phi4.errors import PageOutOfRange
from phi4.params import PARAMS, UNIT, AsrParams, JobType, OcrParams, VqaParams, choose_pages


def test_every_type_has_params_and_a_word_for_its_parts() -> None:
    """A new type cannot forget one of them."""
    types = set(get_args(JobType))
    assert set(PARAMS) == set(UNIT) == types


def test_defaults_are_the_promised_ones() -> None:
    """Asking for nothing is the same as asking for these."""
    assert OcrParams.model_validate({}).model_dump() == {
        "pages": None,
        "detail": "auto",
        "format": "markdown",
        "prompt": None,
        "max_tokens": None,
        "temperature": 0.0,
    }
    assert VqaParams.model_validate({"question": "?"}).model_dump() == {
        "pages": None,
        "detail": "auto",
        "question": "?",
        "system": None,
        "response_schema": None,
        "max_tokens": None,
        "temperature": 0.0,
    }
    assert AsrParams.model_validate({}).model_dump() == {
        "task": "transcribe",
        "language": None,
        "target_language": "en",
        "timestamps": "segment",
        "prompt": None,
        "max_tokens": None,
    }


@pytest.mark.parametrize(
    ("job_type", "params", "field"),
    [
        ("ocr", {"language": "de"}, "language"),
        ("ocr", {"format": "html"}, "format"),
        ("ocr", {"format": None}, "format"),
        ("ocr", {"detail": "extreme"}, "detail"),
        ("ocr", {"max_tokens": 0}, "max_tokens"),
        ("ocr", {"max_tokens": 131_073}, "max_tokens"),
        ("ocr", {"max_tokens": 1.5}, "max_tokens"),
        ("ocr", {"temperature": -0.1}, "temperature"),
        ("ocr", {"temperature": 2.1}, "temperature"),
        ("ocr", {"temperature": float("nan")}, "temperature"),
        ("ocr", {"prompt": ""}, "prompt"),
        ("ocr", {"prompt": "x" * 20_001}, "prompt"),
        ("ocr", {"prompt": "\ud800"}, "prompt"),
        ("ocr", {"pages": 3}, "pages"),
        ("ocr", {"pages": [1, 2]}, "pages"),
        ("vqa", {}, "question"),
        ("vqa", {"question": ""}, "question"),
        ("vqa", {"question": " \n\t"}, "question"),
        ("vqa", {"question": "x" * 20_001}, "question"),
        ("vqa", {"question": "?", "response_schema": "{}"}, "response_schema"),
        ("vqa", {"question": "?", "format": "markdown"}, "format"),
        ("asr", {"language": "deu"}, "language"),
        ("asr", {"language": "DE"}, "language"),
        ("asr", {"language": "de\n"}, "language"),
        ("asr", {"target_language": None}, "target_language"),
        ("asr", {"timestamps": "word"}, "timestamps"),
        ("asr", {"task": "summarise"}, "task"),
        ("asr", {"pages": "1"}, "pages"),
    ],
)
def test_params_out_of_bounds_are_refused_by_name(job_type: JobType, params: dict[str, Any], field: str) -> None:
    """The error says which field."""
    with pytest.raises(ValidationError) as refused:
        PARAMS[job_type].model_validate(params)
    assert [e["loc"] for e in refused.value.errors()] == [(field,)]


NO_SENSE = [
    "",
    " ",
    "x",
    "0",
    "0-3",
    "3-1",
    "1-",
    "-1",
    "1,,2",
    "1,",
    ",1",
    "1.5",
    "1-2-3",
    "1;2",
    "1 2",
    "-",
    "1000000",
]


@pytest.mark.parametrize("pages", [*NO_SENSE, "1000000", "1," * 6_000 + "1"])
def test_pages_that_make_no_sense_are_refused(pages: str) -> None:
    """Before any document is opened."""
    with pytest.raises(ValidationError, match="pages"):
        OcrParams.model_validate({"pages": pages})


@pytest.mark.parametrize(
    ("pages", "total", "chosen"),
    [
        (None, 3, [1, 2, 3]),
        (None, 0, []),
        ("1", 1, [1]),
        ("1-3,7", 7, [1, 2, 3, 7]),
        (" 2 - 3 , 1 ", 3, [2, 3, 1]),
        ("5,1", 5, [5, 1]),
        ("1-3,2-4,1", 4, [1, 2, 3, 4]),
        ("007", 7, [7]),
    ],
)
def test_pages_are_chosen_once_each_in_the_order_asked(pages: str | None, total: int, chosen: list[int]) -> None:
    """Counting from 1; all of them when nothing was asked."""
    assert OcrParams.model_validate({"pages": pages}).pages == pages
    assert choose_pages(pages, total) == chosen


@pytest.mark.parametrize(
    ("pages", "total", "says"),
    [("2", 1, "1 page."), ("1-9", 8, "8 pages."), ("1", 0, "0 pages."), ("1-999999", 3, "3")],
)
def test_a_page_the_document_does_not_have_is_out_of_range(pages: str, total: int, says: str) -> None:
    """The message tells what was asked and how many pages there are."""
    with pytest.raises(PageOutOfRange, match=f'"{pages}".*{says}'):
        choose_pages(pages, total)


@given(st.lists(st.tuples(st.integers(1, 60), st.integers(0, 20)), min_size=1, max_size=8))
def test_any_list_of_ranges_chooses_exactly_its_pages(ranges: list[tuple[int, int]]) -> None:
    """What passes the check can be chosen from, without gaps or repeats."""
    pages = ",".join(f"{first}-{first + more}" if more else str(first) for first, more in ranges)
    chosen = choose_pages(OcrParams.model_validate({"pages": pages}).pages, 80)
    assert set(chosen) == {n for first, more in ranges for n in range(first, first + more + 1)}
    assert len(chosen) == len(set(chosen))


def test_params_cannot_be_changed_afterwards() -> None:
    """A worker sees what the API checked."""
    with pytest.raises(ValidationError, match="frozen"):
        OcrParams.model_validate({}).format = "text"
