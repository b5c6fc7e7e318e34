"""Alerts and dashboard name only figures that the running service serves; the alerts fire when they should."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families

from cli.embedded import free_port
from tests.conftest import ROOT, Service, eventually
from tests.promql import figures
from tests.vllm_figures import VLLM_FIGURES

DEPLOY = ROOT / "deploy"
ALERTS: list[dict[str, Any]] = yaml.safe_load((DEPLOY / "alerts.yml").read_text())["groups"][0]["rules"]
DASHBOARD: dict[str, Any] = json.loads((DEPLOY / "grafana" / "dashboards" / "phi4.json").read_text())
#: What Prometheus itself makes.
ITS_OWN = {"up", "ALERTS"}


def shown() -> list[str]:
    """Every expression of the dashboard."""
    panels = [t["expr"] for p in DASHBOARD["panels"] for t in p.get("targets", [])]
    return panels + [a["expr"] for a in DASHBOARD["annotations"]["list"]]


def served_by(port: int | str) -> set[str]:
    """The figures that a process serves, also those without a value yet."""
    text = httpx.get(f"http://127.0.0.1:{port}/metrics").raise_for_status().text
    found = {sample.name for family in text_string_to_metric_families(text) for sample in family.samples}
    for name, kind in re.findall(r"^# TYPE (\S+) (\w+)$", text, re.MULTILINE):
        found |= {name} | ({f"{name}_{part}" for part in ("bucket", "sum", "count")} if kind == "histogram" else set())
    return found


@pytest.fixture(scope="module")
def served(service: Service) -> Iterator[set[str]]:
    """What the API and workers of both roles serve."""
    ports = {role: str(free_port()) for role in ("side", "infer")}
    for role, port in ports.items():
        engine = {"PHI4_ENGINE": "tests.engines:Scripted"}
        service.start(f"watched-{role}", "worker", role, PHI4_METRICS_PORT=port, **engine)
    try:
        for port in ports.values():
            eventually(lambda port=port: _answers(port), seconds=60, what="a worker's figures")
        yield set().union(*map(served_by, (service.env["PHI4_METRICS_PORT"], *ports.values())))
    finally:
        for role in ports:
            process = service.processes.pop(f"watched-{role}")
            process.terminate()
            process.wait(30)


def _answers(port: str) -> bool:
    try:
        return bool(served_by(port))
    except httpx.TransportError:
        return False


def test_every_figure_that_is_named_is_served(served: set[str]) -> None:
    """By the API, a worker, vLLM (tests/test_vllm_worker.py looks at its own) or Prometheus."""
    named = set[str]().union(*(figures(e) for e in [*shown(), *(rule["expr"] for rule in ALERTS)]))

    assert len(named) > 20
    assert named - served - VLLM_FIGURES - ITS_OWN == set()
    assert named >= VLLM_FIGURES, "and no figure of vLLM is checked that nobody reads"


def test_what_is_misspelled_would_be_found(served: set[str]) -> None:
    """The check above can fail."""
    assert figures("sum(rate(phi4_jobs_endet_total[5m])) > 1") - served == {"phi4_jobs_endet_total"}
    with pytest.raises(ValueError, match="parenthesis"):
        figures("sum(rate(phi4_jobs_ended_total[5m])")


def test_every_alert_says_what_it_means_and_how_bad_it_is() -> None:
    """A person reads it at night."""
    assert len({rule["alert"] for rule in ALERTS}) == len(ALERTS)
    for rule in ALERTS:
        assert rule["labels"]["severity"] in ("warning", "critical")
        assert rule["annotations"]["summary"]
        assert rule["annotations"]["description"].endswith(".")


def test_alerts_name_only_settings_that_exist() -> None:
    """In what they advise."""
    from phi4.settings import Settings, variable_of

    advised = set(re.findall(r"PHI4_\w+", (DEPLOY / "alerts.yml").read_text()))
    assert advised <= {variable_of(name) for name in Settings.model_fields}


def test_panels_fill_rows_without_overlapping() -> None:
    """Six rows under a line of single figures, each panel with a title of its own and a sentence."""
    taken: set[tuple[int, int]] = set()
    for panel in DASHBOARD["panels"]:
        box = panel["gridPos"]
        cells = {(x, y) for x in range(box["x"], box["x"] + box["w"]) for y in range(box["y"], box["y"] + box["h"])}
        assert not cells & taken, panel["title"]
        taken |= cells
        assert panel["type"] == "row" or panel["description"]
    width, height = {x for x, _ in taken}, {y for _, y in taken}
    assert len(taken) == len(width) * len(height) == 24 * len(height), "no holes"
    rows = [p["title"] for p in DASHBOARD["panels"] if p["type"] == "row"]
    assert rows == ["Traffic", "Queue", "Latency by type", "Workers and engines", "Webhooks", "Redis"]


def test_prometheus_loads_the_alerts_where_compose_puts_them() -> None:
    """The path in its settings is the path of the mount."""
    settings = yaml.safe_load((DEPLOY / "prometheus.yml").read_text())
    volumes = yaml.safe_load((ROOT / "docker-compose.yml").read_text())["services"]["prometheus"]["volumes"]

    assert [f"./deploy/alerts.yml:{path}:ro" for path in settings["rule_files"]] == [
        v for v in volumes if "alerts" in v
    ]


@pytest.fixture
def promtool() -> str:
    """Prometheus' own checker."""
    return shutil.which("promtool") or pytest.skip("promtool (package prometheus) is not installed")


def test_alerts_fire_when_they_should_and_not_before(promtool: str, tmp_path: Path) -> None:
    """As Prometheus itself works them out, in tests/alerts.yml."""
    cases = tmp_path / "alerts.yml"
    cases.write_text((ROOT / "tests" / "alerts.yml").read_text().replace("ALERTS]", f"{DEPLOY / 'alerts.yml'}]", 1))
    ran = subprocess.run([promtool, "test", "rules", str(cases)], capture_output=True, text=True, timeout=60)

    assert ran.returncode == 0, ran.stdout + ran.stderr


def test_prometheus_takes_its_settings(promtool: str, tmp_path: Path) -> None:
    """With the alerts at the place of the mount."""
    for name in ("prometheus.yml", "alerts.yml"):
        (tmp_path / name).write_text((DEPLOY / name).read_text().replace("/etc/prometheus/", f"{tmp_path}/"))
    command = [promtool, "check", "config", str(tmp_path / "prometheus.yml")]
    ran = subprocess.run(command, capture_output=True, text=True, timeout=60)

    assert ran.returncode == 0, ran.stdout + ran.stderr
