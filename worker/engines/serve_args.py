"""How vLLM is started: its own command-line arguments, the same for the engine in the worker and for `phi4 serve`."""

from __future__ import annotations

import json
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path

from phi4.errors import EngineUnavailable
from phi4.settings import Settings, variable_of
from worker.engines.base import MOST_CLIPS, MOST_IMAGES
from worker.engines.memory import UTILIZATION

#: One A4 page is 3 300 tokens. Measured on one H200: 16384 gains nothing, 2048 (vLLM's default here) loses much.
MAX_BATCHED_TOKENS = 8_192
#: Tokens of the KV cache that lie together: with 128 of them FlashAttention 3 takes in a page in 0.16 ms a layer, with
#: vLLM's 16 in 0.21 (bench/NOTES.md).
KV_BLOCK = 128
#: Short prompts that enter a busy batch together, and tokens of prompts that need no company: eight clips, or one page,
#: which fills a step alone (worker/engines/gathering.py).
ENOUGH_PROMPTS, ENOUGH_TOKENS = 8, 3_000
#: A clip of 30 s and its words take 390.
_CLIP_TOKENS = 400
#: Tokens that come together; the first comes at once.
STREAM_INTERVAL = 4
#: What the worker itself goes by: said twice, vLLM would follow one word and the worker the other.
_OURS = {
    "max-model-len": "max_model_len",
    "max-num-seqs": "max_in_flight",
    "tensor-parallel-size": "tensor_parallel_size",
}
_PROCESSOR_CACHE = "mm-processor-cache-gb"
#: The cheapest picture costs about this many tokens, so no prompt holds more of them than the context divided by it.
_CHEAPEST_IMAGE = 545
#: Ranks vLLM has adapter buffers for.
_LORA_RANKS = (1, 8, 16, 32, 64, 128, 256, 320, 512)
ADAPTERS = ("vision", "speech")


@dataclass(frozen=True, slots=True)
class MediaLimits:
    """Most pictures and clips of one prompt."""

    images: int
    clips: int = MOST_CLIPS


def media_limits(settings: Settings) -> MediaLimits:
    """Say how many media one prompt may hold."""
    return MediaLimits(min(MOST_IMAGES, max(1, settings.max_model_len // _CHEAPEST_IMAGE)))


def adapter_folder(checkpoint: Path, adapter: str) -> Path:
    """Where an adapter lies inside the model's folder."""
    return checkpoint / f"{adapter}-lora"


def lora_rank(checkpoint: Path) -> int:
    """The buffer rank that both adapters fit in."""
    configs = (adapter_folder(checkpoint, name) / "adapter_config.json" for name in ADAPTERS)
    needed = max(int(json.loads(path.read_text())["r"]) for path in configs)
    return next(rank for rank in _LORA_RANKS if rank >= needed)


def serve_args(settings: Settings, checkpoint: Path, *, on_cpu: bool, tuned: bool, render_threads: int) -> list[str]:
    """List vLLM's arguments; those of PHI4_EXTRA_SERVE_ARGS come last and win.

    `tuned` says whether this project's own parts go in vLLM's place.
    """
    limits = media_limits(settings)
    return [
        *("--model", str(checkpoint)),
        *("--served-model-name", settings.served_name),
        # The model's own config and processor code; it comes from a pinned revision or from the operator's folder.
        "--trust-remote-code",
        *("--max-model-len", str(settings.max_model_len)),
        *("--tensor-parallel-size", str(settings.tensor_parallel_size)),
        *("--max-num-seqs", str(settings.max_in_flight)),
        *("--max-num-batched-tokens", str(MAX_BATCHED_TOKENS)),
        *("--scheduling-policy", "priority"),
        *(("--scheduler-cls", "worker.engines.gathering.Gathering") if tuned else ()),
        *(("--block-size", str(KV_BLOCK)) if tuned and not on_cpu else ()),
        *(_graph_args(settings) if tuned and not on_cpu else ()),
        *(_adapter_args(checkpoint, on_cpu=on_cpu) if settings.serve == "all" else ()),
        *(("--quantization", "fp8") if settings.fp8 in ("weights", "all") else ()),
        *(("--kv-cache-dtype", "fp8") if settings.fp8 in ("cache", "all") else ()),
        *("--limit-mm-per-prompt", json.dumps({"image": limits.images, "audio": limits.clips})),
        # The worker looks at every piece of every answer: thousands a second, were each a token.
        *("--stream-interval", str(STREAM_INTERVAL)),
        # Pages are new every time; the cache would cost memory twice and is not safe for several threads.
        *(f"--{_PROCESSOR_CACHE}", "0"),
        *("--renderer-num-workers", str(render_threads)),
        # Else vLLM chooses for each schema, but holds every answer by what the first one got: schemas that this cannot
        # hold would pass, and which ones those are would depend on who came first. White space between the parts of
        # JSON is one way in which models run in circles.
        *("--structured-outputs-config", json.dumps({"backend": "xgrammar", "disable_any_whitespace": True})),
        # SIGTERM to the whole process group lets what is running end.
        *("--shutdown-timeout", str(int(settings.drain_seconds))),
        *shlex.split(settings.extra_serve_args),
    ]


def _graph_args(settings: Settings) -> list[str]:
    """Record steps that read one clip beside a token of each answer.

    vLLM's own limit, two tokens an answer, leaves each of them to Python (bench/NOTES.md).
    """
    # Pages fill larger steps. Beside other words on graphs vLLM would take ours for a contradiction.
    if settings.serve != "speech" or "cudagraph" in settings.extra_serve_args:
        return []
    return ["--max-cudagraph-capture-size", str(-(-(_CLIP_TOKENS + settings.max_in_flight) // 16) * 16)]


def _adapter_args(checkpoint: Path, *, on_cpu: bool) -> list[str]:
    return [
        "--enable-lora",
        *("--max-lora-rank", str(lora_rank(checkpoint))),
        # With fewer slots than adapters, vision and speech would take turns. The CPU build gives requests without an
        # adapter the last one of a mixed batch unless a slot is free.
        *("--max-loras", str(len(ADAPTERS) + on_cpu)),
        # `phi4 serve` knows one adapter by two names.
        *("--max-cpu-loras", str(len(ADAPTERS) + 1)),
    ]


def server_args(settings: Settings, checkpoint: Path, *, on_cpu: bool, tuned: bool, render_threads: int) -> list[str]:
    """List the arguments of vLLM's server: those of the engine, and adapters that come with the kind of content.

    The server takes the adapter whose name begins the type of a content part: `image_url`, `audio_url`, and
    `input_audio`, OpenAI's own. With pictures and sound in one request it takes none.
    """
    vision, speech = (str(adapter_folder(checkpoint, name)) for name in ADAPTERS)
    by_content = json.dumps({"image": vision, "audio": speech, "input": speech})
    return [
        *("--host", settings.host),
        *("--port", str(settings.port)),
        *(("--default-mm-loras", by_content) if settings.serve == "all" else ()),
        *serve_args(settings, checkpoint, on_cpu=on_cpu, tuned=tuned, render_threads=render_threads),
    ]


@dataclass(frozen=True, slots=True)
class MemoryTerms:
    """What of the settings decides on memory, beside lengths."""

    adapters: int
    kv_item_bytes: int
    utilization: float
    counts: bool  #: whether the weights are in 16 bits, which is what the arithmetic counts

    @classmethod
    def of(cls, settings: Settings) -> MemoryTerms:
        """Read them where vLLM is not at hand, whose own parser has the last word when an engine starts."""
        given = _arguments(shlex.split(settings.extra_serve_args))
        cache = given.get("kv-cache-dtype", "fp8" if settings.fp8 in ("cache", "all") else "auto")
        return cls(
            adapters=len(ADAPTERS) if settings.serve == "all" else 0,
            kv_item_bytes=1 if "fp8" in cache else 2,
            utilization=_number(given.get("gpu-memory-utilization", ""), UTILIZATION),
            counts=settings.fp8 not in ("weights", "all") and "quantization" not in given,
        )


def check_extra(settings: Settings) -> None:
    """Raise `EngineUnavailable` when PHI4_EXTRA_SERVE_ARGS says what has a setting of its own, or does harm."""
    given = _arguments(shlex.split(settings.extra_serve_args))
    for name in given:
        if name in _OURS:
            raise EngineUnavailable(
                f"PHI4_EXTRA_SERVE_ARGS has --{name}: set {variable_of(_OURS[name])} instead, by which the worker goes."
            )
    # vLLM itself calls it not safe for several threads; and it knows a file without what stands beside it, where a
    # clip beside a picture is another one than alone.
    if _number(given.get(_PROCESSOR_CACHE, ""), 0.0):
        raise EngineUnavailable(
            f"PHI4_EXTRA_SERVE_ARGS has --{_PROCESSOR_CACHE}: take it out, since prompts are prepared by several "
            "threads at once, for which vLLM's cache is not made."
        )


def _arguments(words: Sequence[str]) -> dict[str, str]:
    """Read `--name value` and `--name=value`; the last one of a name counts."""
    found: dict[str, str] = {}
    for word, after in zip_longest(words, words[1:], fillvalue=""):
        if word.startswith("--"):
            name, has_value, value = word[2:].partition("=")
            found[name.replace("_", "-")] = value if has_value else after
    return found


def _number(text: str, default: float) -> float:
    try:
        return float(text)
    except ValueError:  # not given; or wrong, which the engine's start will say
        return default
