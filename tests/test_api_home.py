"""The API leaves nothing in the home folder of its user: in a container that is read-only, elsewhere somebody's own."""

from __future__ import annotations

from pathlib import Path

from tests.api_alone import api_alone


def test_the_home_folder_stays_empty(valkey: str, tmp_path: Path) -> None:
    """While it serves, too."""
    home, data = tmp_path / "home", tmp_path / "data"
    home.mkdir()
    data.mkdir()
    with api_alone(valkey, data, HOME=str(home)) as service:
        assert service.submit().status_code == 202
        assert list(home.iterdir()) == []


def test_a_home_folder_that_is_not_there_is_no_trouble(valkey: str, tmp_path: Path) -> None:
    """Nothing is said about it."""
    with api_alone(valkey, tmp_path, HOME="/nowhere") as service:
        said = service.output("api")

    assert "ERROR" not in said
    assert '"error"' not in said
