"""The web console in a browser, on the whole service: files in, text, answers and transcripts out."""

from __future__ import annotations

import base64
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Route, expect

from phi4.store import Store
from tests.api_alone import answers, api_alone
from tests.browser import INPUTS, Tab, chromium, needs_chromium, tab
from tests.conftest import Service, eventually, pdf, png
from tests.scripted_jobs import accepted
from tests.servers import web

pytestmark = needs_chromium
INVOICE = INPUTS / "invoice.jpg"
PHONE = {"viewport": {"width": 360, "height": 740}, "has_touch": True, "is_mobile": True}
LONG = "donaudampfschifffahrt" * 20
HOSTILE = "<img src=x onerror=alert(1)><script>alert(2)</script>"


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """One browser for all tests here."""
    with chromium() as browser:
        yield browser


@pytest.fixture
def read(browser: Browser, cpu_service: Service) -> Iterator[Tab]:
    """A tab on the service that really reads."""
    with tab(browser, str(cpu_service.http.base_url)) as opened:
        opened.open()
        yield opened


@pytest.fixture
def play(browser: Browser, service: Service) -> Iterator[Tab]:
    """A tab on the service whose engine does what the question says."""
    with tab(browser, str(service.http.base_url)) as opened:
        opened.open()
        yield opened


def picture(name: str = "sign.png") -> dict[str, Any]:
    """A small picture under a name."""
    return {"name": name, "mimeType": "image/png", "buffer": png()}


def ask(tab: Tab, question: str, name: str = "sign.png") -> str:
    """Ask about a small picture; gives the job's id."""
    tab.choose(picture(name))
    tab.page.get_by_text("Ask a question").click()
    tab.page.get_by_label("Your question").fill(question)
    return tab.run("Ask about 1 file")


def pretend(tab: Tab, **facts: Any) -> None:
    """From now on the service tells other facts of every job."""

    def change(route: Route) -> None:
        answer = route.fetch()
        told = answer.json()
        listed = [job | facts for job in told.get("data", [])]
        route.fulfill(response=answer, json=told | ({"data": listed} if listed else facts))

    tab.page.route(re.compile(r"/v1/jobs(/job_\w+|\?.*)$"), change)


def fits(tab: Tab) -> bool:
    """Whether nothing scrolls sideways but what is made to."""
    return bool(tab.page.evaluate("document.documentElement.scrollWidth <= innerWidth"))


def test_an_invoice_that_is_dropped_is_read_beside_its_picture(read: Tab) -> None:
    """Dropped on the page, read with a progress bar, shown as tables and raw, copied into a file."""
    data = base64.b64encode(INVOICE.read_bytes()).decode()
    dropped = read.page.evaluate_handle(
        """(data) => {
            const bytes = Uint8Array.from(atob(data), (c) => c.charCodeAt(0));
            const transfer = new DataTransfer();
            transfer.items.add(new File([bytes], "invoice.jpg", { type: "image/jpeg" }));
            return transfer;
        }""",
        data,
    )
    read.page.dispatch_event(".drop", "drop", {"dataTransfer": dropped})
    read.picture("start")
    read.run("Read 1 file")
    expect(read.page.get_by_role("progressbar")).to_be_visible()
    read.picture("working")

    read.reaches("Done")
    expect(read.page.get_by_role("cell", name="HL-2026-0417")).to_be_visible()
    assert read.page.get_by_alt_text("The file invoice.jpg").evaluate("image => image.naturalWidth") > 500
    read.picture("invoice")
    read.page.get_by_text("Raw").click()
    expect(read.page.locator("pre.raw").first).to_contain_text("| Copier paper A4, box of five reams | 12 |")
    with read.page.expect_download() as saved:
        read.page.get_by_role("button", name="Save as md").click()
    assert saved.value.suggested_filename == "invoice.md"
    assert "900.00" in Path(saved.value.path()).read_text()


def test_a_picture_that_is_pasted_is_asked_about(play: Tab) -> None:
    """From the clipboard, wherever the page has the focus; text that is pasted into the question stays text."""
    play.page.evaluate(
        """(data) => {
            const bytes = Uint8Array.from(atob(data), (c) => c.charCodeAt(0));
            const clipboardData = new DataTransfer();
            clipboardData.items.add(new File([bytes], "pasted.png", { type: "image/png" }));
            document.body.dispatchEvent(new ClipboardEvent("paste", { clipboardData, bubbles: true }));
        }""",
        base64.b64encode(png()).decode(),
    )
    expect(play.page.get_by_text("pasted.png").first).to_be_visible()
    play.page.get_by_text("Ask a question").click()
    question = play.page.get_by_label("Your question")
    question.fill("What is it?")
    question.evaluate(
        """(field) => {
            const clipboardData = new DataTransfer();
            clipboardData.setData("text/plain", "words");
            field.dispatchEvent(new ClipboardEvent("paste", { clipboardData, bubbles: true }));
        }"""
    )
    play.run("Ask about 1 file")
    play.reaches("Done")

    expect(play.page.get_by_text("1 images: What is it?")).to_be_visible()


def test_answers_are_a_conversation_about_the_file(read: Tab) -> None:
    """The next question is asked below the answer, of the same file, and both stay in sight."""
    read.choose(INPUTS / "sign.jpg")
    read.page.get_by_text("Ask a question").click()
    read.page.get_by_label("Your question").fill("What are the opening hours on Saturday?")
    read.page.get_by_label("Your question").press("Enter")
    expect(read.page.locator(".answer").last).to_contain_text(re.compile(r"10:00\s*.\s*16:00"))

    read.page.get_by_label("Ask another question").fill("What are the opening hours on Sunday?")
    read.page.get_by_label("Ask another question").press("Enter")

    expect(read.page.locator(".asked")).to_have_count(2)
    expect(read.page.locator(".answer").first).to_contain_text(re.compile(r"10:00\s*.\s*16:00"))
    read.reaches("Done")
    read.picture("conversation")


def test_a_recording_is_written_down_beside_a_player(read: Tab) -> None:
    """Segments with their times; a click on one plays it from there and marks it; subtitles can be saved."""
    read.choose(INPUTS / "talk.mp3")
    read.run("Transcribe 1 file")
    read.reaches("Done")

    segments = read.page.locator("button.segment")
    expect(segments.first).to_contain_text("welcome to this short recording")
    third = segments.nth(2)
    minutes, seconds = third.locator(".time").inner_text().split(":")
    third.click()
    expect(read.page.locator(".segments [aria-current]")).to_contain_text(third.inner_text().split("\n")[-1])
    assert read.page.locator("audio").evaluate("player => player.currentTime") >= int(minutes) * 60 + int(seconds)
    read.picture("recording")
    with read.page.expect_download() as saved:
        read.page.get_by_role("button", name="Save as srt").click()
    assert Path(saved.value.path()).read_text().startswith("1\n00:00:0")


def test_a_document_is_shown_page_by_page(play: Tab) -> None:
    """Each page has a tab as soon as it is read; the arrow keys go from one to the next."""
    play.choose({"name": "scan.pdf", "mimeType": "application/pdf", "buffer": pdf(3)})
    play.page.get_by_label("Pages").fill("1,3")
    play.run("Read 1 file")
    play.reaches("Done")

    tabs = play.page.get_by_role("tab")
    expect(tabs).to_have_text(["1", "3"])
    expect(play.page.get_by_role("tabpanel")).to_have_text("page 417x625")
    expect(play.page.get_by_title("The file scan.pdf")).to_have_attribute("src", re.compile("#page=1&"))
    tabs.first.press("ArrowRight")
    expect(tabs.nth(1)).to_be_focused()
    expect(play.page.get_by_role("tabpanel")).to_have_text("page 421x625")
    expect(play.page.get_by_title("The file scan.pdf")).to_have_attribute("src", re.compile("#page=3&"))
    play.picture("document")


def test_tabs_get_their_numbers_when_the_pages_are_known(play: Tab, service: Service) -> None:
    """Of chosen pages the text comes first, and which page it is of with the result; the focus stays."""
    params = '{"prompt": "speak 1.5 one|two", "pages": "3,2"}'
    job = accepted(service.submit("ocr", pdf(3), params=params))
    play.open(f"#/jobs/{job['id']}")
    tabs = play.page.get_by_role("tab")
    expect(tabs).to_have_text(["…", "…"])
    assert tabs.first.get_attribute("aria-label") == "A page, being read"
    tabs.first.focus()
    play.reaches("Done")

    expect(tabs).to_have_text([str(page["page"]) for page in service.job(job["id"])["result"]["pages"]])
    expect(tabs.first).to_be_focused()
    expect(play.page.get_by_role("tab", name="Page 3")).to_have_count(1)


def test_many_tabs_leave_the_text_in_sight(play: Tab, service: Service) -> None:
    """They scroll by themselves."""
    job_id = service.ended(service.submit().json()["id"])["id"]
    pages = [{"index": n, "page": n + 1, "markdown": f"text {n + 1}", "error": None} for n in range(400)]
    pretend(play, result={"pages": pages})
    play.open(f"#/jobs/{job_id}")

    expect(play.page.get_by_role("tab")).to_have_count(400)
    expect(play.page.get_by_role("tabpanel")).to_be_in_viewport(ratio=1)
    play.page.get_by_role("tab", name="Page 1", exact=True).press("ArrowLeft")
    expect(play.page.get_by_role("tab", name="Page 400")).to_be_in_viewport()
    play.picture("many-pages")


def test_a_wide_table_scrolls_by_itself(play: Tab, service: Service) -> None:
    """The page around it stays as wide as the window, for documents and for answers."""
    row = "|" + " 1000000 |" * 40
    table = f"{row}\n|{'---|' * 40}\n{row}"
    page = {"index": 0, "page": 1, "markdown": table, "error": None}
    for kind, result in ("ocr", {"pages": [page]}), ("vqa", {"answer": table}):
        job_id = service.ended(
            service.submit(kind, params='{"question": "?"}' if kind == "vqa" else "{}").json()["id"]
        )["id"]
        pretend(play, result=result)
        play.open(f"#/jobs/{job_id}")
        expect(play.page.get_by_role("table")).to_be_visible()
        for width in (1280, 360):
            play.page.set_viewport_size({"width": width, "height": 860})
            play.picture(f"wide-table-{kind}-{width}")
            assert fits(play), (kind, width)
            assert play.page.locator(".wide-table").evaluate("place => place.scrollWidth > place.clientWidth")


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


def test_scripts_from_right_to_left_are_laid_out_so(play: Tab) -> None:
    """Names, questions and answers each go the way of their first letter."""
    words = "שלום world"
    ask(play, words, f"{words}.png")
    play.reaches("Done")
    pretend(play, result={"answer": f"{words}\n\n- {words}\n\n| {words} |\n|---|\n| {words} |"})
    play.page.reload()

    expect(play.page.locator("td")).to_have_text(words)
    begins_right_of_end = """(element) => {
        const at = (n) => {
            const range = document.createRange();
            range.setStart(element.firstChild, n);
            range.setEnd(element.firstChild, n + 1);
            return range.getBoundingClientRect().left;
        };
        return at(0) > at(9);
    }"""
    for place in ("h1", ".asked", ".answer > p", ".answer li", ".answer th", ".answer td"):
        assert play.page.locator(place).evaluate(begins_right_of_end), place
    play.picture("right-to-left")
    play.open("#/jobs")
    assert play.page.locator(".name").filter(has_text=words).first.evaluate(begins_right_of_end)


def test_a_name_cannot_turn_itself_round(play: Tab) -> None:
    """Signs that override the direction of text are left out: they make one name look like another."""
    ask(play, "hello", "invoice\u202efdp.png")

    expect(play.page.get_by_role("heading", level=1)).to_have_text("invoicefdp.png")


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


def test_the_calls_that_are_shown_do_the_same(play: Tab, service: Service, tmp_path: Path) -> None:
    """The curl command and both Python programs give the job's own answer, run as they are written."""
    (tmp_path / "it's.png").write_bytes(png())
    question = """What's the "total" of $5?"""
    ask(play, question, "it's.png")
    play.reaches("Done")
    play.page.get_by_text("The same call from a program").click()

    code = play.page.locator(".calls pre")
    commands = [["sh", "-c", code.inner_text()]]
    for client in ("Python", "OpenAI"):
        play.page.get_by_role("button", name=client).click()
        commands.append([sys.executable, "-c", code.inner_text()])
    for command in commands:
        done = subprocess.run(command, cwd=tmp_path, env=service.env, capture_output=True, text=True, timeout=60)
        assert "What's the" in done.stdout, done


def test_text_appears_while_it_is_written(play: Tab) -> None:
    """Pieces are shown as they come, before the answer is whole."""
    ask(play, "speak 0.4 one|two|three|four|five|six")

    expect(play.page.locator(".answer.live")).to_contain_text("onetwo")
    expect(play.page.locator(".answer")).to_contain_text("1 images")
    play.reaches("Done")


def test_a_job_is_cancelled_and_tried_again(play: Tab) -> None:
    """One button each; the page follows."""
    ask(play, "sleep 60")
    play.reaches("Working")
    play.page.get_by_role("button", name="Cancel").click()
    play.reaches("Cancelled")

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


def test_markup_in_names_questions_and_answers_stays_text(play: Tab) -> None:
    """Nothing of what users or engines write becomes an element or runs, in any view."""
    name = f"{HOSTILE.replace('/', '')}.png"
    job_id = ask(play, f"{HOSTILE} **bold** [x](javascript:alert(3))", name)
    play.reaches("Done")

    expect(play.page.get_by_role("heading", level=1)).to_have_text(name)
    expect(play.page.locator(".answer")).to_contain_text(HOSTILE)
    expect(play.page.locator(".answer strong")).to_have_text("bold")
    for place in (f"#/jobs/{job_id}", "#/jobs", "#/"):
        play.open(place)
        expect(play.page.get_by_text("onerror=alert(1)").first).to_be_visible()
        assert play.page.locator("main").evaluate("main => main.querySelectorAll('img[onerror], script').length") == 0
        assert play.page.locator("a[href^=javascript]").count() == 0


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


def test_spans_of_time_are_rounded_before_they_are_split(play: Tab) -> None:
    """No 60 seconds beside minutes, no 1000 milliseconds."""
    script = """async (times) => {
        const { span } = await import(document.querySelector("script").src.replace("app.js", "dom.js"));
        return times.map(span);
    }"""
    told = {
        0.4: "0 ms",
        999.7: "1.0 s",
        9_960: "10 s",
        59_600: "1 min 0 s",
        119_700: "2 min 0 s",
        3_599_700: "1 h 0 min",
    }

    assert play.page.evaluate(script, list(told)) == list(told.values())
