"""The colours and sizes of every picture.

The colours are of Okabe and Ito (2008), which the colour-blind tell apart. In grey some are close,
so what stands in one picture differs in dashes, marks or hatches as well. Lines are seen on white
and on black; BOTH is for areas with an edge. Words and black lines follow matplotlib's style, such
as "dark_background".
"""

from __future__ import annotations

from typing import Any

NOISE, CURVATURE, BOTH, FAINT = "#0072B2", "#D55E00", "#F0E442", "#808080"
SOLID, LONG, SHORT, MIXED, DOTS = "-", (0, (9, 2)), (0, (3, 1.5)), "-.", ":"
TITLE, WORDS, SMALL = "medium", "small", "x-small"  # relative to matplotlib's font.size


def ink() -> Any:
    """The colour of words and of black lines: black, and white on dark backgrounds."""
    from matplotlib import rcParams

    return rcParams["text.color"]
