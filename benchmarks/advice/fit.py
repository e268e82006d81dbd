"""The critical batch size of training: E(B) = E_min (1 + B/B_crit), fitted to runs."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from .store import Cell

Cells = dict[int, list[Cell]]  # by batch size; one cell per rate
DRAWS = 200
NEAR = math.log(2)  # further up a valley is no parabola; so its lowest point is at most 8 % lower


@dataclass(frozen=True)
class Critical:
    """B_crit by least squares of ln E, which are those of ln S: S = E/B.

    Args:
        value, low, high: of all targets together; 95 % over seeds and targets. Two or three seeds
            tell their spread badly, so that E(B) is disturbed by the misfit in every draw too.
        misfit: root mean square of the residuals in ln E.
        targets: losses.
        values: of each target alone.
        needed: E(B) in samples by target and batch size, None where it was not reached.
    """

    value: float
    low: float
    high: float
    misfit: float
    targets: list[float]
    values: list[float]
    needed: list[list[float | None]]


def reached(samples: Sequence[int], losses: np.ndarray, target: float) -> float:
    """Samples after which a curve first is at the target, between marks by powers."""
    below = np.flatnonzero(losses <= target)
    if not len(below):
        return math.inf
    end = below[0]
    if end == 0:
        return float(samples[0])
    x, y = np.log(samples[end - 1 : end + 1]), np.log(losses[end - 1 : end + 1])
    return float(np.exp(x[0] + (math.log(target) - y[0]) / (y[1] - y[0]) * (x[1] - x[0])))


def lowest(lrs: Sequence[float], values: Sequence[float]) -> float:
    """The least of values at rates by factors of 2, by a parabola through it and its neighbours."""
    at = int(np.argmin(values))
    if not 0 < at < len(lrs) - 1 or not np.isfinite(values[at - 1 : at + 2]).all():
        return float(values[at])
    left, middle, right = np.log(values[at - 1 : at + 2])
    left, right = min(left, middle + NEAR), min(right, middle + NEAR)
    curvature = left - 2 * middle + right
    return (
        float(np.exp(middle - (right - left) ** 2 / (8 * curvature))) if curvature else values[at]
    )


def fitted(
    sizes: Sequence[int], needed: np.ndarray, limits: Sequence[float]
) -> tuple[float, float]:
    """B_crit and the misfit.

    Args:
        needed: E, shape (targets, batch sizes), infinite where a run ended before.
        limits: samples of the longest run of each batch size; E is known to be larger there.
    """
    knees = np.geomspace(min(sizes) / 8, max(sizes) * 8, 1200)
    growth = np.log1p(np.array(sizes) / knees[:, None])  # [K, sizes]
    squares, count = np.zeros(len(knees)), 0
    for row in np.asarray(needed, dtype=float):
        known = np.isfinite(row)
        if known.sum() < 3:
            continue
        logs = np.log(np.where(known, row, limits))
        level = (logs - growth)[:, known].mean(1, keepdims=True)
        misses = logs - level - growth
        misses[:, ~known] = misses[:, ~known].clip(min=0)
        squares += np.square(misses).sum(1)
        count += len(row)
    if not count:
        return math.nan, math.nan
    at = int(squares.argmin())
    return float(knees[at]), math.sqrt(squares[at] / count)


def along_budget(cells: Cells, shares: Sequence[float], budget: int) -> list[float]:
    """Losses that batches up to 64 have after shares of the budget, each at its best rate."""
    found = []
    for share in shares:
        best = []
        for size in [size for size in cells if size <= 64]:
            marks = np.array(cells[size][0].samples)
            at = int(np.abs(np.log(marks / (share * budget))).argmin())
            ends = [cell.curve(cell.losses)[at] for cell in cells[size]]
            best.append(np.log(np.nanmin(ends)))
        found.append(float(np.exp(np.mean(best))))
    return found


def along_gain(cells: Cells, gains: Sequence[float], budget: int, start: float) -> list[float]:
    """Losses after shares of the gain, in ln L, that batches up to 64 make in the budget.

    The first part of a gain from a checkpoint is no target: a lower rate or a larger batch ends the
    swing of the weights in a few steps, which is not progress.
    """
    ends = [min(cell.loss(budget) for cell in cells[size]) for size in cells if size <= 64]
    gained = math.log(start) - float(np.log(ends).mean())
    return [start * math.exp(-gain * gained) for gain in gains] if gained > 0 else []


def table(cells: Cells, losses: Sequence[float], draw: np.ndarray | None = None) -> np.ndarray:
    """E at the best rate, shape (losses, batch sizes); with a draw [sizes, n] of seeds."""
    rows = []
    for place, own in enumerate(cells.values()):
        curves = []
        for cell in own:
            seeds = list(cell.losses)
            chosen = seeds if draw is None else [seeds[k % len(seeds)] for k in draw[place]]
            curves.append(cell.curve(chosen))
        lrs = [cell.lr for cell in own]
        rows.append(
            [
                lowest(lrs, [reached(own[0].samples, curve, loss) for curve in curves])
                for loss in losses
            ]
        )
    return np.array(rows).T


def critical(cells: Cells, losses: Sequence[float]) -> Critical:
    """B_crit by the samples that every batch size takes to these losses."""
    sizes, limits = list(cells), [own[0].samples[-1] for own in cells.values()]
    needed = table(cells, losses).reshape(len(losses), len(sizes))
    value, misfit = fitted(sizes, needed, limits)
    source = np.random.default_rng(0)
    count = max(len(cell.losses) for own in cells.values() for cell in own)
    values = []
    for _ in range(DRAWS if value > 0 else 0):  # not where it is not known
        draw = source.integers(0, 6, (len(sizes), count))  # 6: of 1, 2 or 3 seeds alike
        picked = source.integers(0, len(losses), len(losses))
        drawn = table(cells, np.array(losses)[picked], draw)
        noise = np.exp(misfit * source.standard_normal(len(sizes)))  # one for all targets
        values.append(fitted(sizes, drawn * noise, limits)[0])
    low, high = np.nanquantile(values, [0.025, 0.975]) if values else (math.nan, math.nan)
    alone = [fitted(sizes, row[None], limits)[0] for row in needed]
    known = [[float(f"{e:.5g}") if math.isfinite(e) else None for e in row] for row in needed]
    return Critical(value, float(low), float(high), misfit, list(losses), alone, known)
