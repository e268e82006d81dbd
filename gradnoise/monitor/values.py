"""The numbers of a monitor by name, for loggers."""

from __future__ import annotations

import math
import time
from typing import Any, Protocol

from ..estimators.from_arrays.result import SimpleNoiseScale
from ..history.run_file import PREFIX
from ..statistics.estimate import Estimate, Status


class Monitored(Protocol):
    """What numbers are taken from."""

    source: str
    level: float
    steps: int
    measured: int
    skipped: int

    @property
    def noise_scale(self) -> SimpleNoiseScale:
        """B_simple with its parts."""

    @property
    def batch_size(self) -> float:
        """B."""

    @property
    def sharpness(self) -> float:
        """λ."""

    @property
    def critical_batch_size(self) -> Estimate:
        """B_crit."""


def numbers_of(monitor: Monitored) -> dict[str, float]:
    """Keys of docs/monitor.md with their numbers; nan where there is none."""
    scale, critical = monitor.noise_scale, monitor.critical_batch_size
    known = critical.status != Status.NO_INTERVAL
    ends = {"": critical.value, "_low": critical.low, "_high": critical.high} if known else {}
    numbers = {
        "noise_scale": scale.value,
        "noise_scale_low": scale.low,
        "noise_scale_high": scale.high,
        "trace_cov": scale.trace_cov.value,
        "grad_sq_norm": scale.grad_sq_norm.value,
        "batch_size": monitor.batch_size,
        "batch_over_noise_scale": monitor.batch_size / scale.value if scale.value else math.nan,
        **({} if math.isnan(monitor.sharpness) else {"sharpness": monitor.sharpness}),
        **{f"critical_batch_size{end}": value for end, value in ends.items()},
        "measured": float(monitor.measured),
        "skipped": float(monitor.skipped),
    }
    return {f"{PREFIX}{name}": number for name, number in numbers.items()}


def line_of(monitor: Monitored, now: dict[str, Any]) -> dict[str, Any]:
    """What a sink is given of one measured step.

    Args:
        now: further values of this step alone; None where there is none.
    """
    given = {f"{PREFIX}{name}": float(value) for name, value in now.items() if value is not None}
    numbers = numbers_of(monitor)
    numbers.pop(f"{PREFIX}sharpness", None)  # of an earlier step; that of this one is among `now`
    return {**place_of(monitor), "level": monitor.level, **numbers, **given}


def place_of(monitor: Monitored) -> dict[str, Any]:
    """Where and when a line is written."""
    return {"step": monitor.steps, "time": time.time(), "source": monitor.source}
