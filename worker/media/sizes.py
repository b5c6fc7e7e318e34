"""How small and how large a page may be, in pixels; of its own, so that drawing a page needs nothing else."""

from __future__ import annotations

#: Below this many pixels on a side nothing can be read, and models refuse it.
MIN_SIDE = 8
#: No page of a document is drawn larger than this on its long side; a poster is scaled down to it.
LONGEST_SIDE = 4_000
#: Scaled to what an engine can look at, nothing is left of the short side of a longer strip.
MOST_ASPECT = 100


def is_thin(width: float, height: float) -> bool:
    """Tell whether a page is so long and narrow that its short side vanishes when it is looked at whole."""
    return max(width, height) > MOST_ASPECT * min(width, height)
