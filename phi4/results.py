"""What a finished job gives back: the result of each type, put together from its parts."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from phi4.blobs import Blobs
from phi4.job import Job, Part


def build(job: Job, parts: Sequence[Part], blobs: Blobs) -> dict[str, Any]:
    """Build a job's result from the parts that are done. Raises `BlobMissing`."""
    pairs = [(p, read_answer(blobs, p.out) if p.state == "done" else {}) for p in parts]
    match job.type:
        case "ocr":
            return ocr_result(pairs, str(job.params.get("format", "markdown")))
        case "vqa" | "chat":
            return vqa_result(pairs)
        case "asr":
            return asr_result(pairs, job)


def read_answer(blobs: Blobs, key: str) -> dict[str, Any]:
    """Read what an engine answered for one part. Raises `BlobMissing`."""
    fields: dict[str, Any] = json.loads(blobs.get(key))
    return fields


#: Han and Kana, with their punctuation and full-width signs.
_UNSPACED = re.compile(r"[\u3000-\u30ff\u3400-\u9fff\uf900-\ufaff\uff00-\uffef]")

Pairs = Sequence[tuple[Part, Mapping[str, Any]]]


def ocr_result(pairs: Pairs, page_format: str) -> dict[str, Any]:
    """Mistral's shape: `pages[{index, markdown, dimensions, error?}]`, and the whole text."""
    pages = [_page(part, answer, page_format) for part, answer in pairs]
    return {"pages": pages, "text": "\n\n".join(p["text"] for p in pages if p.get("text"))}


def _page(part: Part, answer: Mapping[str, Any], page_format: str) -> dict[str, Any]:
    spec = part.spec
    page: dict[str, Any] = {"index": part.number, "input": spec.get("input", 0), "page": spec.get("page", 1)}
    if "width" in spec:
        page["dimensions"] = {"width": spec["width"], "height": spec["height"], "dpi": spec.get("dpi")}
    if part.state != "done":
        return page | {"markdown": "", "text": "", "error": part.error or {"code": "not_read", "message": "Not read."}}
    text = str(answer["text"])
    page |= {"markdown": text if page_format == "markdown" else "", "text": text}
    page["finish_reason"] = answer["finish_reason"]
    if answer.get("lines"):
        page["lines"] = answer["lines"]
    return page


def vqa_result(pairs: Pairs) -> dict[str, Any]:
    """`{answer, data?, finish_reason}`; `data` only when a schema was given. Empty while there is no answer."""
    answer = next((answer for part, answer in pairs if part.state == "done"), None)
    if answer is None:
        return {}
    result = {"answer": answer["text"], "finish_reason": answer["finish_reason"]}
    return result | ({"data": answer["data"]} if answer.get("data") is not None else {})


def asr_result(pairs: Pairs, job: Job) -> dict[str, Any]:
    """OpenAI's verbose_json: text, language, duration, and segments with times from the start of the recording."""
    spans = [span for part, answer in pairs if part.state == "done" for span in _spans(part, answer)]
    timed = job.params.get("timestamps", "segment") == "segment"
    segments = [{"id": n} | span for n, span in enumerate(spans)] if timed else []
    task = str(job.params.get("task", "transcribe"))
    languages = [str(answer["language"]) for _, answer in pairs if answer.get("language")]
    result: dict[str, Any] = {
        "task": task,
        "text": joined([s["text"] for s in spans]),
        "language": languages[0] if languages else job.params.get("language"),
        "duration": round(sum(i.seconds or 0.0 for i in job.inputs), 3),
        "segments": segments,
    }
    errors = [_clip_error(part) for part, _ in pairs if part.state != "done"]
    return result | ({"errors": errors} if errors else {})


def _spans(part: Part, answer: Mapping[str, Any]) -> Iterable[dict[str, Any]]:
    """Segments as the engine timed them, within their clip; else the whole clip as one. Silence is none."""
    offset, end = float(part.spec["start"]), float(part.spec["end"])
    for span in answer.get("spans") or [{"start": 0.0, "end": end - offset, "text": answer["text"]}]:
        start = min(offset + float(span["start"]), end)
        stop = max(start, min(offset + float(span["end"]), end))
        if text := str(span["text"]).strip():
            yield {"start": round(start, 3), "end": round(stop, 3), "text": text}


def joined(texts: Iterable[str]) -> str:
    """Put the texts of clips together: with a space, but for Chinese and Japanese, which put none between words."""
    whole = ""
    for text in filter(None, texts):
        whole += text if not whole or (_UNSPACED.match(whole[-1]) and _UNSPACED.match(text[0])) else f" {text}"
    return whole


def _clip_error(part: Part) -> dict[str, Any]:
    error = part.error or {"code": "not_read", "message": "Not transcribed."}
    return {"start": part.spec.get("start"), "end": part.spec.get("end"), "error": error}
