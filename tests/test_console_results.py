"""The web console in a browser, on the whole service: files in, text, answers and transcripts out."""

from __future__ import annotations

import base64
import io
import re
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image
from playwright.sync_api import expect

from tests.browser import INPUTS, Tab, ask, fits, needs_chromium, pretend
from tests.conftest import Service, pdf, png
from tests.scripted_jobs import accepted

pytestmark = needs_chromium
INVOICE = INPUTS / "invoice.jpg"
HOSTILE = "<img src=x onerror=alert(1)><script>alert(2)</script>"


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


def test_a_pdf_has_a_frame_of_its_shape(play: Tab) -> None:
    """The viewer fills what is left of a frame with its own dark colour, and with the page after."""
    wide = io.BytesIO()
    Image.new("L", (400, 200), "white").save(wide, "PDF")
    play.choose({"name": "wide.pdf", "mimeType": "application/pdf", "buffer": wide.getvalue()})
    play.run("Read 1 file")
    play.reaches("Done")
    frame = play.page.get_by_title("The file wide.pdf").bounding_box()
    assert frame
    assert frame["width"] / frame["height"] == pytest.approx(2, rel=0.02)
    play.picture("wide-pdf")

    play.page.set_viewport_size({"width": 360, "height": 740})
    assert fits(play)


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
        assert "PHI4_API_KEY" in command[-1]  # as for the command and the examples
        done = subprocess.run(command, cwd=tmp_path, env=service.env, capture_output=True, text=True, timeout=60)
        assert "What's the" in done.stdout, done


def test_text_appears_while_it_is_written(play: Tab) -> None:
    """Pieces are shown as they come, before the answer is whole."""
    ask(play, "speak 0.4 one|two|three|four|five|six")

    expect(play.page.locator(".answer.live")).to_contain_text("onetwo")
    expect(play.page.locator(".answer")).to_contain_text("1 images")
    play.reaches("Done")


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
