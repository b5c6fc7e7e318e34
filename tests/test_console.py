"""The web console in a browser: what it offers, who may use it and how, and operations."""

from __future__ import annotations

import re
from typing import Any

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Route, expect

from phi4.store import Store
from tests.api_alone import api_alone
from tests.browser import Tab, ask, fits, needs_chromium, picture, pretend, tab
from tests.conftest import Service, eventually
from tests.servers import web

pytestmark = needs_chromium
PHONE = {"viewport": {"width": 360, "height": 740}, "has_touch": True, "is_mobile": True}


def test_what_the_microphone_hears_becomes_a_file(play: Tab, service: Service) -> None:
    """Recorded until the button is pressed again, then listed as any other file."""
    play.page.get_by_role("button", name="Record").click()
    stop = play.page.get_by_role("button", name="Stop")
    expect(stop).to_have_text("Stop 0:01")
    stop.click()

    expect(play.page.locator(".staged .name")).to_have_text(re.compile(r"recording-\d{6}\.\w+"))
    job_id = play.run("Transcribe 1 file")
    play.reaches("Done")
    (recording,) = service.job(job_id)["input"]
    assert (recording["media_type"], recording["seconds"] > 0.5) == ("video/webm", True)


def test_the_first_view_says_what_can_be_done(play: Tab) -> None:
    """Until there is a file, or a job; then their place is needed."""
    expect(play.page.locator(".tasks dt")).to_have_text(["Read", "Ask", "Transcribe", "Translate"])
    play.choose(picture())
    expect(play.page.locator(".tasks")).to_have_count(0)


def test_a_refusal_is_explained(play: Tab) -> None:
    """What the service does not take is told beside the button, and the file stays chosen."""
    play.choose({"name": "notes.pdf", "mimeType": "application/pdf", "buffer": b"no PDF at all"})
    play.page.get_by_role("button", name="Read 1 file").click()

    expect(play.page.get_by_role("alert").filter(has_text="not")).to_be_visible()
    expect(play.page.locator(".staged .name")).to_have_text("notes.pdf")
    play.wrong.clear()  # the browser's own line about the 415
    play.page.get_by_label("Leave out notes.pdf").click()
    expect(play.page.locator(".said")).to_be_empty()


def test_a_file_that_cannot_be_read_is_named(play: Tab) -> None:
    """As text and until something else is chosen; the others beside it are taken."""
    name = "<b>notes<b>.txt"
    play.choose({"name": name, "mimeType": "text/plain", "buffer": b"words"}, picture())
    told = play.page.get_by_role("alert")
    expect(told).to_have_text(f"Only pictures, PDFs and audio can be read; not {name}.")
    expect(play.page.locator(".staged .name")).to_have_text("sign.png")
    play.picture("not-readable")

    play.choose({"name": "donaudampfschifffahrt" * 9 + ".txt", "mimeType": "text/plain", "buffer": b"words"})
    play.page.set_viewport_size({"width": 360, "height": 740})
    play.picture("not-readable-long")
    assert fits(play)
    play.choose(picture("two.png"))
    expect(told).to_be_empty()


def test_operations_are_drawn(play: Tab, service: Service) -> None:
    """Queue, throughput, latency by type, workers and webhooks, with their figures in words for those who see none."""
    with web() as receiver:
        service.ended(service.submit("ocr", webhook_url=receiver.url).json()["id"])
        eventually(lambda: receiver.seen, what="the webhook")
    play.open("#/operations")
    expect(play.page.locator(".line").first).to_have_attribute("d", re.compile("L"))  # was sampled before

    for name in (
        "Work waiting: now",
        "Jobs ended: now",
        "Time by type",
        "Jobs by status",
        "Tries by outcome: Delivered",
    ):
        expect(play.page.get_by_role("img", name=name)).to_be_visible()
    expect(play.page.get_by_role("row").filter(has_text="scripted-1")).to_contain_text("ready")
    play.picture("operations")


@pytest.mark.parametrize("width", [1280, 360])
def test_long_times_stay_in_their_card(play: Tab, service: Service, width: int) -> None:
    """However long jobs took; no words lie on others."""
    service.ended(service.submit("ocr").json()["id"])
    pretend(play, timings={"run_ms": 86_340_000}, cached=False)
    play.page.set_viewport_size({"width": width, "height": 860})
    play.open("#/operations")

    chart = play.page.get_by_role("img", name="Time by type")
    expect(chart).to_contain_text("23 h 59 min / 23 h 59 min")
    play.picture(f"long-times-{width}")
    name, words = (box for text in chart.locator("text").all()[:2] if (box := text.bounding_box()))
    edge = chart.bounding_box()
    assert edge
    assert name["x"] + name["width"] < words["x"]
    assert words["x"] + words["width"] <= edge["x"] + edge["width"] + 1


def test_a_key_is_asked_for_when_it_is_needed(
    browser: Browser, valkey: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """A wrong one is told so, and one that could not even be sent; the right one serves the whole tab, and no other."""
    with api_alone(valkey, tmp_path_factory.mktemp("api")) as service:
        token, _ = Store.at(service.redis_url).access.create("console", owner="acme")
        with tab(browser, str(service.http.base_url)) as opened:
            opened.open()
            expect(opened.page.get_by_role("dialog")).to_have_count(0)
            opened.open("#/jobs")
            wrong = "was not accepted"
            for key, told in (("phi4_wrong", "makes one with"), ("phi4_„quoted“", wrong), (token, wrong)):
                expect(opened.page.get_by_role("dialog")).to_contain_text(told)
                expect(opened.page.get_by_label("Key", exact=True)).to_have_value("")
                opened.picture("key-asked" if key == "phi4_wrong" else "key-wrong")
                opened.page.get_by_label("Key", exact=True).fill(key)
                opened.page.get_by_role("button", name="Use this key").click()
            expect(opened.page.get_by_text("There are no jobs yet.")).to_be_visible()
            opened.page.reload()
            expect(opened.page.get_by_text("There are no jobs yet.")).to_be_visible()
            assert opened.page.evaluate("[localStorage.length, document.cookie]") == [0, ""]
            opened.page.get_by_role("button", name="Forget key").click()
            opened.open("#/jobs")
            expect(opened.page.get_by_role("dialog")).to_be_visible()
            opened.page.keyboard.press("Escape")
            expect(opened.page.get_by_role("heading", level=1)).to_have_text("A key is needed")
            opened.page.get_by_role("link", name="Operations").click()
            opened.page.get_by_label("Key", exact=True).fill(token)
            opened.page.get_by_role("button", name="Use this key").click()
            expect(opened.page.get_by_role("heading", name="Queue")).to_be_visible()


def test_it_works_behind_a_path_prefix(browser: Browser, service: Service) -> None:
    """Every address is relative to the page's own."""
    base = f"{service.http.base_url}".rstrip("/")

    def forward(route: Route) -> None:
        route.fulfill(response=route.fetch(url=route.request.url.replace("/some/prefix/", "/")))

    with tab(browser, f"{base}/some/prefix") as opened:
        opened.page.route(f"{base}/some/prefix/**", forward)
        opened.page.route(re.compile(f"^{re.escape(base)}/(?!some/prefix/)"), lambda route: route.abort())
        opened.open()
        ask(opened, "hello")
        opened.reaches("Done")
        expect(opened.page.locator(".answer")).to_have_text("1 images: hello")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_every_view_is_accessible(browser: Browser, service: Service, scheme: Any) -> None:
    """Axe finds nothing serious, in light and in dark, on a phone too, where nothing scrolls sideways."""
    with tab(browser, str(service.http.base_url), color_scheme=scheme, bypass_csp=True, **PHONE) as opened:
        opened.open()
        opened.choose(picture(), {"name": "talk.mp3", "mimeType": "audio/mpeg", "buffer": b"ID3"})
        check(opened, f"start-{scheme}")
        opened.page.get_by_label("Leave out talk.mp3").click()
        opened.page.get_by_text("Read the text").click()
        job_id = opened.run("Read 1 file")
        opened.reaches("Done")
        opened.page.get_by_text("The same call from a program").click()
        for place in (f"#/jobs/{job_id}", "#/jobs", "#/operations"):
            if not opened.page.url.endswith(place):
                opened.open(place)
            opened.page.locator(".job, .job-row, .card").first.wait_for()
            check(opened, f"{place.split('/')[1]}-{len(place)}-{scheme}")


def check(opened: Tab, name: str) -> None:
    """Look for what keeps people out, and for what is wider than the window."""
    opened.picture(name)
    found = Axe().run(opened.page).response["violations"]
    bad = [(v["id"], v["nodes"][0]["html"]) for v in found if v["impact"] in ("serious", "critical")]
    assert bad == [], name
    assert fits(opened), name


def test_it_can_be_used_from_the_keyboard(play: Tab) -> None:
    """Tab goes from link to button in order, what has the focus is seen, and Enter submits."""
    play.choose(picture())
    expect(play.page.get_by_role("button", name="Read 1 file")).to_be_focused()
    play.page.keyboard.press("Enter")
    play.reaches("Done")

    play.page.reload()
    play.reaches("Done")
    stops = []
    for _ in range(8):
        play.page.keyboard.press("Tab")
        stops.append(play.page.evaluate("document.activeElement.textContent.trim()"))
        assert play.page.evaluate("getComputedStyle(document.activeElement).outlineStyle") != "none", stops
    assert stops == ["To the content", "phi4", "New", "Jobs", "Operations", "API", "Jobs", "Copy"]


def test_the_focus_goes_on_with_the_keyboard(play: Tab) -> None:
    """Into the view that opens, and from a row that is deleted to the next one; after the last, to the view."""
    for question in ("one", "two"):
        play.open()
        play.choose(picture())
        play.page.get_by_text("Ask a question").click()
        play.page.get_by_label("Your question").fill(question)
        go = play.page.get_by_role("button", name="Ask about 1 file")
        go.focus()
        go.press("Enter")
        play.reaches("Done")
        expect(play.page.locator("main")).to_be_focused()

    play.page.get_by_role("link", name="New").click()
    rows = play.page.locator(".job-row")
    for left in (1, 0):
        delete = rows.first.get_by_role("button", name="Delete")
        delete.focus()
        delete.press("Enter")
        rows.first.get_by_role("button", name="Really delete").press("Enter")
        expect(rows).to_have_count(left)
        expect(rows.locator("a") if left else play.page.locator("main")).to_be_focused()


def test_arrow_keys_stay_in_their_group(play: Tab) -> None:
    """There and back; a click on the question goes on to writing it."""
    play.choose(picture())
    read, asks = play.page.get_by_label("Read the text"), play.page.get_by_label("Ask a question")
    read.focus()
    for key, radio in ("ArrowRight", asks), ("ArrowLeft", read):
        play.page.keyboard.press(key)
        expect(radio).to_be_focused()
        expect(radio).to_be_checked()

    play.page.get_by_text("Ask a question").click()
    expect(play.page.get_by_label("Your question")).to_be_focused()


def test_the_focus_stays_where_questions_are_asked(play: Tab) -> None:
    """One after the other needs no way back to the box; a view that is opened otherwise does not go there."""
    play.choose(picture())
    play.run("Read 1 file")
    play.reaches("Done")
    box = play.page.get_by_label(re.compile("Ask (about this file|another question)"))
    for question in ("one", "two"):
        box.fill(question)
        box.press("Enter")
        expect(play.page.locator(".asked").last).to_have_text(question)
        expect(box).to_be_focused()
        expect(box).to_have_value("")

    play.page.get_by_role("link", name="Jobs", exact=True).first.click()
    play.page.locator(".job-row a").first.press("Enter")
    play.reaches("Done")
    expect(play.page.locator("main")).to_be_focused()
