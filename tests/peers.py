"""The clients of other APIs, pointed at a running service, and what they send."""

from __future__ import annotations

import base64
import io
import wave
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import httpx
import openai

from phi4.job import new_id
from tests.conftest import ROOT, Service, eventually, png

if TYPE_CHECKING:
    from mistralai.client import Mistral

MODEL = "phi-4-multimodal"
TALK = (ROOT / "examples/inputs/talk.mp3").read_bytes()
INVOICE = (ROOT / "examples/inputs/invoice.jpg").read_bytes()
SIGN = (ROOT / "examples/inputs/sign.jpg").read_bytes()


@contextmanager
def openai_client(service: Service, seconds: float = 30.0) -> Iterator[openai.OpenAI]:
    """OpenAI's client, which tries nothing twice."""
    base = f"{address(service)}/v1"
    with openai.OpenAI(base_url=base, api_key="unused", max_retries=0, timeout=seconds) as client:
        yield client


@contextmanager
def mistral_client(service: Service) -> Iterator[Mistral]:
    """Mistral's client; only where it is installed."""
    from mistralai.client import Mistral

    with Mistral(api_key="unused", server_url=address(service)) as client:
        yield client


def address(service: Service) -> str:
    """Where the service is."""
    return str(service.http.base_url).rstrip("/")


def data_url(content: bytes, mime: str = "image/png") -> str:
    """Write a file as a data: URL."""
    return f"data:{mime};base64,{base64.b64encode(content).decode()}"


def text(words: str) -> dict[str, Any]:
    """A piece of a message: words."""
    return {"type": "text", "text": words}


def picture(content: bytes | str | None = None, **more: Any) -> dict[str, Any]:
    """A piece of a message: a picture, by its bytes or its URL."""
    url = content if isinstance(content, str) else data_url(png() if content is None else content)
    return {"type": "image_url", "image_url": {"url": url, **more}}


def sound(content: bytes = TALK, kind: str = "mp3") -> dict[str, Any]:
    """A piece of a message: a recording."""
    return {"type": "input_audio", "input_audio": {"data": base64.b64encode(content).decode(), "format": kind}}


def silence(seconds: int) -> bytes:
    """A recording in which there is nothing to hear."""
    file = io.BytesIO()
    with wave.open(file, "wb") as out:
        out.setparams((1, 2, 16_000, 0, "NONE", ""))
        out.writeframes(bytes(seconds * 32_000))
    return file.getvalue()


def user(*content: Any) -> dict[str, Any]:
    """A message of the user: one string, or pieces."""
    return {"role": "user", "content": content[0] if isinstance(content[0], str) else list(content)}


def chat(*messages: Any, **fields: Any) -> dict[str, Any]:
    """The body of a chat completion; words alone are a message of the user."""
    return {"model": MODEL, "messages": [user(m) if isinstance(m, str) else m for m in messages], **fields}


def tag() -> dict[str, str]:
    """Metadata by which the job of one request is found again."""
    return {"tag": new_id("tag")}


def tagged(service: Service, metadata: dict[str, str]) -> dict[str, Any]:
    """Find the job of a request, as soon as there is one."""

    def find() -> Any:
        jobs = service.http.get("/v1/jobs", params={"type": "chat", "limit": 100}).json()["data"]
        return next((job for job in jobs if job["metadata"] == metadata), None)

    return dict(eventually(find, what="the job of a request"))


def post(service: Service, body: Any, path: str = "/v1/chat/completions", **options: Any) -> httpx.Response:
    """Send JSON as no client's own checks would let one."""
    return service.http.post(path, json=body, **options)
