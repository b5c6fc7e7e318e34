"""The cpu engine's life: what it needs to start, what it says, and what is left when it stops."""

from __future__ import annotations

import subprocess
import sys
import threading
from pathlib import Path

import pytest
from PIL import Image

from phi4.errors import EngineDead
from worker.engines.base import Call, ReadPage
from worker.engines.cpu import CpuEngine
from worker.engines.ocr import new_detector, new_recogniser

ROOT = Path(__file__).parent.parent


def test_starting_tells_its_stages_and_stopping_ends_it() -> None:
    """An engine loads, probes, answers, and after `stop` is dead and has left no thread."""
    engine, stages, before = CpuEngine(threads=1), list[str](), threading.active_count()
    with pytest.raises(EngineDead):
        engine.check()

    engine.start(stages.append)
    engine.check()
    engine.stop()
    engine.stop()

    assert stages == ["loading", "probing"]
    assert threading.active_count() == before
    with pytest.raises(EngineDead):
        engine.check()
    with pytest.raises(EngineDead):
        engine.run(ReadPage(Image.new("RGB", (200, 200), "white")), Call())


def test_the_recogniser_plans_no_memory() -> None:
    """RapidOCR reads lines with the session it was given, not with one of its own, whose memory grows."""
    session = new_recogniser()._load_rec_model().session.session

    options = session.get_session_options()
    assert (options.enable_mem_pattern, options.enable_cpu_mem_arena) == (False, False)
    assert (options.intra_op_num_threads, options.inter_op_num_threads) == (1, 1)


def test_the_search_for_lines_takes_all_threads() -> None:
    """Of a page alone nothing else could run meanwhile."""
    session = new_detector(2)._load_det_model().session.session

    options = session.get_session_options()
    assert (options.enable_mem_pattern, options.intra_op_num_threads) == (True, 2)
    assert options.get_session_config_entry("session.intra_op.allow_spinning") == "0"


ALONE = """
import sys
sys.modules["sounddevice"] = None  # as on a server without PortAudio
def guard(event, args):
    if event in ("socket.connect", "socket.getaddrinfo"):
        raise RuntimeError(f"{event} {args}")
    if event == "open" and isinstance(args[1], str) and set(args[1]) & set("wax+") and "site-packages" in str(args[0]):
        raise RuntimeError(f"writes {args[0]}")
sys.addaudithook(guard)
sys.dont_write_bytecode = True
from worker.engines.cpu import CpuEngine
engine = CpuEngine(threads=1)
engine.start(lambda stage: None)
engine.stop()
"""


def test_it_starts_without_network_or_portaudio_and_says_nothing() -> None:
    """Loading opens no connection, writes no file beside the packages, needs no microphone, and prints nothing."""
    done = subprocess.run([sys.executable, "-c", ALONE], cwd=ROOT, capture_output=True, text=True, check=False)

    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
