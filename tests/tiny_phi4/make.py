"""Writes a checkpoint, tiny or of full size: `python -m tests.tiny_phi4.make FOLDER [--full-size [--weights]]`."""

from __future__ import annotations

import argparse
import json
import shutil
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from tests.tiny_phi4.config import GENERATION, adapter_config, model_config, processor_config
from tests.tiny_phi4.sizes import FULL, TINY, Sizes
from tests.tiny_phi4.tokenizer import write_tokenizer
from tests.tiny_phi4.weights import Tensors, adapter_weights, model_weights

REMOTE_CODE = Path(__file__).parent / "remote_code"


def make_tiny(folder: Path, *, seed: int = 0, sizes: Sizes = TINY) -> Path:
    """Write a checkpoint that vLLM loads with `trust_remote_code`; 26 MB, some tenths of a second. Returns `folder`."""
    _write_without_weights(folder, seed, sizes)
    write_tensors(folder / "model.safetensors", model_weights(sizes, seed))
    return folder


def make_full_size(folder: Path, *, seed: int = 0) -> Path:
    """Write a checkpoint of the published sizes for `load_format=dummy`: adapters, but no weights (1.7 GB)."""
    _write_without_weights(folder, seed, FULL)
    return folder


def make_with_weights(folder: Path, *, seed: int = 0) -> Path:
    """Write a checkpoint of the published sizes with calm random weights (13 GB); takes 45 GB of memory."""
    _write_without_weights(folder, seed, FULL)
    write_tensors(folder / "model.safetensors", model_weights(FULL, seed, calm=True))
    return folder


def _write_without_weights(folder: Path, seed: int, sizes: Sizes) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / "config.json", model_config(sizes))
    write_json(folder / "generation_config.json", GENERATION)
    write_json(folder / "preprocessor_config.json", processor_config(sizes))
    write_tokenizer(folder, all_ids=sizes is FULL, processor_class="Phi4MMProcessor")
    for name in ("configuration_phi4mm.py", "processing_phi4mm.py", "crops_phi4mm.py"):
        shutil.copy(REMOTE_CODE / name, folder)
    write_adapters(folder, sizes, seed)


def write_adapters(folder: Path, sizes: Sizes, seed: int) -> None:
    """Write vision-lora/ and speech-lora/."""
    for number, (name, rank) in enumerate(sizes.ranks.items(), start=1):
        adapter = folder / f"{name}-lora"
        adapter.mkdir(exist_ok=True)
        write_json(adapter / "adapter_config.json", adapter_config(rank))
        write_tensors(adapter / "adapter_model.safetensors", adapter_weights(sizes.decoder, rank, seed + number))


def write_tensors(file: Path, tensors: Tensors) -> None:
    """Write weights in the published precision."""
    save_file({name: tensor.to(torch.bfloat16) for name, tensor in tensors.items()}, file, metadata={"format": "pt"})


def write_json(file: Path, content: dict[str, Any]) -> None:
    """Write a JSON file."""
    file.write_text(json.dumps(content, indent=1))


def main() -> None:
    """Make what the command line asks for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--full-size", action="store_true", help="the published sizes, without weights")
    parser.add_argument("--weights", action="store_true", help="with --full-size: with random weights")
    parser.add_argument("--seed", type=int, default=0)
    asked = parser.parse_args()
    full_size = make_with_weights if asked.weights else make_full_size
    make = full_size if asked.full_size else make_tiny
    print(make(asked.folder, seed=asked.seed))


if __name__ == "__main__":
    main()
