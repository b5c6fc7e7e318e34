"""The model's files in a folder of the operator's: what is missing or broken is named before an engine starts."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from phi4.settings import MICROSOFTS_MODEL, PINNED_REVISION
from tests.checkpoints import safetensors, write_model
from worker.engines.checkpoint import ModelFilesMissing, check_source, local_folder, locate, read_config

COMMIT = "0123456789abcdef0123456789abcdef01234567"


def refuse_download(stage: str) -> None:
    """A folder is never downloaded."""
    raise AssertionError(stage)


def sentence(model_id: str | Path, revision: str = PINNED_REVISION) -> str:
    """What is said about a model that cannot be used: one line, one sentence."""
    with pytest.raises(ModelFilesMissing) as refused:
        locate(str(model_id), revision, "", stage=refuse_download)
    told = str(refused.value)
    assert told.endswith(".")
    assert "\n" not in told
    return told


def test_a_complete_folder_is_taken_without_any_network(tmp_path: Path) -> None:
    """An air-gapped machine needs no token, no revision and no package to download with."""
    folder = write_model(tmp_path / "phi-4")

    assert locate(str(folder), "anything", "", stage=refuse_download) == folder


def test_a_model_in_one_file_needs_no_index(tmp_path: Path) -> None:
    """Small models are not cut into several files."""
    folder = write_model(tmp_path)
    (folder / "model.safetensors.index.json").unlink()
    (folder / "model.safetensors").write_bytes(safetensors())

    assert locate(str(folder), "", "", stage=refuse_download) == folder


def test_weights_may_be_missing_where_random_ones_are_made(tmp_path: Path) -> None:
    """`load_format="dummy"` needs all but the weights of the base model."""
    folder = write_model(tmp_path)
    for shard in folder.glob("model-*"):
        shard.unlink()

    assert locate(str(folder), "", "", stage=refuse_download, needs_weights=False) == folder
    assert "model-00001-of-00002.safetensors is missing, and 1 more like this." in sentence(folder)


@pytest.mark.parametrize(
    "name",
    [
        "config.json",
        "preprocessor_config.json",
        "tokenizer.json",
        "tokenizer_config.json",
        "configuration_phi4mm.py",
        "processing_phi4mm.py",
        "model-00002-of-00002.safetensors",
        "vision-lora/adapter_config.json",
        "vision-lora/adapter_model.safetensors",
        "speech-lora/adapter_config.json",
        "speech-lora/adapter_model.safetensors",
    ],
)
def test_a_missing_file_is_named_with_its_folder(tmp_path: Path, name: str) -> None:
    """The sentence holds the folder, the variable, and the file."""
    folder = write_model(tmp_path)
    (folder / name).unlink()

    assert sentence(folder) == (f"The model in {folder} (PHI4_MODEL_ID={folder}) cannot be used: {name} is missing.")


@pytest.mark.parametrize(
    ("name", "content", "told"),
    [
        ("tokenizer.json", b"", "is empty"),
        (
            "model-00001-of-00002.safetensors",
            b"version https://git-lfs.github.com/spec/v1\noid",
            "is a Git LFS pointer",
        ),
        ("model-00001-of-00002.safetensors", safetensors(900)[:-300], "is cut off: 300 bytes are missing"),
        ("vision-lora/adapter_model.safetensors", safetensors()[:30], "is cut off"),
        ("speech-lora/adapter_model.safetensors", b"", "is no safetensors file"),
        ("speech-lora/adapter_model.safetensors", bytes(64), "is no safetensors file"),
        ("speech-lora/adapter_model.safetensors", (2).to_bytes(8, "little") + b"[]", "is no safetensors file"),
        ("config.json", b"{", "config.json cannot be read"),
        ("preprocessor_config.json", b"[]", "preprocessor_config.json cannot be read"),
        ("model.safetensors.index.json", b"{}", "model.safetensors.index.json cannot be read"),
    ],
)
def test_a_broken_file_is_named(tmp_path: Path, name: str, content: bytes, told: str) -> None:
    """Copies of large files are cut short and clones bring pointers; both are found without reading the whole file."""
    folder = write_model(tmp_path)
    (folder / name).write_bytes(content)

    assert name in sentence(folder)
    assert told in sentence(folder)


def test_code_of_another_repository_is_refused(tmp_path: Path) -> None:
    """Only code that lies in the folder is run, for nobody pinned the other to a commit."""
    folder = write_model(tmp_path)
    elsewhere = {"auto_map": {"AutoConfig": "microsoft/Phi-4-multimodal-instruct--configuration_phi4mm.Phi4MMConfig"}}
    (folder / "config.json").write_text(json.dumps(elsewhere))

    assert "takes code from another repository" in sentence(folder)


@pytest.mark.parametrize("model_id", ["/models/phi-4", "./phi-4", "~/phi-4-is-not-here"])
def test_a_folder_that_is_not_there_is_not_looked_for_on_the_hub(model_id: str) -> None:
    """What is written as a path is one."""
    assert "there is no such folder" in sentence(model_id)


def test_a_file_in_place_of_the_folder_is_told(tmp_path: Path) -> None:
    """A path to a file is no model."""
    (tmp_path / "weights.gguf").write_bytes(b"x")

    assert "there is no such folder" in sentence(tmp_path / "weights.gguf")


def test_a_relative_folder_that_exists_is_meant(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As everywhere else where a model is named; an id on the Hub is not a folder."""
    monkeypatch.chdir(tmp_path)
    write_model(tmp_path / "models" / "phi-4")

    assert local_folder("models/phi-4") == tmp_path / "models" / "phi-4"
    assert local_folder(MICROSOFTS_MODEL) is None


@pytest.mark.parametrize(
    ("model_id", "revision", "told"),
    [
        ("phi-4", COMMIT, "PHI4_MODEL_ID=phi-4 is neither a folder here nor an id"),
        ("https://huggingface.co/microsoft/phi", COMMIT, "is neither a folder here nor an id"),
        ("someone/phi-4-tuned", PINNED_REVISION, "is not Microsoft's model: set PHI4_MODEL_REVISION"),
        (MICROSOFTS_MODEL, "main", "PHI4_MODEL_REVISION=main is no full commit"),
        (MICROSOFTS_MODEL, COMMIT[:12], "is no full commit"),
    ],
)
def test_code_is_run_from_a_chosen_commit_only(model_id: str, revision: str, told: str) -> None:
    """A branch can move, and another's model at Microsoft's commit was chosen by nobody."""
    assert told in sentence(model_id, revision)


def test_another_model_at_its_own_commit_is_accepted() -> None:
    """Who sets the commit has chosen the code."""
    check_source("someone/phi-4-tuned", COMMIT)
    check_source(MICROSOFTS_MODEL, PINNED_REVISION)


@pytest.mark.parametrize("content", [None, b"\xff", b"[]"])
def test_a_config_that_cannot_be_read_is_named(tmp_path: Path, content: bytes | None) -> None:
    """The file's path is in the sentence."""
    if content is not None:
        (tmp_path / "config.json").write_bytes(content)
    with pytest.raises(ModelFilesMissing, match=str(tmp_path / "config.json")):
        read_config(tmp_path)
