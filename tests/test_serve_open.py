"""`phi4 serve` warns when anybody could use the model."""

from __future__ import annotations

import pytest

from cli.serve import is_open
from phi4.settings import load


@pytest.mark.parametrize(
    ("host", "more", "environment", "is_so"),
    [
        ("127.0.0.1", [], {}, False),
        ("::1", [], {}, False),
        ("localhost", [], {}, False),
        ("0.0.0.0", [], {}, True),
        ("192.168.1.5", ["--dtype", "auto"], {}, True),
        ("0.0.0.0", ["--api-key", "k"], {}, False),
        ("0.0.0.0", ["--api-key=k"], {}, False),
        ("0.0.0.0", [], {"VLLM_API_KEY": "k"}, False),
    ],
)
def test_a_server_that_others_reach_needs_a_key(
    host: str, more: list[str], environment: dict[str, str], is_so: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On loopback it does not, and a key may be an argument or vLLM's own variable."""
    monkeypatch.delenv("VLLM_API_KEY", raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)

    assert is_open(load(host=host), ["python", "-m", "vllm", *more]) is is_so
