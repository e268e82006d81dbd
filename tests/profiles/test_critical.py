"""The critical batch size from trΣ, the sharpness and the fall of the loss."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

import pytest
import torch
from torch import nn

import gradnoise as gn
from gradnoise.profiles.critical import critical_batch_size
from tests.reports import TOY


def known(value: float) -> gn.Estimate:
    return gn.Estimate(value, value, value, 0.95, 0.0, 100)


@dataclass(frozen=True)
class At:
    """One measurement: numbers alone."""

    loss: gn.Estimate
    trace_cov: gn.Estimate
    sharpness: gn.Estimate


def at(loss: float, trace: float = 1.0, sharpness: float = 2.0) -> At:
    return At(known(loss), known(trace), known(sharpness))


def critical(
    members: list[Any], steps: list[float], ahead: float | None = None, simple: float = math.nan
) -> gn.Estimate:
    return critical_batch_size(members, steps, ahead, known(simple))


def test_it_is_where_noise_and_curvature_allow_the_same_rate() -> None:
    run = [at(9.0), at(3.0, sharpness=8.0), at(2.0, trace=40.0)]
    found = critical(run, [1, 10, 20])
    slope = (3.0 - 2.0) / math.log(2)  # -dL/d ln t, from 10 to 20 steps
    assert float(found) == pytest.approx(2 / 8.0 * 40.0 / slope)
    assert (found.low, found.high) == pytest.approx((float(found) / 5, float(found) * 5))
    assert (found.status, found.samples) == (gn.Status.RESOLVED, 100)


@pytest.mark.parametrize("simple", [0.1, 1.0, 7.0])
def test_the_interval_holds_the_other_prediction_and_a_factor_of_two(simple: float) -> None:
    found = critical([at(3.0), at(2.0)], [1, math.e], simple=simple)
    assert float(found) == pytest.approx(1.0)
    assert found.low == pytest.approx(min(1.0, simple) / 2)
    assert found.high == pytest.approx(max(1.0, simple) * 2)


def test_only_ratios_of_steps_count() -> None:
    run = [at(3.0), at(2.0), at(1.5)]
    found = [float(critical(run, [k, 2 * k, 4 * k])) for k in (1, 64, 0.1)]
    assert found == pytest.approx([found[0]] * 3)


def test_the_slope_is_not_taken_between_neighbours_that_are_close() -> None:
    close = critical([at(3.0), at(1.9), at(2.0)], [10, 19, 20])
    assert float(close) == pytest.approx(1 / (1.0 / math.log(2)))


def test_the_sharpness_is_the_largest_of_the_last_third_of_the_run() -> None:
    run = [at(4.0, sharpness=90.0), at(3.0, sharpness=5.0), at(2.0)]
    assert float(critical(run, [10, 20, 60])) == pytest.approx(2 / 5 * math.log(3))


def test_ahead_of_a_run_it_is_larger_because_the_loss_falls_more_slowly() -> None:
    """L = -ln t, from t = 100 on n steps: dL/dn = 1/(t + n), so -dL/d ln n = n/(t + n)."""
    run, steps = [at(-math.log(50)), at(-math.log(100))], [50, 100]
    assert float(critical(run, steps)) == pytest.approx(1.0)
    for ahead in (10, 100, 1e6):
        expected = (100 + ahead) / ahead
        assert float(critical(run, steps, ahead)) == pytest.approx(expected)


def test_momentum_allows_larger_effective_rates() -> None:
    """Full-batch descent of least squares, profiled with the optimizer."""
    model, data = TOY.model(), TOY.sample(200, seed=0)
    sgd = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9)
    run = []
    for step in range(1, 7):
        sgd.zero_grad()
        TOY.loss_fn(model, data).mean().backward()
        sgd.step()
        if step in (3, 6):
            run.append(gn.profile(model, TOY.loss_fn, data, optimizer=sgd))
    fall = (float(run[0].loss) - float(run[1].loss)) / math.log(2)
    top = max(float(p.sharpness) for p in run)
    expected = 20 / top * float(run[1].trace_cov) / fall
    assert float(critical(run, [3, 6])) == pytest.approx(expected)
    plain = [replace(p, optimizer=None) for p in run]
    assert float(critical(plain, [3, 6])) == pytest.approx(expected / 10)


@pytest.mark.parametrize(
    ("run", "steps"),
    [
        ([at(2.0), at(1.0)], [10, 11]),
        ([at(2.0, sharpness=-1.0), at(1.0, sharpness=-1.0)], [1, 2]),
        ([at(2.0), at(1.0, trace=0.0)], [1, 2]),
    ],
)
def test_it_has_no_value_where_nothing_falls_or_limits(run: list[Any], steps: list[float]) -> None:
    found = critical(run, steps)
    assert math.isnan(float(found))
    assert (found.low, found.high) == (0.0, math.inf)
    assert found.status is gn.Status.SIGNAL_BELOW_NOISE


def test_a_loss_that_does_not_fall_gives_a_bound() -> None:
    for last, simple in ((1.0, 8.0), (2.0, math.nan)):
        found = critical([at(1.0), at(last)], [1, 2], simple=simple)
        assert math.isnan(float(found))
        assert (found.low, found.high) == (4.0 if simple == 8 else 0.0, math.inf)
        assert found.status is gn.Status.NO_DESCENT


def test_it_needs_steps_losses_and_sharpness() -> None:
    with pytest.raises(gn.NotMeasuredError, match=r"gn\.pool\(profiles, steps="):
        critical([at(2.0), at(1.0)], [])
    with pytest.raises(gn.NotMeasuredError, match="needs the `sharpness` of every measurement"):
        critical([gn.noise_scale_from_gradients(torch.eye(3)), at(1.0)], [1, 2])
    with pytest.raises(gn.ArgumentError, match="`ahead` must be a positive number; got 0"):
        critical([at(2.0), at(1.0)], [1, 2], 0)


def test_the_rates_of_sgd_say_nothing_of_a_run_with_adam() -> None:
    model, data = nn.Linear(3, 1).double(), TOY.sample(40, seed=0)
    adam = torch.optim.Adam(model.parameters())
    profile = gn.profile(model, nn.MSELoss(), data_of(data), optimizer=adam)
    with pytest.raises(gn.NotMeasuredError, match=r'metric of Adam.*metric="optimizer"'):
        critical([profile, profile], [1, 2])


def data_of(batch: Any) -> tuple[torch.Tensor, torch.Tensor]:
    inputs, targets = batch
    return inputs, targets.reshape(-1, 1)
