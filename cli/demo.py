"""`phi4 demo`: starts the service, sends the examples through it, takes one signed webhook, and stops it again."""

from __future__ import annotations

import json
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import Any

from standardwebhooks import Webhook, WebhookVerificationError

from cli import show
from cli.delivery import Asked, Wanted
from cli.embedded import free_port
from cli.jobs import run
from cli.local import Local, is_ready, prepared
from phi4.settings import Settings

_INPUTS = Path(__file__).parent.parent / "examples" / "inputs"
_QUESTION = "What are the opening hours on Saturday?"
_HOOK_S = 10.0


def demo(settings: Settings) -> int:
    """Run the examples; returns the exit code."""
    if not _INPUTS.is_dir():
        show.say(f"The example inputs are not in {_INPUTS}; run the demo from a checkout of the project.")
        return 1
    with (
        tempfile.TemporaryDirectory(prefix="phi4-demo-") as folder,
        _receiver() as (hook_url, hooks),
        prepared(
            _own(settings, Path(folder)), report=_stop_waiting_after(died := threading.Event()), to_files=True
        ) as local,
    ):
        supervising = threading.Thread(target=local.supervisor.run, name="supervisor")
        supervising.start()
        try:
            return _shown(local, died, hook_url, hooks)
        finally:
            show.say("stopping the service")
            local.supervisor.stop()
            supervising.join()


def _shown(local: Local, died: threading.Event, hook_url: str, hooks: SimpleQueue[_Delivery]) -> int:
    show.say(f"starting the service on {local.url}")
    if not _comes_up(local, died):
        return _explain_failure(local.settings)
    code = run(_examples(hook_url), Wanted("text"), url=local.url)
    return code or _show_webhook(hooks, local.webhook_secret.split()[0])


def _own(settings: Settings, folder: Path) -> Settings:
    """A service of its own: a free port and an empty folder unless others were asked for, and no metrics."""
    chosen = settings.model_fields_set
    return settings.model_copy(
        update={
            "port": settings.port if "port" in chosen else free_port(),
            "data_dir": settings.data_dir if "data_dir" in chosen else folder,
            "allow_hosts": "127.0.0.1",
            "metrics_port": 0,
        }
    )


def _examples(hook_url: str) -> list[Asked]:
    return [
        Asked("invoice.jpg", "ocr", (_INPUTS / "invoice.jpg",), {}, webhook_url=hook_url),
        Asked("report.pdf", "ocr", (_INPUTS / "report.pdf",), {}),
        Asked(f"sign.jpg: {_QUESTION}", "vqa", (_INPUTS / "sign.jpg",), {"question": _QUESTION}),
        Asked("talk.mp3", "asr", (_INPUTS / "talk.mp3",), {}),
    ]


def _stop_waiting_after(died: threading.Event) -> Callable[[str], None]:
    """Listen to the supervisor: a process that dies while the demo starts would only die again."""

    def report(message: str) -> None:
        if any(words in message for words in ("starting it again", "while starting", "was not ready")):
            died.set()

    return report


def _comes_up(local: Local, died: threading.Event) -> bool:
    while not is_ready(local.url):
        if died.wait(0.1):
            return False
    return True


def _explain_failure(settings: Settings) -> int:
    show.say("The service did not start. `phi4 doctor` checks what it needs; its last words were:")
    for log in sorted((settings.data_dir / "logs").glob("*.log")):
        for line in log.read_text(errors="replace").splitlines()[-5:]:
            show.say(f"  {log.stem}: {line}")
    return 1


_Delivery = tuple[dict[str, str], bytes]


def _show_webhook(hooks: SimpleQueue[_Delivery], secret: str) -> int:
    try:
        headers, body = hooks.get(timeout=_HOOK_S)
        event: dict[str, Any] = Webhook(secret).verify(body, headers)
    except Empty:
        show.say(f"No webhook came within {_HOOK_S:g} s.")
        return 1
    except WebhookVerificationError as error:
        show.say(f"A webhook came, but its signature is wrong: {error}.")
        return 1
    size = len(json.dumps(event["job"].get("result", {})))
    show.write(
        f"\n==> webhook <==\n{event['event']} for {event['job']['id']}, signature verified, {size} bytes of result\n"
    )
    return 0


@contextmanager
def _receiver() -> Iterator[tuple[str, SimpleQueue[_Delivery]]]:
    """Listen for webhooks on loopback; gives the URL, and each delivery as its headers and body."""
    hooks: SimpleQueue[_Delivery] = SimpleQueue()

    class Receiver(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            headers = {name.lower(): value for name, value in self.headers.items()}
            hooks.put((headers, self.rfile.read(int(headers.get("content-length", 0)))))
            self.send_response(204)
            self.end_headers()

        def log_message(self, format: str, *args: Any) -> None:
            return  # the demo shows what came itself

    server = ThreadingHTTPServer(("127.0.0.1", 0), Receiver)
    thread = threading.Thread(target=server.serve_forever, name="receiver", daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/webhook", hooks
    finally:
        server.shutdown()
        server.server_close()
