"""Layers and parameter groups as tables, and who limits the learning rate in one line."""

from __future__ import annotations

import math
from collections.abc import Mapping

from rich.table import Table
from rich.text import Text

from ..moments.layer import Layer
from ..show.table import cells, integer, plain_table
from ..statistics.estimate import Estimate, Status
from .results import Results

SHOWN = 6
NAME = 28  # characters of a layer's name; of longer ones the end


def by_layer(profile: Results) -> list[Text | Table]:
    """The noisiest layers, then the groups where there are several, then who limits."""
    parts: list[Text | Table] = [_table("layer", profile.layers, profile.level)]
    if len(profile.groups) > 1:
        parts += [Text(), _table("parameter group", profile.groups, profile.level)]
    sentence = steepest(profile.layers)
    return parts + ([Text(), Text(sentence)] if sentence else [])


def steepest(layers: Mapping[str, Layer]) -> str:
    """Which layer limits the learning rate; empty for one layer, or without positive curvature."""
    known = [
        (float(layer.sharpness_share), layer)
        for layer in layers.values()
        if layer.sharpness_share is not None and not math.isnan(float(layer.sharpness_share))
    ]
    if len(known) < 2:
        return ""
    share, layer = max(known, key=lambda pair: pair[0])
    holds = f"layer {_name(layer)}, which holds {share:.0%} of the steepest direction"
    if layer.limits_lr:
        return f"Learning rate: limited by {holds}."
    crowded = layer.sharpness_share and layer.sharpness_share.status is Status.NOT_SEPARATED
    why = "another direction is about as steep" if crowded else "halves of the samples disagree"
    return f"Learning rate: perhaps limited by {holds}, but {why}."


def _table(kind: str, layers: Mapping[str, Layer], level: float) -> Table:
    ranked = sorted(layers.values(), key=lambda layer: -layer.noise_share)
    interval = f"{level:.0%} interval"
    table = plain_table(kind, "parameters", "of noise", "of λ", "its own trΣ/|G|²", interval)
    for layer in ranked[:SHOWN]:
        scale = cells(layer.simple_noise_scale, "samples")
        share = f"{layer.noise_share:.0%}"
        table.add_row(_name(layer), integer(layer.size), share, _sum([layer]), *scale)
    if len(ranked) > SHOWN:
        rest = ranked[SHOWN:]
        share = f"{sum(layer.noise_share for layer in rest):.0%}"
        size = integer(sum(layer.size for layer in rest))
        table.add_row(f"({len(rest)} more)", size, share, _sum(rest), "", "")
    return table


def _name(layer: Layer) -> str:
    name = layer.name or "(root)"
    return name if len(name) <= NAME else f"…{name[1 - NAME :]}"


def _sum(layers: list[Layer]) -> str:
    """Share of the steepest direction of all of them; a dash where there is none."""
    shares: list[Estimate | None] = [layer.sharpness_share for layer in layers]
    total = sum(math.nan if share is None else float(share) for share in shares)
    return "–" if math.isnan(total) else f"{total:.0%}"
