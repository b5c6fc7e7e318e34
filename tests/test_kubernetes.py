"""deploy/kubernetes: objects that Kubernetes' own schemas take, that fit each other, and that name real settings."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml

from phi4.settings import Settings, load, variable_of
from tests.conftest import ROOT
from tests.promql import figures

FOLDER = ROOT / "deploy" / "kubernetes"
VERSIONS = ("1.31", "1.37")
#: Read by others than the service: the AWS client, glibc, and Valkey.
OF_OTHERS = {
    *("AWS_DEFAULT_REGION", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"),
    *("MALLOC_ARENA_MAX", "REDIS_PASSWORD", "REDISCLI_AUTH"),
}
SETTINGS = {variable_of(name) for name in Settings.model_fields}
Object = dict[str, Any]


def read(path: Path) -> list[Object]:
    """The objects of a file."""
    return [o for o in yaml.safe_load_all(path.read_text()) if o]


BASE = [o for path in sorted((FOLDER / "base").glob("*.yaml")) for o in read(path) if o["kind"] != "Kustomization"]
CPU = [o for path in sorted((FOLDER / "cpu").glob("worker-*.yaml")) for o in read(path)]
KEDA = [o for o in BASE if o["apiVersion"].startswith("keda.sh/")]
RUNNING = {o["metadata"]["name"]: o for o in BASE + CPU if o["kind"] in ("Deployment", "StatefulSet")}
OURS = {name: o for name, o in RUNNING.items() if name != "redis"}
NAME = "app.kubernetes.io/name"


def pod(running: Object) -> Object:
    """What its pods are."""
    return dict(running["spec"]["template"]["spec"])


def container(running: Object) -> Object:
    """The one container of its pods."""
    (only,) = pod(running)["containers"]
    return dict(only)


def rendered(folder: str) -> list[Object]:
    """What kustomize makes of a folder; skips without it."""
    command = _kustomize()
    ran = subprocess.run([*command, str(FOLDER / folder)], capture_output=True, text=True, timeout=60)
    assert ran.returncode == 0, ran.stderr
    return [o for o in yaml.safe_load_all(ran.stdout) if o]


def _kustomize() -> list[str]:
    if kubectl := shutil.which("kubectl"):
        return [kubectl, "kustomize"]
    if kustomize := shutil.which("kustomize"):
        return [kustomize, "build"]
    pytest.skip("neither kubectl nor kustomize is installed")


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize(
    "described", [o for o in BASE + CPU if o not in KEDA], ids=lambda o: f"{o['kind']}-{o['metadata']['name']}"
)
def test_every_object_fits_the_schema(described: Object, version: str) -> None:
    """Strictly: an unknown field is a mistake."""
    kubernetes_validate.validate(described, version, strict=True)


def test_a_wrong_field_would_be_found() -> None:
    """The check above can fail."""
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(RUNNING["api"] | {"spec": {"replica": 1}}, VERSIONS[0], strict=True)


def test_every_file_is_used() -> None:
    """The kustomizations name them all."""
    for folder in ("base", "cpu"):
        (kustomization,) = read(FOLDER / folder / "kustomization.yaml")
        files = {p.name for p in (FOLDER / folder).glob("*.yaml")} - {"kustomization.yaml"}
        assert {r for r in kustomization["resources"] if r.endswith(".yaml")} == files


def test_every_variable_is_a_setting() -> None:
    """In the settings' map, in containers, and in the README; and those that the settings check are taken."""
    (kustomization,) = read(FOLDER / "base" / "kustomization.yaml")
    literals = dict(line.split("=", 1) for line in kustomization["configMapGenerator"][0]["literals"])
    in_containers = {e["name"]: e.get("value", "") for o in RUNNING.values() for e in container(o).get("env", [])}
    in_readme = set(re.findall(r"--from-literal=([A-Z0-9_]+)=", (FOLDER / "README.md").read_text()))

    assert set(literals) | set(in_containers) | in_readme <= SETTINGS | OF_OTHERS
    assert {"REDIS_URL", "REDIS_PASSWORD", "PHI4_WEBHOOK_SECRET"} <= in_readme
    fields = {variable_of(name): name for name in Settings.model_fields}
    given = {fields[name]: value for name, value in (literals | in_containers).items() if name in fields}
    assert load(**given).drain_seconds == 60


def test_who_selects_selects_somebody() -> None:
    """Services, budgets, network policies and scalers name pods that there are."""
    labels = {name: o["spec"]["template"]["metadata"]["labels"][NAME] for name, o in RUNNING.items()}
    assert labels == {name: name for name in RUNNING}
    for name, o in RUNNING.items():
        assert o["spec"]["selector"]["matchLabels"] == {NAME: name}
    named = re.findall(rf"{NAME}: ([a-z-]+)", "".join(p.read_text() for p in (FOLDER / "base").glob("*.yaml")))
    listed = re.findall(r"values: \[(.*)\]", (FOLDER / "base" / "network.yaml").read_text())
    assert set(named) | {n.strip() for line in listed for n in line.split(",")} <= set(RUNNING)
    assert {n.strip() for line in listed for n in line.split(",")} == set(OURS), "each of ours may reach Redis"
    budgets = {o["metadata"]["name"] for o in BASE if o["kind"] == "PodDisruptionBudget"}
    assert budgets == set(OURS) - {"worker-cpu"}


@pytest.mark.parametrize("name", OURS)
def test_pods_may_do_no_more_than_they_need(name: str) -> None:
    """No root, no privileges, no token, a root file system that is not written."""
    spec, only = pod(OURS[name]), container(OURS[name])

    assert spec["automountServiceAccountToken"] is False
    assert spec["enableServiceLinks"] is False, "or a service called x would set X_PORT"
    assert (spec["securityContext"]["runAsNonRoot"], spec["securityContext"]["runAsUser"]) == (True, 10001)
    assert only["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    assert only["resources"]["limits"]["memory"]
    mounted = {m["name"] for m in only["volumeMounts"]}
    claims = OURS[name]["spec"].get("volumeClaimTemplates", [])
    assert mounted == {v["name"] for v in spec["volumes"]} | {c["metadata"]["name"] for c in claims}


@pytest.mark.parametrize("name", OURS)
def test_pods_end_in_their_own_time(name: str) -> None:
    """The grace is longer than the drain; the API waits until nobody sends it requests any more."""
    grace, only = pod(OURS[name])["terminationGracePeriodSeconds"], container(OURS[name])
    if name == "api":
        assert only["lifecycle"]["preStop"]["exec"]["command"] == ["sleep", "5"]
        assert grace > 5 + 30
    else:
        assert grace > load().drain_seconds


@pytest.mark.parametrize("name", OURS)
def test_probes_ask_what_they_should(name: str) -> None:
    """No worker is killed because Redis is away, and the API takes jobs while no engine is ready."""
    only = container(OURS[name])
    if name == "api":
        asked = {only[f"{kind}Probe"]["httpGet"]["path"] for kind in ("startup", "readiness", "liveness")}
        assert asked == {"/livez"}
        return
    assert "livenessProbe" not in only
    assert only["readinessProbe"]["exec"]["command"] == ["python", "-m", "worker", "healthy"]
    startup = only["startupProbe"]
    assert startup["periodSeconds"] * startup["failureThreshold"] >= (2_700 if name == "worker-gpu" else 180)


def test_the_gpu_worker_gets_what_it_needs() -> None:
    """A GPU for each rank, shared memory, and a disk of its own for the model."""
    worker = OURS["worker-gpu"]
    only = container(worker)
    ranks = next(e["value"] for e in only["env"] if e["name"] == "TENSOR_PARALLEL_SIZE")

    assert only["resources"]["limits"]["nvidia.com/gpu"] == only["resources"]["requests"]["nvidia.com/gpu"] == ranks
    assert {"name": "shm", "mountPath": "/dev/shm"} in only["volumeMounts"]
    assert {"name": "models", "mountPath": "/models"} in only["volumeMounts"]
    assert worker["spec"]["volumeClaimTemplates"][0]["metadata"]["name"] == "models"


def test_images_and_roles_are_those_of_compose() -> None:
    """The same names and commands, and the same Valkey and promises, a password in place of its protected mode."""
    services = yaml.safe_load((ROOT / "docker-compose.yml").read_text())["services"]
    there = {name: (s["image"], s.get("command")) for name, s in services.items() if name in OURS}
    here = {name: (container(o)["image"], container(o).get("args")) for name, o in OURS.items()}

    assert here == there
    valkey = container(RUNNING["redis"])
    assert valkey["image"] == services["valkey"]["image"]
    assert set(services["valkey"]["command"]) - {"--protected-mode", "no"} <= set(valkey["args"])
    assert "--requirepass" in valkey["args"]


def test_scaling_follows_the_age_of_the_queues() -> None:
    """Each scaler has a target that there is, and asks for a figure that the API serves."""
    for scaler in KEDA:
        target = scaler["spec"]["scaleTargetRef"]
        running = RUNNING[target["name"]]
        assert (target["kind"], target["apiVersion"]) == (running["kind"], running["apiVersion"])
        assert running["spec"]["replicas"] >= scaler["spec"]["minReplicaCount"] >= 1
        (trigger,) = scaler["spec"]["triggers"]
        assert trigger["type"] == "prometheus"
        assert figures(trigger["metadata"]["query"]) == {"phi4_queue_age_seconds"}
        assert float(trigger["metadata"]["threshold"]) > 0


@pytest.mark.parametrize(("folder", "engines"), [("base", {"worker-gpu"}), ("cpu", {"worker-cpu"})])
def test_kustomize_makes_one_kind_of_engine(folder: str, engines: set[str]) -> None:
    """And what it makes fits the schemas too, with the settings' map under its generated name."""
    made = rendered(folder)
    names = {o["metadata"]["name"] for o in made if o["kind"] in ("Deployment", "StatefulSet")}
    (settings,) = (o for o in made if o["kind"] == "ConfigMap")

    assert names == {"api", "redis", "worker-side"} | engines
    assert {o["metadata"]["namespace"] for o in made} == {"phi4"}
    for described in made:
        if not described["apiVersion"].startswith("keda.sh/"):
            kubernetes_validate.validate(described, VERSIONS[0], strict=True)
    for name in names - {"redis"}:
        (running,) = (o for o in made if o["metadata"]["name"] == name and o["kind"] in ("Deployment", "StatefulSet"))
        assert container(running)["envFrom"][0] == {"configMapRef": {"name": settings["metadata"]["name"]}}
