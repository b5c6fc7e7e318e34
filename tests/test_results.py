"""A job's result, put together from its parts: pages, an answer, or segments."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from phi4.blobs import Blobs
from phi4.errors import BlobMissing
from phi4.job import Input, Job, Part
from phi4.results import asr_result, build, joined, ocr_result, vqa_result
from phi4.store import Store
from tests.making_jobs import new_job, read

ERROR = {"code": "engine_failed", "message": "It failed."}
Pair = tuple[Part, dict[str, Any]]


def part(number: int, state: str = "done", *, error: Any = None, out: str = "", **spec: Any) -> Part:
    """One part as the store has it."""
    return Part(number=number, state=state, spec=spec, out=out, error=error, tries=0, ms=1)


def page(number: int, text: str, **answer: Any) -> Pair:
    """A page that was read."""
    spec: dict[str, Any] = {"input": 0, "page": number + 1, "width": 100, "height": 50, "dpi": 150}
    return part(number, **spec), {"text": text, "finish_reason": "stop"} | answer


def clip(number: int, start: float, end: float, text: str, *spans: tuple[float, float, str], **answer: Any) -> Pair:
    """A clip that was transcribed, with times from its own start."""
    timed = [{"start": s, "end": e, "text": t} for s, e, t in spans]
    return part(number, start=start, end=end), {"text": text, "spans": timed} | answer


@pytest.fixture
def job(store: Store) -> Job:
    """A job as the store gives it; tests replace what they need."""
    submitted = new_job()
    store.jobs.submit(submitted, most_waiting=10)
    return read(store, submitted)


@pytest.fixture
def recording(job: Job) -> Job:
    """A job of type `asr` over one recording."""
    return replace(job, type="asr", params={}, inputs=(Input(blob="b", seconds=61.2345),))


# -- pages


def test_pages_are_given_in_order_with_their_text() -> None:
    """Mistral's shape, and the whole text beside it."""
    assert ocr_result([page(0, "# One"), page(1, "Two")], "markdown") == {
        "pages": [
            {
                "index": n,
                "input": 0,
                "page": n + 1,
                "dimensions": {"width": 100, "height": 50, "dpi": 150},
                "markdown": text,
                "text": text,
                "finish_reason": "stop",
            }
            for n, text in enumerate(["# One", "Two"])
        ],
        "text": "# One\n\nTwo",
    }


def test_pages_asked_for_as_text_have_no_markdown() -> None:
    """The text is there all the same."""
    [one] = ocr_result([page(0, "One")], "text")["pages"]
    assert (one["markdown"], one["text"]) == ("", "One")


def test_a_page_that_failed_keeps_its_place() -> None:
    """It says why; the text leaves it out, and an empty page too."""
    pairs = [page(0, "One"), (part(1, "failed", error=ERROR, input=0, page=7), {}), page(2, ""), page(3, "Four")]
    result = ocr_result(pairs, "markdown")
    assert result["pages"][1] == {"index": 1, "input": 0, "page": 7, "markdown": "", "text": "", "error": ERROR}
    assert result["text"] == "One\n\nFour"


def test_a_page_that_was_not_reached_says_so() -> None:
    """A cancelled job keeps what was done, and names what was not."""
    [one] = ocr_result([(part(0, "dropped", input=0, page=1), {})], "markdown")["pages"]
    assert one["error"]["code"] == "not_read"


def test_a_pages_index_is_its_place_in_the_job() -> None:
    """Also in a partial result, where pages between are missing."""
    pages = ocr_result([page(0, "One"), page(4, "Five")], "markdown")["pages"]
    assert [p["index"] for p in pages] == [0, 4]


def test_lines_are_given_when_the_engine_has_them() -> None:
    """With their boxes and confidence, untouched."""
    lines = [{"text": "One", "box": [1.0, 2.0, 3.0, 4.0], "confidence": 0.9}]
    [one, two] = ocr_result([page(0, "One", lines=lines), page(1, "Two", lines=[])], "markdown")["pages"]
    assert (one["lines"], "lines" in two) == (lines, False)


# -- an answer


@pytest.mark.parametrize("data", [{"total": 1}, [], 0, False, ""])
def test_an_answer_has_data_when_a_schema_was_given(data: Any) -> None:
    """Whatever value fits the schema, also an empty one."""
    answer = {"text": "1", "finish_reason": "stop", "data": data}
    assert vqa_result([(part(0), answer)]) == {"answer": "1", "finish_reason": "stop", "data": data}


def test_an_answer_without_a_schema_has_no_data() -> None:
    """Not even a null."""
    answer = {"text": "Blue.", "finish_reason": "length", "data": None}
    assert vqa_result([(part(0), answer)]) == {"answer": "Blue.", "finish_reason": "length"}


@pytest.mark.parametrize("pairs", [[], [(part(0, "failed", error=ERROR), {})]])
def test_a_question_without_an_answer_has_an_empty_result(pairs: list[Pair]) -> None:
    """So that a failed job can be shown with its partial result."""
    assert vqa_result(pairs) == {}


# -- segments


def test_segments_are_timed_from_the_start_of_the_recording(recording: Job) -> None:
    """Each clip's own times are moved by its start and stay inside it."""
    pairs = [
        clip(0, 0.0, 20.0, "a b", (0.0, 1.5, " a "), (1.5, 20.4, "b"), language="en"),
        clip(1, 20.25, 30.0, "c", (0.1234, 3.0, "c"), (11.0, 12.0, "late"), language="de"),
    ]
    assert asr_result(pairs, recording) == {
        "task": "transcribe",
        "text": "a b c late",
        "language": "en",
        "duration": 61.234,
        "segments": [
            {"id": 0, "start": 0.0, "end": 1.5, "text": "a"},
            {"id": 1, "start": 1.5, "end": 20.0, "text": "b"},
            {"id": 2, "start": 20.373, "end": 23.25, "text": "c"},
            {"id": 3, "start": 30.0, "end": 30.0, "text": "late"},
        ],
    }


def test_a_clip_without_times_is_one_segment(recording: Job) -> None:
    """From its first to its last moment."""
    segments = asr_result([clip(0, 3.0, 7.5, " Hello. ")], recording)["segments"]
    assert segments == [{"id": 0, "start": 3.0, "end": 7.5, "text": "Hello."}]


@pytest.mark.parametrize(
    "silent", [clip(0, 0.0, 9.0, ""), clip(0, 0.0, 9.0, " \n"), clip(0, 0.0, 9.0, "", (0.0, 9.0, " "))]
)
def test_silence_is_no_segment(recording: Job, silent: Pair) -> None:
    """Nothing was said, so there is nothing to show."""
    result = asr_result([silent, clip(1, 9.0, 10.0, "Now.")], recording)
    assert ([s["text"] for s in result["segments"]], result["text"]) == (["Now."], "Now.")


def test_without_timestamps_there_are_no_segments(recording: Job) -> None:
    """The text is whole all the same."""
    job = replace(recording, params={"timestamps": "none", "task": "translate"})
    result = asr_result([clip(0, 0.0, 5.0, "a"), clip(1, 5.0, 9.0, "b")], job)
    assert (result["segments"], result["text"], result["task"]) == ([], "a b", "translate")


def test_the_language_is_what_was_heard_else_what_was_told(recording: Job) -> None:
    """And nothing when neither is known."""
    told = replace(recording, params={"language": "fr"})
    assert asr_result([clip(0, 0.0, 1.0, "a", language="en")], told)["language"] == "en"
    assert asr_result([clip(0, 0.0, 1.0, "a", language=None)], told)["language"] == "fr"
    assert asr_result([clip(0, 0.0, 1.0, "a")], recording)["language"] is None


def test_a_clip_that_failed_is_named_with_its_times(recording: Job) -> None:
    """The rest is there; a whole recording without failures has no list of errors."""
    failed = part(1, "failed", error=ERROR, start=5.0, end=9.0)
    result = asr_result([clip(0, 0.0, 5.0, "a"), (failed, {}), clip(2, 9.0, 12.0, "c")], recording)
    assert (result["text"], result["errors"]) == ("a c", [{"start": 5.0, "end": 9.0, "error": ERROR}])
    assert "errors" not in asr_result([clip(0, 0.0, 5.0, "a")], recording)


# -- from the blob store


def test_a_result_is_built_from_the_stored_answers(job: Job, tmp_path: Path) -> None:
    """Each type from its own parts; parts that are not done are not looked for."""
    blobs = Blobs(f"file://{tmp_path}")
    blobs.put("j/out/0.json", json.dumps({"text": "ä", "finish_reason": "stop", "spans": []}).encode())
    parts = [part(0, out="j/out/0.json", start=0.0, end=1.0), part(1, "failed", error=ERROR, out="gone")]
    assert build(job, parts, blobs)["text"] == "ä"
    assert build(replace(job, type="vqa"), parts, blobs)["answer"] == "ä"
    assert build(replace(job, type="asr"), parts, blobs)["text"] == "ä"


def test_an_answer_that_is_gone_is_named(job: Job, tmp_path: Path) -> None:
    """The job cannot be put together without it."""
    with pytest.raises(BlobMissing, match="gone"):
        build(job, [part(0, out="gone")], Blobs(f"file://{tmp_path}"))


@pytest.mark.parametrize(
    ("texts", "whole"),
    [
        (["one", "two"], "one two"),
        (["今天我们", "阅读。", "然后"], "今天我们阅读。然后"),
        (["カタカナ", "ひらがな"], "カタカナひらがな"),
        (["用", "Python", "写"], "用 Python 写"),
        (["안녕", "하세요"], "안녕 하세요"),
        (["one", "", "two"], "one two"),
        ([], ""),
    ],
)
def test_clips_are_put_together_as_their_writing_is(texts: list[str], whole: str) -> None:
    """Chinese and Japanese have no space between words, whoever found out that it is theirs; Korean has."""
    assert joined(texts) == whole
