"""The faster encoders give what vLLM's own give, on the same weights."""

from __future__ import annotations

import os
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

pytest.importorskip("vllm", reason="vLLM is not installed here; `make test` runs this file in .venv-vllm")

import torch
from torch import Tensor
from vllm.model_executor.models.phi4mm_audio import AudioEmbedding, ConformerEncoderLayer

from phi4.settings import load
from tests.tiny_phi4.config import model_config
from tests.tiny_phi4.sizes import MEL_BINS, TINY
from tests.vllm_on_cpu import picture, sound
from worker.engines import engine_core, fast_conformer, fast_pictures, fast_sounds, fast_tower, vllm_start
from worker.engines.fast_sounds import FastSounds
from worker.engines.fast_speech import FastSpeech, fits

pytestmark = [pytest.mark.filterwarnings("ignore"), pytest.mark.timeout(300)]


@pytest.fixture(autouse=True)
def _repeatable() -> Iterator[None]:
    torch.manual_seed(0)
    with torch.inference_mode():
        yield


@pytest.fixture(scope="module")
def speech() -> Any:
    """vLLM's speech encoder with random weights."""
    config = model_config(TINY)
    audio = {"embedding_cls": "audio", **config["embd_layer"]["audio_embd_layer"]}
    encoder = AudioEmbedding(SimpleNamespace(**config), **audio).eval()
    _randomize(encoder)
    return encoder


def _randomize(module: torch.nn.Module) -> None:
    for parameter in module.parameters():
        torch.nn.init.normal_(parameter, std=0.2)


def test_clips_of_any_length_are_encoded_together_as_alone(speech: Any) -> None:
    """Clips of one frame to 30 s, in any order: what pads one to the length of another changes nothing."""
    frames = [7, 3000, 8, 9, 1233, 2999, 50, 2998, 100, 1200, 1201, 300]
    clips = [torch.randn(number, MEL_BINS) for number in frames]

    together = FastSpeech(speech)(clips, speech.audio_projection)

    for clip, fast in zip(clips, together, strict=True):
        torch.testing.assert_close(fast, speech(clip), rtol=1e-4, atol=1e-4)


def test_more_clips_than_go_together_are_all_encoded(speech: Any) -> None:
    """The seventeenth is not forgotten."""
    clips = [torch.randn(80, MEL_BINS) for _ in range(19)]

    together = FastSpeech(speech)(clips, speech.audio_projection_for_vision)

    assert len(together) == 19
    alone = speech(clips[18], audio_projection_mode="vision")
    torch.testing.assert_close(together[18], alone, rtol=1e-4, atol=1e-4)


def test_longer_clips_and_other_encoders_are_left_to_vllm(speech: Any) -> None:
    """vLLM cuts clips of more than 40 s into pieces; an encoder that looks ahead would see the padding."""
    assert [fits(frames) for frames in (1, 3008, 3009, 4001)] == [True, True, False, False]
    assert FastSpeech.suits(speech)
    speech.encoder.encoders[0].conv.causal = False
    try:
        assert not FastSpeech.suits(speech)
    finally:
        speech.encoder.encoders[0].conv.causal = True


def test_blocks_built_otherwise_run_vllms_code(speech: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """They too may share a batch with clips of other lengths."""
    monkeypatch.setattr(speech.encoder.encoders[0].conv, "act", torch.nn.ReLU())
    clips = [torch.randn(number, MEL_BINS) for number in (1233, 9, 300)]

    together = FastSpeech(speech)(clips, speech.audio_projection)

    for clip, fast in zip(clips, together, strict=True):
        torch.testing.assert_close(fast, speech(clip), rtol=1e-4, atol=1e-4)


#: What makes a block of the published encoder.
_PUBLISHED: dict[str, Any] = {
    **dict.fromkeys(("d_model", "ext_pw_out_channel", "depthwise_seperable_out_channel"), 64),
    **dict.fromkeys(("activation", "conv_activation", "conv_glu_type"), "swish"),
    **{"n_head": 2, "d_ffn": 96, "dropout_rate": 0.0, "causal": True, "use_pt_scaled_dot_product_attention": False},
}


def _block(**settings: Any) -> Any:
    """A block with no weight that is zero or one."""
    layer = ConformerEncoderLayer(**{**_PUBLISHED, **settings}).eval()
    for parameter in layer.parameters():
        parameter += 0.1 * torch.randn_like(parameter) / parameter.shape[-1] ** 0.5
    return layer


def _bias(clips: int, heads: int, frames: int) -> Tensor:
    """Of clips of which the last is two thirds of the frames long."""
    bias = torch.randn(1, heads, frames, frames).repeat(clips, 1, 1, 1)
    bias[-1, :, :, frames * 2 // 3 :] -= 1e4
    return bias


def _vllms(layer: Any, frames: Tensor, bias: Tensor) -> Tensor:
    everything = torch.ones(1, *bias.shape[2:], dtype=torch.bool)
    made: Tensor = layer(frames, None, None, everything, relative_attention_bias=bias)[0]
    return made


@pytest.mark.parametrize("attention_of_pytorch", [False, True], ids=["0.26", "0.32"])
@pytest.mark.parametrize(("clips", "frames"), [(1, 8), (2, 48), (3, 136)])
def test_a_block_gives_what_vllms_gives(clips: int, frames: int, attention_of_pytorch: bool) -> None:
    """Whether vLLM multiplies the scores itself, as 0.26 does, or leaves it to PyTorch."""
    layer = _block(use_pt_scaled_dot_product_attention=attention_of_pytorch)
    sound, bias = torch.randn(clips, frames, 64), _bias(clips, 2, frames)

    made = fast_conformer.blocks(sound, bias, [layer, layer])

    theirs = _vllms(layer, _vllms(layer, sound, bias), bias)
    torch.testing.assert_close(made, theirs, rtol=1e-5, atol=1e-5)


def test_a_full_size_block_is_no_less_exact_than_vllms() -> None:
    """In bf16, in which the model is served: as far from float32 as vLLM's code is."""
    widths = dict.fromkeys(("d_model", "ext_pw_out_channel", "depthwise_seperable_out_channel"), 1024)
    layer = _block(**widths, n_head=16, d_ffn=1536)
    sound, bias = torch.randn(2, 48, 1024), _bias(2, 16, 48)
    exact = _vllms(layer, sound, bias)
    torch.testing.assert_close(fast_conformer.blocks(sound, bias, [layer]), exact, rtol=1e-5, atol=1e-5)

    layer, sound, bias = layer.bfloat16(), sound.bfloat16(), bias.bfloat16()

    ours, theirs = fast_conformer.blocks(sound, bias, [layer]), _vllms(layer, sound, bias)
    assert (ours - exact).abs().mean() < 1.2 * (theirs - exact).abs().mean()
    assert (ours - exact).abs().max() < 1.5 * (theirs - exact).abs().max()


_OTHERWISE: dict[str, Any] = {
    **dict.fromkeys(("activation", "conv_activation", "conv_glu_type"), "sigmoid"),
    **{"attn_group_sizes": 2, "batch_norm": True, "bias_in_glu": False, "causal": False, "d_model": 32},
    **{"depthwise_multiplier": 2, "depthwise_seperable_out_channel": 0, "dropout_rate": 0.1, "export": True},
    **{"ext_pw_kernel_size": 3, "ext_pw_out_channel": 0, "linear_glu_in_convm": True},
}


@pytest.mark.parametrize("setting", _OTHERWISE)
def test_only_blocks_as_published_suit(setting: str) -> None:
    """Each setting of vLLM's that would make another calculation."""
    assert fast_conformer.suits(_block())
    assert not fast_conformer.suits(_block(**{setting: _OTHERWISE[setting]}))


@pytest.fixture(scope="module")
def pictures() -> Any:
    """vLLM's image encoder, of tiny size, with random weights."""
    from vllm.config import VllmConfig, set_current_vllm_config
    from vllm.distributed import init_distributed_environment, initialize_model_parallel
    from vllm.model_executor.models.phi4mm import Phi4MMImageEncoder
    from vllm.utils.network_utils import get_distributed_init_method, get_open_port

    from tests.tiny_phi4.plugin.tiny_phi4_plugin import register

    register()
    with set_current_vllm_config(VllmConfig()):
        init_distributed_environment(1, 0, get_distributed_init_method("127.0.0.1", get_open_port()), 0, "gloo")
        initialize_model_parallel(1)
        encoder = Phi4MMImageEncoder(SimpleNamespace(**model_config(TINY)), None).eval()
    _randomize(encoder)
    for module in encoder.modules():
        if hasattr(module, "quant_method"):  # vLLM's CPU build sets this when it loads weights
            module.cpu_linear = torch.nn.functional.linear
    return encoder


def _picture(rows: int, columns: int, height: int, width: int) -> tuple[Tensor, Tensor, Tensor]:
    """Crops of bytes, padded size, and a mask of which `height` × `width` patches are picture."""
    mask = torch.zeros(rows * 32, columns * 32)
    mask[:height, :width] = 1
    mask = mask.view(rows, 32, columns, 32).permute(0, 2, 1, 3).reshape(rows * columns, 32, 32)
    crops = torch.randint(256, (rows * columns, 3, 448, 448), dtype=torch.uint8)
    return crops, torch.tensor([rows * 448, columns * 448]), torch.cat([torch.ones(1, 32, 32), mask])


def _as_vllm_has_it(crops: Tensor, size: Tensor) -> Tensor:
    """Numbers, the view of the whole first."""
    rows, columns = (size // 448).tolist()
    numbers = crops / 127.5 - 1
    canvas = torch.cat([torch.cat(list(row), 2) for row in numbers.view(rows, columns, 3, 448, 448)], 1)
    return torch.cat([torch.nn.functional.interpolate(canvas[None], size=(448, 448), mode="bicubic"), numbers])


@pytest.mark.parametrize(
    "shapes",
    [
        [(1, 1, 32, 32)],
        [(3, 2, 90, 60)],
        [(1, 1, 32, 32), (3, 2, 90, 60), (2, 3, 64, 65), (1, 4, 31, 128)],
        [(2, 2, 64, 64), (2, 2, 50, 33)],
    ],
    ids=["one crop", "padded", "of many shapes", "of one shape"],
)
def test_pictures_are_put_together_as_vllm_does(
    pictures: Any, shapes: list[tuple[int, int, int, int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every token stands where it stood: rows and their ends, the crops, then the whole picture.

    vLLM is told to hide padding, which it can and does not for this model, unlike Microsoft's code and transformers.
    """
    monkeypatch.setattr(pictures.img_processor, "apply_encoder_attention_mask", True)
    from vllm.model_executor.models.phi4mm import stack_with_pad

    crops, sizes, masks = (list(column) for column in zip(*(_picture(*shape) for shape in shapes), strict=True))
    looked_at = [_as_vllm_has_it(*picture) for picture in zip(crops, sizes, strict=True)]
    stock = pictures(stack_with_pad(looked_at), torch.stack(sizes), stack_with_pad(masks))

    fast = fast_pictures.embed(pictures, crops, torch.stack(sizes), masks)

    assert len(fast) == len(shapes)
    for ours, theirs, (_, _, height, width) in zip(fast, stock, shapes, strict=True):
        assert ours.shape == theirs.shape
        all_picture = _tokens_without_padding(height, width, len(ours))
        torch.testing.assert_close(ours[all_picture], theirs[all_picture], rtol=1e-5, atol=1e-5)


def _tokens_without_padding(height: int, width: int, tokens: int) -> Tensor:
    """Which tokens are of four patches of picture; with an odd number of them, the last ones are not."""
    whole = torch.ones(-(-height // 2), -(-width // 2) + 1, dtype=torch.bool)
    whole[height // 2 :] = whole[:, width // 2 : -1] = False
    return torch.cat([whole.flatten(), torch.ones(tokens - whole.numel(), dtype=torch.bool)])


def test_what_is_joined_with_padding_gets_nothing_of_attention(pictures: Any) -> None:
    """Microsoft's code puts zeros there, as FlashAttention does: the patch is what its MLPs make of it."""
    tower = pictures.img_processor
    width = tower.embeddings.position_embedding.weight.shape[1]
    hidden = torch.randn(2, 32 * 32, width)
    mask = torch.zeros(2, 32, 32, dtype=torch.bool)
    mask[0, :, :27] = mask[1, :31, :32] = True

    seen = fast_tower.look(tower, hidden, mask.numpy()).view(2, 16, 16, width)

    for crop in (0, 1):
        alone = _layer_by_layer(tower, hidden[crop], mask[crop].flatten()).view(16, 2, 16, 2, width).mean((1, 3))
        kept = mask[crop, ::2, ::2]
        torch.testing.assert_close(seen[crop][kept], alone[kept], rtol=1e-5, atol=1e-5)


def _layer_by_layer(tower: Any, hidden: Tensor, is_picture: Tensor) -> Tensor:
    for layer in tower.encoder.layers:
        heads = layer.self_attn.qkv_proj(layer.layer_norm1(hidden))[0].view(
            len(hidden), 3, -1, layer.self_attn.head_dim
        )
        query, key, value = heads.permute(1, 2, 0, 3)
        hides = ~is_picture[None, None].expand(1, len(hidden), -1)
        scores = (query @ key.transpose(1, 2) * layer.self_attn.scale).masked_fill(hides, -torch.inf)
        heard = (scores.softmax(-1) @ value).transpose(0, 1).flatten(1)
        hidden = hidden + layer.self_attn.out_proj(heard * is_picture[:, None])[0]
        hidden = hidden + layer.mlp(layer.layer_norm2(hidden))
    return hidden


def test_the_engine_runs_our_model(vllm_engine: Any) -> None:
    """Its EngineCore answers with FastPhi4MM, which the plugin named; so sound may stay in 16 bits."""
    from vllm import ModelRegistry

    engine_core.register()

    model, _ = ModelRegistry.resolve_model_cls(["Phi4MMForCausalLM"], vllm_engine._llm.model_config)
    assert model.__name__ == "FastPhi4MM"
    assert os.environ[engine_core.STOCK_MODEL] == "0"
    assert vllm_engine._prompts._hears_16_bits


def test_a_clip_goes_by_another_name_beside_pictures(vllm_engine: Any) -> None:
    """It is projected otherwise there, and vLLM keeps by name what it embedded: in the worker and in its own server."""
    from vllm.renderers.inputs.preprocess import parse_model_prompt

    def name(text: str, **media: Any) -> str:
        raw = {"prompt": text, "multi_modal_data": {"audio": [(sound(1), 16_000)], **media}}
        (inputs,) = llm.renderer.render_cmpl([parse_model_prompt(llm.model_config, raw)])
        return str(inputs["mm_hashes"]["audio"][0])

    llm = vllm_engine._llm
    alone = name("<|audio_1|>?")
    assert alone == name("<|audio_1|>!")
    assert name("<|image_1|><|audio_1|>?", image=[picture(1)]) == f"{alone}-beside-pictures"


def test_a_release_that_was_not_tested_runs_vllms_own_model(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The log says so, and which releases were."""
    import vllm

    named: list[str] = []
    monkeypatch.setattr(vllm, "__version__", "0.99.0")
    monkeypatch.setattr(vllm.ModelRegistry, "register_model", lambda name, _: named.append(name))

    engine_core.register()

    assert named == []
    assert "0.99.0 was not tested" in caplog.text
    assert "0.32.x" in caplog.text
    assert not vllm_start.kind(load())["tuned"]


def test_sound_comes_as_samples_or_as_features() -> None:
    """Samples are heard where the model is; features that the checkpoint's own processor made stay as they are."""
    model = SimpleNamespace(embed_tokens_extend=torch.nn.Linear(1, 1, dtype=torch.bfloat16))
    noise = np.random.default_rng(4).integers(-20_000, 20_000, 2_000).astype(np.float32) / 32_768
    (rows,) = FastSounds(None, lambda frames: frames)([(noise, 16_000)])["input_audio_embeds"]
    features = fast_sounds.features(rows)

    from worker.engines.fast_model import FastPhi4MM  # warns as it is imported

    for came in (rows, features):
        heard = FastPhi4MM._heard(model, came)
        assert heard.dtype == torch.bfloat16
        assert torch.equal(heard, features.bfloat16())


@pytest.mark.parametrize(("stock", "tuned"), [(False, True), (True, False)])
def test_the_stock_engine_is_scheduled_by_vllm(stock: bool, tuned: bool) -> None:
    """PHI4_STOCK_MODEL leaves all to vLLM, not its model alone."""
    assert vllm_start.kind(load(stock_model=stock))["tuned"] is tuned
