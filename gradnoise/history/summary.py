"""B_simple of a whole run from the file of its monitor, and of its thirds."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from ..statistics.estimate import Estimate, Status
from ..statistics.ratio import ratio
from .run_file import Run

LEAST = 6  # measured steps: two for each third


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


def summary(run: Run) -> Summary | None:
    """B_simple pooled over a run: a ratio of sums, never a mean of ratios.

        B_simple = Σ_t trΣ_t / Σ_t |G|²_t

    over the measured steps t, each with weight 1. The interval is Fieller's, from the spread of the
    steps, as if they were independent. Where Σ|G|² is not above its error there is a lower bound,
    and no value.

    Args:
        run: as `Run.load` gives it.

    Returns:
        The summary; None where fewer than six steps were measured.

    Example:
        >>> columns = {
        ...     "step": np.arange(6.0),
        ...     "trace_cov_now": np.array([2.0, 2.0, 4.0, 4.0, 6.0, 6.0]),
        ...     "grad_sq_norm_now": np.array([2.0, 2.0, 1.0, 1.0, 1.0, 1.0]),
        ... }
        >>> found = summary(Run(columns, ("samples",) * 6))
        >>> float(found.whole.noise_scale), [float(part.noise_scale) for part in found.thirds]
        (3.0, [1.0, 4.0, 6.0])
    """
    known, *_ = run.moments()
    if len(known) < LEAST:
        return None
    thirds = tuple(_part(run, own) for own in np.array_split(known, 3))
    return Summary(_part(run, known), thirds)


def _part(run: Run, lines: np.ndarray) -> Part:
    trace, signal = (run.column(f"{name}_now")[lines] for name in ("trace_cov", "grad_sq_norm"))
    steps = run.column("step")[lines]
    means = (_mean(column[lines]) for column in (run.batch_sizes, run.column("lr")))
    return Part(int(steps[0]), int(steps[-1]), pooled(trace, signal, run.level), *means)


def pooled(trace: np.ndarray, signal: np.ndarray, level: float) -> Estimate:
    """Σ trΣ/Σ|G|² over measured steps, with Fieller's interval from their spread."""
    count = len(trace)
    if count < 2:
        return Estimate(math.nan, 0.0, math.inf, level, math.nan, count, Status.NO_INTERVAL)
    covariance = np.cov(trace, signal) / count
    return ratio(
        float(trace.mean()),
        float(signal.mean()),
        variances=(float(covariance[0, 0]), float(covariance[1, 1])),
        covariance=float(covariance[0, 1]),
        level=level,
        samples=count,
        freedom=count - 1,
        positive_denominator=True,
    )


def _mean(values: np.ndarray) -> float:
    known = values[np.isfinite(values)]
    return float(known.mean()) if len(known) else math.nan
