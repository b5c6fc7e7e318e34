"""What vLLM is told on its command line, by the worker and by `phi4 serve`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Literal

import pytest

from phi4.errors import EngineUnavailable
from phi4.settings import Settings, load
from worker.engines.serve_args import check_extra, lora_rank, media_limits, serve_args, server_args


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    """A model's folder with adapters of the real ranks."""
    for name, rank in (("vision", 256), ("speech", 320)):
        (tmp_path / f"{name}-lora").mkdir()
        (tmp_path / f"{name}-lora" / "adapter_config.json").write_text(json.dumps({"r": rank}))
    return tmp_path


def told(settings: Settings, checkpoint: Path, *, on_cpu: bool = False, tuned: bool = True) -> dict[str, Any]:
    """The arguments by name; one that stands alone is True, and of one given twice the last counts."""
    arguments = serve_args(settings, checkpoint, on_cpu=on_cpu, tuned=tuned, render_threads=8)
    values: dict[str, Any] = {}
    for argument, following in zip(arguments, [*arguments[1:], "--"], strict=True):
        if argument.startswith("--"):
            values[argument] = True if following.startswith("--") else following
    return values


def test_the_seeds_settings_are_the_defaults(checkpoint: Path) -> None:
    """A context of 16 384, one card, the served name; and what must not be left to vLLM's own defaults."""
    arguments = told(load(), checkpoint)

    assert arguments == {
        "--model": str(checkpoint),
        "--served-model-name": "phi-4-multimodal",
        "--trust-remote-code": True,
        "--max-model-len": "16384",
        "--tensor-parallel-size": "1",
        "--max-num-seqs": "64",
        "--max-num-batched-tokens": "8192",
        "--scheduling-policy": "priority",
        "--scheduler-cls": "worker.engines.gathering.Gathering",
        "--block-size": "128",
        "--enable-lora": True,
        "--max-lora-rank": "320",
        "--max-loras": "2",
        "--max-cpu-loras": "3",
        "--limit-mm-per-prompt": '{"image": 30, "audio": 4}',
        "--stream-interval": "4",
        "--mm-processor-cache-gb": "0",
        "--renderer-num-workers": "8",
        "--structured-outputs-config": '{"backend": "xgrammar", "disable_any_whitespace": true}',
        "--shutdown-timeout": "60",
    }


def test_the_stock_model_runs_as_vllm_does(checkpoint: Path) -> None:
    """What is faster than vLLM's own can be told by comparing; and releases that ours was not tested with have this."""
    assert not {"--scheduler-cls", "--block-size"} & set(told(load(), checkpoint, tuned=False))


def test_a_cpu_has_blocks_of_its_own_size(checkpoint: Path) -> None:
    """vLLM's CPU build knows better."""
    assert "--block-size" not in told(load(), checkpoint, on_cpu=True)


@pytest.mark.parametrize("serve", ["vision", "speech"])
def test_a_worker_of_one_modality_asks_for_no_adapters(checkpoint: Path, serve: Literal["vision", "speech"]) -> None:
    """Its adapter is in the weights."""
    arguments = told(load(serve=serve), checkpoint, on_cpu=False)

    assert [name for name in arguments if "lora" in name] == []


@pytest.mark.parametrize(
    ("settings", "largest"),
    [
        ({"serve": "speech"}, "464"),
        ({"serve": "speech", "max_in_flight": 96}, "496"),
        ({"serve": "vision"}, None),
        ({}, None),
        ({"serve": "speech", "extra_serve_args": "--max-cudagraph-capture-size 64"}, "64"),
        ({"serve": "speech", "extra_serve_args": "--cudagraph-capture-sizes 1 2 4"}, None),
        ({"serve": "speech", "extra_serve_args": '--compilation-config {"cudagraph_mode":"NONE"}'}, None),
    ],
)
def test_steps_that_read_clips_are_recorded(checkpoint: Path, settings: dict[str, Any], largest: str | None) -> None:
    """Where clips are all there is; an operator's own words on graphs stand alone, as vLLM wants them."""
    assert told(load(**settings), checkpoint).get("--max-cudagraph-capture-size") == largest


def test_nothing_is_recorded_without_a_gpu_or_our_parts(checkpoint: Path) -> None:
    """The CPU build has no graphs, and the stock model runs as vLLM does."""
    for where in ({"on_cpu": True}, {"tuned": False}):
        assert "--max-cudagraph-capture-size" not in told(load(serve="speech"), checkpoint, **where)


def test_the_cpu_build_gets_a_slot_for_requests_without_an_adapter(checkpoint: Path) -> None:
    """Else it gives them the last adapter of a mixed batch."""
    assert told(load(), checkpoint, on_cpu=True)["--max-loras"] == "3"


def test_extra_arguments_win(checkpoint: Path) -> None:
    """They come last, split as a shell would."""
    settings = load(extra_serve_args="--stream-interval 8 --limit-mm-per-prompt '{\"image\": 2}' --enforce-eager")

    arguments = told(settings, checkpoint)

    assert arguments["--stream-interval"] == "8"
    assert json.loads(arguments["--limit-mm-per-prompt"]) == {"image": 2}
    assert arguments["--enforce-eager"] is True


@pytest.mark.parametrize(
    ("extra", "variable"),
    [
        ("--max-model-len 4096", "PHI4_MAX_MODEL_LEN"),
        ("--enforce-eager --max_num_seqs=16", "PHI4_MAX_IN_FLIGHT"),
        ("--tensor-parallel-size 2", "TENSOR_PARALLEL_SIZE"),
    ],
)
def test_what_has_a_setting_of_its_own_is_said_there(extra: str, variable: str) -> None:
    """vLLM would follow the argument, and the worker, which counts places, tokens and cards, the setting."""
    with pytest.raises(EngineUnavailable, match=f"set {variable} instead"):
        check_extra(load(extra_serve_args=extra))


@pytest.mark.parametrize("extra", ["--mm-processor-cache-gb 4", "--mm_processor_cache_gb=0.5"])
def test_vllms_cache_of_prepared_files_stays_off(extra: str) -> None:
    """Several threads prepare prompts, and a clip beside a picture is not the clip alone."""
    with pytest.raises(EngineUnavailable, match="--mm-processor-cache-gb: take it out"):
        check_extra(load(extra_serve_args=extra))


@pytest.mark.parametrize(
    "extra", ["--gpu-memory-utilization 0.5 --max-num-batched-tokens 4096", "--mm-processor-cache-gb 0"]
)
def test_other_arguments_are_nobody_elses(extra: str) -> None:
    """Whatever vLLM knows."""
    check_extra(load(extra_serve_args=extra))


@pytest.mark.parametrize(("length", "images"), [(1_024, 1), (8_192, 15), (16_384, 30), (131_072, 64)])
def test_as_many_pictures_are_taken_as_could_fit(length: int, images: int) -> None:
    """The context divided by the cheapest picture, and no more than the model was trained on."""
    assert media_limits(load(max_model_len=length)).images == images


def test_the_rank_is_that_of_the_larger_adapter_rounded_up(checkpoint: Path) -> None:
    """vLLM has buffers for some ranks only."""
    (checkpoint / "speech-lora" / "adapter_config.json").write_text('{"r": 200}')

    assert lora_rank(checkpoint) == 256


def test_the_server_gives_pictures_and_sound_their_adapters(checkpoint: Path) -> None:
    """By the first word of a content part's type, so that OpenAI's `input_audio` is found too."""
    arguments = server_args(load(port=9_000), checkpoint, on_cpu=False, tuned=True, render_threads=1)

    assert arguments[:4] == ["--host", "127.0.0.1", "--port", "9000"]
    assert json.loads(arguments[arguments.index("--default-mm-loras") + 1]) == {
        "image": f"{checkpoint}/vision-lora",
        "audio": f"{checkpoint}/speech-lora",
        "input": f"{checkpoint}/speech-lora",
    }


@pytest.mark.parametrize(
    ("fp8", "told"),
    [
        ("none", []),
        ("weights", ["--quantization", "fp8"]),
        ("cache", ["--kv-cache-dtype", "fp8"]),
        ("all", ["--quantization", "fp8", "--kv-cache-dtype", "fp8"]),
    ],
)
def test_eight_bits_are_asked_for_by_name(tmp_path: Path, fp8: str, told: list[str]) -> None:
    """PHI4_FP8 says what vLLM keeps in 8 bits; nothing by default."""
    arguments = serve_args(load(fp8=fp8, serve="vision"), tmp_path, on_cpu=False, tuned=True, render_threads=1)

    assert [word for word in arguments if word in ("--quantization", "--kv-cache-dtype", "fp8")] == told
