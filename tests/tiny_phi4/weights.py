"""Random weights that behave a little like a language model, and random adapters.

The last hidden channel says "printable": it stays at `_PRINTABLE` along the residual stream, and the rows of the tied
embedding hold a negative number there for ids without a token. So greedy and random sampling alike stay within the
tokens that the tokenizer knows, mostly letters. Embeddings are quiet and layers loud, so that a tiny model does not
repeat its last token. Many loud layers pass rounding on until nothing of an answer is left (bench/NOTES.md): calm ones
are for comparing precisions, at full size.
"""

from __future__ import annotations

import math

import torch

from tests.tiny_phi4.sizes import MEL_BINS, VOCABULARY, Decoder, Sizes
from tests.tiny_phi4.tokenizer import CONTROL, END

Tensors = dict[str, torch.Tensor]

_PRINTABLE = 0.2
_EMBEDDING_GAIN = 0.1
_GAINS = {"self_attn.qkv_proj": 2.0}  #: sharp attention, so that the answer depends on the picture
_LAYER_GAIN = 1.5
_FINAL_NORM = 4.0
_FINAL_NORM_PRINTABLE = 1600.0
#: Their last row is 0, so that they leave the "printable" channel of the residual stream alone.
_INTO_RESIDUAL = ("self_attn.o_proj", "mlp.down_proj")
_POSITION_BUCKETS = 1000


class RandomTensors:
    """Named random tensors; the same seed gives the same ones."""

    def __init__(self, seed: int) -> None:
        self.made: Tensors = {}
        self._generator = torch.Generator().manual_seed(seed)

    def normal(self, name: str, *shape: int, scale: float | None = None) -> torch.Tensor:
        """A tensor whose spread keeps a product's size, unless `scale` is given."""
        spread = 1 / math.sqrt(math.prod(shape[1:])) if scale is None else scale
        self.made[name] = torch.randn(*shape, generator=self._generator) * spread
        return self.made[name]

    def constant(self, name: str, *shape: int, value: float) -> torch.Tensor:
        """A tensor of one number."""
        self.made[name] = torch.full(shape, value)
        return self.made[name]

    def layer(self, name: str, *shape: int) -> None:
        """A linear layer or convolution with a bias."""
        self.normal(f"{name}.weight", *shape)
        self.normal(f"{name}.bias", shape[0], scale=0.02)

    def norm(self, name: str, size: int) -> None:
        """A layer norm that changes nothing."""
        self.constant(f"{name}.weight", size, value=1.0)
        self.constant(f"{name}.bias", size, value=0.0)

    def projector(self, name: str, hidden: int, inputs: int) -> None:
        """Two layers into the residual stream; what they give counts as printable."""
        self.layer(f"{name}.0", hidden, inputs)
        self.layer(f"{name}.2", hidden, hidden)
        self.made[f"{name}.2.weight"][-1] = 0
        self.made[f"{name}.2.bias"][-1] = _PRINTABLE


def model_weights(sizes: Sizes, seed: int, *, calm: bool = False) -> Tensors:
    """Every weight of the model, named as in the published checkpoint."""
    tensors = RandomTensors(seed)
    _decoder(tensors, sizes, calm=calm)
    _vision(tensors, sizes)
    _audio(tensors, sizes)
    return tensors.made


def adapter_weights(decoder: Decoder, rank: int, seed: int) -> Tensors:
    """The weights of one adapter, strong enough to change what is said."""
    tensors = RandomTensors(seed)
    for layer in range(decoder.layers):
        for projection, (rows, columns) in decoder.projections.items():
            name = f"base_model.model.model.layers.{layer}.{projection}"
            tensors.normal(f"{name}.lora_A.weight", rank, columns)
            up = tensors.normal(f"{name}.lora_B.weight", rows, rank, scale=0.5 / math.sqrt(rank))
            if projection in _INTO_RESIDUAL:
                up[-1] = 0
    return tensors.made


def _decoder(tensors: RandomTensors, sizes: Sizes, *, calm: bool) -> None:
    decoder = sizes.decoder
    tensors.made["model.embed_tokens.weight"] = _embedding(tensors, decoder.hidden)
    for number in range(decoder.layers):
        layer = f"model.layers.{number}"
        for projection, (rows, columns) in decoder.projections.items():
            weight = tensors.normal(f"{layer}.{projection}.base_layer.weight", rows, columns)
            weight *= 1.0 if calm else _GAINS.get(projection, _LAYER_GAIN)
            if projection in _INTO_RESIDUAL:
                weight[-1] = 0
            # The published shards hold both adapters as well; vLLM drops them there.
            for adapter, rank in sizes.ranks.items():
                tensors.normal(f"{layer}.{projection}.lora_A.{adapter}.weight", rank, columns)
                tensors.constant(f"{layer}.{projection}.lora_B.{adapter}.weight", rows, rank, value=0.0)
        for norm in ("input_layernorm", "post_attention_layernorm"):
            tensors.constant(f"{layer}.{norm}.weight", decoder.hidden, value=1.0)
    tensors.constant("model.norm.weight", decoder.hidden, value=_FINAL_NORM)[-1] = _FINAL_NORM_PRINTABLE


def _embedding(tensors: RandomTensors, hidden: int) -> torch.Tensor:
    """Rows of ids without a token are silent but for the channel that keeps them from being said."""
    control = torch.tensor(sorted(CONTROL.values()))
    known = torch.cat([torch.arange(256), control])
    embedding = torch.zeros(VOCABULARY, hidden)
    embedding[:, -1] = -_PRINTABLE
    embedding[known] = tensors.normal("known", len(known), hidden, scale=_EMBEDDING_GAIN)
    del tensors.made["known"]
    embedding[:256, -1] = _PRINTABLE / 4
    embedding[32:127, -1] = _PRINTABLE  # the id of a byte is the byte
    embedding[control, -1] = _PRINTABLE / 2
    embedding[END, -1] = _PRINTABLE * 0.9  # so that some answers end by themselves
    return embedding


def _vision(tensors: RandomTensors, sizes: Sizes) -> None:
    vision, hidden = sizes.vision, sizes.vision.hidden
    root = "model.embed_tokens_extend.image_embed"
    tensors.normal(f"{root}.glb_GN", 1, 1, hidden, scale=0.5)
    tensors.normal(f"{root}.sub_GN", 1, 1, 1, hidden, scale=0.5)
    tower = f"{root}.img_processor"
    tensors.layer(f"{tower}.embeddings.patch_embedding", hidden, 3, 14, 14)
    tensors.normal(f"{tower}.embeddings.position_embedding.weight", 32 * 32, hidden, scale=0.5)
    for number in range(vision.layers):
        layer = f"{tower}.encoder.layers.{number}"
        for projection in ("q_proj", "k_proj", "v_proj", "out_proj"):
            tensors.layer(f"{layer}.self_attn.{projection}", hidden, hidden)
        tensors.layer(f"{layer}.mlp.fc1", vision.intermediate, hidden)
        tensors.layer(f"{layer}.mlp.fc2", hidden, vision.intermediate)
        for norm in ("layer_norm1", "layer_norm2"):
            tensors.norm(f"{layer}.{norm}", hidden)
    tensors.norm(f"{tower}.post_layernorm", hidden)
    tensors.projector(f"{root}.img_projection", sizes.decoder.hidden, hidden)


def _audio(tensors: RandomTensors, sizes: Sizes) -> None:
    audio = sizes.audio
    root = "model.embed_tokens_extend.audio_embed"
    encoder = f"{root}.encoder"
    tensors.constant(f"{encoder}.encoder_embedding.global_mean", MEL_BINS, value=8.0)
    tensors.constant(f"{encoder}.encoder_embedding.global_invstd", MEL_BINS, value=0.25)
    # Three convolutions of stride 2, the latter two parted into one over each channel and one over all.
    tensors.layer(f"{encoder}.embed.conv.0", audio.conv_channels, 1, 3, 3)
    for over_each, over_all in ((2, 3), (5, 6)):
        tensors.layer(f"{encoder}.embed.conv.{over_each}", audio.conv_channels, 1, 3, 3)
        tensors.layer(f"{encoder}.embed.conv.{over_all}", audio.conv_channels, audio.conv_channels, 1, 1)
    tensors.layer(f"{encoder}.embed.out", audio.hidden, audio.conv_channels * MEL_BINS // 8)
    bias = f"{encoder}.relative_attention_bias_layer.bias_values.weight"
    tensors.normal(bias, _POSITION_BUCKETS, audio.heads, scale=0.1)
    for number in range(audio.blocks):
        _conformer(tensors, f"{encoder}.encoders.{number}", audio.hidden, audio.linear)
    for projector in ("speech", "vision"):
        tensors.projector(f"{root}.audio_projection.{projector}", sizes.decoder.hidden, audio.hidden)


def _conformer(tensors: RandomTensors, block: str, hidden: int, linear: int) -> None:
    for feed_forward in ("feed_forward_in", "feed_forward_out"):
        tensors.norm(f"{block}.{feed_forward}.layer_norm", hidden)
        tensors.layer(f"{block}.{feed_forward}.net.0.linear", 2 * linear, hidden)
        tensors.layer(f"{block}.{feed_forward}.net.2", hidden, linear)
    for projection in ("linear_q", "linear_k", "linear_v", "linear_out"):
        tensors.layer(f"{block}.self_attn.{projection}", hidden, hidden)
    tensors.norm(f"{block}.conv.layer_norm", hidden)
    for bias in ("b1", "b2"):
        tensors.constant(f"{block}.conv.glu.{bias}", 1, hidden, 1, value=0.0)
    tensors.layer(f"{block}.conv.glu.ext_pw_conv_1d", 2 * hidden, hidden, 1)
    tensors.layer(f"{block}.conv.ext_pw_conv_1d", hidden, hidden, 1)
    tensors.layer(f"{block}.conv.dw_sep_conv_1d.dw_conv", hidden, 1, 3)
    tensors.layer(f"{block}.conv.dw_sep_conv_1d.pw_conv", hidden, hidden, 1)
    for norm in ("layer_norm_att", "layer_norm"):
        tensors.norm(f"{block}.{norm}", hidden)
