"""What the tests of the vLLM engine share: settings for the tiny checkpoint, and media to show it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from phi4.settings import Settings, load

#: vLLM's CPU build without compilation, in the precision in which batches change nothing.
EXTRA_SERVE_ARGS = "--dtype float32 --enforce-eager --skip-mm-profiling"
MAX_MODEL_LEN = 8_192
#: An answer of just this many characters, one token each: work that lasts as long as a test needs.
LASTING = 800


def settings(folder: Path) -> Settings:
    """Settings for the engine in the test's own process."""
    return load(
        engine="vllm",
        checkpoint=str(folder),
        max_in_flight=32,
        max_model_len=MAX_MODEL_LEN,
        extra_serve_args=EXTRA_SERVE_ARGS,
    )


def worker_environment(folder: Path) -> dict[str, str]:
    """The same settings for a worker's process."""
    return {
        "PHI4_MODEL_ID": str(folder),
        "PHI4_MAX_IN_FLIGHT": "32",
        "PHI4_MAX_MODEL_LEN": str(MAX_MODEL_LEN),
        "PHI4_EXTRA_SERVE_ARGS": EXTRA_SERVE_ARGS,
    }


def exactly(characters: int) -> dict[str, object]:
    """A schema that only an answer of this length fits."""
    return {"type": "string", "minLength": characters, "maxLength": characters}


def picture(seed: int, width: int = 448, height: int = 448) -> Image.Image:
    """Noise; another one for every seed."""
    return Image.fromarray(np.random.default_rng(seed).integers(0, 255, (height, width, 3), dtype=np.uint8))


def sound(seed: int, seconds: float = 2.0) -> NDArray[np.float32]:
    """A tone in noise; another one for every seed."""
    noise = np.random.default_rng(seed).standard_normal(int(16_000 * seconds)) * 0.05
    return (0.3 * np.sin(np.arange(noise.size) * (0.1 + seed / 50)) + noise).astype(np.float32)
