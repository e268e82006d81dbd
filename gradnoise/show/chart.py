"""A curve in a terminal: braille dots in 80 columns, with its interval and a second line."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from rich.text import Text

from .table import integer

CURVE, BAND, LEVEL, FRAME = "bold cyan", "blue", "yellow", "dim"
DOTS = ((0x01, 0x08), (0x02, 0x10), (0x04, 0x20), (0x40, 0x80))  # of a braille cell, from the top
LABELS = 8  # characters to the left of the frame


@dataclass(frozen=True, eq=False)
class Curve:
    """What a chart shows against x; all arrays of shape (n,), nan where there is nothing.

    Args:
        x: increasing.
        y: drawn as a line of dots.
        low, high: drawn as a shaded band; high may be infinite.
        level: drawn as a dashed line.
        log: whether the axis is logarithmic; then only positive numbers are shown.
    """

    x: np.ndarray
    y: np.ndarray
    low: np.ndarray | None = None
    high: np.ndarray | None = None
    level: np.ndarray | None = None
    log: bool = False


def chart(curve: Curve, width: int, height: int, *, labelled: bool = True) -> Text:
    """The curve in `height` lines of `width` characters, and two more for the x axis if labelled.

    A column of dots shows the mean of the points in it, and the last one where it has none.
    """
    columns = width - LABELS - 1
    place = _Axis.of(curve, height)
    x = np.linspace(curve.x[0], curve.x[-1], 2 * columns + 1) if len(curve.x) else np.zeros(1)
    cells = np.full((height, columns), " ", dtype=object)
    styles = np.full((height, columns), "", dtype=object)
    if place is not None:
        _band(cells, styles, curve, place, x)
        _level(cells, styles, curve, place, x)
        _dots(cells, styles, place.rows(_binned(curve.x, curve.y, x), 4))
    text = Text(no_wrap=True)
    for row in range(height):
        label = place.label(row) if place else ""
        text.append(f"{label:>{LABELS}}{'┤' if label else '│'}", style=FRAME)
        for cell, style in zip(cells[row], styles[row], strict=True):
            text.append(cell, style=style)
        text.append("\n")
    if labelled and len(curve.x):
        ends = f"step {integer(curve.x[0])}", integer(curve.x[-1])
        gap = max(columns - sum(map(len, ends)), 1)
        text.append(f"{' ' * LABELS}└{'─' * columns}\n", style=FRAME)
        text.append(f"{' ' * (LABELS + 1)}{ends[0]}{' ' * gap}{ends[1]}\n", style=FRAME)
    text.right_crop(1)
    return text


@dataclass(frozen=True)
class _Axis:
    """The vertical axis: from the value at its lower edge to that at its upper edge."""

    bottom: float
    top: float
    height: int
    log: bool

    @classmethod
    def of(cls, curve: Curve, height: int) -> _Axis | None:
        """Around the curve, the second line, and lower ends where there is no value."""
        shown = [curve.y]
        if curve.level is not None:
            shown.append(curve.level)
        if curve.low is not None:
            shown.append(np.where(np.isnan(curve.y), curve.low, math.nan))
        values = np.concatenate(shown)
        values = values[np.isfinite(values) & ((values > 0) | (not curve.log))]
        if not len(values):
            return None
        bottom, top = float(values.min()), float(values.max())
        if curve.log:
            factor = 2.0 if curve.low is not None else 1.1
            return cls(math.log10(bottom / factor), math.log10(top * factor), height, True)
        room = 0.05 * (top - bottom) or 0.05 * abs(top) or 1.0
        return cls(bottom - room, top + room, height, False)

    def rows(self, values: np.ndarray, parts: int = 1) -> np.ndarray:
        """Rows of the values from the top, each row of `parts` parts; nan where there is none."""
        with np.errstate(invalid="ignore", divide="ignore"):
            own = np.log10(values) if self.log else values
        share = (self.top - own) / (self.top - self.bottom)
        return np.floor(np.clip(share, 0, 1 - 1e-9) * self.height * parts)

    def label(self, row: int) -> str:
        """The number at a row, or nothing."""
        return next((f"{t:g}" for t in self._ticks() if int(self.rows(np.array(t))) == row), "")

    def _ticks(self) -> Sequence[float]:
        """At most one for two rows: powers of ten where there are several, else 1, 2, 5, 10."""
        most = max(self.height // 2, 2)
        for step in (1, 2, 5, 10, 20, 50, 100, 1000):
            ticks = self._every(step)
            if len(ticks) <= most:
                return ticks
        return self._every(1000)[:most]

    def _every(self, step: int) -> list[float]:
        if self.log:
            powers = range(math.floor(self.bottom), math.ceil(self.top) + 1)
            digits = {1: (1, 2, 5), 2: (1, 3)}.get(step, (1,))
            factor = {1: 1, 2: 1, 5: 1, 10: 2, 20: 3, 50: 4, 100: 6, 1000: 12}[step]
            found = [d * 10.0**p for p in powers if p % factor == 0 for d in digits]
            return [t for t in found if self.bottom <= math.log10(t) <= self.top]
        size = step * 10.0 ** (math.floor(math.log10(self.top - self.bottom)) - 1)
        first, last = math.ceil(self.bottom / size), math.floor(self.top / size)
        return [k * size for k in range(first, last + 1)]


def _binned(x: np.ndarray, y: np.ndarray, edges: np.ndarray) -> np.ndarray:
    """Mean of y between edges; where no x is, that of the last one before."""
    last = np.searchsorted(x, edges, side="right")
    found = []
    for begin, end in pairwise(last):
        own = y[begin:end] if end > begin else y[max(end - 1, 0) : end]
        own = own[~np.isnan(own)]
        found.append(own.mean() if len(own) else math.nan)
    return np.array(found)


def _dots(cells: np.ndarray, styles: np.ndarray, rows: np.ndarray) -> None:
    """Dots at these rows, four to a cell, joined to the column before."""
    masks = np.zeros(cells.shape, int)
    before = math.nan
    for column, row in enumerate(rows):
        if not math.isnan(row):
            start = row if math.isnan(before) else before
            for dot in range(int(min(start, row)), int(max(start, row)) + 1):
                if dot != start or dot == row:
                    masks[dot // 4, column // 2] |= DOTS[dot % 4][column % 2]
        before = row
    drawn = masks > 0
    cells[drawn] = [chr(0x2800 + mask) for mask in masks[drawn]]
    styles[drawn] = CURVE


def _band(cells: np.ndarray, styles: np.ndarray, curve: Curve, place: _Axis, x: np.ndarray) -> None:
    if curve.low is None or curve.high is None:
        return
    limit = 10.0**place.top if place.log else place.top
    ends = (np.minimum(curve.high, limit), curve.low)
    first, last = (place.rows(_binned(curve.x, end, x[::2])) for end in ends)
    for column in range(cells.shape[1]):
        if not math.isnan(first[column] + last[column]):
            inside = slice(int(first[column]), int(last[column]) + 1)
            cells[inside, column], styles[inside, column] = "░", BAND


def _level(
    cells: np.ndarray, styles: np.ndarray, curve: Curve, place: _Axis, x: np.ndarray
) -> None:
    if curve.level is None:
        return
    for column, row in enumerate(place.rows(_binned(curve.x, curve.level, x[::2]))):
        if not math.isnan(row):
            cells[int(row), column], styles[int(row), column] = "╌", LEVEL
