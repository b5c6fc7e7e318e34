"""What the web console makes of Markdown: elements for what is meant, and text for all the rest."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.browser import Tab, chromium, needs_chromium, tab
from tests.conftest import Service

pytestmark = needs_chromium
ELSEWHERE = 'rel="noopener noreferrer" target="_blank"'


@pytest.fixture(scope="module")
def console(service: Service) -> Iterator[Tab]:
    """One tab on the console for all tests here."""
    with chromium() as browser, tab(browser, str(service.http.base_url)) as opened:
        opened.open()
        yield opened


@pytest.mark.parametrize(
    ("source", "shown"),
    [
        ("# A\n## B", "<h3>A</h3><h4>B</h4>"),
        ("one\ntwo\n\nthree", "<p>one<br>two</p><p>three</p>"),
        ("**b** *e* _e_ ~~s~~", "<p><strong>b</strong> <em>e</em> <em>e</em> <s>s</s></p>"),
        ("`<c>` ``a`b``", "<p><code>&lt;c&gt;</code> <code>a`b</code></p>"),
        ("a_b_c 2*3*4 \\*x\\*", "<p>a_b_c 2<em>3</em>4 *x*</p>"),
        ("- a\n  - b\n- c", "<ul><li>a<ul><li>b</li></ul></li><li>c</li></ul>"),
        ("3. a\n4. b", '<ol start="3"><li>a</li><li>b</li></ol>'),
        ("> q", "<blockquote><p>q</p></blockquote>"),
        ("```html\n<b>\n```\nx", '<pre tabindex="0"><code>&lt;b&gt;</code></pre><p>x</p>'),
        ("a | b", "<p>a | b</p>"),
        ("---", "<hr>"),
        ("[a](https://a.example/x_(y))", f'<p><a href="https://a.example/x_(y)" {ELSEWHERE}>a</a></p>'),
        ("[a](javascript:alert(1))", "<p>[a](javascript:alert(1))</p>"),
        ("![a](https://a.example/spy.png)", "<p><em>a</em></p>"),
        ("<script>alert(1)</script>", "<p>&lt;script&gt;alert(1)&lt;/script&gt;</p>"),
        ("> " * 50 + "deep", None),
        ("*" * 5_000, None),
    ],
)  # fmt: skip
def test_markdown_becomes_elements_and_markup_stays_text(console: Tab, source: str, shown: str | None) -> None:
    """What an engine writes is shown as it is meant; without the last column it only has to be shown at all."""
    assert rendered(console, source) == shown if shown else rendered(console, source)


def test_a_table_has_a_head_sides_and_every_cell(console: Tab) -> None:
    """Cells keep bars that are escaped and breaks of lines."""
    table = rendered(console, "| a | b |\n|---|--:|\n| 1 \\| 2 | x<br>y |\n| 3 |")

    head = '<thead><tr><th scope="col">a</th><th class="end" scope="col">b</th></tr></thead>'
    first = '<tr><td>1 | 2</td><td class="end">x<br>y</td></tr>'
    assert f'<table>{head}<tbody>{first}<tr><td>3</td><td class="end"></td></tr></tbody></table>' in table


def rendered(tab: Tab, source: str) -> str:
    """What the console makes of a text."""
    script = """async (source) => {
        const modules = document.querySelector("script").src.replace("app.js", "markdown.js");
        const { markdown } = await import(modules);
        return markdown(source).map((element) => element.outerHTML).join("");
    }"""
    return str(tab.page.evaluate(script, source))
