"""Model folders with the right files and next to nothing in them."""

from __future__ import annotations

import json
from pathlib import Path

CODE = {"AutoProcessor": "processing_phi4mm.Phi4MMProcessor", "AutoTokenizer": "Xenova/gpt-4o"}


def safetensors(values: int = 4) -> bytes:
    """A file with one tensor of that many bytes."""
    header = json.dumps({"t": {"dtype": "U8", "shape": [values], "data_offsets": [0, values]}}).encode()
    return len(header).to_bytes(8, "little") + header + bytes(values)


def model_files() -> dict[str, bytes]:
    """What a complete model consists of, by path."""
    index = {"weight_map": {"a": "model-00001-of-00002.safetensors", "b": "model-00002-of-00002.safetensors"}}
    files = {
        "config.json": json.dumps({"auto_map": {"AutoConfig": "configuration_phi4mm.Phi4MMConfig"}}).encode(),
        "preprocessor_config.json": json.dumps({"auto_map": CODE}).encode(),
        "tokenizer.json": b"{}",
        "tokenizer_config.json": b"{}",
        "special_tokens_map.json": b"{}",
        "model.safetensors.index.json": json.dumps(index).encode(),
        "configuration_phi4mm.py": b"# code\n",
        "processing_phi4mm.py": b"# code\n",
    }
    files |= dict.fromkeys(index["weight_map"].values(), safetensors())
    for adapter in ("vision-lora", "speech-lora"):
        files |= {f"{adapter}/adapter_config.json": b"{}", f"{adapter}/adapter_model.safetensors": safetensors()}
    return files


def write_model(folder: Path) -> Path:
    """Write a complete model into a folder."""
    for name, content in model_files().items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    return folder
