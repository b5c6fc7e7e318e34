"""How soon the web console shows something and how much it loads for that; and how soon `phi4 --help` answers."""

from __future__ import annotations

import statistics
import subprocess
import sys
import time
from collections.abc import Iterator

from bench.figures import INSTANT, Figure
from bench.service import running
from tests.browser import chromium

_PAINT = "performance.getEntriesByName('first-contentful-paint')[0]?.startTime"
_BYTES = "[...performance.getEntriesByType('resource'), ...performance.getEntriesByType('navigation')]"


def console(loads: int = 15) -> Iterator[Figure]:
    """Load the page with an empty cache each time."""
    with running(INSTANT) as service, chromium() as browser:
        paints, weight = [], 0
        for _ in range(loads + 1):
            context = browser.new_context()
            page = context.new_page()
            page.goto(service.url, wait_until="load")
            page.wait_for_function(f"() => {_PAINT}")
            paints.append(float(page.evaluate(_PAINT)))
            weight = int(page.evaluate(f"{_BYTES}.reduce((sum, one) => sum + one.transferSize, 0)"))
            context.close()
    conditions = f"headless Chromium on the same machine, cache empty, median of {loads} loads after one"
    yield Figure("console_first_paint_ms", round(statistics.median(paints[1:]), 1), "ms", conditions)
    yield Figure("console_weight_kb", round(weight / 1_000, 1), "kB", "all that one load transfers, headers included")
    yield _help()


def _help(rounds: int = 15) -> Figure:
    times = []
    for _ in range(rounds + 1):
        begun = time.perf_counter()
        subprocess.run([sys.executable, "-m", "cli", "--help"], stdout=subprocess.DEVNULL, check=True)
        times.append(time.perf_counter() - begun)
    conditions = f"`phi4 --help` from start to end, median of {rounds} after one"
    return Figure("help_ms", round(statistics.median(times[1:]) * 1000), "ms", conditions)
