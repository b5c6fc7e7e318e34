"""`phi4 serve`: vLLM's own OpenAI-compatible server, whose callers need to know nothing of adapters."""

from __future__ import annotations

import base64
import io
import os
import signal
import subprocess
import sys
import wave
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

from cli.embedded import free_port
from tests.conftest import ROOT, eventually
from tests.tiny_phi4 import environment
from tests.vllm_on_cpu import picture, sound, worker_environment

pytest.importorskip("vllm", reason="vLLM is not installed here; `make test` runs this file in .venv-vllm")

pytestmark = pytest.mark.timeout(600)


@pytest.fixture(scope="module")
def server(tiny_phi4: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx.Client]:
    """The server on the tiny checkpoint."""
    port = free_port()
    log = tmp_path_factory.mktemp("serve") / "log"
    with log.open("wb") as out:
        process = subprocess.Popen(
            [sys.executable, "-c", "from cli.main import app; app()", "serve", "--port", str(port)],
            env=os.environ | environment(tiny_phi4) | worker_environment(tiny_phi4),
            cwd=ROOT,
            stdout=out,
            stderr=out,
        )
    client = httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=60)
    try:
        eventually(lambda: process.poll() is not None or _answers(client), seconds=300, what="the server's start")
        assert process.poll() is None, log.read_text()[-3_000:]
        yield client
    finally:
        client.close()
        process.send_signal(signal.SIGTERM)
        process.wait(60)


def _answers(client: httpx.Client) -> bool:
    try:
        return client.get("/health").status_code == 200
    except httpx.TransportError:
        return False


def chat(server: httpx.Client, part: dict[str, Any], model: str = "phi-4-multimodal") -> str:
    """The model's words about one part of content."""
    content = [part, {"type": "text", "text": "What?"}]
    body = {"model": model, "temperature": 0, "max_tokens": 12, "messages": [{"role": "user", "content": content}]}
    response = server.post("/v1/chat/completions", json=body)
    assert response.status_code == 200, response.text
    return str(response.json()["choices"][0]["message"]["content"])


def _png() -> str:
    file = io.BytesIO()
    picture(1).save(file, "PNG")
    return base64.b64encode(file.getvalue()).decode()


def _wav() -> str:
    file = io.BytesIO()
    with wave.open(file, "wb") as out:
        out.setnchannels(1)
        out.setsampwidth(2)
        out.setframerate(16_000)
        out.writeframes((sound(1) * 32_767).astype(np.int16).tobytes())
    return base64.b64encode(file.getvalue()).decode()


PARTS: dict[str, dict[str, Any]] = {
    "image": {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{_png()}"}},
    "audio": {"type": "input_audio", "input_audio": {"data": _wav(), "format": "wav"}},
}


@pytest.mark.parametrize(("kind", "right", "wrong"), [("image", "image", "audio"), ("audio", "audio", "image")])
def test_the_adapter_is_chosen_by_what_a_request_holds(server: httpx.Client, kind: str, right: str, wrong: str) -> None:
    """The plain model name answers as the right adapter asked for by name does, and not as the other one."""
    words = {name: chat(server, PARTS[kind], name) for name in ("phi-4-multimodal", right, wrong)}

    assert words["phi-4-multimodal"] == words[right]
    assert words[right] != words[wrong]


def test_the_model_is_listed_under_its_served_name(server: httpx.Client) -> None:
    """PHI4_SERVED_NAME, first."""
    assert server.get("/v1/models").json()["data"][0]["id"] == "phi-4-multimodal"
