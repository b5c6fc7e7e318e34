"""Writes a result in the format asked for: JSON, text, Markdown, or subtitles."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from api.plain_text import plain_text
from phi4.errors import FormatUnavailable
from phi4.params import JobType

Result = dict[str, Any]
_PLAIN = "text/plain; charset=utf-8"


def render(result: Result, job_type: JobType, wanted: str) -> tuple[str, str]:
    """Write a result; returns the text and its content type. Raises `FormatUnavailable`."""
    formats = FORMATS[job_type]
    if wanted not in formats:
        raise FormatUnavailable(f"format: a job of type {job_type} gives {', '.join(formats)}; not {wanted!r}.")
    content_type, write = formats[wanted]
    return write(result), content_type


def _json(result: Result) -> str:
    return json.dumps(result, ensure_ascii=False)


def _text(result: Result) -> str:
    return _ended(str(result["text"]))


def _answer(result: Result) -> str:
    return _ended(str(result["answer"]))


def _pages(result: Result) -> str:
    """Give pages that were read as text as they are: a mark in them was printed."""
    pages = [plain_text(p["markdown"]) if p["markdown"] else p["text"] for p in result["pages"]]
    return _ended("\n\n".join(filter(None, pages)))


def _markdown(result: Result) -> str:
    pages = [p["markdown"] or p["text"] for p in result["pages"]]
    return _ended("\n\n".join(filter(None, pages)))


def _srt(result: Result) -> str:
    blocks = [
        f"{n}\n{_clock(s['start'], ',')} --> {_clock(s['end'], ',')}\n{_cue(s['text'])}\n"
        for n, s in enumerate(_timed(result), start=1)
    ]
    return "\n".join(blocks)


def _vtt(result: Result) -> str:
    blocks = [
        f"{_clock(s['start'], '.')} --> {_clock(s['end'], '.')}\n{_escaped(_cue(s['text']))}\n" for s in _timed(result)
    ]
    return "\n".join(["WEBVTT\n", *blocks])


def _timed(result: Result) -> list[dict[str, Any]]:
    if result["text"] and not result["segments"]:
        raise FormatUnavailable('format: the job ran with timestamps "none", so there are no times for subtitles.')
    return list(result["segments"])


def _clock(seconds: float, point: str) -> str:
    milliseconds = round(seconds * 1000)
    hours, rest = divmod(milliseconds, 3_600_000)
    minutes, rest = divmod(rest, 60_000)
    return f"{hours:02}:{minutes:02}:{rest // 1000:02}{point}{rest % 1000:03}"


def _cue(text: str) -> str:
    """Leave out empty lines: in subtitles they end the cue."""
    return "\n".join(line for line in text.splitlines() if line.strip())


def _escaped(text: str) -> str:
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def _ended(text: str) -> str:
    return text if not text or text.endswith("\n") else text + "\n"


_Format = tuple[str, Callable[[Result], str]]
_JSON: _Format = ("application/json", _json)
FORMATS: dict[JobType, dict[str, _Format]] = {
    "ocr": {"json": _JSON, "text": (_PLAIN, _pages), "markdown": ("text/markdown; charset=utf-8", _markdown)},
    "vqa": {"json": _JSON, "text": (_PLAIN, _answer)},
    "chat": {"json": _JSON, "text": (_PLAIN, _answer)},
    "asr": {
        "json": _JSON,
        "verbose_json": _JSON,
        "text": (_PLAIN, _text),
        "srt": ("application/x-subrip; charset=utf-8", _srt),
        "vtt": ("text/vtt; charset=utf-8", _vtt),
    },
}
ALL_FORMATS = tuple(dict.fromkeys(name for formats in FORMATS.values() for name in formats))
