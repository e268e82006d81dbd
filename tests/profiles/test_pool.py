"""Several measurements of one run: its critical batch size and its noise scales."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

import pytest
import torch

import gradnoise as gn
from tests.numbers import rows
from tests.reports import TOY, toy_profile


def known(value: float) -> gn.Estimate:
    return gn.Estimate(value, value, value, 0.95, 0.0, 100)


@dataclass(frozen=True)
class At:
    """One measurement: numbers alone."""

    trace_cov: gn.Estimate
    grad_sq_norm: gn.Estimate


@dataclass(frozen=True)
class Curved(At):
    trace_hessian_cov: gn.Estimate
    grad_curvature: gn.Estimate
    sharpness: gn.Estimate
    loss: gn.Estimate


def at(trace: float, signal: float) -> At:
    return At(known(trace), known(signal))


def curved(
    trace: float = 1.0, hessian: float = 1.0, sharpness: float = 3.0, loss: float = 1.0
) -> Curved:
    return Curved(*map(known, (trace, 1.0, hessian, 1.0, sharpness, loss)))


def test_noise_scales_are_ratios_of_sums() -> None:
    pooled = gn.pool([at(8.0, 4.0), at(9.0, 1.0)])
    assert float(pooled.simple_noise_scale) == 17 / 5
    parts = Curved(*map(known, (1.0, 1.0, 6.0, 2.0, 5.0, 1.0)))
    assert float(gn.pool([*pooled.members, parts, curved(hessian=4.0)]).noise_scale) == 10 / 3


def test_the_critical_batch_size_is_where_noise_and_curvature_allow_the_same_rate() -> None:
    run = [curved(loss=9.0), curved(sharpness=8.0, loss=3.0), curved(trace=40.0, loss=2.0)]
    found = gn.pool(run, steps=[1, 10, 20]).critical_batch_size
    slope = (3.0 - 2.0) / math.log(2)  # -dL/d ln t, from 10 to 20 steps
    assert float(found) == pytest.approx(2 / 8.0 * 40.0 / slope)
    assert (found.low, found.high) == pytest.approx((float(found) / 4, float(found) * 4))
    assert found.status is gn.Status.RESOLVED


def test_only_ratios_of_steps_count() -> None:
    run = [curved(loss=3.0), curved(loss=2.0), curved(loss=1.5)]
    found = [gn.pool(run, steps=[k, 2 * k, 4 * k]).critical_batch_size for k in (1, 64, 0.1)]
    assert [float(each) for each in found] == pytest.approx([float(found[0])] * 3)


def test_the_slope_is_not_taken_between_neighbours_that_are_close() -> None:
    run = [curved(loss=3.0), curved(loss=1.9), curved(loss=2.0)]
    close = gn.pool(run, steps=[10, 19, 20]).critical_batch_size
    assert float(close) == pytest.approx(2 / 3 / (1.0 / math.log(2)))


def test_a_loss_that_does_not_fall_has_no_critical_batch_size() -> None:
    for run, steps in (
        ([curved(loss=1.0), curved(loss=1.0)], [1, 2]),
        ([curved(loss=2.0), curved(loss=1.0)], [10, 11]),
        ([curved(loss=2.0, sharpness=-1.0), curved(sharpness=-1.0)], [1, 2]),
        ([curved(loss=2.0), curved(trace=0.0)], [1, 2]),
    ):
        found = gn.pool(run, steps=steps).critical_batch_size
        assert math.isnan(float(found))
        assert (found.low, found.high) == (0.0, math.inf)
        assert found.status is gn.Status.SIGNAL_BELOW_NOISE


def test_it_needs_steps_losses_and_sharpness() -> None:
    with pytest.raises(gn.NotMeasuredError, match=r"gn\.pool\(profiles, steps="):
        _ = gn.pool([curved(), curved()]).critical_batch_size
    with pytest.raises(gn.NotMeasuredError, match="needs the `loss` of every measurement"):
        _ = gn.pool([at(1.0, 1.0), curved()], steps=[1, 2]).critical_batch_size


def test_what_was_not_measured_is_not_a_number() -> None:
    pooled = gn.pool([at(8.0, 4.0)] * 3)
    assert pooled.noise_scale.status is gn.Status.NO_INTERVAL
    assert math.isnan(float(pooled.noise_scale))
    assert all(map(math.isnan, (*pooled.sharpness, pooled.agreement)))


def test_agreement_is_a_factor_of_one_or_more() -> None:
    assert gn.pool([curved(trace=4.0, hessian=2.0)]).agreement == 2.0
    assert gn.pool([curved(trace=2.0, hessian=4.0)]).agreement == 2.0


def test_measurements_alone_are_never_good() -> None:
    """Also where both noise scales agree: that was right in two of five cases."""
    assert gn.pool([curved()] * 5).confidence == "rough"
    assert gn.pool([at(1.0, -1.0)]).confidence == "none"


def test_profiles_noise_scales_and_moments_can_be_pooled() -> None:
    profile = toy_profile()
    model, data = TOY.model(), TOY.sample(200, seed=0)
    scale = gn.noise_scale(model, TOY.loss_fn, data)
    moments = gn.gradient_moments(model, TOY.loss_fn, data)
    pooled = gn.pool(iter([profile, scale, moments]))
    assert float(pooled.simple_noise_scale) == pytest.approx(float(profile.simple_noise_scale))
    assert float(pooled.noise_scale) == pytest.approx(float(profile.noise_scale), rel=0.05)
    assert pooled.sharpness == (float(profile.sharpness),) * 2


def test_profiles_of_a_run_give_a_critical_batch_size() -> None:
    """Full-batch descent of least squares."""
    model, data = TOY.model(), TOY.sample(200, seed=0)
    found, losses = [], []
    for step in range(7):
        if step in (3, 6):
            found.append(gn.profile(model, TOY.loss_fn, data))
        loss = TOY.loss_fn(model, data).mean()
        losses.append(float(loss.detach()))
        (gradient,) = torch.autograd.grad(loss, list(model.parameters()))
        with torch.no_grad():
            for parameter in model.parameters():
                parameter -= 0.05 * gradient
    expected = float(found[1].stable_lr()) * float(found[1].trace_cov)
    slope = (losses[3] - losses[6]) / math.log(2)
    assert float(gn.pool(found, steps=[3, 6]).critical_batch_size) == pytest.approx(
        expected / slope, rel=1e-6
    )


def test_the_report_names_what_is_known() -> None:
    text = str(gn.pool([curved(loss=2.0), curved()], steps=[1, 2]))
    assert "2 measurements along a run; confidence: rough" in text
    assert "B_crit = (2/λ)trΣ/D" in text
    assert "B_simple = Σ trΣ/Σ|G|²" in text
    assert "3.00 to 3.00 along the run" in text
    assert "B_crit" not in str(gn.pool([curved()] * 3))


def test_sampling_errors_of_moments_carry_over() -> None:
    moments = gn.noise_scale_from_gradients(rows())
    pooled = gn.pool([moments] * 3).simple_noise_scale
    assert pooled.low < float(moments.simple_noise_scale) < pooled.high


@pytest.mark.parametrize(
    ("members", "options", "message"),
    [
        ([], {}, "`profiles` is empty; measure at several points"),
        ([3.0], {}, "profiles, noise scales or gradient moments; got float without `trace_cov`"),
        ([curved()], {"level": 95}, "coverage between 0 and 1"),
        ([curved()] * 2, {"steps": [1]}, "`steps` must be 2 increasing numbers"),
        ([curved()] * 2, {"steps": [2, 2]}, "`steps` must be 2 increasing numbers"),
        ([curved()] * 2, {"steps": [0, 2]}, "`steps` must be a positive number; got 0"),
    ],
)
def test_what_cannot_be_pooled_is_refused(
    members: list[Any], options: dict[str, Any], message: str
) -> None:
    with pytest.raises(gn.ArgumentError, match=message):
        gn.pool(members, **options)


def test_measurements_of_other_runs_are_refused() -> None:
    profile = toy_profile()
    for change in ({"metric": "optimizer"}, {"population": 7.0}, {"parameters": 9}):
        with pytest.raises(gn.ArgumentError, match=f"of one run.*`{next(iter(change))}`"):
            gn.pool([profile, replace(profile, **change)])
