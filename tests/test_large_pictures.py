"""Pictures of more pixels than an engine looks at come to it scaled down: those of all that it has in work are held."""

from __future__ import annotations

import pytest

from tests.conftest import Service, png
from tests.engines import Scripted


@pytest.mark.parametrize(("size", "seen"), [((4_000, 3_000), (3_651, 2_738)), ((3_000, 3_000), (3_000, 3_000))])
def test_an_engine_gets_no_more_pixels_than_it_looks_at(
    service: Service, size: tuple[int, int], seen: tuple[int, int]
) -> None:
    """In the picture's shape; what is reported of the page is its own size."""
    assert Scripted.most_pixels == 10_000_000

    job = service.ended(service.submit(file=png(*size)).json()["id"])

    assert job["result"]["text"] == "page {}x{}".format(*seen)
    assert [page["dimensions"] for page in job["result"]["pages"]] == [
        {"dpi": None, "width": size[0], "height": size[1]}
    ]
