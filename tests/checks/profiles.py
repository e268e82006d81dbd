"""Profiles with the numbers that a test wants."""

from __future__ import annotations

import functools
import math
from dataclasses import replace
from typing import Any

import gradnoise as gn
from gradnoise.problem.optimizer_settings import OptimizerSettings
from tests.reports import toy_profile


@functools.cache
def measured() -> gn.Profile:
    """Linear regression, trained with SGD at rate 0.1 and batch size 8."""
    p = toy_profile(probes=64)
    return replace(p, batch_size=8, optimizer=OptimizerSettings("SGD", 0.1))


def estimate(low: float, value: float, high: float, status: str = "resolved") -> gn.Estimate:
    return gn.Estimate(value, low, high, 0.95, math.nan, 100, gn.Status(status))


def with_scale(low: float, value: float, high: float, **more: Any) -> gn.Profile:
    """The same with another B_noise."""
    status = "resolved" if math.isfinite(value) else "signal below noise"
    found = estimate(low, value, high, more.pop("status", status))
    p = measured()
    return replace(p, estimates={**p.estimates, "noise_scale": found}, **more)
