"""Files with known answers, as this project writes them down and as public data sets come."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

MANIFEST = "answers.jsonl"
EXAMPLES = "expected.json"


@dataclass(frozen=True)
class Case:
    """One file, what is asked of it, and every answer that is right."""

    file: Path
    type: Literal["ocr", "vqa", "asr"]
    answers: tuple[str, ...]
    params: dict[str, Any] = field(default_factory=dict)


class UnknownFolder(ValueError):
    """The folder holds no answers in a form that is known."""


def read(folder: Path) -> list[Case]:
    """List the cases of a folder: `answers.jsonl`, LibriSpeech's `*.trans.txt`, or DocVQA's annotations.

    Raises `UnknownFolder`, naming the file and line that cannot be read.
    """
    if (folder / MANIFEST).is_file():
        return list(_manifest(folder / MANIFEST))
    if (folder / EXAMPLES).is_file():
        return list(_examples(folder / EXAMPLES))
    if transcripts := sorted(folder.rglob("*.trans.txt")):
        return [case for path in transcripts for case in _librispeech(path)]
    for path in sorted(folder.glob("*.json")):
        if found := list(_docvqa(path)):
            return found
    raise UnknownFolder(f"{folder} holds no {MANIFEST}, no *.trans.txt (LibriSpeech) and no DocVQA annotations.")


def _manifest(path: Path) -> Iterator[Case]:
    """One JSON object a line: `file` (beside the manifest), `type`, `answers`, and `params` of the job."""
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        if not line.strip():
            continue
        try:
            fields = json.loads(line)
            if fields["type"] not in ("ocr", "vqa", "asr") or not fields["answers"]:
                raise ValueError("needs a `type` of ocr, vqa or asr, and `answers`")
            file = path.parent / fields["file"]
            yield Case(file, fields["type"], tuple(map(str, fields["answers"])), fields.get("params", {}))
        except (ValueError, KeyError, TypeError) as error:
            raise UnknownFolder(f"{path}, line {number}: {error}.") from None


def _examples(path: Path) -> Iterator[Case]:
    """The truth about this project's own example inputs (examples/make_inputs.py)."""
    for name, truth in json.loads(path.read_text(encoding="utf-8")).items():
        file = path.parent / name
        if truth["type"] == "asr":
            yield Case(file, "asr", (" ".join(truth["sentences"]),), {"language": "en"})
            continue
        lines = truth["lines"] if "lines" in truth else [line for page in truth["pages"] for line in page["lines"]]
        yield Case(file, "ocr", ("\n".join(lines),))
        for question, answer in truth.get("questions", {}).items():
            yield Case(file, "vqa", (answer,), {"question": question})


def _librispeech(path: Path) -> Iterator[Case]:
    """`<id> <WORDS>` a line, with `<id>.flac` beside it (OpenSLR 12; the OpenASR leaderboard's test sets)."""
    for line in path.read_text(encoding="utf-8").splitlines():
        name, _, words = line.partition(" ")
        yield Case(path.parent / f"{name}.flac", "asr", (words,), {"language": "en"})


def _docvqa(path: Path) -> Iterator[Case]:
    """`{"data": [{"questionId", "question", "image", "answers"}]}`, images beside it (docvqa.org, task 1)."""
    annotations = json.loads(path.read_text(encoding="utf-8"))
    if not isinstance(annotations, dict) or not isinstance(annotations.get("data"), list):
        return
    for item in annotations["data"]:
        if item.get("answers") and "questionId" in item:
            question = {"question": item["question"]}
            yield Case(path.parent / item["image"], "vqa", tuple(map(str, item["answers"])), question)
