"""Downloading the model with the real huggingface_hub, from a small hub on loopback."""

from __future__ import annotations

import hashlib
import json
import resource
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.checkpoints import model_files, write_model
from tests.servers import Reply, Request, Web, web

pytest.importorskip("huggingface_hub", reason="it is installed beside vLLM; `make test` runs this file in .venv-vllm")

ROOT = Path(__file__).parent.parent
MODEL, COMMIT = "someone/phi-4-tuned", "0123456789abcdef0123456789abcdef01234567"
TOKEN = "hf_s3cret"
# The library reads its variables when it is imported, hence a process for each case; between its tries it would sleep
# for half a minute.
SCRIPT = """
import sys, time
time.sleep = lambda _: None
from worker.engines.checkpoint import ModelFilesMissing, locate
stages = []
try:
    folder = locate(*sys.argv[1:4], stage=stages.append)
except ModelFilesMissing as error:
    print("refused", stages, error)
else:
    print("found", stages, folder)
"""


class Hub:
    """Answers as the Hub does for one model."""

    def __init__(self) -> None:
        self.files = model_files() | {"figures/results.png": b"not needed", "README.md": b"# not needed"}
        self.refusal: Reply | None = None

    def answer(self, request: Request) -> Reply:
        """Answer the listings and the files of one commit, or what was told to be said instead."""
        if self.refusal is not None:
            return self.refusal
        path = request.path.partition("?")[0]
        if path == f"/api/models/{MODEL}/tree/{COMMIT}":
            return Reply(body=json.dumps([_entry(name, content) for name, content in self.files.items()]).encode())
        if path == f"/api/models/{MODEL}/revision/{COMMIT}":
            siblings = [{"rfilename": name} for name in self.files]
            return Reply(body=json.dumps({"id": MODEL, "sha": COMMIT, "siblings": siblings}).encode())
        name = path.removeprefix(f"/{MODEL}/resolve/{COMMIT}/")
        if name in self.files:
            etag = hashlib.sha1(self.files[name]).hexdigest()
            return Reply(body=self.files[name], headers={"ETag": f'"{etag}"', "X-Repo-Commit": COMMIT})
        return Reply(404, headers={"X-Error-Code": "RevisionNotFound"})


def _entry(name: str, content: bytes) -> dict[str, object]:
    return {"type": "file", "path": name, "size": len(content), "oid": hashlib.sha1(content).hexdigest()}


@dataclass
class Machine:
    """A machine with an empty cache that knows this hub alone."""

    cache: Path
    hub: Hub
    served: Web

    def locate(self, *, token: str = TOKEN, largest_file: int | None = None, **env: str) -> str:
        """Ask for the model in a new process; gives what was found or said."""

        def limit() -> None:
            if largest_file is not None:
                resource.setrlimit(resource.RLIMIT_FSIZE, (largest_file, largest_file))

        ours = {"HF_ENDPOINT": self.served.url, "HF_HOME": str(self.cache), "HF_HUB_DISABLE_XET": "1", "PATH": ""}
        done = subprocess.run(
            [sys.executable, "-c", SCRIPT, MODEL, COMMIT, token],
            env={**ours, "HOME": str(self.cache), "PYTHONPATH": str(ROOT), **env},
            capture_output=True,
            text=True,
            timeout=60,
            preexec_fn=limit,
        )
        assert done.returncode == 0, done.stderr
        assert TOKEN not in done.stdout
        return done.stdout.strip()


@pytest.fixture
def machine(tmp_path: Path) -> Iterator[Machine]:
    """A machine beside a hub that has the model."""
    with web() as served:
        hub = Hub()
        served.answer = hub.answer
        yield Machine(tmp_path / "cache", hub, served)


def test_the_model_is_downloaded_once_with_the_token_and_without_its_pictures(machine: Machine) -> None:
    """The second start finds it in the cache and asks the hub nothing, also where that is out of reach."""
    folder = machine.cache / "hub" / "models--someone--phi-4-tuned" / "snapshots" / COMMIT

    assert machine.locate() == f"found ['downloading'] {folder}"
    assert {str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file()} == set(model_files())
    asked_for_it = [request for request in machine.served.seen if MODEL in request.path]
    assert {request.headers.get("authorization") for request in asked_for_it} == {f"Bearer {TOKEN}"}

    asked = len(machine.served.seen)
    assert machine.locate(HF_ENDPOINT="http://127.0.0.1:1") == f"found [] {folder}"
    assert len(machine.served.seen) == asked


@pytest.mark.parametrize("name", ["vision-lora/adapter_model.safetensors", "special_tokens_map.json"])
def test_a_download_that_broke_off_is_completed(machine: Machine, name: str) -> None:
    """A file missing in the cache is fetched, also one without which the model would load."""
    machine.locate()
    folder = machine.cache / "hub" / "models--someone--phi-4-tuned" / "snapshots" / COMMIT
    (folder / name).unlink()

    assert machine.locate() == f"found ['downloading'] {folder}"
    assert (folder / name).exists()


def test_a_model_without_an_adapter_is_refused_with_the_files_name(machine: Machine) -> None:
    """A repository that lacks what the service needs is told as a folder is."""
    del machine.hub.files["speech-lora/adapter_config.json"]

    told = machine.locate()

    assert told.startswith("refused ['downloading'] The model in ")
    assert told.endswith("cannot be used: speech-lora/adapter_config.json is missing.")


@pytest.mark.parametrize(
    ("refusal", "told"),
    [
        (Reply(401), "has no such model or does not show it, correct PHI4_MODEL_ID or HF_TOKEN"),
        (Reply(403), "refuses access, set HF_TOKEN"),
        (Reply(403, headers={"X-Error-Code": "GatedRepo"}), "refuses access, set HF_TOKEN"),
        (Reply(404, headers={"X-Error-Code": "RepoNotFound"}), "correct PHI4_MODEL_ID"),
        (Reply(404, headers={"X-Error-Code": "RevisionNotFound"}), f"no commit {COMMIT}, correct PHI4_MODEL_REVISION"),
        (Reply(418), "does not answer as it should"),
        (Reply(200, b"<h1>Please log in to this network</h1>"), "does not answer as it should"),
    ],
)
def test_what_the_hub_refuses_is_one_sentence_that_says_what_to_do(machine: Machine, refusal: Reply, told: str) -> None:
    """It names the model, the token's variable, the cache folder, and the way without a network."""
    machine.hub.refusal = refusal

    said = machine.locate()

    assert told in said
    assert_helps(machine, said)


def test_without_a_network_the_sentence_names_the_way_round(machine: Machine) -> None:
    """A closed port stands for a network without the Hub."""
    said = machine.locate(HF_ENDPOINT="http://127.0.0.1:1")

    assert "http://127.0.0.1:1 does not answer as it should (ConnectError: " in said
    assert_helps(machine, said)


def test_an_offline_library_is_told(machine: Machine) -> None:
    """HF_HUB_OFFLINE forbids the download, and the sentence says that it is set."""
    said = machine.locate(token="", HF_HUB_OFFLINE="1")

    assert "HF_HUB_OFFLINE forbids it" in said
    assert "HF_TOKEN is not set" in said
    assert_helps(machine, said)


def test_a_file_that_the_disk_does_not_take_is_told_as_missing_room(machine: Machine) -> None:
    """A limit on the size of files stands for the full disk: the same kind of error."""
    machine.hub.files["model-00001-of-00002.safetensors"] += bytes(300_000)

    said = machine.locate(largest_file=200_000)

    assert "there is no room for its 13 GB" in said
    assert_helps(machine, said)


def test_a_cache_folder_that_cannot_be_written_is_named(machine: Machine) -> None:
    """A file lies where the folder would be."""
    machine.cache.write_text("")

    said = machine.locate()

    assert "Errno" in said
    assert_helps(machine, said)


def test_a_token_that_no_header_can_hold_is_not_shown(machine: Machine) -> None:
    """The library's own message quotes it."""
    said = machine.locate(token=f"{TOKEN}\n")

    assert_helps(machine, said)


@pytest.mark.parametrize(
    ("made_in_cache", "offline", "verdicts", "said"),
    [
        # A disk without room for it makes it "not ok".
        (
            False,
            "0",
            ("ok", "not ok"),
            "downloads microsoft/Phi-4-multimodal-instruct, about 12.8 GB, into ",
        ),
        (False, "1", ("not ok",), "HF_HUB_OFFLINE is set"),
        (True, "1", ("ok",), "microsoft/Phi-4-multimodal-instruct is in the cache, complete"),
    ],
)
def test_doctor_tells_a_model_in_the_cache_from_one_to_be_downloaded(
    tmp_path: Path, made_in_cache: bool, offline: str, verdicts: tuple[str, ...], said: str
) -> None:
    """What will be downloaded is told with its size and place."""
    if made_in_cache:
        model = "models--microsoft--Phi-4-multimodal-instruct"
        write_model(tmp_path / "hub" / model / "snapshots" / "33e62acdd07cd7d6635badd529aa0a3467bb9c6a")
    env = {"PATH": "", "HOME": str(tmp_path), "HF_HOME": str(tmp_path), "HF_HUB_OFFLINE": offline, "PORT": "0"}

    done = subprocess.run(
        [sys.executable, "-c", "from cli.main import app; app()", "doctor"],
        env=env | {"PHI4_ENGINE": "vllm", "PHI4_DATA_DIR": str(tmp_path)},
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
    )

    (line,) = [line for line in done.stdout.splitlines() if "model files: " in line]
    assert line.partition("  ")[0] in verdicts
    assert said in line


def assert_helps(machine: Machine, said: str) -> None:
    """One line that names what was tried, the token's variable, the cache, and the way without a network."""
    assert said.startswith(f"refused ['downloading'] {MODEL} could not be downloaded into {machine.cache}/hub ")
    assert said.endswith("; a machine without a network takes a folder, PHI4_MODEL_ID=/models/phi-4.")
    assert "HF_TOKEN is " in said
    assert "HF_HOME" in said
    assert "\n" not in said
