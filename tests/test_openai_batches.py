"""/v1/files and /v1/batches with OpenAI's own client: many requests in one file, answered in files."""

from __future__ import annotations

import io
import json
import time
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import openai
import pytest
from openai.types import Batch

from phi4.store import Store
from tests.conftest import Service, eventually
from tests.peers import MODEL, TALK, data_url, openai_client, user

CHAT = "/v1/chat/completions"
OVER = ("completed", "failed", "expired", "cancelled")


@pytest.fixture
def client(service: Service) -> Iterator[openai.OpenAI]:
    """OpenAI's client."""
    with openai_client(service) as client:
        yield client


def line(custom_id: str, words: str = "hi", url: str = CHAT, **body: Any) -> dict[str, Any]:
    """One request of a batch."""
    asked = {"model": MODEL, "messages": [user(words)], **body}
    return {"custom_id": custom_id, "method": "POST", "url": url, "body": asked}


def begun(client: openai.OpenAI, *lines: dict[str, Any] | str | bytes, endpoint: Any = CHAT, **more: Any) -> Batch:
    """Upload lines and begin a batch of them."""
    text = b"\n".join(one if isinstance(one, bytes) else _text(one).encode() for one in lines)
    file = client.files.create(file=("lines.jsonl", text), purpose="batch")
    return client.batches.create(input_file_id=file.id, endpoint=endpoint, completion_window="24h", **more)


def _text(one: dict[str, Any] | str) -> str:
    return one if isinstance(one, str) else json.dumps(one)


def over(client: openai.OpenAI, batch: Batch) -> Batch:
    """Wait for a batch's end."""
    return eventually(
        lambda: (now := client.batches.retrieve(batch.id)).status in OVER and now, seconds=60, what="the batch's end"
    )


def answers(client: openai.OpenAI, file_id: str | None) -> dict[str, dict[str, Any]]:
    """Read an output or error file, by custom_id."""
    assert file_id
    lines = [json.loads(text) for text in client.files.content(file_id).text.splitlines()]
    assert len({one["id"] for one in lines}) == len(lines)
    return {one["custom_id"]: one for one in lines}


# -- files


def test_a_file_is_stored_shown_given_and_erased(client: openai.OpenAI) -> None:
    """In OpenAI's shapes; it is listed by purpose and goes for good."""
    file = client.files.create(
        file=("notes.txt", b"some words"),
        purpose="user_data",
        expires_after={"anchor": "created_at", "seconds": 3_600},
    )

    assert (file.filename, file.bytes, file.purpose, file.object) == ("notes.txt", 10, "user_data", "file")
    assert file.expires_at == pytest.approx(file.created_at + 3_600, abs=1)
    assert client.files.retrieve(file.id) == file
    assert client.files.content(file.id).content == b"some words"
    assert file.id in [one.id for one in client.files.list(purpose="user_data")]
    assert file.id not in [one.id for one in client.files.list(purpose="batch")]
    assert client.files.delete(file.id).deleted
    for ask in (client.files.retrieve, client.files.content, client.files.delete):
        with pytest.raises(openai.NotFoundError):
            ask(file.id)


def test_files_are_listed_in_pages(client: openai.OpenAI) -> None:
    """Newest first, from one to the next."""
    made = [client.files.create(file=(f"{n}", b"x"), purpose="vision").id for n in range(3)]

    first = client.files.list(purpose="vision", limit=2)

    assert [one.id for one in first.data] == made[:0:-1]
    assert [one.id for one in client.files.list(purpose="vision", limit=2, after=made[1])][:1] == made[:1]
    oldest_first = [one.id for one in client.files.list(purpose="vision", order="asc")]
    assert [file_id for file_id in oldest_first if file_id in made] == made
    with pytest.raises(openai.BadRequestError) as refused:
        client.files.list(extra_query={"order": "up"})
    assert refused.value.param == "order"


@pytest.mark.parametrize(
    ("data", "files", "param"),
    [
        ({"purpose": "fine-tune"}, {"file": ("a", b"x")}, "purpose"),
        ({}, {"file": ("a", b"x")}, "purpose"),
        ({"purpose": "batch"}, {"other": ("a", b"x")}, "file"),
        ({"purpose": "batch", "expires_after[seconds]": "5"}, {"file": ("a", b"x")}, "expires_after[seconds]"),
        ({"purpose": "batch", "colour": "red"}, {"file": ("a", b"x")}, "colour"),
    ],
)
def test_uploads_that_are_refused(service: Service, data: dict[str, str], files: dict[str, Any], param: str) -> None:
    """In OpenAI's words, naming the field."""
    refused = service.http.post("/v1/files", data=data, files=files)

    assert refused.status_code == 400
    assert refused.json()["error"]["param"] == param


# -- batches


def test_a_batch_answers_each_line_once(service: Service, client: openai.OpenAI) -> None:
    """Answers in the output file, refusals in the error file, each under its custom_id."""
    lines = [line("a", "one"), line("b", "two"), line("c", temperature=9), line("d", "fail"), line("e", stream=True)]

    batch = begun(client, *lines, metadata={"order": "4711"})
    done = over(client, batch)

    assert (batch.status, batch.object, batch.endpoint) == ("validating", "batch", CHAT)
    assert (done.status, done.metadata, done.errors) == ("completed", {"order": "4711"}, None)
    assert done.request_counts is not None
    assert done.request_counts.to_dict() == {"total": 5, "completed": 2, "failed": 3}
    assert done.created_at <= (done.in_progress_at or 0) <= (done.finalizing_at or 0) <= (done.completed_at or 0)
    good, bad = answers(client, done.output_file_id), answers(client, done.error_file_id)
    assert {key: one["response"]["body"]["choices"][0]["message"]["content"] for key, one in good.items()} == {
        "a": "[user: one]",
        "b": "[user: two]",
    }
    assert {key: one["response"]["status_code"] for key, one in bad.items()} == {"c": 400, "d": 500, "e": 400}
    assert bad["c"]["response"]["body"]["error"]["param"] == "temperature"
    assert bad["e"]["response"]["body"]["error"]["param"] == "stream"
    assert batch.id in [one.id for one in client.batches.list(limit=5)]


def test_the_jobs_of_a_batch_are_erased_with_its_end(service: Service, client: openai.OpenAI) -> None:
    """They carry the batch's id while they run; afterwards the files have all that they gave."""

    def jobs() -> list[str]:
        listed = service.http.get("/v1/jobs?limit=100").json()["data"]
        return [job["metadata"]["custom_id"] for job in listed if job["metadata"].get("batch") == batch.id]

    batch = begun(client, line("a", "sleep 1"), line("b", "fail"))
    eventually(lambda: sorted(jobs()) == ["a", "b"], what="the jobs")
    over(client, batch)

    eventually(lambda: not jobs(), what="their end")


def test_recordings_are_written_down(client: openai.OpenAI) -> None:
    """As base64, as a data: URL, or as a file that was uploaded before."""
    url: Any = "/v1/audio/transcriptions"
    stored = client.files.create(file=("talk.mp3", TALK), purpose="user_data")

    def asked(custom_id: str, file: str, **more: Any) -> dict[str, Any]:
        return {"custom_id": custom_id, "method": "POST", "url": url, "body": {"model": MODEL, "file": file, **more}}

    batch = begun(
        client,
        asked("inline", data_url(TALK, "audio/mpeg")),
        asked("stored", stored.id, response_format="verbose_json"),
        asked("unknown", "file_01m83zc4avr2a8az1zbpdfxpmp"),
        endpoint=url,
    )
    done = over(client, batch)

    good, bad = answers(client, done.output_file_id), answers(client, done.error_file_id)
    assert good["inline"]["response"]["body"]["text"] == good["stored"]["response"]["body"]["text"] == "one two one two"
    assert len(good["stored"]["response"]["body"]["segments"]) > 1
    assert bad["unknown"]["response"]["body"]["error"]["param"] == "file"


@pytest.mark.parametrize(
    ("lines", "code", "number"),
    [
        ([line("a"), "no json"], "invalid_json_line", 2),
        ([line("a"), line("b"), line("a")], "duplicate_custom_id", 3),
        ([line("a", url="/v1/embeddings")], "invalid_url", 1),
        ([line("a") | {"method": "GET"}], "invalid_method", 1),
        ([line("")], "invalid_value", 1),
        ([b'{"custom_id": "\xed\xa0\x80"}'], "invalid_json_line", 1),
        ([line("a") | {"body": "hi"}], "invalid_type", 1),
        ([""], "empty_file", None),
    ],
)
def test_files_that_are_no_batch(client: openai.OpenAI, lines: list[Any], code: str, number: int | None) -> None:
    """The batch fails before any of its lines is begun, and says which line is wrong."""
    done = over(client, begun(client, *lines))

    assert done.status == "failed"
    assert done.errors is not None
    assert done.errors.data is not None
    assert [(one.code, one.line) for one in done.errors.data] == [(code, number)]
    assert done.output_file_id is done.error_file_id is None


def test_batches_that_are_refused(client: openai.OpenAI) -> None:
    """In OpenAI's words, naming the field."""
    other = client.files.create(file=("a", b"x"), purpose="user_data").id
    refused: dict[str, dict[str, Any]] = {
        "endpoint": {"input_file_id": other, "endpoint": "/v1/embeddings", "completion_window": "24h"},
        "completion_window": {"input_file_id": other, "endpoint": CHAT, "completion_window": "1h"},
        "input_file_id": {"input_file_id": other, "endpoint": CHAT, "completion_window": "24h"},
    }

    for param, body in refused.items():
        with pytest.raises(openai.BadRequestError) as error:
            client.batches.create(**body)
        assert error.value.param == param
    with pytest.raises(openai.BadRequestError):
        client.batches.create(input_file_id="file_none", endpoint=CHAT, completion_window="24h")
    with pytest.raises(openai.NotFoundError):
        client.batches.retrieve("batch_none")


def test_a_cancelled_batch_keeps_what_was_answered(client: openai.OpenAI) -> None:
    """The rest is told as cancelled, line by line; cancelling again changes nothing."""
    batch = begun(client, line("quick"), *[line(f"slow-{n}", "sleep 30") for n in range(20)])
    eventually(lambda: client.batches.retrieve(batch.id).request_counts.completed, what="the first answer")  # type: ignore[union-attr]

    asked = client.batches.cancel(batch.id)
    done = over(client, batch)

    assert asked.status == "cancelling"
    assert done.status == "cancelled"
    assert set(answers(client, done.output_file_id)) == {"quick"}
    bad = answers(client, done.error_file_id)
    assert len(bad) == 20
    assert {one["error"]["code"] for one in bad.values()} == {"batch_cancelled"}
    assert client.batches.cancel(batch.id) == done


def test_a_batch_outlives_the_api_and_the_workers(own_service: Callable[..., Service]) -> None:
    """Killed in the middle, all of them: another process goes on, and each line is answered once."""
    service = own_service()
    with openai_client(service) as client:
        batch = begun(client, *[line(str(n), f"sleep 0.3 {n}") for n in range(60)])
        eventually(lambda: client.batches.retrieve(batch.id).request_counts.completed, what="the first answer")  # type: ignore[union-attr]
        for name, module in (("api", ("api",)), ("side", ("worker", "side")), ("infer", ("worker", "infer"))):
            service.processes[name].kill()
            service.processes[name].wait(10)
            engine = {"PHI4_ENGINE": "tests.engines:Scripted"} if name == "infer" else {}
            service.start(name, *module, PHI4_METRICS_PORT="0", **engine)
        eventually(service.is_ready, seconds=60)
        done = eventually(
            lambda: (now := client.batches.retrieve(batch.id)).status in OVER and now, seconds=90, what="the end"
        )

        assert done.status == "completed"
        good = answers(client, done.output_file_id)
    assert {one["response"]["body"]["choices"][0]["message"]["content"] for one in good.values()} == {
        f"[user: sleep 0.3 {n}]" for n in range(60)
    }


def test_a_process_that_loses_its_turn_leaves_the_batch_to_the_other(service: Service, client: openai.OpenAI) -> None:
    """While another has the lock nothing is done twice; afterwards the batch goes on, and ends with one output file."""
    store = Store.at(service.redis_url)
    batch = begun(client, *[line(str(n), f"sleep 0.2 {n}") for n in range(200)])
    eventually(lambda: client.batches.retrieve(batch.id).request_counts.completed, what="the first answer")  # type: ignore[union-attr]
    store.client.set("phi4:lock:batches", "another", px=4_000)
    store.client.close()

    done = over(client, batch)

    assert done.status == "completed"
    assert set(answers(client, done.output_file_id)) == {str(n) for n in range(200)}
    made = [file for file in client.files.list() if file.filename.startswith(batch.id)]
    assert [file.id for file in made] == [done.output_file_id]


def test_a_file_goes_with_its_time(service: Service) -> None:
    """A record that ran out takes the file off the lists; the sweep erases its bytes."""
    made = service.http.post("/v1/files", data={"purpose": "batch"}, files={"file": ("a", io.BytesIO(b"x"))}).json()
    store = Store.at(service.redis_url)
    store.client.pexpire(f"phi4:file:{made['id']}", 1)
    time.sleep(0.05)

    assert service.http.get(f"/v1/files/{made['id']}").status_code == 404
    assert made["id"] not in [one["id"] for one in service.http.get("/v1/files").json()["data"]]
    store.client.close()


def test_bytes_go_out_as_they_came_in(service: Service) -> None:
    """Also many of them."""
    content = bytes(range(256)) * 20_000
    made = service.http.post("/v1/files", data={"purpose": "user_data"}, files={"file": ("a", content)}).json()

    got: httpx.Response = service.http.get(f"/v1/files/{made['id']}/content")

    assert got.content == content
