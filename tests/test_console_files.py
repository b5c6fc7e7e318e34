"""The web console's files: what they weigh, how long browsers keep them, and what its policy allows."""

from __future__ import annotations

import re

import pytest

from tests.conftest import ROOT, Service

STATIC = ROOT / "api" / "console" / "static"


def loaded(service: Service) -> dict[str, str]:
    """Address -> content of every file of the console, found from the page and from what it loads."""
    page = service.http.get("/").raise_for_status().text
    found: dict[str, str] = {}
    waiting = re.findall(r'(?:src|href)="(console/[^"]+)"', page)
    while waiting:
        address = waiting.pop()
        if address in found:
            continue
        found[address] = service.http.get(f"/{address}").raise_for_status().text
        folder = address.rpartition("/")[0]
        waiting += [f"{folder}/{name}" for name in re.findall(r'from "\./([\w.]+)"', found[address])]
    return found


def test_the_bare_address_is_the_console(service: Service) -> None:
    """Whoever opens the service in a browser gets the page, which leads to the description of the API too."""
    page = service.http.get("/")

    assert (page.status_code, page.headers["Content-Type"]) == (200, "text/html; charset=utf-8")
    assert 'href="docs"' in page.text
    assert service.http.get("/docs").status_code == 200


def test_every_file_is_loaded_and_together_they_are_light(service: Service) -> None:
    """Less than 250 kB in all, uncompressed; no file lies there for nothing."""
    files = loaded(service)

    assert {address.rsplit("/", 1)[1] for address in files} | {"index.html"} == {p.name for p in STATIC.iterdir()}
    assert sum(len(text.encode()) for text in files.values()) < 250_000


def test_files_are_kept_for_ever_and_the_page_is_asked_for_again(service: Service) -> None:
    """A file's address changes with its content; the page is answered with 304 while it is the same."""
    page = service.http.get("/")
    again = service.http.get("/", headers={"If-None-Match": page.headers["ETag"]})

    assert page.headers["Cache-Control"] == "no-cache"
    assert (again.status_code, again.content) == (304, b"")
    for address in loaded(service):
        answer = service.http.get(f"/{address}")
        kept = {word.strip() for word in answer.headers["Cache-Control"].split(",")}
        assert kept == {"public", "max-age=31536000", "immutable"}, address
        expected = {"css": "text/css", "js": "text/javascript", "svg": "image/svg+xml"}[address.rsplit(".", 1)[1]]
        assert answer.headers["Content-Type"].startswith(expected)


@pytest.mark.parametrize("address", ["{folder}/index.html", "{folder}/../__init__.py", "console/0/app.js", "{folder}/"])
def test_there_is_no_way_to_other_files(service: Service, address: str) -> None:
    """Neither out of the folder, nor to a version that is not this one."""
    folder = next(iter(loaded(service))).rpartition("/")[0]

    assert service.http.get(f"/{address.format(folder=folder)}").status_code == 404


def test_the_policy_lets_nothing_in(service: Service) -> None:
    """Scripts and styles from files of the service alone; no eval, no inline code, no elements made of text."""
    rules = dict(rule.strip().partition(" ")[::2] for rule in csp(service).split(";"))

    assert rules["default-src"] == "'none'"
    assert (rules["script-src"], rules["style-src"], rules["connect-src"]) == ("'self'", "'self'", "'self'")
    assert (rules["base-uri"], rules["form-action"], rules["frame-ancestors"]) == ("'none'", "'none'", "'none'")
    assert (rules["require-trusted-types-for"], rules["trusted-types"]) == ("'script'", "'none'")
    assert "unsafe" not in csp(service)


def csp(service: Service) -> str:
    """The page's policy."""
    return str(service.http.get("/").headers["Content-Security-Policy"])


def test_nothing_comes_from_elsewhere_and_nothing_is_inline(service: Service) -> None:
    """No address of another host, no script or style in the page, no markup made of text in a module."""
    page, files = service.http.get("/").text, loaded(service)

    assert re.findall(r"<script(?![^>]*src=)|<style|\son\w+=|\sstyle=", page) == []
    for address, text in files.items():
        hosts = set(re.findall(r"https?://([\w.]+)", text)) - {"www.w3.org"}
        assert hosts == set(), address
        assert not re.search(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\b", text), address
