"""What the routes in OpenAI's shapes cost beside the jobs behind them, and whether many streams hold."""

from __future__ import annotations

import base64
import json
import statistics
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx

from bench.figures import INSTANT, Figure
from bench.pages import photo
from bench.service import Service, running

_STREAMS = 200


def clients() -> Iterator[Figure]:
    """Measure chat completions on an engine that answers at once, then many streams of one that writes slowly."""
    with running(INSTANT) as service:
        yield _chat_overhead(service)
        yield _batch(service)
    with running("bench.engines:Typist", max_in_flight=_STREAMS, max_event_streams=_STREAMS) as service:
        yield from _streams(service)


def _chat_overhead(service: Service, rounds: int = 200) -> Figure:
    pictures = [photo(8, seed) for seed in range(20)]
    added = []
    for n in range(rounds + 20):
        begun = time.perf_counter()
        answer = service.http.post("/v1/chat/completions", json=_chat(pictures[n % 20])).raise_for_status().json()
        took = (time.perf_counter() - begun) * 1000
        job = service.http.get("/v1/jobs/" + answer["id"].replace("chatcmpl-", "job_", 1)).raise_for_status().json()
        added.append(took - sum(job["timings"].values()))
    conditions = (
        "POST /v1/chat/completions with an 8 kB JPEG, sent to answered, less the job's own queued, prepare and run "
        f"times; idle service, instant engine, median of {rounds}"
    )
    return Figure("chat_overhead_p50_ms", round(statistics.median(added[20:]), 2), "ms", conditions)


def _batch(service: Service, lines: int = 1_000) -> Figure:
    asked = (
        {"custom_id": str(n), "method": "POST", "url": "/v1/chat/completions", "body": _chat(photo(8, n))}
        for n in range(lines)
    )
    text = "\n".join(json.dumps(line) for line in asked).encode()
    file = service.http.post("/v1/files", data={"purpose": "batch"}, files={"file": ("lines.jsonl", text)})
    wanted = {"input_file_id": file.json()["id"], "endpoint": "/v1/chat/completions", "completion_window": "24h"}
    begun = time.perf_counter()
    batch = service.http.post("/v1/batches", json=wanted).raise_for_status().json()
    while batch["status"] not in ("completed", "failed"):
        time.sleep(0.1)
        batch = service.http.get(f"/v1/batches/{batch['id']}").raise_for_status().json()
    took = time.perf_counter() - begun
    if batch["request_counts"]["completed"] != lines:
        raise RuntimeError(f"a batch ended with {batch['request_counts']}")
    conditions = f"{lines} chat lines, each with an 8 kB JPEG of its own, from POST to the output file; instant engine"
    return Figure("batch_lines_per_second", round(lines / took, 1), "lines/s", conditions)


def _chat(picture: bytes | None = None, **fields: object) -> dict[str, Any]:
    content: list[dict[str, Any]] = [{"type": "text", "text": "What is this?"}]
    if picture:
        url = f"data:image/jpeg;base64,{base64.b64encode(picture).decode()}"
        content.append({"type": "image_url", "image_url": {"url": url}})
    return {"model": "phi-4-multimodal", "messages": [{"role": "user", "content": content}], **fields}


def _streams(service: Service) -> Iterator[Figure]:
    with ThreadPoolExecutor(_STREAMS) as pool:
        streams = list(pool.map(lambda _: _stream(service), range(_STREAMS)))
    last_begun, first_ended = max(s[0] for s in streams), min(s[1] for s in streams)
    at_once = sum(begun <= first_ended for begun, _, _ in streams)
    lateness = sorted(late for _, _, lates in streams for late in lates)
    conditions = (
        f"{_STREAMS} chat completions streamed from one API process, a word each 0.5 s for 30 s, client and engine on "
        f"the same machine; last begun {last_begun - min(s[0] for s in streams):.1f} s after the first"
    )
    yield Figure("streams_at_once", at_once, "streams", conditions)
    for name, share in (("p50", 0.5), ("p95", 0.95)):
        late = lateness[int(len(lateness) * share)] * 1000
        yield Figure(f"stream_delta_{name}_ms", round(late, 1), "ms", f"a word written to it read; {conditions}")


def _stream(service: Service) -> tuple[float, float, list[float]]:
    """Read one stream to its end: when its first and its last word came, and how late each was, in seconds."""
    lates, read = [], []
    with (
        httpx.Client(base_url=service.url, timeout=120) as http,
        http.stream("POST", "/v1/chat/completions", json=_chat(stream=True)) as response,
    ):
        response.raise_for_status()
        for line in response.iter_lines():
            if not line.startswith("data: {"):
                continue
            word = json.loads(line.removeprefix("data: "))["choices"][0]["delta"].get("content")
            if word:
                read.append(time.time())
                lates += [read[-1] - float(moment) for moment in word.split()]
    if len(lates) != 60:
        raise RuntimeError(f"a stream gave {len(lates)} of 60 words")
    return read[0], read[-1], lates
