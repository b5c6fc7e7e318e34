"""Notices a model that has begun to repeat itself and will not stop."""

from __future__ import annotations

#: A repeated piece is at most this long: a few lines of a table, a sentence.
LONGEST_PIECE = 300
#: Repeats count once they fill this many characters, so that dot leaders, rules and empty table rows pass …
SHORTEST_RUN = 600
#: … and once a piece stands this many times in a row.
FEWEST_REPEATS = 6
_TAIL = LONGEST_PIECE * FEWEST_REPEATS


def runs_in_circles(text: str) -> bool:
    """Tell whether `text` ends in one piece said over and over."""
    tail = text[-_TAIL:]
    return any(
        len(run := tail[-max(SHORTEST_RUN, piece * FEWEST_REPEATS) :]) >= SHORTEST_RUN
        and len(run) >= piece * FEWEST_REPEATS
        and run[piece:] == run[:-piece]
        for piece in range(1, LONGEST_PIECE + 1)
    )


class LoopWatch:
    """Looks at a growing answer from time to time."""

    def __init__(self) -> None:
        self._text = ""
        self._looked_at = 0

    def hears_a_loop(self, delta: str) -> bool:
        """Add a piece of the answer, and tell whether it runs in circles by now."""
        self._text += delta
        if len(self._text) - self._looked_at < SHORTEST_RUN // 4:
            return False
        self._looked_at = len(self._text)
        return runs_in_circles(self._text)
