"""`phi4 serve`: vLLM's own OpenAI-compatible server with Phi-4's adapters chosen by what a request holds."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Sequence
from typing import NoReturn

from cli import show
from phi4.errors import EngineUnavailable
from phi4.settings import LOOPBACK, Settings


def serve(settings: Settings) -> NoReturn:
    """Become the server. Raises `EngineUnavailable`."""
    if importlib.util.find_spec("vllm") is None:
        raise EngineUnavailable(
            'phi4 serve needs the package vllm: pip install "phi4-service[gpu]". '
            "Without a GPU, phi4 up serves the same jobs."
        )
    from worker.engines.vllm_start import server_command

    command = server_command(settings, lambda stage: show.say(f"{stage} {settings.checkpoint}"))
    if is_open(settings, command):
        show.say(
            f"Warning: whoever reaches {settings.host}:{settings.port} may use the model; give it a key with "
            'PHI4_EXTRA_SERVE_ARGS="--api-key …", or keep it on 127.0.0.1.'
        )
    show.say(f"vLLM serves {settings.served_name} on http://{settings.host}:{settings.port}/v1")
    os.execv(command[0], command)


def is_open(settings: Settings, command: Sequence[str]) -> bool:
    """Tell whether others than this machine reach the server, and need no key."""
    has_key = any(word.partition("=")[0] == "--api-key" for word in command) or bool(os.environ.get("VLLM_API_KEY"))
    return not has_key and settings.host not in LOOPBACK
