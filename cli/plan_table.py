"""The tables of `phi4 plan`: context length, memory, and which common GPUs have it."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Sequence
from typing import Any

from cli import show
from phi4.settings import Settings
from worker.engines.gpu import Card
from worker.engines.memory import (
    GIB,
    RESERVE,
    UTILIZATION,
    Need,
    NotEnoughMemory,
    Shape,
    check,
    gb,
    longest,
    need,
)
from worker.engines.serve_args import ENOUGH_PROMPTS, MAX_BATCHED_TOKENS, MemoryTerms

_CONTEXTS = (8_192, 16_384, 32_768, 65_536, 131_072)
_CARDS_GB = (16, 24, 40, 48, 80, 96, 141)
#: With error correction on, a card shows a sixteenth less than its name says.
_SHOWN = 15 / 16
#: GB, put down before anything was computed or measured.
_FIRST_ESTIMATES = {8_192: 14, 16_384: 18, 32_768: 26, 131_072: 48}
#: An A4 page at 150 dpi, 3,300 tokens, and a few hundred of text.
_PAGE_TOKENS = 3_600
#: Most parts at once that are advised: on an H200, 160 pages at once were 2 % more a second (bench/NOTES.md).
_MOST_IN_FLIGHT = 96


def rows(shape: Shape, requests: Sequence[int]) -> Iterator[dict[str, Any]]:
    """Give one object for each context, number of requests at once, and way of splitting."""
    for context in _CONTEXTS:
        for at_once in requests:
            for split in shape.parallel_sizes:
                each = need(shape, max_model_len=context, tensor_parallel=split, sequences=at_once)
                yield {
                    "max_model_len": context,
                    "requests": at_once,
                    "tensor_parallel_size": split,
                    "weights_bytes": each.weights,
                    "adapters_bytes": each.adapters,
                    "kv_cache_bytes": each.kv_cache,
                    "working_bytes": each.reserve,
                    "total_bytes": each.total,
                    "gpu_bytes": each.card(),
                    "gpus_gb": [size for size in _CARDS_GB if _carries(size, each)],
                    "first_estimate_gb": _FIRST_ESTIMATES.get(context),
                }


def write(shape: Shape, requests: Sequence[int]) -> None:
    """Write the tables to stdout, for these numbers of requests at once, and why the first estimates were others."""
    base = need(shape, max_model_len=0)
    _write_text(
        f"On one GPU: weights {gb(base.weights)} GB, two adapters {gb(base.adapters)} GB, working memory {gb(RESERVE)} "
        f"GB, KV cache {shape.kv_bytes_a_token() / 1024:g} KiB a token. vLLM claims {UTILIZATION:.0%} of a GPU; the "
        "sizes below are of the whole GPU. GB are 2^30 bytes, as nvidia-smi and the names of GPUs count."
    )
    titles = [title for n in requests for title in (f"{n} AT ONCE, GB", "GPU FROM")]
    show.table(("CONTEXT", *titles, "FIRST ESTIMATE"), [_line(shape, context, requests) for context in _CONTEXTS])
    _write_text(
        "The first estimates count parallel requests in: up to 32,768 they grow by 512 KiB a token, four requests of "
        "full length at once, and by half as much beyond. And they start from 10 GB, while weights, adapters loaded at "
        f"run time, activations and CUDA graphs take {gb(base.total)} GB, which is {gb(base.card())} GB of a GPU. "
        "Requests beyond those that fit do not fail: they wait.",
        f"The same on each of several GPUs, with TENSOR_PARALLEL_SIZE, {requests[-1]} at once:",
    )
    splits = [size for size in shape.parallel_sizes if size > 1]
    show.table(
        ("CONTEXT", *(title for n in splits for title in (f"{n} GPUS, GB", "GPU FROM"))),
        [_split(shape, context, splits, requests[-1]) for context in _CONTEXTS],
    )
    _write_text("Split the model only where one GPU cannot carry it: with a worker on each GPU, both do more work.")


def _write_text(*paragraphs: str) -> None:
    for paragraph in paragraphs:
        show.write(f"\n{textwrap.fill(paragraph, 100)}\n")
    show.write("\n")


def _line(shape: Shape, context: int, requests: Sequence[int]) -> list[str]:
    each = [need(shape, max_model_len=context, sequences=at_once) for at_once in requests]
    estimate = _FIRST_ESTIMATES.get(context)
    cells = [cell for one in each for cell in (gb(one.card()), _smallest(one))]
    return [f"{context:,}", *cells, f"about {estimate} GB" if estimate else ""]


def _split(shape: Shape, context: int, sizes: Sequence[int], at_once: int) -> list[str]:
    each = [need(shape, max_model_len=context, tensor_parallel=size, sequences=at_once) for size in sizes]
    return [f"{context:,}", *(cell for one in each for cell in (gb(one.card()), _smallest(one)))]


def _smallest(each: Need) -> str:
    return next((f"{size} GB" for size in _CARDS_GB if _carries(size, each)), "none")


def _carries(card_gb: int, each: Need) -> bool:
    return card_gb * GIB * _SHOWN >= each.card()


def describe(card: Card, shape: Shape, settings: Settings, requests: Sequence[int]) -> str:
    """Say what a GPU carries at most, and whether it carries what is set."""
    split, length, terms = settings.tensor_parallel_size, settings.max_model_len, MemoryTerms.of(settings)
    budget = int(card.total * terms.utilization)
    counted: dict[str, Any] = {
        "tensor_parallel": split,
        "adapters": terms.adapters,
        "kv_item_bytes": terms.kv_item_bytes,
    }
    lengths = (longest(shape, budget, sequences=at_once, **counted) for at_once in requests)
    told = ", ".join(f"{_length(most)} for {n} at once" for n, most in zip(requests, lengths, strict=True))
    told = f"{card}, {gb(card.total)} GB: longest context {told}."
    try:
        if terms.counts:
            check(shape, [card] * split, max_model_len=length, utilization=terms.utilization, **counted)
    except NotEnoughMemory as error:
        return f"{told}\n{error}"
    each = need(shape, max_model_len=length, **counted)
    at_once = (budget - each.total + each.kv_cache) // each.kv_cache
    pages = at_once * length // _PAGE_TOKENS
    return (
        f"{told}\nPHI4_MAX_MODEL_LEN={length} and TENSOR_PARALLEL_SIZE={split}, as they are set, leave room for "
        f"{at_once} request{'s' * (at_once != 1)} of that length at once, or {pages} A4 pages.\n"
        f"{_scheduling(pages, settings)}"
    )


def _scheduling(pages: int, settings: Settings) -> str:
    """Say how many parts to work on at once, and what is chosen for all cards."""
    best, now = min(_MOST_IN_FLIGHT, max(1, pages)), settings.max_in_flight
    why = "more at once gain little" if pages > best else "no more pages fit at once"
    return (
        f"Scheduling: set PHI4_MAX_IN_FLIGHT={best}{f' (it is {now})' * (now != best)}: {why}. A step computes at most "
        f"{MAX_BATCHED_TOKENS:,} tokens; short prompts enter it up to {ENOUGH_PROMPTS} at a time."
    )


def _length(tokens: int) -> str:
    return f"{tokens:,}" if tokens else "none"
