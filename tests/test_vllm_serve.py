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

import openai  # comes with vLLM

pytestmark = pytest.mark.timeout(600)
KEY = "sk-test"


@pytest.fixture(scope="module")
def server(tiny_phi4: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx.Client]:
    """The server on the tiny checkpoint."""
    port = free_port()
    log = tmp_path_factory.mktemp("serve") / "log"
    settings = worker_environment(tiny_phi4)
    more = f"{settings['PHI4_EXTRA_SERVE_ARGS']} --api-key {KEY}"
    with log.open("wb") as out:
        process = subprocess.Popen(
            [sys.executable, "-c", "from cli.main import app; app()", "serve", "--port", str(port)],
            env=os.environ | environment(tiny_phi4) | settings | {"PHI4_EXTRA_SERVE_ARGS": more},
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


@pytest.fixture
def client(server: httpx.Client) -> Iterator[openai.OpenAI]:
    """OpenAI's client of the server."""
    with openai.OpenAI(base_url=str(server.base_url.join("/v1")), api_key=KEY, max_retries=0, timeout=60) as client:
        yield client


def chat(client: openai.OpenAI, part: dict[str, Any], model: str = "phi-4-multimodal") -> str:
    """The model's words about one part of content."""
    messages: Any = [{"role": "user", "content": [part, {"type": "text", "text": "What?"}]}]
    answer = client.chat.completions.create(model=model, messages=messages, temperature=0, max_tokens=12)
    return answer.choices[0].message.content or ""


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
def test_the_adapter_is_chosen_by_what_a_request_holds(
    client: openai.OpenAI, kind: str, right: str, wrong: str
) -> None:
    """The plain model name answers as the right adapter asked for by name does, and not as the other one."""
    words = {name: chat(client, PARTS[kind], name) for name in ("phi-4-multimodal", right, wrong)}

    assert words["phi-4-multimodal"] == words[right]
    assert words[right] != words[wrong]


def test_the_model_is_listed_under_its_served_name(client: openai.OpenAI) -> None:
    """PHI4_SERVED_NAME, first."""
    assert client.models.list().data[0].id == "phi-4-multimodal"


def test_the_servers_own_arguments_reach_it(client: openai.OpenAI) -> None:
    """PHI4_EXTRA_SERVE_ARGS takes what only the server knows, such as a key."""
    with pytest.raises(openai.AuthenticationError):
        client.with_options(api_key="another").models.list()
