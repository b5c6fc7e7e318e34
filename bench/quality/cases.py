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
    #: What kind of file it is where that matters to a reader of the score: "synthetic speech".
    source: str = ""


class UnknownFolder(ValueError):
    """The folder holds no answers in a form that is known."""


def read(path: Path, images: Path | None = None) -> list[Case]:
    """List the cases of a folder (`answers.jsonl`, LibriSpeech's `*.trans.txt`) or of a file of DocVQA's annotations.

    `images` is where DocVQA's pictures are, beside the annotations by default. Raises `UnknownFolder`, naming the file
    and line that cannot be read.
    """
    if path.is_file():
        return _docvqa(path, images or path.parent)
    if (path / MANIFEST).is_file():
        return list(_manifest(path / MANIFEST))
    if (path / EXAMPLES).is_file():
        return list(_examples(path / EXAMPLES))
    if transcripts := sorted(path.rglob("*.trans.txt")):
        return [case for transcript in transcripts for case in _librispeech(transcript)]
    raise UnknownFolder(
        f"{path} holds no {MANIFEST} and no *.trans.txt (LibriSpeech). "
        "For DocVQA name the file with the annotations, e.g. val_v1.0_withQT.json."
    )


def _manifest(path: Path) -> Iterator[Case]:
    """One JSON object a line: `file` (beside it), `type`, `answers`; perhaps `params` (the job's) and `source`."""
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        if not line.strip():
            continue
        try:
            fields = json.loads(line)
            if fields["type"] not in ("ocr", "vqa", "asr") or not fields["answers"]:
                raise ValueError("needs a `type` of ocr, vqa or asr, and `answers`")
            file = path.parent / fields["file"]
            answers = tuple(map(str, fields["answers"]))
            yield Case(file, fields["type"], answers, fields.get("params", {}), str(fields.get("source", "")))
        except (ValueError, KeyError, TypeError) as error:
            raise UnknownFolder(f"{path}, line {number}: {error}.") from None


def _examples(path: Path) -> Iterator[Case]:
    """The truth about this project's own example inputs (examples/make_inputs.py)."""
    drawn = "drawn by a program"
    for name, truth in json.loads(path.read_text(encoding="utf-8")).items():
        file = path.parent / name
        if truth["type"] == "asr":
            voice = f"synthetic speech ({truth['voice'].split()[0]})"
            yield Case(file, "asr", (" ".join(truth["sentences"]),), {"language": "en"}, voice)
            continue
        lines = truth["lines"] if "lines" in truth else [line for page in truth["pages"] for line in page["lines"]]
        yield Case(file, "ocr", ("\n".join(lines),), source=drawn)
        for question, answer in truth.get("questions", {}).items():
            yield Case(file, "vqa", (answer,), {"question": question}, drawn)


def _librispeech(path: Path) -> Iterator[Case]:
    """`<id> <WORDS>` a line, with `<id>.flac` beside it (OpenSLR 12; the OpenASR leaderboard's test sets)."""
    for line in path.read_text(encoding="utf-8").splitlines():
        name, _, words = line.partition(" ")
        yield Case(path.parent / f"{name}.flac", "asr", (words,), {"language": "en"}, "read by people")


def _docvqa(path: Path, images: Path) -> list[Case]:
    """`{"data": [{"question", "image", "answers", …}]}` (docvqa.org, task 1), without unanswered questions."""
    try:
        items = json.loads(path.read_text(encoding="utf-8"))["data"]
        found = [
            Case(
                _picture(images, item["image"]),
                "vqa",
                tuple(map(str, item["answers"])),
                {"question": item["question"]},
            )
            for item in items
            if item.get("answers")
        ]
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise UnknownFolder(f"{path} holds no annotations as DocVQA has them: {error!r}.") from None
    if not found:
        raise UnknownFolder(f"{path} holds questions, but no answers to compare with; take the validation set.")
    return found


def _picture(images: Path, name: str) -> Path:
    """Annotations say "documents/x.png"; the archive of pictures has them without that folder."""
    return images / name if (images / name).is_file() else images / Path(name).name
