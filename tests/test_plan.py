"""`phi4 plan`: the table of contexts and GPUs, from the same arithmetic as the worker's own check."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import Result
from typer.testing import CliRunner

from cli.main import app
from tests.checkpoints import write_model
from tests.smi import H200, write_smi
from worker.engines.memory import Shape, need

FIRST_ESTIMATES = {"8,192": "about 14 GB", "16,384": "about 18 GB", "32,768": "about 26 GB", "131,072": "about 48 GB"}


def plan(*arguments: str, **env: str) -> Result:
    """Run the command where neither a GPU nor a setting is."""
    clean: dict[str, str | None] = {"PHI4_MAX_MODEL_LEN": None, "PHI4_MODEL_ID": None, "TENSOR_PARALLEL_SIZE": None}
    clean |= {"CUDA_VISIBLE_DEVICES": None, "PATH": ""}
    return CliRunner().invoke(app, ["plan", *arguments], env=clean | env)


def tables(text: str) -> list[list[list[str]]]:
    """The tables in a text, by row and cell; without a terminal their cells have tabs between them."""
    blocks = [[line.split("\t") for line in block.splitlines() if "\t" in line] for block in text.split("\n\n")]
    return [block for block in blocks if block]


def test_each_context_stands_beside_the_first_estimate() -> None:
    """Memory for one and for four requests, the smallest GPU for each, and what was estimated first."""
    result = plan()

    headers, *rows = tables(result.stdout)[0]
    assert headers == ["CONTEXT", "1 AT ONCE, GB", "GPU FROM", "4 AT ONCE, GB", "GPU FROM", "FIRST ESTIMATE"]
    assert [row[0] for row in rows] == ["8,192", "16,384", "32,768", "65,536", "131,072"]
    assert {row[0]: row[5] for row in rows if row[5]} == FIRST_ESTIMATES
    assert rows[0] == ["8,192", "14.1", "16 GB", "17.4", "24 GB", "about 14 GB"]
    assert rows[4] == ["131,072", "30.4", "40 GB", "82.6", "96 GB", "about 48 GB"]
    assert "four requests of full length at once" in " ".join(result.stdout.split())
    assert (result.exit_code, result.stderr) == (0, "")


def test_splitting_over_gpus_is_shown_for_the_requests_asked_for() -> None:
    """What no single GPU carries may go on several."""
    first, second = tables(plan("--parallel", "16").stdout)

    assert first[-1] == ["131,072", "30.4", "40 GB", "291.3", "none", "about 48 GB"]
    assert second[0] == ["CONTEXT", "2 GPUS, GB", "GPU FROM", "4 GPUS, GB", "GPU FROM", "8 GPUS, GB", "GPU FROM"]
    assert second[-1] == ["131,072", "147.2", "none", "75.2", "96 GB", "39.1", "48 GB"]


def test_one_request_needs_no_second_column() -> None:
    """--parallel 1 asks for what is shown anyway."""
    assert tables(plan("--parallel", "1").stdout)[0][0] == ["CONTEXT", "1 AT ONCE, GB", "GPU FROM", "FIRST ESTIMATE"]


def test_json_holds_the_bytes_by_what_they_are_for() -> None:
    """The figures are those of the worker's own check."""
    rows = json.loads(plan("--json", "--parallel", "3").stdout)["plan"]

    assert len(rows) == 5 * 2 * 4
    (row,) = [r for r in rows if (r["max_model_len"], r["requests"], r["tensor_parallel_size"]) == (32_768, 3, 2)]
    wanted = need(Shape(), max_model_len=32_768, sequences=3, tensor_parallel=2)
    assert (
        row["total_bytes"]
        == wanted.total
        == sum(row[f"{n}_bytes"] for n in ("weights", "adapters", "kv_cache", "working"))
    )
    assert row["gpu_bytes"] == wanted.card()
    assert row["gpus_gb"] == [16, 24, 40, 48, 80, 96, 141]
    assert row["first_estimate_gb"] == 26


@pytest.mark.parametrize(
    ("gb", "env", "told"),
    [
        ("22.5", {}, "longest context 65,536 for 1 at once, 16,384 for 4 at once"),
        ("22.5", {}, "leave room for 4 requests of that length at once, or 18 A4 pages"),
        ("22.5", {}, "set PHI4_MAX_IN_FLIGHT=18 (it is 64): no more pages fit at once"),
        ("132", {"PHI4_MAX_IN_FLIGHT": "96"}, "set PHI4_MAX_IN_FLIGHT=96: more at once gain little"),
        ("15", {"PHI4_MAX_MODEL_LEN": "8192"}, "set PHI4_MAX_IN_FLIGHT=2 (it is 64): no more pages fit"),
        ("15", {}, "set PHI4_MAX_MODEL_LEN=12288, or TENSOR_PARALLEL_SIZE=2 with 2 such GPUs"),
        ("15", {"TENSOR_PARALLEL_SIZE": "2"}, "leave room for 6 requests of that length at once, or 27 A4 pages"),
        ("15", {"PHI4_MAX_MODEL_LEN": "8192"}, "leave room for 1 request of that length at once, or 2 A4 pages"),
        ("2", {}, "longest context none for 1 at once"),
    ],
)
def test_a_gpu_is_held_against_what_is_set(gb: str, env: dict[str, str], told: str) -> None:
    """Its size is given as nvidia-smi would show it."""
    result = plan("--gpu-memory", gb, **env)

    assert told in result.stdout.replace("\n", " ")
    assert result.exit_code == 0


def test_the_gpus_of_this_machine_are_used_where_there_are_any(tmp_path: Path) -> None:
    """Without --gpu-memory nvidia-smi is asked."""
    path = write_smi(tmp_path, H200)

    assert "GPU 0 (NVIDIA H200), 140.4 GB: longest context 131,072 for 1 at once" in plan(PATH=path).stdout
    assert "NVIDIA H200" not in plan("--gpu-memory", "24", PATH=path).stdout


def test_the_sizes_are_those_of_the_model_that_is_set(tmp_path: Path) -> None:
    """Half the layers take half the KV cache."""
    folder = write_model(tmp_path)
    (folder / "config.json").write_text('{"num_hidden_layers": 16}')

    assert "KV cache 64 KiB a token" in plan(PHI4_MODEL_ID=str(folder)).stdout


def test_a_folder_without_a_config_is_told(tmp_path: Path) -> None:
    """One line on stderr, and no table of another model."""
    result = plan(PHI4_MODEL_ID=str(tmp_path))

    assert result.stderr.startswith(f"phi4: {tmp_path}/config.json cannot be read")
    assert (result.stdout, result.exit_code) == ("", 1)


@pytest.mark.parametrize(
    ("arguments", "env"),
    [
        (["--gpu-memory", "nan"], {}),
        (["--gpu-memory", "inf"], {}),
        (["--gpu-memory", "0"], {}),
        (["--gpu-memory", "big"], {}),
        (["--parallel", "0"], {}),
        (["--parallel", "1.5"], {}),
        ([], {"PHI4_MAX_MODEL_LEN": "16k"}),
    ],
)
def test_wrong_usage_is_2_and_says_what_is_wrong(arguments: list[str], env: dict[str, str]) -> None:
    """Nothing is computed from it."""
    result = plan(*arguments, **env)

    assert (result.stdout, result.exit_code) == ("", 2)
    assert (arguments or list(env))[0] in result.stderr
