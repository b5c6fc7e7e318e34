"""Webhooks are signed, sent again on a schedule under one id, and given up in the end."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest
from standardwebhooks import Webhook, WebhookVerificationError

from phi4.blobs import Blobs
from phi4.client import verify_webhook
from phi4.errors import Cancelled
from phi4.job import NewJob
from phi4.store import Hook, Store
from phi4.store.keys import key
from tests.conftest import eventually
from tests.making_jobs import (
    claim,
    complete,
    make_due,
    plan,
    prepared,
    raw,
    read,
    reap_until,
    scheduled,
    submit,
    take_hook,
)
from tests.servers import Reply, Request, Web, web
from worker.outgoing import Outgoing
from worker.webhooks import Webhooks

KEY = b"a secret of 24 bytes or more"
SECRET = "whsec_" + base64.b64encode(KEY).decode()
#: What the service promises: seconds between one try and the next, and up to a fifth more.
WAITS = [5, 30, 300, 1_800, 7_200, 18_000, 28_800, 36_000]
MOST_INLINE = 20_000


@pytest.fixture
def receiver() -> Iterator[Web]:
    """Somebody's server."""
    with web() as running:
        yield running


@pytest.fixture
def blobs(tmp_path: Path) -> Blobs:
    """An empty blob store."""
    return Blobs(f"file://{tmp_path}")


@pytest.fixture
def webhooks(store: Store, blobs: Blobs) -> Webhooks:
    """Deliveries that are sent when told, or all the time while `running`."""
    return make(store, blobs)


def make(store: Store, blobs: Blobs, *secrets: str, seconds: float = 10.0, per_host: int = 10) -> Webhooks:
    """Deliver to listed hosts."""
    outgoing = Outgoing(frozenset({"127.0.0.1"}))
    return Webhooks(store, blobs, outgoing, secrets=secrets or [SECRET], seconds=seconds, per_host=per_host)


@contextmanager
def running(webhooks: Webhooks) -> Iterator[None]:
    """Deliver what is due, as a side worker does."""
    webhooks.start()
    webhooks.wake()
    try:
        yield
    finally:
        webhooks.stop()


def completed(store: Store, blobs: Blobs, url: str, result: bytes = b'{"text": "Hi."}', **fields: Any) -> NewJob:
    """Take a job to its end, so that its delivery is due."""
    job = prepared(store, webhook_url=url, webhook_events=("job.completed",), **fields)
    finish = complete(store, claim(store))
    assert finish is not None
    blobs.put(f"{job.id}/result.json", result)
    store.work.end(finish, "completed", result=f"{job.id}/result.json")
    return job


def due(store: Store) -> Hook:
    """Take the delivery that is due."""
    hook = take_hook(store)
    assert hook is not None
    return hook


def signature_of(request: Request) -> str:
    """What the signature has to be, from the words of the Standard Webhooks specification."""
    signed = b".".join([request.headers["webhook-id"].encode(), request.headers["webhook-timestamp"].encode()])
    return "v1," + base64.b64encode(hmac.digest(KEY, signed + b"." + request.body, hashlib.sha256)).decode()


# -- what is sent


def test_a_delivery_tells_of_the_job(store: Store, blobs: Blobs, webhooks: Webhooks, receiver: Web) -> None:
    """The event, the job, and its result when that is small."""
    job = completed(store, blobs, f"{receiver.url}/hook?a=b", metadata={"order": "ä 7"})
    hook = due(store)
    assert webhooks.post(hook) == ("delivered", "200")
    [request] = receiver.seen
    assert (request.method, request.path) == ("POST", "/hook?a=b")
    assert request.headers["content-type"] == "application/json"
    body = json.loads(request.body)
    assert body == {
        "id": request.headers["webhook-id"],
        "event": "job.completed",
        "created_at": hook.event_ms // 1000,
        "job": {
            "id": job.id,
            "type": "ocr",
            "status": "completed",
            "metadata": {"order": "ä 7"},
            "result": {"text": "Hi."},
        },
    }
    assert body["id"].startswith("evt_")
    assert len(body["id"]) == 30


def test_a_delivery_is_signed(store: Store, blobs: Blobs, webhooks: Webhooks, receiver: Web) -> None:
    """Over its id, its time and its body as sent, byte by byte, also beyond ASCII."""
    completed(store, blobs, receiver.url, result='{"text": "Grüße 漢字 \U0001f600"}'.encode())
    webhooks.post(due(store))
    [request] = receiver.seen
    assert "漢字".encode() in request.body
    assert request.headers["webhook-signature"] == signature_of(request)
    seconds, _ = raw(store).time()
    assert abs(int(request.headers["webhook-timestamp"]) - int(seconds)) < 60


def test_while_a_secret_is_replaced_each_one_signs(store: Store, blobs: Blobs, receiver: Web) -> None:
    """The newest first; receivers that know either of them take the delivery, others do not."""
    new, other = ("whsec_" + base64.b64encode(letter * 32).decode() for letter in (b"n", b"o"))
    completed(store, blobs, receiver.url)
    assert make(store, blobs, new, SECRET).post(due(store)) == ("delivered", "200")
    [request] = receiver.seen
    signatures = request.headers["webhook-signature"].split(" ")
    assert (len(signatures), signatures[1]) == (2, signature_of(request))
    event = json.loads(request.body)
    for known in (new, SECRET):
        assert Webhook(known).verify(request.body, request.headers) == event
        assert verify_webhook(request.body, request.headers, known) == event
        assert verify_webhook(request.body, request.headers, known, other) == event
        assert verify_webhook(request.body, request.headers, other, known) == event
    with pytest.raises(WebhookVerificationError):
        verify_webhook(request.body, request.headers, other, other)


def test_a_trace_goes_on_with_the_delivery(store: Store, blobs: Blobs, webhooks: Webhooks, receiver: Web) -> None:
    """The receiver sees the trace the job came with."""
    trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    completed(store, blobs, receiver.url, traceparent=trace)
    webhooks.post(due(store))
    assert receiver.seen[0].headers["traceparent"] == trace


@pytest.mark.parametrize(("more", "inline"), [(0, True), (1, False), (10_000_000, False)])
def test_a_result_goes_along_when_the_body_stays_under_20_kb(
    store: Store, blobs: Blobs, webhooks: Webhooks, receiver: Web, more: int, inline: bool
) -> None:
    """To the byte; a larger one is left to be fetched."""
    completed(store, blobs, receiver.url, result=b'{"text": ""}', metadata={"a": "ä"})
    hook = due(store)
    webhooks.post(hook)
    room = MOST_INLINE - 1 - len(receiver.seen[0].body)
    text = "x" * (room % 2 + more) + "ä" * (room // 2)
    blobs.put(f"{hook.job_id}/result.json", json.dumps({"text": text}, ensure_ascii=False).encode())
    webhooks.post(hook)
    sent = receiver.seen[1]
    assert ("result" in json.loads(sent.body)["job"]) == inline
    assert len(sent.body) == MOST_INLINE - 1 if inline else len(sent.body) < 1_000


def test_a_result_that_is_gone_holds_up_nothing(store: Store, blobs: Blobs, webhooks: Webhooks, receiver: Web) -> None:
    """The event is told without it."""
    job = completed(store, blobs, receiver.url)
    blobs.delete_folder(job.id)
    assert webhooks.post(due(store)) == ("delivered", "200")
    assert "result" not in json.loads(receiver.seen[0].body)["job"]


EVERY_EVENT = ("job.started", "job.failed", "job.cancelled", "job.expired")


@pytest.mark.parametrize("event", EVERY_EVENT)
def test_every_event_has_its_words(store: Store, webhooks: Webhooks, receiver: Web, event: str) -> None:
    """The status at that moment, and the error if there is one."""
    job = submit(store, webhook_url=receiver.url, webhook_events=(event,), expires_in=0 if "exp" in event else 60)
    error = {"code": "x", "message": "No."}
    if event == "job.started":
        plan(store, claim(store, "prepare"), 1)
        store.work.put_back(claim(store), counts=False)
    elif event == "job.failed":
        store.work.end(claim(store, "prepare"), "failed", error=error)
    elif event == "job.cancelled":
        store.jobs.cancel(job.id, Cancelled("Enough."))
    else:
        reap_until(store, lambda r: r.expired)
    webhooks.post(due(store))
    body = json.loads(receiver.seen[0].body)
    status = "in_progress" if event == "job.started" else event.removeprefix("job.")
    assert (body["event"], body["job"]["status"]) == (event, status)
    assert body["job"].get("error", {}).get("code") == {"job.failed": "x", "job.cancelled": "cancelled"}.get(event)


def test_an_event_says_the_same_on_every_try(store: Store, webhooks: Webhooks, receiver: Web) -> None:
    """Also while the job runs again, and when that run has ended otherwise."""
    job = submit(store, webhook_url=receiver.url, webhook_events=("job.failed",))
    store.work.end(claim(store, "prepare"), "failed", error={"code": "first", "message": "No."})
    hook = due(store)
    webhooks.post(hook)
    store.jobs.retry(read(store, job), most_waiting=10)
    webhooks.post(hook)
    store.work.end(claim(store, "prepare"), "failed", error={"code": "second", "message": "No."})
    webhooks.post(hook)
    webhooks.post(due(store))

    bodies = [json.loads(request.body) for request in receiver.seen]
    assert bodies[0] == bodies[1] == bodies[2]
    assert [body["job"]["error"]["code"] for body in bodies] == ["first", "first", "first", "second"]


def test_an_event_that_an_older_version_scheduled_tells_the_jobs_error(
    store: Store, webhooks: Webhooks, receiver: Web
) -> None:
    """It was not kept with the event."""
    submit(store, webhook_url=receiver.url, webhook_events=("job.failed",))
    store.work.end(claim(store, "prepare"), "failed", error={"code": "x", "message": "No."})
    [name] = scheduled(store)
    raw(store).hdel(key("hook", name), "error")
    webhooks.post(due(store))
    assert json.loads(receiver.seen[0].body)["job"]["error"]["code"] == "x"


# -- tries


def outcome_of(store: Store, hook: Hook) -> dict[str, str]:
    """What the store knows of a delivery."""
    return dict(raw(store).hgetall(key("hook", hook.name)))


def tried(store: Store, hook: Hook, tries: int) -> dict[str, str]:
    """Wait until a delivery was tried so often; gives what came of it."""
    known: dict[str, str] = eventually(
        lambda: (now := outcome_of(store, hook)).get("tries") == str(tries) and now, what=f"try {tries}"
    )
    return known


@pytest.mark.parametrize(
    ("status", "outcome"),
    [(200, "delivered"), (202, "delivered"), (204, "delivered"), (410, "gone")]
    + [(status, "retry") for status in (301, 302, 400, 401, 404, 408, 429, 500, 503)],
)
def test_the_answer_decides(
    store: Store, blobs: Blobs, webhooks: Webhooks, receiver: Web, status: int, outcome: str
) -> None:
    """2xx is received, 410 means never again, and anything else, redirects too, is tried again."""
    receiver.answer = lambda _: Reply(status, headers={"Location": "/elsewhere"})
    completed(store, blobs, receiver.url)
    assert webhooks.post(due(store)) == (outcome, str(status))
    assert len(receiver.seen) == 1


@pytest.mark.parametrize(
    ("url", "answer"),
    [
        ("http://10.0.0.1/", "10.0.0.1 is not a public address; list it in PHI4_ALLOW_HOSTS to allow it."),
        ("http://127.0.0.1:1/", "127.0.0.1 could not be reached: no connection."),
    ],
)
def test_a_receiver_that_cannot_be_reached_is_tried_again(
    store: Store, blobs: Blobs, webhooks: Webhooks, url: str, answer: str
) -> None:
    """An address that is not public is not reached either; it may become so."""
    completed(store, blobs, url)
    assert webhooks.post(due(store)) == ("retry", answer)


def test_tries_follow_the_schedule_under_one_id_and_end(
    store: Store, blobs: Blobs, webhooks: Webhooks, receiver: Web
) -> None:
    """Each signed afresh; after the last one the delivery is given up."""
    receiver.answer = lambda _: Reply(503)
    completed(store, blobs, receiver.url)
    [name] = scheduled(store)
    hook = Hook(name, 0, 0, "")
    with running(webhooks):
        for tries, wait in enumerate(WAITS, start=1):
            webhooks.wake()
            known = tried(store, hook, tries)
            assert (known["outcome"], known["answer"]) == ("retry", "503")
            due_ms = scheduled(store)[name]
            assert wait * 1_000 <= due_ms - int(known["tried_ms"]) <= wait * 1_200 + 1_000
            make_due(store, receiver.url)
        webhooks.wake()
        assert tried(store, hook, len(WAITS) + 1)["outcome"] == "given_up"
    assert scheduled(store) == {}
    assert len(receiver.seen) == len(WAITS) + 1
    assert len({r.headers["webhook-id"] for r in receiver.seen}) == 1
    assert all(r.headers["webhook-signature"] == signature_of(r) for r in receiver.seen)


def test_a_receiver_that_is_gone_for_good_is_not_asked_again(
    store: Store, blobs: Blobs, webhooks: Webhooks, receiver: Web
) -> None:
    """410 ends the tries at once."""
    receiver.answer = lambda _: Reply(410)
    completed(store, blobs, receiver.url)
    [name] = scheduled(store)
    with running(webhooks):
        assert tried(store, Hook(name, 0, 0, ""), 1)["outcome"] == "gone"
    assert (len(receiver.seen), scheduled(store)) == (1, {})


def test_tries_go_on_in_another_worker(store: Store, blobs: Blobs, receiver: Web) -> None:
    """The schedule is in the store: a worker that starts goes on where one that ended had stopped."""
    receiver.answer = lambda _: Reply(503)
    completed(store, blobs, receiver.url)
    [name] = scheduled(store)
    for tries, wait in enumerate(WAITS[:3], start=1):
        with running(make(store, blobs)):
            known = tried(store, Hook(name, 0, 0, ""), tries)
        assert scheduled(store)[name] - int(known["tried_ms"]) >= wait * 1_000
        make_due(store, receiver.url)
    assert len(receiver.seen) == 3
    assert len({r.headers["webhook-id"] for r in receiver.seen}) == 1


def test_different_events_have_different_ids(store: Store, blobs: Blobs, webhooks: Webhooks, receiver: Web) -> None:
    """Of one job, and of different jobs at the same moment."""
    for _ in range(2):
        submitted = submit(store, webhook_url=receiver.url, webhook_events=("job.started", "job.cancelled"))
        plan(store, claim(store, "prepare"), 1)
        store.work.put_back(claim(store), counts=False)
        store.jobs.cancel(submitted.id, Cancelled())
    for _ in range(4):
        webhooks.post(due(store))
    assert len({r.headers["webhook-id"] for r in receiver.seen}) == 4


def test_a_deleted_jobs_delivery_is_given_up(store: Store, blobs: Blobs, webhooks: Webhooks, receiver: Web) -> None:
    """Also when it had been taken already; nothing is sent."""
    job = completed(store, blobs, receiver.url)
    hook = due(store)
    store.jobs.delete(job.id)
    assert webhooks.post(hook) == ("given_up", "the job was deleted")
    assert receiver.seen == []


def test_a_fault_of_our_own_counts_as_a_try(store: Store, blobs: Blobs, receiver: Web) -> None:
    """A secret that cannot sign would else be met again for ever."""
    webhooks = make(store, blobs, "whsec_not base64")
    completed(store, blobs, receiver.url)
    [name] = scheduled(store)
    with running(webhooks):
        known = tried(store, Hook(name, 0, 0, ""), 1)
    assert (known["outcome"], known["answer"]) == ("retry", "an error in this service")
    assert receiver.seen == []


# -- side by side


def test_a_slow_receiver_holds_up_no_other(store: Store, blobs: Blobs, webhooks: Webhooks, receiver: Web) -> None:
    """Deliveries are under way at the same time, and a stop waits for them."""
    answering = threading.Event()

    def answer(request: Request) -> Reply:
        if request.path == "/slow":
            answering.wait(30)
        return Reply()

    receiver.answer = answer
    for _ in range(5):
        completed(store, blobs, f"{receiver.url}/slow")
    completed(store, blobs, f"{receiver.url}/quick")
    with running(webhooks):
        eventually(lambda: any(r.path == "/quick" for r in receiver.seen), what="the quick one")
        eventually(lambda: len(receiver.seen) == 6, what="all under way")
        answering.set()
    assert scheduled(store) == {}


def test_a_receiver_that_hangs_takes_no_places_from_others(store: Store, blobs: Blobs, receiver: Web) -> None:
    """However many deliveries wait for it: a few are under way, in all workers together; others have the rest."""
    answering = threading.Event()
    with web() as dead, ExitStack() as stack:
        dead.answer = lambda _: Reply(200 if answering.wait(60) else 500)
        for _ in range(100):
            completed(store, blobs, dead.url)
        for _ in range(20):
            completed(store, blobs, receiver.url)
        for _ in range(2):
            stack.enter_context(running(make(store, blobs, seconds=60, per_host=3)))
        eventually(lambda: len(receiver.seen) == 20, what="all deliveries to the other")
        eventually(lambda: len(scheduled(store)) == 100, what="the reports on them")
        assert len(dead.seen) == 3
        answering.set()
        eventually(lambda: scheduled(store) == {}, what="the rest, when it answers again")
        assert len({r.headers["webhook-id"] for r in dead.seen}) == len(dead.seen) == 100


def test_an_owner_whose_receivers_hang_takes_no_places_from_others(store: Store, blobs: Blobs, receiver: Web) -> None:
    """However many of them there are: others have the rest."""
    answering = threading.Event()
    for owner in ("one", "another"):
        store.access.webhook_secret(owner)
    with ExitStack() as stack:
        for _ in range(4):
            dead = stack.enter_context(web())
            dead.answer = lambda _: Reply(200 if answering.wait(60) else 500)
            for _ in range(10):
                completed(store, blobs, dead.url, owner="one")
        stack.enter_context(running(make(store, blobs, seconds=60)))
        eventually(lambda: store.hooks.waiting()["sent"] == 16, what="as many under way as the owner may have")
        completed(store, blobs, receiver.url, owner="another")
        eventually(lambda: receiver.seen, seconds=5, what="the other owner's delivery")
        answering.set()
        eventually(lambda: scheduled(store) == {}, what="the rest, when they answer again")


def test_a_delivery_goes_out_once_although_many_workers_look(store: Store, blobs: Blobs, receiver: Web) -> None:
    """Two side workers share the work."""
    both = [make(store, blobs) for _ in range(2)]
    for _ in range(10):
        completed(store, blobs, receiver.url)
    with ExitStack() as stack:
        for one in both:
            stack.enter_context(running(one))
        eventually(lambda: scheduled(store) == {}, what="all deliveries")
    assert len(receiver.seen) == 10
    assert len({r.headers["webhook-id"] for r in receiver.seen}) == 10


def test_deliveries_go_on_however_often_the_store_could_not_be_asked(
    store: Store,
    blobs: Blobs,
    webhooks: Webhooks,
    receiver: Web,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Here it has no memory left, for longer than there are places for deliveries."""
    monkeypatch.setattr("worker.webhooks._POLL_S", 0.01)
    completed(store, blobs, receiver.url)
    raw(store).config_set("maxmemory", "1mb")
    try:
        with running(webhooks):
            eventually(lambda: caplog.messages.count("webhooks wait") > 40, what="many a failure")
            raw(store).config_set("maxmemory", 0)
            eventually(lambda: receiver.seen, what="the delivery")
    finally:
        raw(store).config_set("maxmemory", 0)
