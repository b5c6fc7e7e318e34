"""Blobs in a bucket: jobs from end to end, erased when they expire, and nothing lost while the bucket is away."""

from __future__ import annotations

import io
import json
import multiprocessing
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import pytest
from typer.testing import CliRunner

from bench.faults.proxy import Proxy, proxy
from cli.main import app
from phi4.blobs import Blobs
from phi4.errors import BlobsUnavailable, UnsuitableBlobs
from phi4.job import new_id
from phi4.queue import Tickets, celery_app
from phi4.store import Store
from phi4.store.keys import key
from tests.conftest import ROOT, Service, eventually, make_service, pdf, png
from tests.s3 import BUCKET, S3
from tests.servers import Reply, web
from worker.reaper import Reaper


@pytest.fixture
def standard_variables(s3: S3, monkeypatch: pytest.MonkeyPatch) -> None:
    """Endpoint and credentials in this process, as AWS' own clients find them."""
    for name, value in s3.env.items():
        monkeypatch.setenv(name, value)


@pytest.fixture
def blobs(standard_variables: None) -> Blobs:
    """A store at a path of its own."""
    return Blobs(f"s3://{BUCKET}/{uuid.uuid4()}")


@dataclass
class Setup:
    """A service whose blobs lie in a bucket, and the way there, which can be cut."""

    service: Service
    way: Proxy
    url: str


@pytest.fixture(scope="module")
def setup(s3: S3, valkey: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Setup]:
    """One for all tests here, in a Redis database of its own."""
    url = f"s3://{BUCKET}/{uuid.uuid4()}"
    with proxy() as way:
        way.target = s3.port
        env = s3.env | {"AWS_ENDPOINT_URL_S3": f"http://127.0.0.1:{way.port}", "PHI4_BLOBS": url}
        service = make_service(valkey.removesuffix("/0") + "/10", tmp_path_factory.mktemp("s3"), **env)
        try:
            service.start_all("tests.engines:Scripted")
            yield Setup(service, way, url)
        finally:
            codes = service.stop_all()
            service.http.close()
    assert codes == dict.fromkeys(codes, 0)


def run_again(service: Service, job_id: str) -> None:
    """Run a job again although it was completed: as a retry does with one that failed."""
    client = Store.at(service.redis_url).client
    client.hset(key("job", job_id), "status", "failed")
    assert service.http.post(f"/v1/jobs/{job_id}/retry").status_code == 202


def keys_of(blobs: Blobs, job_id: str) -> list[str]:
    """The blobs of a job, by their names."""
    bucket = blobs._files
    return [p.rpartition("/")[2] for p in bucket._fs.find(bucket._at(f"{job_id[-2:]}/{job_id}"))]  # type: ignore[union-attr]


def test_a_job_lives_in_the_bucket_alone(setup: Setup, standard_variables: None) -> None:
    """Input, pages, answers and result; the data folder keeps nothing of it, and expiry erases all."""
    service, blobs = setup.service, Blobs(setup.url)
    job = service.submit(file=pdf(3)).json()
    ended = service.ended(job["id"])

    assert [p["page"] for p in ended["result"]["pages"]] == [1, 2, 3]
    kept = keys_of(blobs, job["id"])
    assert [name.partition("-")[0] for name in kept] == ["input", "result"], "what only the making needed is gone"
    assert not (service.data_dir / "blobs").exists()
    Store.at(service.redis_url).client.zadd(key("expiries"), {job["id"]: 1})
    eventually(lambda: service.http.get(f"/v1/jobs/{job['id']}").status_code == 410, what="expiry")
    eventually(lambda: not keys_of(blobs, job["id"]), what="an empty folder")


def test_what_is_missing_or_changed_in_the_bucket_is_told(setup: Setup, standard_variables: None) -> None:
    """By code, as with files on a disk."""
    service, blobs = setup.service, Blobs(setup.url)
    done, gone = (service.submit().json()["id"] for _ in range(2))
    for job in (done, gone):
        service.ended(job)
    blobs.put(f"{done}/input-0", png(9, 9))
    blobs.delete(f"{gone}/input-0")
    for job in (done, gone):
        run_again(service, job)

    assert [service.ended(j)["error"]["code"] for j in (done, gone)] == ["blob_tampered", "blob_missing"]


def test_inputs_from_urls_and_results_in_webhooks(setup: Setup) -> None:
    """Preparation writes into the bucket, delivery reads from it."""
    service = setup.service
    with web() as receiver:
        receiver.answer = lambda request: Reply(body=pdf(2) if request.method == "GET" else b"")
        body = {"type": "ocr", "input": {"url": f"{receiver.url}/a.pdf"}, "webhook_url": f"{receiver.url}/hook"}
        job = service.http.post("/v1/jobs", json=body).json()
        assert service.ended(job["id"])["status"] == "completed"
        posted = eventually(lambda: [r for r in receiver.seen if r.method == "POST"], what="the webhook")

    assert len(json.loads(posted[0].body)["job"]["result"]["pages"]) == 2


def test_a_job_waits_while_the_bucket_is_away(setup: Setup) -> None:
    """A POST is 503 and says why; jobs in any stage cost no tries and end when the bucket is back."""
    service, way = setup.service, setup.way
    prompt = {"params": json.dumps({"prompt": "sleep 1"})}
    jobs = [service.submit(file=pdf(3), **prompt).json()["id"] for _ in range(4)]
    target, way.target = way.target, 1
    way.cut()
    refused = service.submit()
    eventually(lambda: "retried" in service.output("side") + service.output("infer"), what="a try without the bucket")
    way.target = target

    assert (refused.status_code, refused.json()["code"]) == (503, "blobs_unavailable")
    assert [service.ended(job, seconds=60)["status"] for job in jobs] == ["completed"] * 4


def test_the_sweep_erases_what_lies_in_the_bucket(blobs: Blobs, store: Store, valkey: str) -> None:
    """A job nobody knows any more goes when its id is old enough; object stores keep no times of folders."""
    old, young = new_id("job", int(time.time() * 1000) - 7_200_000), new_id("job")
    for job in (old, young):
        blobs.put(f"{job}/input-0", b"x")
    reaper = Reaper(store, blobs, Tickets(celery_app(valkey)), worker="w", every=1, max_deaths=3)

    assert reaper.sweep() == 1
    assert [blobs.exists(f"{job}/input-0") for job in (old, young)] == [False, True]


def test_many_threads_share_one_store(blobs: Blobs) -> None:
    """As those of a worker do: each reads what it wrote."""

    def round_trip(n: int) -> bool:
        name = f"job_{n:04}/part"
        sha256 = blobs.put(name, bytes([n]) * 100_000)
        return blobs.get(name, sha256=sha256) == bytes([n]) * 100_000

    with ThreadPoolExecutor(32) as pool:
        assert all(pool.map(round_trip, range(96)))


def test_a_forked_process_makes_connections_of_its_own(blobs: Blobs) -> None:
    """A store that was used before a fork works on both sides after it."""
    blobs.put("job_ab/before", b"1")
    child = multiprocessing.get_context("fork").Process(target=_in_the_fork, args=(blobs,))
    child.start()
    child.join(60)

    assert child.exitcode == 0
    assert blobs.get("job_ab/after") == b"2"


def _in_the_fork(blobs: Blobs) -> None:
    sys.exit(0 if blobs.get("job_ab/before") == b"1" and blobs.put("job_ab/after", b"2") else 1)


class _BreaksOff(io.BytesIO):
    """A stream of 40 MB whose sender leaves: later than the first part was sent."""

    def read(self, size: int | None = -1) -> bytes:
        if self.tell() >= 40 << 20:
            raise ConnectionResetError
        self.seek(1 << 20, io.SEEK_CUR)
        return b"x" * (1 << 20)


def test_a_large_upload_that_breaks_off_leaves_nothing(blobs: Blobs) -> None:
    """Neither a blob nor parts that somebody pays for."""
    with pytest.raises(ConnectionResetError):
        blobs.put_stream("job_ab/input-0", _BreaksOff())

    bucket = blobs._files
    assert not blobs.exists("job_ab/input-0")
    assert not bucket._fs.call_s3("list_multipart_uploads", Bucket=BUCKET).get("Uploads")  # type: ignore[union-attr]


def test_a_large_upload_arrives_whole(blobs: Blobs) -> None:
    """In parts, with one hash over all."""
    data = bytes(range(256)) * (40 << 12)
    length, sha256 = blobs.put_stream("job_ab/input-0", io.BytesIO(data))

    assert length == len(data)
    assert blobs.get("job_ab/input-0", sha256=sha256) == data


@pytest.mark.parametrize(
    ("variables", "url", "message"),
    [
        ({"AWS_ENDPOINT_URL_S3": "http://127.0.0.1:9"}, f"s3://{BUCKET}/x", "does not answer: EndpointConnectionError"),
        ({}, "s3://no-such-bucket/x", "has no such bucket"),
        ({"AWS_ACCESS_KEY_ID": "", "AWS_SECRET_ACCESS_KEY": ""}, f"s3://{BUCKET}/x", "NoCredentials"),
    ],
)
def test_a_bucket_that_cannot_be_used_is_named(
    standard_variables: None, monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], url: str, message: str
) -> None:
    """In one sentence, as an error that may pass."""
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(BlobsUnavailable, match=message):
        Blobs(url).put("job_ab/x", b"x")


@pytest.mark.parametrize("url", ["s3://", "nosuch://bucket/x"])
def test_a_url_that_leads_nowhere_is_refused_at_once(url: str) -> None:
    """Before any job is taken."""
    with pytest.raises(UnsuitableBlobs, match="PHI4_BLOBS"):
        Blobs(url)


WITHOUT_S3FS = """
import sys
sys.modules["s3fs"] = None
from phi4.blobs import Blobs
from phi4.errors import UnsuitableBlobs
try:
    Blobs("s3://bucket/x")
except UnsuitableBlobs as error:
    print(error)
"""


def test_without_the_extra_it_is_said_what_to_install() -> None:
    """In a sentence, where s3fs is not there."""
    ran = subprocess.run([sys.executable, "-c", WITHOUT_S3FS], cwd=ROOT, capture_output=True, text=True, timeout=60)

    assert 'pip install "phi4-service[s3]"' in ran.stdout, ran.stderr


@pytest.mark.parametrize(
    ("url", "said"), [(f"s3://{BUCKET}/doctor", "takes and gives up a file"), ("s3://gone/x", "has no such bucket")]
)
def test_the_doctor_tries_the_bucket(
    standard_variables: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, url: str, said: str
) -> None:
    """With a file that it takes away again."""
    monkeypatch.setenv("PHI4_BLOBS", url)
    monkeypatch.setenv("PHI4_DATA_DIR", str(tmp_path))
    result = CliRunner().invoke(app, ["doctor"])

    assert said in " ".join(result.output.split())
    if url.endswith("doctor"):
        assert not Blobs(url).exists("doctor/probe")
