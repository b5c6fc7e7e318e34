"""What the README shows is what the project does."""

from __future__ import annotations

import re

from bench.table import with_tables
from phi4.settings import Settings, variable_of
from tests.conftest import ROOT

README = (ROOT / "README.md").read_text()


def test_its_figures_are_those_that_were_measured() -> None:
    """The tables are those that `python -m bench.table` makes of bench/results/ and bench/faults.json."""
    assert "<!-- figures:" in README
    assert with_tables(README) == README


def test_every_variable_it_names_is_read() -> None:
    """No setting is documented that the service does not know."""
    known = {variable_of(name) for name in Settings.model_fields} | {"PHI4_URL"}
    named = set(re.findall(r"`((?:PHI4|REDIS|PORT)[A-Z0-9_]*)(?:=[^`]*)?`", README))

    assert {"PORT", "REDIS_URL", "PHI4_ENGINE"} <= named
    assert named - known == set()


def test_every_file_it_links_is_there() -> None:
    """Links inside the project lead somewhere."""
    links = re.findall(r"\]\((?!https?://)([^)#]+)\)", README)

    assert [link for link in links if not (ROOT / link).exists()] == []
    assert links
