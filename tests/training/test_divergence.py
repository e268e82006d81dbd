"""Which runs count as diverged, and which are given up."""

from __future__ import annotations

import math

import pytest
import torch

from gradnoise.training.divergence import DivergenceMonitor


@pytest.mark.parametrize(
    ("losses", "end", "diverged"),
    [
        ([1.0, 0.9, 0.5], 0.4, False),
        ([1.0, 0.99], 0.99, False),  # slow
        ([1.0, 1.1], 1.01, True),  # higher than before
        ([1.0, 9.0, 9.0, 9.0], 0.95, True),  # blew up and did not come back
        ([1.0, 9.0, 9.0, 9.0], 0.5, False),  # did
        ([1.0], math.inf, True),
        ([1.0], math.nan, True),
    ],
)
def test_what_diverged_means(losses: list[float], end: float, diverged: bool) -> None:
    monitor = DivergenceMonitor(torch.tensor([1.0]), tolerates_spikes=True)
    for loss in losses:
        assert bool(monitor.see(torch.tensor([loss])))
    assert monitor.verdict(torch.tensor([end])) == [diverged]


@pytest.mark.parametrize(
    ("tolerates_spikes", "loss"), [(True, 2e5), (False, 30.0), (True, math.nan)]
)
def test_hopeless_runs_are_given_up(tolerates_spikes: bool, loss: float) -> None:
    monitor = DivergenceMonitor(torch.tensor([1.0, 1.0]), tolerates_spikes)
    assert monitor.see(torch.tensor([loss, 1.0])).tolist() == [False, True]


@pytest.mark.parametrize(
    ("start", "end", "diverged"),
    [
        (1.0, 1.4, False),  # a larger rate has more noise
        (1.0, 1.42, True),
        (1.0, math.nan, True),
        (-1.0, -0.6, False),  # a likelihood can be negative
        (-1.0, -0.5, True),
        (-1.0, -3.0, False),
    ],
)
def test_a_run_that_goes_on_may_end_a_little_higher(
    start: float, end: float, diverged: bool
) -> None:
    monitor = DivergenceMonitor(torch.tensor([start]), tolerates_spikes=True, goes_on=True)
    monitor.see(torch.tensor([9.0]))  # what happened in between does not count
    assert monitor.verdict(torch.tensor([end])) == [diverged]
    assert monitor.at(0).verdict(torch.tensor([end])) == [diverged]
