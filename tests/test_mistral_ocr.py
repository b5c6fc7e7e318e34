"""POST /v1/ocr with Mistral's own client, and how it refuses a request."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import pytest
from jsonschema import Draft202012Validator
from mistralai.client import Mistral
from mistralai.client.errors import HTTPValidationError, SDKError

from tests.conftest import Service, pdf, png
from tests.peers import MODEL, address, data_url, mistral_client, post
from tests.scripted_jobs import document
from tests.servers import Reply, web


@pytest.fixture
def client(service: Service) -> Iterator[Mistral]:
    """Mistral's client."""
    with mistral_client(service) as client:
        yield client


def pdf_document(pages: int = 3) -> Any:
    """A document of empty pages, as it is sent."""
    return {"type": "document_url", "document_url": data_url(pdf(pages), "application/pdf"), "document_name": "a.pdf"}


def image(url: Any = None) -> dict[str, Any]:
    """A picture, as it is sent."""
    return {"type": "image_url", "image_url": url or data_url(png())}


@pytest.mark.parametrize("model", [MODEL, "mistral-ocr-latest", None])
def test_a_document_is_read_page_by_page(client: Mistral, model: str | None) -> None:
    """Markdown and size of each page, and what was worked on."""
    answer = client.ocr.process(model=model, document=pdf_document())

    assert [(p.index, p.markdown, p.images) for p in answer.pages] == [
        (0, "page 417x625", []),
        (1, "page 419x625", []),
        (2, "page 421x625", []),
    ]
    size = answer.pages[0].dimensions
    assert size
    assert (size.dpi, size.width, size.height) == (150, 417, 625)
    assert (answer.model, answer.usage_info.pages_processed) == (MODEL, 3)
    assert answer.usage_info.doc_size_bytes == len(pdf(3))


@pytest.mark.parametrize(
    ("pages", "indexes"),
    [([2, 0], [2, 0]), ([1], [1]), ("0,2", [0, 2]), ("1-2", [1, 2]), ("0-1, 2", [0, 1, 2]), ([], [0, 1, 2])],
)
def test_pages_count_from_0(client: Mistral, pages: Any, indexes: list[int]) -> None:
    """A list or ranges; an index is the page's place in the document."""
    answer = client.ocr.process(model=MODEL, document=pdf_document(), pages=pages)

    assert [page.index for page in answer.pages] == indexes


@pytest.mark.parametrize("url", [data_url(png()), {"url": data_url(png())}])
def test_a_picture_is_read(client: Mistral, url: Any) -> None:
    """By a data: URL, plain or in an object; pictures in pages are not cut out, so that there are none to include."""
    answer = client.ocr.process(model=MODEL, document=image(url), include_image_base64=True)

    assert [(page.markdown, page.images) for page in answer.pages] == [("page 320x200", [])]


def test_a_document_is_fetched_by_its_url(client: Mistral) -> None:
    """Through the guard of all fetching."""
    with web() as server:
        server.answer = lambda _: Reply(body=pdf(1))
        answer = client.ocr.process(model=MODEL, document={"type": "document_url", "document_url": f"{server.url}/a"})
    with pytest.raises(SDKError) as private:
        client.ocr.process(model=MODEL, document=image("http://10.0.0.1/a.png"))

    assert [page.index for page in answer.pages] == [0]
    assert (private.value.status_code, "url_forbidden" in private.value.body) == (400, True)


def test_an_uploaded_document_is_read_by_its_id(service: Service, client: Mistral) -> None:
    """One of `POST /v1/files`."""
    stored = service.http.post("/v1/files", data={"purpose": "user_data"}, files={"file": ("a.png", png())}).json()

    (page,) = client.ocr.process(model=MODEL, document={"type": "file", "file_id": stored["id"]}).pages

    assert page.markdown == "page 320x200"


def test_an_async_client_is_answered(service: Service) -> None:
    """The same with asyncio."""

    async def read() -> str:
        async with Mistral(api_key="unused", server_url=address(service)) as client:
            return (await client.ocr.process_async(model=MODEL, document=image())).pages[0].markdown

    assert asyncio.run(read()) == "page 320x200"


def test_a_page_that_cannot_be_read_says_so(service: Service) -> None:
    """The others are there; the answer is as described."""
    url = data_url(document(300, 1), "application/pdf")

    answer = post(service, {"document": {"type": "document_url", "document_url": url}}, "/v1/ocr").json()

    assert [page.get("error", {}).get("code") for page in answer["pages"]] == [None, "image_too_small"]
    assert answer["usage_info"]["pages_processed"] == 1
    described = service.http.get("/openapi.json").json()
    Draft202012Validator(described | {"$ref": "#/components/schemas/OcrResponse"}).validate(answer)


FIELDS: list[tuple[dict[str, Any], list[str | int]]] = [
    ({"document": None}, ["document"]),
    ({"document": "a.pdf"}, ["document"]),
    ({"document": {"type": "file"}}, ["document"]),
    ({"document": {"type": "file", "file_id": "file_1"}}, ["document", "file_id"]),
    ({"document": {"type": "text"}}, ["document", "type"]),
    ({"document": {"type": "document_url"}}, ["document"]),
    ({"document": {"type": "image_url", "document_url": data_url(png())}}, ["document"]),
    ({"document": image("ftp://a/b")}, ["document", "image_url"]),
    ({"document": image("data:image/png;base64,%")}, ["document", "image_url"]),
    ({"document": image("data:image/png;base64,")}, ["document", "image_url"]),
    ({"pages": [-1]}, ["pages"]),
    ({"pages": ["a"]}, ["pages"]),
    ({"pages": [True]}, ["pages"]),
    ({"pages": "1-"}, ["pages"]),
    ({"pages": "3-1"}, ["pages"]),
    ({"pages": 1}, ["pages"]),
    ({"table_format": "html"}, ["table_format"]),
    ({"extract_header": True}, ["extract_header"]),
    ({"document_annotation_format": {"type": "json_schema"}}, ["document_annotation_format"]),
    ({"bbox_annotation_format": {"type": "json_schema"}}, ["bbox_annotation_format"]),
    ({"confidence_scores_granularity": "page"}, ["confidence_scores_granularity"]),
    ({"language": "en"}, ["language"]),
    ({"model": 3}, ["model"]),
]


@pytest.mark.parametrize(("fields", "place"), FIELDS, ids=[f"{next(iter(f))}-{n}" for n, (f, _) in enumerate(FIELDS)])
def test_a_wrong_field_is_refused_by_name(service: Service, fields: dict[str, Any], place: list[str | int]) -> None:
    """422 with the place, as Mistral's client reads it."""
    response = post(service, {"model": MODEL, "document": image()} | fields, "/v1/ocr")

    assert response.status_code == 422
    (wrong,) = response.json()["detail"]
    assert wrong.keys() == {"loc", "msg", "type"}
    assert wrong["loc"] == ["body", *place]


def test_the_client_understands_what_is_wrong(client: Mistral) -> None:
    """It raises its own errors, with the details in them."""
    with pytest.raises(HTTPValidationError) as wrong:
        client.ocr.process(model=MODEL, document=image(), table_format="html")
    with pytest.raises(SDKError) as unknown:
        client.ocr.process(model="pixtral", document=image())

    assert wrong.value.data.detail
    assert wrong.value.data.detail[0].loc == ["body", "table_format"]
    assert (unknown.value.status_code, '"invalid_model"' in unknown.value.body) == (400, True)


@pytest.mark.parametrize(
    ("request_of", "status", "code"),
    [
        ({"json": {"document": image(data_url(b"text"))}}, 400, "unsupported_media_type"),
        ({"json": {"document": image(data_url(png()[:200]))}}, 400, "unreadable_image"),
        ({"json": {"document": image(), "pages": [5]}}, 400, "page_out_of_range"),
        ({"content": b"{", "headers": {"Content-Type": "application/json"}}, 400, "malformed_request"),
        ({"data": {"model": MODEL}}, 400, "unsupported_media_type"),
    ],
)
def test_other_errors_are_mistrals_object(service: Service, request_of: Any, status: int, code: str) -> None:
    """`object: error`, with a code to program against."""
    response = service.http.post("/v1/ocr", **request_of)

    error = response.json()
    assert (response.status_code, error["object"], error["code"]) == (status, "error", code)
    assert error.keys() == {"object", "message", "type", "param", "code"}
