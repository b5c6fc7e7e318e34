"""/openapi.json describes exactly what there is, and /docs shows it without help from outside."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from api.app import create_app
from api.schemas import JobRequest
from phi4.settings import load
from tests.conftest import Service
from tests.scripted_jobs import prompted, running

#: Pages for people; they describe the API and are not part of it.
UNDESCRIBED = {"/", "/console/{version_asked}/{name}", "/openapi.json", "/docs", "/docs/{name}"}


@pytest.fixture(scope="module")
def document(service: Service) -> dict[str, Any]:
    """The description."""
    response = service.http.get("/openapi.json")
    assert (response.status_code, response.headers["Content-Type"]) == (200, "application/json")
    return dict(response.json())


def walk(node: Any) -> Iterator[dict[str, Any]]:
    """Every object in a document."""
    if isinstance(node, dict):
        yield node
    for child in node.values() if isinstance(node, dict) else node if isinstance(node, list) else ():
        yield from walk(child)


def operations(document: dict[str, Any]) -> Iterator[tuple[str, str, dict[str, Any]]]:
    """Every path, method and what is said of it."""
    for path, item in document["paths"].items():
        for method, operation in item.items():
            yield path, method.upper(), operation


def fits(document: dict[str, Any], name: str, value: Any) -> None:
    """Check a value against a schema of the document."""
    Draft202012Validator(document | {"$ref": f"#/components/schemas/{name}"}).validate(value)


@pytest.mark.parametrize(
    ("schema", "body"),
    [
        ("JobRequest", {"type": "ocr", "input": {"url": "https://example.com/a.png"}}),
        ("JobRequest", {"type": "ocr", "input": [{"file_id": "file_1"}], "webhook_events": "job.completed"}),
        ("ChatParams", {"messages": [{"role": "user", "content": "hi"}]}),
        ("ChatRequest", {"model": "m", "messages": [{"role": "user", "content": "hi", "name": "bob"}], "stop": "x"}),
        (
            "ChatRequest",
            {
                "model": "m",
                "messages": [{"role": "user", "content": [{"type": "image_url", "image_url": "https://a.com/"}]}],
            },
        ),
        (
            "ChatRequest",
            {
                "model": "m",
                "messages": [{"role": "user", "content": [{"type": "text", "text": "a", "cache_control": {}}]}],
            },
        ),
        ("OcrRequest", {"pages": [0, 2], "document": {"type": "document_url", "document_url": "https://a.com/"}}),
        ("OcrRequest", {"pages": "0-5", "document": {"type": "image_url", "image_url": {"url": "https://a.com/"}}}),
    ],
)
def test_what_routes_take_is_allowed_by_their_schemas(document: dict[str, Any], schema: str, body: Any) -> None:
    """Every form that the docs show: a generated client must be able to send it."""
    fits(document, schema, body)


def test_every_route_that_needs_a_key_says_so(document: dict[str, Any]) -> None:
    """Those in the shapes of other APIs too: where there are keys, one without is refused, or sent too often."""
    for path, method, operation in operations(document):
        needs_key = operation["security"] == [{"key": []}]
        assert needs_key == (path.startswith("/v1/")), (method, path)
        if needs_key:
            assert {"401", "403", "429", "503"} <= set(operation["responses"]), (method, path)


def test_every_route_is_described_and_no_other(document: dict[str, Any], valkey: str, tmp_path: Path) -> None:
    """The paths and methods are those of the application."""
    app = create_app(load(redis_url=valkey, data_dir=tmp_path, metrics_port=0))

    routes = {
        (re.sub(r"<(?:[^:<>]*:)?(\w+)>", r"{\1}", rule.rule), method)
        for rule in app.url_map.iter_rules()
        for method in (rule.methods or set()) - {"HEAD", "OPTIONS"}
    }

    assert {(path, method) for path, method in routes if path not in UNDESCRIBED} == {
        (path, method) for path, method, _ in operations(document)
    }
    assert {path for path, _ in routes} >= UNDESCRIBED


def test_every_reference_leads_somewhere(document: dict[str, Any]) -> None:
    """No `$ref` dangles, and every schema is used."""
    schemas = document["components"]["schemas"]
    references = {node["$ref"] for node in walk(document) if "$ref" in node}

    assert references - {f"#/components/schemas/{name}" for name in schemas} == set()
    for schema in schemas.values():
        Draft202012Validator.check_schema(schema)


def test_every_path_parameter_is_declared(document: dict[str, Any]) -> None:
    """What stands in braces is a required parameter, and every operation has an answer."""
    for path, method, operation in operations(document):
        declared = {p["name"] for p in operation["parameters"] if p["in"] == "path" and p["required"]}
        assert declared == set(re.findall(r"{(\w+)}", path)), (method, path)
        assert any(status.startswith("2") for status in operation["responses"]), (method, path)


def test_every_operation_stands_under_a_heading(document: dict[str, Any]) -> None:
    """One of those that the document describes, and none of these is empty."""
    used = {tag for _, _, operation in operations(document) for tag in operation["tags"]}

    assert used == {tag["name"] for tag in document["tags"]}
    assert all(len(operation["tags"]) == 1 for _, _, operation in operations(document))


def test_the_form_has_every_field_of_the_json(document: dict[str, Any]) -> None:
    """Whatever JSON can ask for, a form can ask for too."""
    form = document["components"]["schemas"]["Form"]["properties"]

    assert form.keys() == JobRequest.model_fields.keys() | {"file"}


@pytest.mark.parametrize("words", ["read", "cannot", "sleep 60"])
def test_real_jobs_fit_their_description(service: Service, document: dict[str, Any], words: str) -> None:
    """A job's answer, and its place in a list, have no field that is not described."""
    job_id = prompted(service, words)
    job = service.job(running(service, job_id)) if words.startswith("sleep") else service.ended(job_id)
    listed = service.http.get("/v1/jobs").json()
    service.http.delete(f"/v1/jobs/{job_id}")

    fits(document, "Job", job)
    fits(document, "JobList", listed)
    assert job.keys() <= document["components"]["schemas"]["Job"]["properties"].keys()


def test_a_real_problem_fits_its_description(service: Service, document: dict[str, Any]) -> None:
    """Errors are as described."""
    problem = service.http.post("/v1/jobs", json={"type": "ocr", "x": 1}).json()

    fits(document, "Problem", problem)
    assert problem.keys() <= document["components"]["schemas"]["Problem"]["properties"].keys()


def test_the_page_runs_its_own_script_and_no_other(service: Service) -> None:
    """Each answer has a nonce of its own, which its policy names and its scripts carry."""
    pages = [service.http.get("/docs") for _ in range(2)]

    nonces = []
    for page in pages:
        policy = page.headers["Content-Security-Policy"]
        (nonce,) = re.findall(r"script-src 'nonce-([\w-]{16,})'", policy)
        scripts = re.findall(r"<script[^>]*>", page.text)
        assert scripts
        assert all(f'nonce="{nonce}"' in script for script in scripts)
        assert "default-src 'self'" in policy
        assert "unsafe-eval" not in policy
        nonces.append(nonce)
    assert len(set(nonces)) == 2


def test_the_page_needs_nothing_from_elsewhere(service: Service) -> None:
    """What the page loads comes from this service, with the right type."""
    page = service.http.get("/docs").text
    addresses = re.findall(r'(?:src|href|url)(?:=|: )"([^"]+)"', page)

    addresses.remove("./")  # the way back to the console
    assert "openapi.json" in addresses
    assert len(addresses) == 4
    for address in addresses:
        answer = service.http.get(f"/{address}")
        assert answer.status_code == 200, address
        expected = {"css": "text/css", "js": "javascript", "png": "image/png", "json": "application/json"}
        assert expected[address.rsplit(".", 1)[1]] in answer.headers["Content-Type"]


@pytest.mark.parametrize("name", ["index.html", "../openapi.py", "%2e%2e/docs.py", "swagger-ui.css/x"])
def test_the_page_serves_its_own_files_only(service: Service, name: str) -> None:
    """There is no way from the page's folder to any other file."""
    assert service.http.get(f"/docs/{name}").status_code == 404
