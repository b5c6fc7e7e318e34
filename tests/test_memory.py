"""What the model needs on a card, against published sizes and a measured engine; what is said when it does not fit."""

from __future__ import annotations

from dataclasses import replace

import pytest

from worker.engines.gpu import Card
from worker.engines.memory import GIB, NotEnoughMemory, Shape, check, longest, need

PHI4 = Shape()
#: As the tiny checkpoint of the tests has them.
TINY = {
    "hidden_size": 128,
    "intermediate_size": 256,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "vocab_size": 200_064,
    "tie_word_embeddings": True,
    "vision_lora": {"r": 256},
    "speech_lora": {"r": 320},
    "audio_processor": {
        "name": "cascades",
        "config": {
            "attention_dim": 64,
            "linear_units": 64,
            "num_blocks": 2,
            "input_size": 80,
            "nemo_conv_settings": {"conv_channels": 64},
        },
    },
}


def card(gb: float, *, free: float | None = None, index: int = 0) -> Card:
    """A card that shows this much memory, by default almost all of it free."""
    return Card(
        index, f"GPU-{index}", "NVIDIA L4", "580.65.06", int(gb * GIB), int((gb * 0.99 if free is None else free) * GIB)
    )


def refusal(*cards: Card, max_model_len: int = 16_384, tensor_parallel: int = 1, shape: Shape = PHI4) -> str:
    """What is said about cards that do not carry the model: one line."""
    with pytest.raises(NotEnoughMemory) as refused:
        check(shape, cards, max_model_len=max_model_len, tensor_parallel=tensor_parallel)
    assert "\n" not in str(refused.value)
    return str(refused.value)


def test_the_parameters_add_up_to_the_published_sizes() -> None:
    """3.836 B in the decoder; 5.57 B with encoders, both adapters, and the last tower layer that vLLM leaves out."""
    assert PHI4.decoder_parameters == pytest.approx(3.836e9, rel=0.001)
    assert PHI4.adapter_parameters() * 2 == pytest.approx(922_782_296, rel=0.0001)  # the speech adapter's file
    assert replace(PHI4, adapter_rank=256).adapter_parameters() == pytest.approx(369.1e6, rel=0.001)
    adapters = PHI4.adapter_parameters() * (1 + 256 / 320)
    in_vllm = PHI4.decoder_parameters + PHI4.vision_tower_parameters + PHI4.whole_parameters
    assert in_vllm + adapters == pytest.approx(5.574e9, rel=0.01)


def test_a_token_takes_128_kib_and_two_adapter_slots_take_1_85_gb() -> None:
    """The two figures that decide on long contexts and small cards."""
    wanted = need(PHI4, max_model_len=16_384)

    assert wanted.kv_cache == 16_384 * 128 * 1024
    assert wanted.adapters == pytest.approx(1.85e9, rel=0.01)
    assert wanted.total == wanted.weights + wanted.adapters + wanted.kv_cache + wanted.reserve


def test_the_reserve_covers_what_an_engine_was_seen_to_take() -> None:
    """vLLM 0.26 had 939,690 tokens of KV cache left on an H200 of which it claimed 90 %; so many must be in the sum."""
    claimed = int(139.8 * GIB * 0.9)
    left = claimed - need(PHI4, max_model_len=16_384).total + 16_384 * PHI4.kv_bytes_a_token()

    assert 0.98 * 939_690 < left / PHI4.kv_bytes_a_token() < 939_690


def test_more_requests_longer_contexts_and_fewer_cards_need_more() -> None:
    """Requests and tokens weigh alike; an fp8 cache takes half; cards share all but encoders and working memory."""
    one = need(PHI4, max_model_len=16_384)

    assert need(PHI4, max_model_len=8_192, sequences=2).total == one.total
    assert need(PHI4, max_model_len=16_384, kv_item_bytes=1).kv_cache * 2 == one.kv_cache
    for size in (2, 4, 8):
        split = need(PHI4, max_model_len=16_384, tensor_parallel=size)
        assert split.kv_cache * size == one.kv_cache
        assert one.total / size < split.total < one.total
        assert split.reserve == one.reserve


def test_a_token_that_begins_a_block_takes_the_whole_block() -> None:
    """vLLM gives out the KV cache in blocks of 16 tokens."""
    assert need(PHI4, max_model_len=1_025).kv_cache == need(PHI4, max_model_len=1_040).kv_cache


def test_sizes_come_from_the_checkpoint() -> None:
    """The tiny checkpoint's figures are its own, what it does not say is as in Microsoft's."""
    tiny = Shape.of(TINY)

    assert tiny.decoder_parameters == 200_064 * 128 + 128 + 2 * (128 * 256 + 128 * 128 + 3 * 128 * 256 + 2 * 128)
    assert tiny.kv_bytes_a_token() == 2 * 2 * 2 * 32 * 2
    assert tiny.whole_parameters < 1e6
    assert Shape.of({}) == PHI4
    assert Shape.of({"hidden_size": None, "audio_processor": [], "vision_lora": {"r": 512}}) == replace(
        PHI4, adapter_rank=512
    )


def test_an_output_embedding_of_its_own_counts() -> None:
    """Untied embeddings are two matrices."""
    untied = Shape.of({"tie_word_embeddings": False})

    assert untied.decoder_parameters - PHI4.decoder_parameters == 200_064 * 3_072


@pytest.mark.parametrize(("gb", "length"), [(10, 0), (14, 4_096), (16, 16_384), (24, 65_536), (40, 131_072)])
def test_the_longest_context_of_a_card_is_a_round_number(gb: int, length: int) -> None:
    """The advice is one that fits, and the next one would not."""
    budget = int(gb * GIB * 0.9)

    assert longest(PHI4, budget) == length
    if length:
        assert need(PHI4, max_model_len=length).total <= budget
    if length < 131_072:
        assert need(PHI4, max_model_len=max(4_096, length * 2)).total > budget


@pytest.mark.parametrize("gb", [16, 24, 48, 80, 141])
def test_a_card_that_carries_the_model_passes(gb: int) -> None:
    """The default context length fits on 16 GB and more."""
    check(PHI4, [card(gb)], max_model_len=16_384)


def test_a_context_too_long_for_the_card_is_told_with_both_ways_out() -> None:
    """The sentence holds what is needed, what there is, and what to set instead of a CUDA trace."""
    assert refusal(card(22.5), max_model_len=131_072) == (
        "PHI4_MAX_MODEL_LEN=131072 needs 28.0 GB (weights 8.8, adapters 1.7, KV cache 16.0, working 1.5), but "
        "GPU 0 (NVIDIA L4) gives 20.7 of its 22.5 GB: set PHI4_MAX_MODEL_LEN=65536, or TENSOR_PARALLEL_SIZE=2 with 2 "
        "such GPUs."
    )


def test_what_the_advice_says_is_enough() -> None:
    """Whoever follows it gets past the check."""
    small, context = card(15), 65_536
    told = refusal(small, max_model_len=context)
    length = int(told.partition("PHI4_MAX_MODEL_LEN=")[2].partition("set PHI4_MAX_MODEL_LEN=")[2].partition(",")[0])
    size = int(told.partition("TENSOR_PARALLEL_SIZE=")[2].partition(" ")[0])

    check(PHI4, [small], max_model_len=length)
    check(PHI4, [card(15, index=n) for n in range(size)], max_model_len=context, tensor_parallel=size)


def test_a_card_that_is_too_small_whatever_is_set_is_told_the_size_it_takes() -> None:
    """No setting helps 2 GB."""
    assert refusal(card(2)).endswith("gives 1.8 of its 2.0 GB: it takes a GPU of 13.6 GB at least.")


def test_the_smallest_of_several_cards_decides() -> None:
    """Tensor parallelism gives each card the same share."""
    told = refusal(card(24), card(8, index=1), max_model_len=131_072, tensor_parallel=2)

    assert "on each of 2 GPUs" in told
    assert "GPU 1 (NVIDIA L4) gives 7.4 of its 8.0 GB" in told


def test_a_card_that_others_use_is_told_before_vllm_refuses_it() -> None:
    """vLLM does not start when less is free than the share it claims; a smaller one is told where it is enough."""
    little = refusal(card(24, free=5))
    enough = refusal(card(24, free=20))

    assert "has 5.0 of 24.0 GB free, less than the 92% that vLLM claims" in little
    assert "CUDA_VISIBLE_DEVICES" in little
    assert "gpu-memory-utilization" not in little
    assert enough.endswith("or set PHI4_EXTRA_SERVE_ARGS='--gpu-memory-utilization 0.81'.")
    check(PHI4, [card(24, free=20)], max_model_len=16_384, utilization=0.81)


def test_cards_beyond_those_that_are_used_do_not_matter() -> None:
    """One full card behind the one in use is nobody's business."""
    check(PHI4, [card(24), card(24, free=0, index=1)], max_model_len=16_384)


def test_more_cards_asked_for_than_there_are_is_told() -> None:
    """The number that is possible is in the sentence."""
    told = refusal(card(24), card(24, index=1), card(24, index=2), tensor_parallel=4)

    assert told == (
        "TENSOR_PARALLEL_SIZE=4 needs as many GPUs, but only 3 can be seen: set TENSOR_PARALLEL_SIZE=2, or correct "
        "CUDA_VISIBLE_DEVICES."
    )


@pytest.mark.parametrize("size", [3, 5, 6, 7])
def test_a_split_that_does_not_divide_the_heads_is_refused_on_any_machine(size: int) -> None:
    """Also where no card can be measured."""
    assert refusal(tensor_parallel=size) == (
        f"TENSOR_PARALLEL_SIZE={size} does not divide this model's 24 heads and 8 KV heads: "
        "set it to one of 1, 2, 4, 8."
    )


def test_without_a_card_to_measure_nothing_is_refused() -> None:
    """vLLM's CPU build takes its memory from the machine, and says itself when there is none."""
    check(PHI4, [], max_model_len=131_072)
    check(Shape.of(TINY), [], max_model_len=4_096, tensor_parallel=4)
