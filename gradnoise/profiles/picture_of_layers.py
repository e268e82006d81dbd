"""Where noise and curvature sit: the shares of the layers."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from ..errors import check_whole
from ..moments.layer import Layer
from ..show.axes import finish
from ..show.figure import axes_or_new, figure_of
from ..show.style import BOTH, CURVATURE, NOISE, WORDS, ink
from ..statistics.estimate import Estimate
from .results import Results

if TYPE_CHECKING:
    from matplotlib.axes import Axes

LETTERS = 6  # of a layer's name that are shown, per inch of the picture
GAP = "…"
THICK = 0.27  # of a bar; three stand at one name


@dataclass(frozen=True)
class Share:
    """One of the three quantities that layers have a share of.

    Args:
        label: in the legend.
        color, hatch: of its bars.
        of: the share of a layer; None where it was not measured.
    """

    label: str
    color: str
    hatch: str
    of: Callable[[Layer], Estimate | float | None]


SHARES = (
    Share("noise, trΣ", NOISE, "", lambda layer: layer.noise_share),
    Share("sharpness, λ", CURVATURE, "////", lambda layer: layer.sharpness_share),
    Share("both, tr(HΣ)", BOTH, "....", lambda layer: layer.curvature_noise_share),
)


def layers(profile: Results, *, top: int = 12, axes: Axes | None = None) -> Axes:
    """Which layers hold the noise and the curvature, in percent of the whole model.

    Bars of the shares of trΣ, of the sharpest direction (λ) and of tr(HΣ); each sums to 100 % over
    all layers, and the last one can be negative in a layer (see `Layer`). Intervals are black
    lines; a share without a value has its interval alone.

    Args:
        profile: what `gn.profile` returns.
        top: how many layers are shown, those with the largest shares; the others are one row.
        axes: where to draw; by default in a new Figure. Their scales and limits are set.

    Returns:
        Axes: these.

    Raises:
        ArgumentError: `top` is no whole number from 1 on.
        ImportError: matplotlib is not installed.
    """
    check_whole("top", top, 1)
    found = list(profile.layers.values())
    shown = _largest(found, top)
    rest = [layer for layer in found if layer not in shown]
    measured = [s for s in SHARES if any(s.of(layer) is not None for layer in found)]
    rows = len(shown) + bool(rest)
    axes = axes_or_new(axes, 7, 1.6 + 0.42 * rows)
    for place, share in enumerate(measured):
        offset = THICK * (place - (len(measured) - 1) / 2)
        parts = [share.of(layer) for layer in shown]
        if rest:
            parts.append(_sum([share.of(layer) for layer in rest]))
        _bars(axes, share, parts, np.arange(rows) + offset)
    inches = axes.bbox.width / figure_of(axes).dpi
    names = readable([layer.name or "(root)" for layer in shown], int(LETTERS * inches))
    names += [f"{len(rest)} other layer{'s' if len(rest) > 1 else ''}"] if rest else []
    axes.set_yticks(range(rows), names, fontsize=WORDS)
    axes.set_ylim(rows - 0.4, -0.6)
    axes.axvline(0, color=ink(), lw=0.8, zorder=1)
    axes.set_xlabel("share in percent")
    whole = "s" if len(found) > 1 else ""
    title = f"{profile.model}, {profile.samples} samples: shares of {len(found)} layer{whole}"
    return finish(axes, title)


def _largest(found: list[Layer], top: int) -> list[Layer]:
    """As they stand in the model; where they are too many, those with the largest shares."""
    if len(found) <= top + 1:  # a row for one other layer would save nothing
        return found

    def largest(layer: Layer) -> float:
        parts = [_percent(share.of(layer)) for share in SHARES]
        return max((abs(part) for part in parts if not math.isnan(part)), default=0.0)

    order = sorted(range(len(found)), key=lambda i: (-largest(found[i]), i))
    return [found[i] for i in sorted(order[:top])]


def _percent(share: Estimate | float | None) -> float:
    return math.nan if share is None else 100 * float(share)


def _sum(parts: list[Estimate | float | None]) -> float | None:
    """Without an interval: those of layers do not add up."""
    values = [float(part) for part in parts if part is not None]
    return sum(values) if values else None


def _bars(
    axes: Axes, share: Share, parts: list[Estimate | float | None], places: np.ndarray
) -> None:
    values = np.array([_percent(part) for part in parts])
    axes.barh(
        places, np.nan_to_num(values), THICK, color=share.color, hatch=share.hatch,
        edgecolor=ink(), lw=0.4, label=share.label,
    )  # fmt: skip
    for part, place in zip(parts, places, strict=True):
        if isinstance(part, Estimate) and -math.inf < part.low < part.high < math.inf:
            ends = [100 * part.low, 100 * part.high]
            axes.plot(ends, [place, place], color=ink(), lw=1.2, marker="|", ms=4, mew=1.2)


def readable(names: list[str], letters: int) -> list[str]:
    """Names of at most so many letters that stay different from one another; or longer ones.

    Parts that all begin with are left out first, then long parts in the middle; numbers stay.
    """
    parts = [name.split(".") for name in names]
    same = 0
    while len(names) > 1 and all(len(p) > same + 1 and p[same] == parts[0][same] for p in parts):
        same += 1
    cut = [
        name if len(name) <= letters else _cut(p[same:], letters)
        for name, p in zip(names, parts, strict=True)
    ]
    return cut if len(set(cut)) == len(set(names)) else names


def _cut(parts: list[str], letters: int) -> str:
    """The parts of a name joined, from long ones in the middle on left out until there is room."""
    parts = list(parts)
    middle = [i for i in range(1, len(parts) - 1) if not parts[i].isdigit()]
    for i in sorted(middle, key=lambda i: -len(parts[i])):
        if len(_joined(parts)) <= letters:
            break
        parts[i] = GAP
    name = _joined(parts)
    kept = letters - (len(name) - len(parts[-1])) - 1  # of the last part
    if len(name) <= letters or kept < 4:
        return name
    return _joined([*parts[:-1], parts[-1][:kept] + GAP])


def _joined(parts: list[str]) -> str:
    """With a dot between parts, but not beside a gap, and one gap for several."""
    return re.sub(rf"\.?({GAP}\.?)+", GAP, ".".join(parts))
