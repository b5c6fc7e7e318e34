"""The headings under which the API's description lists its routes."""

from __future__ import annotations

from typing import Any

Schema = dict[str, Any]

#: The beginning of a path, its heading, and what stands beside that.
_GROUPS = (
    ("/v1/jobs", "Jobs", "One job is some files, one type (ocr, vqa, asr) and its params"),
    ("/v1/ocr", "Mistral", "For the `mistralai` package"),
    ("/v1/batches", "Batches", "As in OpenAI's API: many requests in one file"),
    ("/v1/files", "Files", "As in OpenAI's API: what batches and jobs are made of"),
    ("/v1/", "OpenAI", "For the `openai` package and all that speaks like it"),
    ("/", "Health", "For probes, and for people who look after the service"),
)


def tags() -> list[Schema]:
    """List the headings, in the order of the page."""
    return [{"name": name, "description": words} for _, name, words in _GROUPS]


def grouped(paths: Schema) -> Schema:
    """Put every operation under its heading."""
    return {
        path: {method: operation | {"tags": [_heading(path)]} for method, operation in operations.items()}
        for path, operations in paths.items()
    }


def _heading(path: str) -> str:
    return next(name for beginning, name, _ in _GROUPS if path.startswith(beginning))
