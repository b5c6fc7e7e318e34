"""Submits OCR jobs that tell the scripted engine what to do (tests/engines.py), and waits for what becomes of them."""

from __future__ import annotations

import io
import json
from typing import Any

import httpx
from PIL import Image

from tests.conftest import Service, eventually


def prompted(service: Service, words: str, *, pages: int = 1, **fields: Any) -> str:
    """Submit pictures, each a page for which the engine obeys `words`; gives the job's id."""
    files = [("file", (f"{n}.png", picture(n))) for n in range(pages)]
    data = {"type": "ocr", "params": json.dumps({"prompt": words}), **fields}
    return str(accepted(service.http.post("/v1/jobs", data=data, files=files))["id"])


def asked(service: Service, question: str, **fields: Any) -> str:
    """Submit a question over one picture; gives the job's id."""
    return str(accepted(service.submit("vqa", params=json.dumps({"question": question}), **fields))["id"])


def accepted(response: httpx.Response) -> Any:
    """The job of a submission that was taken."""
    assert response.status_code in (200, 202), response.text
    return response.json()


def parts(service: Service, job_id: str) -> list[dict[str, Any]]:
    """How each part of a job fared."""
    job = service.http.get(f"/v1/jobs/{job_id}", params={"include": "parts"}).json()
    return list(job["parts"])


def running(service: Service, job_id: str) -> str:
    """Wait until an engine works on a job; gives its id back."""
    eventually(lambda: service.job(job_id)["status"] == "in_progress", what=f"the start of {job_id}")
    return job_id


def logged(service: Service, process: str, event: str, job_id: str) -> list[dict[str, Any]]:
    """The lines that a process has logged of one event of one job."""
    lines = [json.loads(line) for line in service.output(process).splitlines() if line.startswith("{")]
    return [line for line in lines if line["event"] == event and line.get("job") == job_id]


def picture(number: int = 0) -> bytes:
    """A picture that differs from those of other numbers."""
    file = io.BytesIO()
    Image.new("RGB", (64 + number, 48), "white").save(file, "PNG")
    return file.getvalue()


def document(*heights: int) -> bytes:
    """A PDF of empty pages 300 points wide; one of height 2 or less is too small to be read."""
    file = io.BytesIO()
    pages = [Image.new("L", (300, height), "white") for height in heights]
    pages[0].save(file, "PDF", save_all=True, append_images=pages[1:])
    return file.getvalue()
