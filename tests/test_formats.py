"""A result written as JSON, text, Markdown or subtitles, to the letter."""

from __future__ import annotations

import json
from typing import Any, get_args

import pytest

from api.formats import ALL_FORMATS, FORMATS, render
from phi4.errors import FormatUnavailable
from phi4.params import JobType


def spoken(*segments: tuple[float, float, str]) -> dict[str, Any]:
    """A transcript."""
    timed = [{"id": n, "start": start, "end": end, "text": text} for n, (start, end, text) in enumerate(segments)]
    return {"text": " ".join(t for _, _, t in segments), "segments": timed, "language": "en"}


TALK = spoken((0.0, 1.5, "Hello & <goodbye>."), (1.5, 3723.0045, "Line one\n\nline two --> end"))
PAGES = {
    "pages": [
        {"markdown": "# One", "text": "# One"},
        {"markdown": "", "text": "", "error": {"code": "x"}},
        {"markdown": "", "text": ""},
        {"markdown": "", "text": "Four ä"},
    ],
    "text": "# One\n\nFour ä",
}


def test_srt_is_written_to_the_letter() -> None:
    """Numbered from 1, a comma before the milliseconds, no empty line inside a cue."""
    text, content_type = render(TALK, "asr", "srt")
    assert text == (
        "1\n00:00:00,000 --> 00:00:01,500\nHello & <goodbye>.\n"
        "\n"
        "2\n00:00:01,500 --> 01:02:03,004\nLine one\nline two --> end\n"
    )
    assert content_type == "application/x-subrip; charset=utf-8"


def test_vtt_is_written_to_the_letter() -> None:
    """A heading, a point before the milliseconds, and nothing that could be read as markup or as an arrow."""
    text, content_type = render(TALK, "asr", "vtt")
    assert text == (
        "WEBVTT\n"
        "\n"
        "00:00:00.000 --> 00:00:01.500\nHello &amp; &lt;goodbye&gt;.\n"
        "\n"
        "00:00:01.500 --> 01:02:03.004\nLine one\nline two --&gt; end\n"
    )
    assert content_type == "text/vtt; charset=utf-8"


@pytest.mark.parametrize(
    ("seconds", "clock"),
    [
        (0.0, "00:00:00,000"),
        (0.0004, "00:00:00,000"),
        (0.0006, "00:00:00,001"),
        (0.9996, "00:00:01,000"),
        (1.0015, "00:00:01,002"),
        (59.9994, "00:00:59,999"),
        (59.9996, "00:01:00,000"),
        (3599.9996, "01:00:00,000"),
        (3600, "01:00:00,000"),
        (14_400.25, "04:00:00,250"),
        (360_000.0, "100:00:00,000"),
    ],
)
def test_times_are_rounded_to_the_millisecond_and_carry_over(seconds: float, clock: str) -> None:
    """Never `00:00:60` or `00:00:00,1000`."""
    text, _ = render(spoken((seconds, seconds, "x")), "asr", "srt")
    assert text == f"1\n{clock} --> {clock}\nx\n"


def test_a_recording_of_silence_has_empty_subtitles() -> None:
    """That is no error; a player shows nothing."""
    silence = spoken()
    assert render(silence, "asr", "srt")[0] == ""
    assert render(silence, "asr", "vtt")[0] == "WEBVTT\n"
    assert render(silence, "asr", "text")[0] == ""


def test_subtitles_need_times() -> None:
    """A job without timestamps has none to give, and says so."""
    for wanted in ("srt", "vtt"):
        with pytest.raises(FormatUnavailable, match="timestamps"):
            render({"text": "Hello.", "segments": []}, "asr", wanted)


def test_text_ends_with_a_line_break() -> None:
    """Exactly one, so that files can be put one after the other."""
    assert render(PAGES, "ocr", "text") == ("One\n\nFour ä\n", "text/plain; charset=utf-8")
    assert render({"answer": "Blue."}, "vqa", "text")[0] == "Blue.\n"
    assert render({"answer": "Blue.\n"}, "vqa", "text")[0] == "Blue.\n"
    assert render(spoken((0, 1, "a"), (1, 2, "b")), "asr", "text")[0] == "a b\n"


@pytest.mark.parametrize(
    ("markdown", "text"),
    [
        ("## A *b* **c** ~~d~~ ##", "A b c d"),
        ("one  \ntwo<br>three\nfour\n\nfive", "one\ntwo\nthree\nfour\n\nfive"),
        ("| a | b |\n|:--|--:|\n| 1\\|2 | x<br>y |\n|  | *z* |", "a\tb\n1|2\tx y\n\tz"),
        ("|  |  |\n| --- | --- |\n| a | b |", "a\tb"),
        ("- a\n- b\n  1. c\n     d\n\n> e", "- a\n- b\n  1. c\n     d\n\ne"),
        ("a\n\n---\n\nb", "a\n\nb"),
        ("\\# 5 apples\n\n\\*not\\* so \\_", "# 5 apples\n\n*not* so _"),
        ("```\n*a*\n  b\n```", "*a*\n  b"),
        ("[a](https://a.example/x_(y)) ![b](c.png) [**d**](mailto:e 'f') `*g*`", "a b d *g*"),
        ("AT&T &lt;x&gt; <b>y</b>", "AT&T <x> <b>y</b>"),
        # What only looks like Markdown stays.
        ("a * b * c, 1 | 2, snake_case_name, #7, 5 < 6", None),
        ("[1](2) and [x]\n\n[1]: Smith", None),
        ("Total\n-\n\nSum\n===", None),
        ("<div>\n\nA\n\n</div>", None),
    ],
)
def test_text_of_markdown_is_without_its_marks(markdown: str, text: str | None) -> None:
    """Lines, cells and lists stay apart; pages that were read as text are not touched."""
    expected = f"{markdown if text is None else text}\n"
    assert render({"pages": [{"markdown": markdown, "text": markdown}]}, "ocr", "text")[0] == expected
    assert render({"pages": [{"markdown": "", "text": markdown}]}, "ocr", "text")[0] == f"{markdown}\n"


@pytest.mark.timeout(30)
@pytest.mark.parametrize(
    "markdown", ["[" * 50_000, "[a](http://b(" * 9_000, "![[" * 20_000, "*a" * 5_000 + "a*" * 5_000, "- " * 3_000 + "x"]
)
def test_no_page_takes_long_to_be_written_as_text(markdown: str) -> None:
    """Also one that an engine wrote in a loop."""
    text, _ = render({"pages": [{"markdown": markdown, "text": markdown}]}, "ocr", "text")

    assert text.count("a") == markdown.count("a")


def test_markdown_joins_the_pages_that_say_something() -> None:
    """Pages read as text are taken as they are."""
    assert render(PAGES, "ocr", "markdown") == ("# One\n\nFour ä\n", "text/markdown; charset=utf-8")


@pytest.mark.parametrize(("job_type", "wanted"), [(t, "json") for t in get_args(JobType)] + [("asr", "verbose_json")])
def test_json_is_the_result_itself(job_type: JobType, wanted: str) -> None:
    """With letters as they are, not as escapes."""
    result = {"answer": "ä\u2028", "list": [1.5, None]}
    text, content_type = render(result, job_type, wanted)
    assert (json.loads(text), content_type) == (result, "application/json")
    assert "ä" in text


@pytest.mark.parametrize(
    ("job_type", "wanted"), [(t, f) for t in get_args(JobType) for f in [*ALL_FORMATS, "html"] if f not in FORMATS[t]]
)
def test_a_format_a_type_does_not_have_is_refused(job_type: JobType, wanted: str) -> None:
    """The message lists those it has."""
    with pytest.raises(FormatUnavailable, match=f"{job_type} gives json, .*not '{wanted}'"):
        render({}, job_type, wanted)
