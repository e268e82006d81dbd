"""The numbers for loggers: their keys, and what is nan."""

from __future__ import annotations

import math

from torch import nn

import gradnoise as gn
from gradnoise.monitor.values import line_of, numbers_of


def test_a_monitor_without_measurements_has_no_numbers() -> None:
    values = gn.NoiseMonitor(nn.Linear(2, 1)).values()
    assert all(key.startswith("gradnoise/") for key in values)
    assert values["gradnoise/measured"] == 0
    assert math.isnan(values["gradnoise/noise_scale"])
    assert math.isnan(values["gradnoise/batch_over_noise_scale"])


def test_numbers_are_those_of_the_estimates() -> None:
    monitor = gn.NoiseMonitor(nn.Linear(2, 1))
    for small in (9.0, 10.0, 11.0):
        monitor.update(small, 4.0, 4, 32)
    values, scale = numbers_of(monitor), monitor.noise_scale
    assert values["gradnoise/noise_scale"] == scale.value
    assert values["gradnoise/noise_scale_low"] == scale.low
    assert values["gradnoise/noise_scale_high"] == scale.high
    assert values["gradnoise/batch_over_noise_scale"] == 32 / scale.value
    assert values["gradnoise/trace_cov"] / values["gradnoise/grad_sq_norm"] == scale.value


def test_a_line_has_what_the_loop_gives() -> None:
    monitor = gn.NoiseMonitor(nn.Linear(2, 1))
    line = line_of(monitor, {"loss": 2.0, "lr": None})
    assert line["gradnoise/loss"] == 2.0
    assert "gradnoise/lr" not in line
    assert (line["step"], line["source"]) == (0, "auto")
