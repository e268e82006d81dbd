"""B_simple of a whole run from the file of its monitor, and of its thirds."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np

from ..statistics.estimate import Estimate
from ..statistics.ratio_of_sums import ratio_of_sums
from .run_file import Run


@dataclass(frozen=True)
class Part:
    """A part of a run.

    Args:
        first, last: steps between which it lies.
        noise_scale: B_simple = Σ trΣ/Σ|G|² over its measured steps, in samples.
        batch_size: B, the mean over these.
        lr: ε, likewise; nan where it is not known.
    """

    first: int
    last: int
    noise_scale: Estimate
    batch_size: float
    lr: float


@dataclass(frozen=True)
class Summary:
    """What a run says as a whole, and each third of its measured steps."""

    whole: Part
    thirds: tuple[Part, ...]


def summary(run: Run, level: float = 0.95) -> Summary | None:
    """B_simple pooled over a run: a ratio of sums, never a mean of ratios.

        B_simple = Σ_t trΣ_t / Σ_t |G|²_t

    over the measured steps t, each with weight 1. The interval says how far it moves with the
    choice of the steps (`ratio_of_sums`), as if they were independent.

    Args:
        run: as `Run.load` gives it.
        level: coverage of the intervals.

    Returns:
        The summary; None where fewer than three steps were measured.

    Example:
        >>> columns = {
        ...     "step": np.array([1.0, 2.0, 3.0]),
        ...     "trace_cov_now": np.array([2.0, 4.0, 6.0]),
        ...     "grad_sq_norm_now": np.array([2.0, 1.0, 1.0]),
        ... }
        >>> found = summary(Run(columns, ("samples",) * 3))
        >>> float(found.whole.noise_scale), [float(part.noise_scale) for part in found.thirds]
        (3.0, [1.0, 4.0, 6.0])
    """
    both = run.column("trace_cov_now") + run.column("grad_sq_norm_now")
    known = np.flatnonzero(np.isfinite(both))
    if len(known) < 3:
        return None
    thirds = tuple(_part(run, own, level) for own in np.array_split(known, 3))
    return Summary(_part(run, known, level), thirds)


def _part(run: Run, lines: np.ndarray, level: float) -> Part:
    pairs = [
        (_exactly(trace, level), _exactly(signal, level))
        for trace, signal in zip(
            run.column("trace_cov_now")[lines], run.column("grad_sq_norm_now")[lines], strict=True
        )
    ]
    scale = replace(ratio_of_sums(pairs, level), samples=len(lines))
    steps = run.column("step")[lines]
    means = (_mean(run.column(name)[lines]) for name in ("batch_size", "lr"))
    return Part(int(steps[0]), int(steps[-1]), scale, *means)


def _exactly(value: float, level: float) -> Estimate:
    """One step as a point of the jackknife: its own error shows in the spread of the steps."""
    return Estimate(float(value), float(value), float(value), level, 0.0, 1)


def _mean(values: np.ndarray) -> float:
    known = values[np.isfinite(values)]
    return float(known.mean()) if len(known) else math.nan
