"""Layers and parameter groups as tables, and the layer that limits the learning rate."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from rich.table import Table
from rich.text import Text

from ..moments.layer import Layer
from ..show.table import cells, integer, plain_table, width
from ..statistics.estimate import Estimate, Status, percent
from .results import Results, nothing_follows

SHOWN = 6
NAME = 28  # characters of a layer's name at most; of longer ones a part
NUMBERS, FEW = 62, 38  # characters of a line that all other columns take, and those that stay
NARROW = 76  # shorter lines have no room for sizes and intervals


def by_layer(profile: Results) -> list[Text | Table]:
    """The noisiest layers, then the groups where there are several, then the limiting layer."""
    parts: list[Text | Table] = [_table("layer", profile.layers, profile.level)]
    if len(profile.groups) > 1:
        parts += [Text(), _table("parameter group", profile.groups, profile.level)]
    sentence = limiting_layer(profile)
    return parts + ([Text(), Text(sentence)] if sentence else [])


def limiting_layer(profile: Results) -> str:
    """Which layer limits the learning rate; empty for one, or where nothing is said of rates."""
    if nothing_follows(profile):
        return ""
    known = [
        (float(layer.sharpness_share), layer)
        for layer in profile.layers.values()
        if layer.sharpness_share is not None and not math.isnan(float(layer.sharpness_share))
    ]
    if len(known) < 2:
        return ""
    share, layer = max(known, key=lambda pair: pair[0])
    holds = f"it holds {share:.0%} of the sharpest direction, the top eigenvector of H"
    if layer.limits_lr:
        return f"Layer {layer.name or '(root)'} limits the learning rate: {holds}."
    crowded = layer.sharpness_share and layer.sharpness_share.status is Status.NOT_SEPARATED
    why = "another direction is about as sharp" if crowded else "two halves of the samples disagree"
    return f"Layer {layer.name or '(root)'} may limit the learning rate: {holds}, but {why}."


def _table(kind: str, layers: Mapping[str, Layer], level: float) -> Table:
    ranked = sorted(layers.values(), key=lambda layer: -layer.noise_share)
    headings = [
        kind,
        "parameters",
        "% of trΣ",
        "% of λ",
        "its trΣ/|G|²",
        f"{percent(level)} interval",
    ]
    rows = [
        [
            name, integer(layer.size), f"{layer.noise_share:.0%}", _sum([layer]),
            *cells(layer.simple_noise_scale, "samples"),
        ]
        for name, layer in zip(_names(ranked[:SHOWN]), ranked, strict=False)
    ]  # fmt: skip
    if len(ranked) > SHOWN:
        rest = ranked[SHOWN:]
        share = f"{sum(layer.noise_share for layer in rest):.0%}"
        size = integer(sum(layer.size for layer in rest))
        rows.append([f"({len(rest)} more)", size, share, _sum(rest), "", ""])
    shown = (0, 2, 3, 4) if width() < NARROW else range(len(headings))
    table = plain_table(*(headings[i] for i in shown))
    for row in rows:
        table.add_row(*(row[i] for i in shown))
    return table


def _names(layers: Sequence[Layer]) -> list[str]:
    """Names that fit: the end of a long one, or its start and its end where ends are alike."""
    taken = FEW if width() < NARROW else NUMBERS
    most = max(12, min(NAME, width() - taken))
    names = [layer.name or "(root)" for layer in layers]
    for start in (0, most // 3, most // 2, 2 * most // 3):
        short = [n if len(n) <= most else f"{n[:start]}…{n[start + 1 - most :]}" for n in names]
        if len(set(short)) == len(names):
            break
    return short


def _sum(layers: list[Layer]) -> str:
    """Their share of λ, added up; a dash where there is none."""
    shares: list[Estimate | None] = [layer.sharpness_share for layer in layers]
    total = sum(math.nan if share is None else float(share) for share in shares)
    return "–" if math.isnan(total) else f"{total:.0%}"
