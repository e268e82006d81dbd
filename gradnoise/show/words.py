"""Words in a picture: broken into lines, and put where nothing else stands."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from .figure import figure_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.text import Text
    from matplotlib.transforms import Bbox

AROUND = 1.15  # free room around words, as a factor of their size
SHORTEST = 10  # letters of a line
GUIDE = 1  # lines up to this zorder may run through words


def fit(text: Text, room: float) -> bool:
    """Break a text that is longer than the room, in pixels, into lines; whether it was."""
    words = text.get_text()
    letters = len(words)
    while letters > SHORTEST and _length(text) > room > 0:
        letters = min(letters - 1, int(len(words) * room / _length(text)))
        lines = textwrap.wrap(
            words, max(letters, SHORTEST), break_long_words=False, break_on_hyphens=False
        )
        text.set_text("\n".join(lines))
    return letters < len(words)


def _length(text: Text) -> float:
    """Of its longest line, in pixels."""
    box = text.get_window_extent()
    return float(box.height if text.get_rotation() == 90 else box.width)


def put(
    axes: Axes, text: str, spots: Iterable[tuple[float, float]], look: dict[str, Any]
) -> Text | None:
    """Words at the first of several spots that is free, fixed to the data; None where none is.

    Free is a spot inside of the axes where no other words, no mark and no line would be covered.

    Args:
        axes: with the scales, limits and lines that it will have.
        text: the words.
        spots: in fractions of the axes, from the best one on.
        look: of the words, as matplotlib's `Axes.text` takes it.
    """
    spots = list(spots)
    if not spots:
        return None
    taken, lines = _boxes(axes), [line for line in axes.lines if line.zorder > GUIDE]
    paths = [line.get_path().transformed(line.get_transform()) for line in lines]
    words = axes.text(*spots[0], text, transform=axes.transAxes, **look)
    first, start = words.get_window_extent(), axes.transAxes.transform(spots[0])
    for spot in spots:
        box = first.translated(*(axes.transAxes.transform(spot) - start)).expanded(AROUND, AROUND)
        inside = axes.bbox.x0 <= box.x0 <= box.x1 <= axes.bbox.x1
        inside = inside and axes.bbox.y0 <= box.y0 <= box.y1 <= axes.bbox.y1
        if not inside or any(box.overlaps(other) for other in taken):
            continue
        if not any(path.intersects_bbox(box, filled=False) for path in paths):
            x, y = axes.transData.inverted().transform(axes.transAxes.transform(spot))
            words.set_position((float(x), float(y)))
            words.set_transform(axes.transData)
            return words
    words.remove()
    return None


def _boxes(axes: Axes) -> list[Bbox]:
    """Where words and marks stand, in pixels."""
    from matplotlib.transforms import Bbox

    found = [text.get_window_extent() for text in axes.texts]
    for line in axes.lines:
        if line.get_marker() in ("None", None, "", "|"):
            continue
        half = 0.6 * line.get_markersize() * figure_of(axes).dpi / 72
        for x, y in line.get_transform().transform(line.get_xydata()):
            found.append(Bbox([[x - half, y - half], [x + half, y + half]]))
    return found
