"""Both engines of Phi-4-multimodal, given the same weights and tasks, say the same."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from phi4.settings import load
from tests.tiny_phi4.sizes import TINY
from tests.vllm_on_cpu import MAX_MODEL_LEN, picture, sound
from worker.engines import native_layout
from worker.engines.base import AskImages, Call, Chat, ReadPage, Task, TranscribeClip, Turn

pytest.importorskip("vllm", reason="vLLM is not installed here; `make test` runs this file in .venv-vllm")
pytest.importorskip("peft", reason="peft is not installed here; `make test` runs this file in .venv-vllm")

from tests.tiny_phi4.config import vision_config
from worker.engines.transformers import TransformersEngine  # needs transformers

if TYPE_CHECKING:
    from worker.engines.vllm import VllmEngine

#: What torch, transformers and vLLM warn of is theirs.
pytestmark = [pytest.mark.filterwarnings("ignore"), pytest.mark.timeout(300)]


@pytest.fixture(scope="module")
def engine(tiny_phi4: Path) -> TransformersEngine:
    """The transformers engine on vLLM's files, in the precision that vLLM is started with."""
    engine = TransformersEngine(
        load(engine="transformers", checkpoint=str(tiny_phi4), max_model_len=MAX_MODEL_LEN, cpu_threads=1)
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(native_layout, "VISION", vision_config(TINY.vision))
        engine.start(lambda _: None)
    assert engine._loaded is not None
    engine._loaded.model.float()
    return engine


@pytest.mark.parametrize(
    "task",
    [
        Chat((Turn("system", ("Be brief.",)), Turn("user", ("Say something, please.",))), max_tokens=12),
        Chat((Turn("user", ("Long. " * 700,)),), max_tokens=12),
        TranscribeClip(sound(1), max_tokens=12),
        TranscribeClip(sound(2, 5.03), max_tokens=12),
        ReadPage(picture(1), max_tokens=12),
        ReadPage(picture(2, 896, 1344), max_tokens=12),
        ReadPage(picture(6, 620, 877), max_tokens=12),
        AskImages((picture(7, 500, 300), picture(8, 1000, 200)), "Which?", max_tokens=12),
        AskImages((picture(3), picture(4, 1344, 448)), "Which?", max_tokens=12),
        Chat((Turn("user", (picture(5), sound(1), "What is said of this?")),), max_tokens=12),
    ],
    ids=[
        "words",
        "many words",
        "clip",
        "odd clip",
        "page",
        "larger page",
        "padded page",
        "two padded",
        "two images",
        "image and clip",
    ],
)
def test_both_engines_say_the_same(vllm_engine: VllmEngine, engine: TransformersEngine, task: Task) -> None:
    """Prompts, media, adapters and rotary embedding are the same down to the token, also with padding in pictures."""
    call = Call(request_id="test")

    assert engine.run(task, call) == vllm_engine.run(task, call)
