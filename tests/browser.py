"""A headless Chromium for tests of the web console, and what a page did in it that a page should not do."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, ConsoleMessage, Page, Route, expect, sync_playwright

from tests.conftest import ROOT, png

INPUTS = ROOT / "examples" / "inputs"
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), "")
needs_chromium = pytest.mark.skipif(
    not CHROMIUM,
    reason="NOT RUN: the web console in a browser. There is no Chromium here: apt-get install chromium",
)
#: A machine without a sandbox of its own, a GPU or a network; and a microphone that gives beeps.
_FLAGS = [
    *("--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking"),
    *("--disable-component-update", "--disable-sync"),
    *("--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream"),
]
#: Where pictures of the pages are left for people to look at.
_SCREENSHOTS = Path(os.environ.get("PHI4_SCREENSHOTS") or ROOT / "build" / "screenshots")
_SECONDS = 40


@contextmanager
def chromium() -> Iterator[Browser]:
    """Run a browser."""
    expect.set_options(timeout=_SECONDS * 1000)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=_FLAGS)
        try:
            yield browser
        finally:
            browser.close()


@dataclass
class Tab:
    """A tab on the console of a service."""

    page: Page
    base: str
    wrong: list[str] = field(default_factory=list)

    def open(self, place: str = "#/") -> None:
        """Go to a view."""
        self.page.goto(f"{self.base}/{place}")

    def choose(self, *files: Path | dict[str, Any]) -> None:
        """Pick files, by their path or with name, type and bytes, in the first view."""
        self.page.set_input_files("#files", list(files))  # type: ignore[arg-type]  # it takes both

    def run(self, words: str) -> str:
        """Press the button that submits, and wait for the job's view; gives the job's id."""
        self.page.get_by_role("button", name=words).click()
        self.page.wait_for_url("**/#/jobs/job_*")
        return self.page.url.rsplit("/", 1)[1]

    def reaches(self, status: str) -> None:
        """Wait until the job that is shown has a status."""
        expect(self.page.locator(".job-head .pill")).to_have_text(status)

    def picture(self, name: str) -> None:
        """Leave a picture of the whole page."""
        _SCREENSHOTS.mkdir(parents=True, exist_ok=True)
        self.page.screenshot(path=_SCREENSHOTS / f"{name}.png", full_page=True)

    def _hear(self, message: ConsoleMessage) -> None:
        # The browser itself writes of every answer from 400 on; the page's own part is to tell its user.
        if message.type in ("error", "warning") and not re.search(r"status of (401|404)", message.text):
            self.wrong.append(message.text)


@contextmanager
def tab(browser: Browser, base: str, **options: Any) -> Iterator[Tab]:
    """Open a tab; in the end there was no error in it, no warning, and nothing that its policy forbids."""
    context = browser.new_context(**{"viewport": {"width": 1280, "height": 860}, **options})
    context.set_default_timeout(_SECONDS * 1000)
    opened = Tab(context.new_page(), base.rstrip("/"))
    opened.page.on("console", opened._hear)
    opened.page.on("pageerror", lambda error: opened.wrong.append(str(error)))
    opened.page.on("dialog", lambda dialog: (opened.wrong.append(f"a dialog: {dialog.message}"), dialog.dismiss())[1])
    try:
        yield opened
    finally:
        opened.page.unroute_all(behavior="ignoreErrors")  # a request that is under way would fail in the closed tab
        context.close()
    assert opened.wrong == []


def picture(name: str = "sign.png") -> dict[str, Any]:
    """A small picture under a name."""
    return {"name": name, "mimeType": "image/png", "buffer": png()}


def ask(opened: Tab, question: str, name: str = "sign.png") -> str:
    """Ask about a small picture; gives the job's id."""
    opened.choose(picture(name))
    opened.page.get_by_text("Ask a question").click()
    opened.page.get_by_label("Your question").fill(question)
    return opened.run("Ask about 1 file")


def pretend(opened: Tab, **facts: Any) -> None:
    """From now on the service tells other facts of every job."""

    def change(route: Route) -> None:
        answer = route.fetch()
        told = answer.json()
        listed = [job | facts for job in told.get("data", [])]
        route.fulfill(response=answer, json=told | ({"data": listed} if listed else facts))

    opened.page.route(re.compile(r"/v1/jobs(/job_\w+|\?.*)$"), change)


def fits(opened: Tab) -> bool:
    """Whether nothing scrolls sideways but what is made to."""
    return bool(opened.page.evaluate("document.documentElement.scrollWidth <= innerWidth"))
