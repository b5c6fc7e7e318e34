"""Finds the model's files: in a folder of the operator's, or from the Hugging Face Hub at one commit.

vLLM runs Python code that lies beside the weights (`trust_remote_code`). From the Hub it comes at the commit that
PHI4_MODEL_REVISION names and no other; in a folder it is whatever the operator put there, who thereby trusts it.
"""

from __future__ import annotations

import errno
import json
import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from phi4.errors import EngineUnavailable
from phi4.settings import MICROSOFTS_MODEL, PINNED_REVISION

ADAPTERS = ("vision-lora", "speech-lora")
#: What a download of Microsoft's model at the pinned commit takes, with both adapters.
DOWNLOAD_BYTES = 12_830_000_000
#: Weights, adapters, settings, tokenizer and the processor's code; not the figures and examples beside them.
_WANTED_FILES = ("*.json", "*.txt", "*.py", "*.safetensors")
_NEEDED_FILES = ("config.json", "preprocessor_config.json", "tokenizer.json", "tokenizer_config.json")
_INDEX = "model.safetensors.index.json"
_COMMIT = re.compile(r"[0-9a-f]{40}")
_HUB_ID = re.compile(r"[\w.-]+/[\w.-]+", re.ASCII)
_LFS_POINTER = b"version https://git-lfs"
_NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


class ModelFilesMissing(EngineUnavailable):
    """The model's files are not there, or not all of them."""


def locate(
    model_id: str, revision: str, token: str, *, stage: Callable[[str], None], needs_weights: bool = True
) -> Path:
    """Give the folder with the model's files, downloading them when they are neither in a folder nor in the cache.

    `stage("downloading")` is called before a download. `needs_weights` is False for vLLM's `load_format="dummy"`; the
    adapters are needed always. Raises `ModelFilesMissing` with one sentence that says what to do.
    """
    folder = local_folder(model_id)
    if folder is None:
        check_source(model_id, revision)
        folder = cached(model_id, revision)
        if folder is None or any(problems(folder, needs_weights=needs_weights)):
            stage("downloading")
            folder = _download(model_id, revision, token)
    if found := list(problems(folder, needs_weights=needs_weights)):
        more = f", and {len(found) - 1} more like this" if len(found) > 1 else ""
        raise ModelFilesMissing(f"The model in {folder} (PHI4_MODEL_ID={model_id}) cannot be used: {found[0]}{more}.")
    return folder


def local_folder(model_id: str) -> Path | None:
    """Give the folder that PHI4_MODEL_ID means, whether it exists or not; None when it is an id on the Hub."""
    folder = Path(model_id).expanduser()
    is_folder = folder.is_absolute() or model_id.startswith(".") or folder.is_dir()
    return folder.absolute() if is_folder else None


def check_source(model_id: str, revision: str) -> None:
    """Raise `ModelFilesMissing` unless this is a model on the Hub at a commit that was chosen for it."""
    if not _HUB_ID.fullmatch(model_id):
        raise ModelFilesMissing(
            f"PHI4_MODEL_ID={model_id} is neither a folder here nor an id on the Hugging Face Hub, "
            f"such as {MICROSOFTS_MODEL}."
        )
    if not _COMMIT.fullmatch(revision):
        raise ModelFilesMissing(
            f"PHI4_MODEL_REVISION={revision} is no full commit (40 hexadecimal digits); a branch or tag may move, and "
            f"code from there is run."
        )
    if revision == PINNED_REVISION and model_id != MICROSOFTS_MODEL:
        raise ModelFilesMissing(
            f"PHI4_MODEL_ID={model_id} is not Microsoft's model: set PHI4_MODEL_REVISION to the commit of that "
            f"repository whose code you trust, for it will be run."
        )


def cached(model_id: str, revision: str) -> Path | None:
    """Find the commit's folder in the cache of huggingface_hub, asking no network; None also without that library.

    A folder that the library knows to be incomplete is not found; one copied here without its notes may be.
    """
    try:
        from huggingface_hub import snapshot_download
    except ImportError:
        return None
    try:
        patterns = list(_WANTED_FILES)
        return Path(snapshot_download(model_id, revision=revision, allow_patterns=patterns, local_files_only=True))
    except (OSError, ValueError):  # not there, or no id at all
        return None


def cache_folder() -> Path | None:
    """Say where downloads are kept; None without huggingface_hub, which comes with vLLM."""
    try:
        from huggingface_hub import constants
    except ImportError:
        return None
    return Path(constants.HF_HUB_CACHE)


def is_offline() -> bool:
    """Say whether HF_HUB_OFFLINE forbids downloads."""
    try:
        from huggingface_hub import constants
    except ImportError:
        return False
    return bool(constants.HF_HUB_OFFLINE)


def known_config(model_id: str, revision: str) -> Mapping[str, Any]:
    """Read config.json where the model's files are here already, else give {}; raises `ModelFilesMissing`."""
    folder = local_folder(model_id) or cached(model_id, revision)
    return {} if folder is None else read_config(folder)


def read_config(folder: Path) -> Mapping[str, Any]:
    """Read config.json; raises `ModelFilesMissing`."""
    try:
        config = json.loads((folder / "config.json").read_bytes())
    except (OSError, ValueError) as error:
        raise ModelFilesMissing(f"{folder / 'config.json'} cannot be read: {error}.") from error
    if not isinstance(config, dict):
        raise ModelFilesMissing(f"{folder / 'config.json'} is not a JSON object.")
    return config


def problems(folder: Path, *, needs_weights: bool = True) -> Iterator[str]:
    """Say, each without a full stop, what keeps this folder from being a model that the service can load."""
    if not folder.is_dir():
        yield "there is no such folder"
        return
    try:
        needed = [*_NEEDED_FILES, *_code_files(folder), *(_weight_files(folder) if needs_weights else ())]
    except ModelFilesMissing as error:
        yield str(error).rstrip(".")
        return
    for adapter in ADAPTERS:
        needed += [f"{adapter}/adapter_config.json", f"{adapter}/adapter_model.safetensors"]
    for name in needed:
        if problem := file_problem(folder / name):
            yield f"{name} {problem}"


def file_problem(file: Path) -> str:
    """Say what is wrong with a file; '' when nothing is."""
    try:
        with file.open("rb") as opened:
            start = opened.read(len(_LFS_POINTER))
            if start == _LFS_POINTER:
                return "is a Git LFS pointer and not the file itself (git lfs pull gets it)"
            if file.suffix != ".safetensors":
                return "" if start else "is empty"
            opened.seek(0)
            header_size = int.from_bytes(opened.read(8), "little")
            if header_size > file.stat().st_size:
                return "is cut off"
            header = json.loads(opened.read(header_size))
    except FileNotFoundError:
        return "is missing"
    except OSError as error:
        return f"cannot be read ({error.strerror})"
    except ValueError:
        return "is no safetensors file"
    return _cut_off(header, file.stat().st_size - 8 - header_size)


def _cut_off(header: Any, data_size: int) -> str:
    """Compare where the last tensor ends with what is there: copies of large files are often cut short."""
    try:
        end = max((tensor["data_offsets"][1] for name, tensor in header.items() if name != "__metadata__"), default=0)
    except (AttributeError, KeyError, TypeError, IndexError):
        return "is no safetensors file"
    return "" if data_size >= end else f"is cut off: {end - data_size} bytes are missing"


def _weight_files(folder: Path) -> list[str]:
    """List the files with weights that belong to the model."""
    try:
        index = json.loads((folder / _INDEX).read_bytes())
        return sorted(set(index["weight_map"].values()))
    except FileNotFoundError:
        return ["model.safetensors"]
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ModelFilesMissing(f"{_INDEX} cannot be read: {error}") from error


def _code_files(folder: Path) -> list[str]:
    """List the modules that the settings beside the weights tell transformers to run."""
    modules = set()
    for name in ("config.json", "preprocessor_config.json"):
        try:
            named = json.loads((folder / name).read_bytes()).get("auto_map", {})
        except FileNotFoundError:
            continue
        except (OSError, ValueError, AttributeError) as error:
            raise ModelFilesMissing(f"{name} cannot be read: {error}") from error
        for place in named.values() if isinstance(named, dict) else ():
            if "--" in str(place):
                raise ModelFilesMissing(
                    f"its {name} takes code from another repository ({place}), pinned to no commit: copy that .py file "
                    f'into the folder and remove "{str(place).partition("--")[0]}--"'
                )
            # One of Microsoft's entries names a repository instead of a class, and is never used.
            if re.fullmatch(r"\w+\.\w+", str(place)):
                modules.add(f"{str(place).partition('.')[0]}.py")
    return sorted(modules)


def _download(model_id: str, revision: str, token: str) -> Path:
    try:
        from huggingface_hub import snapshot_download
    except ImportError as error:
        raise ModelFilesMissing(
            f"{model_id} cannot be downloaded without the package huggingface_hub, which comes with vLLM; "
            f"or set PHI4_MODEL_ID to a folder that holds the model."
        ) from error
    try:
        return Path(
            snapshot_download(model_id, revision=revision, token=token or None, allow_patterns=list(_WANTED_FILES))
        )
    except Exception as error:  # the library lets errors of its HTTP client and of its transfer program through
        why = _why(error, revision, token)
        raise ModelFilesMissing(
            f"{model_id} could not be downloaded into {cache_folder()} (HF_HOME moves it): {why}; HF_TOKEN is "
            f"{'set' if token else 'not set'}; a machine without a network takes a folder, PHI4_MODEL_ID=/models/phi-4."
        ) from None


def _why(error: Exception, revision: str, token: str) -> str:
    from huggingface_hub import constants, errors

    # What the Hub said is the cause of "not in the cache" where the library looked there as well.
    refusal = error.__cause__ if isinstance(error, errors.LocalEntryNotFoundError) and error.__cause__ else error
    status = getattr(getattr(refusal, "response", None), "status_code", None)
    text = " ".join(str(refusal).split())
    if isinstance(refusal, errors.RevisionNotFoundError):
        return f"it has no commit {revision}, correct PHI4_MODEL_REVISION"
    if isinstance(refusal, errors.GatedRepoError) or status == 403:
        return f"{constants.ENDPOINT} refuses access, set HF_TOKEN to one of an account that may read it"
    if isinstance(refusal, errors.RepositoryNotFoundError) or status == 401:
        return f"{constants.ENDPOINT} has no such model or does not show it, correct PHI4_MODEL_ID or HF_TOKEN"
    if (isinstance(refusal, OSError) and refusal.errno in _NO_ROOM) or "No space left" in text:
        return f"there is no room for its {DOWNLOAD_BYTES / 1e9:.0f} GB"
    if constants.HF_HUB_OFFLINE:
        return "HF_HUB_OFFLINE forbids it, and it is not in the cache"
    for word in token.split():  # a token that fits into no header is quoted in the error
        text = text.replace(word, "…")
    return f"{constants.ENDPOINT} does not answer as it should ({type(refusal).__name__}: {text[:160]})"
