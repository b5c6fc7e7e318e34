"""The web console in a browser: the list of jobs, and jobs that wait, fail, are cancelled or gone."""

from __future__ import annotations

import re

import pytest
from playwright.sync_api import Browser, Route, expect

from tests.api_alone import answers, api_alone
from tests.browser import Tab, ask, fits, needs_chromium, picture, pretend, tab
from tests.conftest import Service, eventually, png
from tests.scripted_jobs import accepted

pytestmark = needs_chromium
LONG = "donaudampfschifffahrt" * 20


def test_long_words_break_in_lists(play: Tab) -> None:
    """In questions and in reasons, on a phone too."""
    play.page.set_viewport_size({"width": 360, "height": 740})
    ask(play, LONG)
    play.reaches("Done")
    pretend(play, status="failed", error={"code": "x", "message": LONG, "category": "input"})
    for view in ("New", "Jobs"):
        play.page.get_by_role("link", name=view, exact=True).first.click()
        expect(play.page.locator(".job-row .quiet").first).to_contain_text(LONG)
        play.picture(f"long-words-{view.lower()}")
        assert fits(play), view


def test_a_name_cannot_turn_itself_round(play: Tab) -> None:
    """Signs that override the direction of text are left out: they make one name look like another."""
    ask(play, "hello", "invoice\u202efdp.png")

    expect(play.page.get_by_role("heading", level=1)).to_have_text("invoicefdp.png")


def test_a_job_is_cancelled_and_tried_again(play: Tab) -> None:
    """One button each; the page follows."""
    ask(play, "sleep 60")
    play.reaches("Working")
    play.page.get_by_role("button", name="Cancel").click()
    play.reaches("Cancelled")
    expect(play.page.locator(".state")).to_have_text("Cancelled by its owner.")
    expect(play.page.locator(".state .failure")).to_have_count(0)
    play.picture("cancelled")

    play.page.get_by_role("button", name="Try again").click()
    play.reaches("Working")
    play.page.get_by_role("button", name="Cancel").click()
    play.reaches("Cancelled")


def test_a_job_that_is_deleted_elsewhere_is_gone_here(play: Tab, service: Service) -> None:
    """While it is watched; nothing goes on saying that it is worked on."""
    job_id = ask(play, "sleep 60")
    play.reaches("Working")
    service.http.delete(f"/v1/jobs/{job_id}").raise_for_status()

    expect(play.page.get_by_role("heading", level=1)).to_have_text("There is no such job")
    expect(play.page.get_by_role("button", name="Cancel")).to_have_count(0)


def test_a_failure_is_explained(play: Tab) -> None:
    """The reason as a sentence, whether trying again can help, and the code."""
    play.choose({"name": "broken.png", "mimeType": "image/png", "buffer": png()[:40]})
    play.run("Read 1 file")
    play.reaches("Failed")

    why = play.page.get_by_role("alert").filter(has_text="cannot be read")
    expect(why).to_contain_text("The same file will fail again")
    expect(why).to_contain_text("unreadable_image")
    expect(play.page.get_by_role("button", name="Try again")).to_have_count(0)
    play.picture("failure")


def test_a_job_that_is_not_there_leads_to_the_others(play: Tab) -> None:
    """To look again would not help."""
    play.open("#/jobs/job_01m83zc4avr2a8az1zbpdfxpmp")
    expect(play.page.get_by_role("heading", level=1)).to_have_text("There is no such job")
    play.page.get_by_role("link", name="See the other jobs").click()
    expect(play.page.get_by_role("heading", level=1)).to_have_text("Jobs")


def test_a_result_from_an_earlier_job_says_so(play: Tab) -> None:
    """It took no time, and a link leads to the job that did the work."""
    first = ask(play, "first")
    play.reaches("Done")
    single = re.compile(r"/v1/jobs/job_\w+$")

    def from_the_cache(route: Route) -> None:
        answer = route.fetch()
        route.fulfill(response=answer, json=answer.json() | {"cached": True, "cached_from": first})

    play.page.route(single, from_the_cache)
    play.open()
    ask(play, "second")
    play.reaches("Done")
    expect(play.page.locator(".facts")).not_to_contain_text("worked")
    play.page.unroute(single)
    play.page.get_by_role("link", name="that job’s result").click()
    play.page.wait_for_url(f"**/#/jobs/{first}")


def test_of_several_files_each_is_a_job(play: Tab) -> None:
    """What was taken is listed below the form and live; what was refused stays in it, with the reason."""
    broken = {"name": "notes.pdf", "mimeType": "application/pdf", "buffer": b"no PDF at all"}
    play.choose(picture("one.png"), broken, picture("two.png"))
    play.page.get_by_role("button", name="Read 3 files").click()
    expect(play.page.get_by_role("alert").filter(has_text="notes.pdf:")).to_be_visible()
    expect(play.page.locator(".staged .name")).to_have_text("notes.pdf")
    play.wrong.clear()  # the browser's own line about the 415

    play.page.get_by_role("link", name="Jobs").click()
    play.page.get_by_role("link", name="New").click()
    expect(play.page.locator(".job-row .name")).to_have_text(["two.png", "one.png"])
    expect(play.page.locator(".job-row .pill")).to_have_text(["Done", "Done"])


def test_a_question_about_several_files_is_asked_of_each(play: Tab) -> None:
    """The button says so, also beside a recording, which is not asked."""
    play.choose(picture("one.png"), {"name": "talk.mp3", "mimeType": "audio/mpeg", "buffer": b"ID3"})
    play.page.get_by_text("Ask a question").click()
    go = play.page.locator(".primary.big")
    expect(go).to_have_text("Ask about and transcribe 2 files")
    play.choose(picture("two.png"))
    expect(go).to_have_text("Ask and transcribe each of 3 files")
    play.page.get_by_label("Leave out talk.mp3").click()
    expect(go).to_have_text("Ask each of 2 files")

    play.page.get_by_label("Your question").fill("What is it?")
    go.click()
    expect(play.page.locator(".job-row").filter(has_text="What is it?").locator(".name")).to_have_text(
        ["two.png", "one.png"]
    )


def test_jobs_are_listed_live_with_filters(play: Tab, service: Service) -> None:
    """A job from elsewhere appears by itself; filters are in the address; rows cancel and delete."""
    play.open("#/jobs")
    play.page.get_by_label("Every type").select_option("Question")
    play.page.wait_for_url("**/#/jobs?type=vqa")
    question = "sleep 61 please"
    service.submit("vqa", params=f'{{"question": "{question}"}}')
    row = play.page.locator(".job-row").filter(has_text=question)
    expect(row.locator(".pill")).to_have_text("Working")

    row.get_by_role("button", name="Cancel").click()
    expect(row.locator(".pill")).to_have_text("Cancelled")
    play.picture("jobs")
    row.get_by_role("button", name="Delete").click()
    row.get_by_role("button", name="Really delete").click()
    expect(row).to_have_count(0)


def test_every_job_can_be_reached(browser: Browser, valkey: str, tmp_path_factory: pytest.TempPathFactory) -> None:
    """More of the newest up to a hundred, then the older ones under an address of their own, and back."""
    with (
        api_alone(valkey, tmp_path_factory.mktemp("api")) as service,
        tab(browser, str(service.http.base_url)) as opened,
    ):
        ids = sorted((accepted(service.submit())["id"] for _ in range(105)), reverse=True)
        opened.open("#/jobs?type=ocr")
        rows = opened.page.locator(".job-row")
        for count in (25, 50, 75):
            expect(rows).to_have_count(count)
            opened.page.get_by_role("button", name="Show more").click()
        expect(rows).to_have_count(100)
        opened.page.get_by_role("button", name="Show older ones").click()

        expect(rows).to_have_count(5)
        assert rows.evaluate_all("rows => rows.map((row) => row.dataset.id)") == ids[100:]
        expect(opened.page.get_by_role("button", name="Show")).to_have_count(0)
        opened.page.get_by_role("button", name="Back to the newest").click()
        opened.page.wait_for_url("**/#/jobs?type=ocr")
        expect(rows).to_have_count(25)


def test_a_job_is_followed_through_a_restart_of_the_service(
    browser: Browser, valkey: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """The page comes back by itself when the API does."""
    with (
        api_alone(valkey, tmp_path_factory.mktemp("api")) as service,
        tab(browser, str(service.http.base_url)) as opened,
    ):
        opened.open()
        job_id = ask(opened, "hello")
        expect(opened.page.get_by_text("Waits for a worker: none that could do this is running.")).to_be_visible()
        service.processes["api"].terminate()
        assert service.processes["api"].wait(15) == 0
        service.start("api", "api")
        eventually(lambda: answers(service), what="the next API")
        service.http.post(f"/v1/jobs/{job_id}/cancel")

        opened.reaches("Cancelled")
        opened.wrong.clear()  # the browser's own lines about connections that were refused
