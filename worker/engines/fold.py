"""Folds an adapter into the model's weights, W + α/r · B · A, for a worker that serves one modality.

Applied at run time, an adapter of rank 256 costs a third of the engine's speed. The folded model is made once, one file
of weights after the other (as much memory as the largest takes, 5 GB), and kept under a name that says what it is.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import logging
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from phi4.errors import EngineUnavailable
from phi4.log import log
from worker.engines.checkpoint import file_problem
from worker.engines.serve_args import adapter_folder

_log = logging.getLogger(__name__)
_PREFIX = "base_model.model."
#: As the names of Microsoft's files have them, and as others do.
_WEIGHT_NAMES = (".base_layer.weight", ".weight")
_WEIGHTS = "*.safetensors"
_INDEX = "model.safetensors.index.json"
_COPIED = (".json", ".py", ".txt")
#: Written last: a folder without it was not finished.
_MARK = "folded.json"
#: Held while a folder is written; one whose lock is free was left by a process that was killed.
_LOCK = ".lock"
#: Raised when folding gives other files than before, so that what is kept is made anew.
_VERSION = 1


class CannotFold(EngineUnavailable):
    """The adapter does not fit the model, or the folded model cannot be written."""


@dataclass(frozen=True, slots=True)
class _Adapter:
    """Low-rank changes by the name of the layer they belong to."""

    scale: float
    down: Mapping[str, Any]
    up: Mapping[str, Any]

    def change(self, layer: str) -> Any:
        """α/r · B · A, in single precision."""
        return self.scale * (self.up[layer].float() @ self.down[layer].float())


def folded(checkpoint: Path, adapter: str, spare: Path, stage: Callable[[str], None]) -> Path:
    """Give the folder of the model with an adapter folded in, making it when it is not there, out of date or damaged.

    It lies beside the model, or in `spare` where nothing can be written there. Raises `CannotFold`.
    """
    kept = beside(checkpoint, adapter, spare)
    if _is_whole(kept, checkpoint):
        return kept
    stage("folding")
    log(_log, "folding an adapter into the weights", adapter=adapter, folder=str(kept))
    try:
        kept.parent.mkdir(parents=True, exist_ok=True)
        _remove_left(kept.parent, f".{checkpoint.name}-with-{adapter}-")
        if _is_whole(kept, checkpoint):  # another worker was faster: removing may have taken long
            return kept
        shutil.rmtree(kept, ignore_errors=True)
        with _unfinished(kept) as unfinished:
            _write(checkpoint, adapter, unfinished)
            _sync(unfinished)
            unfinished.chmod(0o755)
            try:
                unfinished.rename(kept)
            except OSError:
                if not _is_whole(kept, checkpoint):  # else another worker was faster
                    raise
        _remove_earlier(kept, checkpoint)
    except OSError as error:
        raise CannotFold(
            f"The model with its {adapter} adapter folded in cannot be written to {kept}: {error.strerror or error}. "
            f"It needs as much room as the model; PHI4_SERVE=all needs none."
        ) from error
    return kept


def beside(checkpoint: Path, adapter: str, spare: Path) -> Path:
    """Where a folded model is kept; the name changes with the model and with the adapter."""
    folder = checkpoint.parent if os.access(checkpoint.parent, os.W_OK) else spare
    return folder / f"{checkpoint.name}-with-{adapter}-{_fingerprint(checkpoint, adapter)}"


def _fingerprint(checkpoint: Path, adapter: str) -> str:
    """Tell one state of the files from another by size and time: reading 12 GB at every start would take a minute."""
    files = [*checkpoint.glob(_WEIGHTS), *_copied(checkpoint), *adapter_folder(checkpoint, adapter).iterdir()]
    told = sorted((str(f.relative_to(checkpoint)), f.stat().st_size, f.stat().st_mtime_ns) for f in files)
    return hashlib.sha256(json.dumps([_VERSION, told]).encode()).hexdigest()[:12]


def _copied(checkpoint: Path) -> list[Path]:
    """Settings, tokenizer and code, which vLLM needs beside the weights; the index names files that get other sizes."""
    return [f for f in checkpoint.iterdir() if f.is_file() and f.suffix in _COPIED and f.name != _INDEX]


def _is_whole(kept: Path, checkpoint: Path) -> bool:
    """Say whether a folded model was finished and still has all its weights; their headers and sizes are looked at."""
    names = [file.name for file in checkpoint.glob(_WEIGHTS)]
    return (kept / _MARK).exists() and not any(file_problem(kept / name) for name in names)


@contextmanager
def _unfinished(kept: Path) -> Iterator[Path]:
    """A folder to write in, beside the one that is kept; it is gone afterwards, renamed or not."""
    with tempfile.TemporaryDirectory(dir=kept.parent, prefix=f".{kept.name}-") as name:
        new = Path(name) / f"{_LOCK}.new"
        with new.open("w") as lock:
            with suppress(OSError):  # a file system without locks; there nobody can lock it to remove it either
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            new.rename(new.with_name(_LOCK))  # under this name it is never seen unlocked while its owner lives
            yield Path(name)


def _remove_left(folder: Path, prefix: str) -> None:
    """Remove what killed processes left: each as large as the model."""
    for left in [path for path in folder.iterdir() if path.name.startswith(prefix)]:
        with suppress(OSError), (left / _LOCK).open("r+") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(left)


def _remove_earlier(kept: Path, checkpoint: Path) -> None:
    """Remove what was folded of this model before its files changed: each as large as the model, and of no more use."""
    name = kept.name.rpartition("-")[0]
    for earlier in [path for path in kept.parent.iterdir() if path.name.rpartition("-")[0] == name and path != kept]:
        with suppress(OSError, ValueError, KeyError):
            if json.loads((earlier / _MARK).read_text())["checkpoint"] == str(checkpoint):
                shutil.rmtree(earlier)


def _sync(folder: Path) -> None:
    """Wait for the disk: after a power cut the mark must not be there without the weights."""
    for path in folder.iterdir():
        with path.open("rb") as file:
            os.fsync(file.fileno())


def _write(checkpoint: Path, adapter: str, folder: Path) -> None:
    change = _read(adapter_folder(checkpoint, adapter))
    left = set(change.up)
    for file in sorted(checkpoint.glob(_WEIGHTS)):
        left -= _fold_file(file, folder / file.name, change)
    if left:
        raise CannotFold(f"The {adapter} adapter changes {sorted(left)[0]}, of which {checkpoint} has no weights.")
    for source in _copied(checkpoint):
        shutil.copyfile(source, folder / source.name)
    (folder / _MARK).write_text(json.dumps({"checkpoint": str(checkpoint), "adapter": adapter}))


def _read(folder: Path) -> _Adapter:
    config = json.loads((folder / "adapter_config.json").read_text())
    down: dict[str, Any] = {}
    up: dict[str, Any] = {}
    for name, tensor in _tensors(folder / "adapter_model.safetensors"):
        layer, _, kind = name.removeprefix(_PREFIX).rpartition(".lora_")
        {"A.weight": down, "B.weight": up}.get(kind, {})[layer] = tensor
    if not up or up.keys() != down.keys():
        raise CannotFold(f"{folder} has not both halves of each change, lora_A and lora_B.")
    return _Adapter(config["lora_alpha"] / config["r"], down, up)


def _fold_file(source: Path, target: Path, adapter: _Adapter) -> set[str]:
    """Write one file of weights with the changes that belong there; returns the layers that were changed."""
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    changed, tensors = set(), {}
    for name, tensor in _tensors(source):
        if ".lora_" in name:
            continue  # Microsoft's files hold both adapters once more; vLLM skips them too
        layer = next((name.removesuffix(end) for end in _WEIGHT_NAMES if name.endswith(end)), "")
        if layer in adapter.up:
            tensor = (tensor.float() + adapter.change(layer)).to(tensor.dtype)
            changed.add(layer)
        tensors[name] = tensor
    try:
        save_file(tensors, target, metadata={"format": "pt"})
    except SafetensorError as error:  # what it says of a full disk
        raise OSError(str(error)) from error
    return changed


def _tensors(file: Path) -> Iterator[tuple[str, Any]]:
    from safetensors import safe_open

    with safe_open(file, framework="pt") as opened:
        for name in opened.keys():  # noqa: SIM118 - it is no dict
            yield name, opened.get_tensor(name)
