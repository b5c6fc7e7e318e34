"""A jobs API whose jobs go as scripted, served over real HTTP, and the command pointed to it."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from flask import Flask, Response, jsonify, request
from typer.testing import CliRunner, Result
from werkzeug.serving import make_server

from cli.main import app

ROOT = Path(__file__).parent.parent
PROGRAM = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler); from cli.main import app; app()"


@dataclass
class Scripted:
    """A jobs API whose jobs go the way that the name of their first file says."""

    url: str = ""
    jobs: dict[str, dict[str, Any]] = field(default_factory=dict)
    submissions: list[dict[str, Any]] = field(default_factory=list)
    results_asked: list[tuple[str, str]] = field(default_factory=list)
    cancelled: list[str] = field(default_factory=list)
    #: How many more requests are refused because the key has made too many, and when it may come back.
    too_many: int = 0
    retry_after: str = "0"
    most_at_once: int = 0
    at_once: int = 0
    changed: threading.Condition = field(default_factory=threading.Condition)

    def go_on(self, job: dict[str, Any]) -> None:
        """Take a job one step further on its way."""
        name = job["input"][0]["filename"]
        if job["status"] == "queued":
            job |= {"status": "in_progress", "progress": {"completed": 1, "total": 2, "unit": "page"}, "queue": {}}
        elif name.startswith("failed"):
            job |= {"status": "failed", "error": {"code": "unreadable_pdf", "message": "The PDF cannot be read."}}
        elif not name.startswith("slow") and (not name.startswith("late") or self.has_ended("early.png")):
            job |= {"status": "completed", "result": result_of(name)}
            job["progress"] = {"completed": 2, "total": 2, "unit": "page"}

    def has_ended(self, name: str) -> bool:
        """Whether the job made of a file has ended."""
        return any(j["status"] == "completed" for j in self.jobs.values() if j["input"][0]["filename"] == name)

    def running(self) -> list[str]:
        """The ids of the jobs that have begun."""
        return [id for id, job in self.jobs.items() if job["status"] == "in_progress"]


def result_of(name: str) -> dict[str, Any]:
    """The result of a job, by the name of its first file."""
    text = "\x1b[2Jred" if name.startswith("steering") else f"text of {name}"
    pages: list[dict[str, Any]] = [{"index": 0, "page": 1, "markdown": text, "text": text}]
    if name.startswith("half"):
        error = {"code": "unreadable_image", "message": "The image cannot be read."}
        pages.append({"index": 1, "page": 2, "markdown": "", "text": "", "error": error})
    return {"pages": pages, "text": text}


def problem(status: int, code: str, detail: str, **more: Any) -> Response:
    """An error as the API answers it."""
    response = jsonify({"status": status, "code": code, "detail": detail, "errors": [], **more})
    response.status_code = status
    response.headers["Retry-After"] = "0"
    return response


def scripted_app(script: Scripted) -> Flask:
    """The jobs API over a script."""
    flask = Flask("scripted")

    @flask.before_request
    def count_in() -> None:
        with script.changed:
            script.at_once += 1
            script.most_at_once = max(script.most_at_once, script.at_once)

    @flask.before_request
    def limit() -> Response | None:
        with script.changed:
            script.too_many -= 1
            if script.too_many < 0:
                return None
        refused = problem(429, "rate_limited", "This key has made too many requests.")
        refused.headers["Retry-After"] = script.retry_after
        return refused

    @flask.teardown_request
    def count_out(_error: BaseException | None) -> None:
        with script.changed:
            script.at_once -= 1

    @flask.post("/v1/jobs")
    def submit() -> Any:
        names = [f.filename or "" for f in request.files.getlist("file")]
        key = request.headers["Idempotency-Key"]
        contents = [f.stream.read() for f in request.files.getlist("file")]
        params = json.loads(request.form["params"])
        with script.changed:
            script.submissions.append(
                {
                    "type": request.form["type"],
                    "params": params,
                    "names": names,
                    "contents": contents,
                    "key": key,
                    "webhook_url": request.form.get("webhook_url"),
                }
            )
            if names[0].startswith("refused"):
                return problem(415, "unsupported_media_type", f"{names[0]} is no image.")
            if names[0].startswith("crowded") and len(script.submissions) < 3:
                return problem(429, "queue_full", "Too much work is waiting; try again later.")
            job = {
                "id": f"job_{len(script.jobs)}",
                "object": "job",
                "type": request.form["type"],
                "status": "queued",
                "created_at": 1_700_000_000,
                "expires_at": 1_700_086_400,
                "queue": {"position": 3},
                "progress": {"completed": 0, "total": None, "unit": "page"},
                "params": params,
                "model": "phi-4-multimodal",
                "usage": {},
                "input": [{"filename": name} for name in names],
            }
            script.jobs[job["id"]] = job
            return jsonify(job), 202

    @flask.get("/v1/jobs/<job_id>")
    def show(job_id: str) -> Any:
        with script.changed:
            if (job := script.jobs.get(job_id)) is None:
                return problem(404, "not_found", "There is nothing under this address.")
            name = job["input"][0]["filename"]
            if name.startswith("restarted") and not job.setdefault("was_away", False):
                job["was_away"] = True
                return problem(503, "store_unavailable", "The job store does not answer.")
            if "wait" in request.args:
                before = job["status"]
                script.go_on(job)
                script.changed.notify_all()
                if job["status"] == before:
                    script.changed.wait_for(lambda: job["status"] != before, 0.2)
            return jsonify(job)

    @flask.get("/v1/jobs/<job_id>/result")
    def result(job_id: str) -> Any:
        job, wanted = script.jobs[job_id], request.args["format"]
        script.results_asked.append((job_id, wanted))
        if wanted == "srt":
            return "1\n00:00:00,000 --> 00:00:01,000\nhello\n"
        return job["result"]["text"] + "\n"

    @flask.post("/v1/jobs/<job_id>/cancel")
    def cancel(job_id: str) -> Any:
        with script.changed:
            script.jobs[job_id]["status"] = "cancelled"
            script.cancelled.append(job_id)
            script.changed.notify_all()
            return jsonify(script.jobs[job_id])

    @flask.get("/v1/jobs")
    def newest() -> Any:
        chosen = [j for j in script.jobs.values() if request.args.get("status") in (None, j["status"])]
        return jsonify({"object": "list", "data": chosen[::-1], "has_more": False})

    return flask


@contextlib.contextmanager
def served(flask: Flask) -> Iterator[str]:
    """Serve an application on a free port; gives its URL."""
    server = make_server("127.0.0.1", 0, flask, threaded=True)
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@contextlib.contextmanager
def running() -> Iterator[Scripted]:
    """Serve a jobs API."""
    script = Scripted()
    with served(scripted_app(script)) as url:
        script.url = url
        yield script


@dataclass(frozen=True)
class Files:
    """Makes small files in a folder, whose content tells their name."""

    folder: Path

    def __call__(self, *names: str) -> list[Path]:
        """Make one for each name."""
        paths = [self.folder / name for name in names]
        for path in paths:
            path.parent.mkdir(exist_ok=True)
            path.write_bytes(b"content of " + path.name.encode())
        return paths


@dataclass(frozen=True)
class Command:
    """The command, pointed to a service."""

    url: str

    def __call__(self, *words: object, **env: str) -> Result:
        """Run it in this process."""
        return CliRunner().invoke(app, [str(w) for w in words], env={"PHI4_URL": self.url} | env)


def started(*words: object, url: str, **more: Any) -> subprocess.Popen[bytes]:
    """The command as a process of its own."""
    env = os.environ | {"PHI4_URL": url, "PYTHONPATH": str(ROOT), "TERM": "xterm", "COLUMNS": "100"}
    return subprocess.Popen([sys.executable, "-c", PROGRAM, *map(str, words)], env=env, **more)
