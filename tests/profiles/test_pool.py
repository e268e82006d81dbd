"""Several measurements of one run: its critical batch size and its noise scales."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
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


def test_what_was_not_measured_is_not_a_number() -> None:
    pooled = gn.pool([at(8.0, 4.0)] * 3)
    assert pooled.noise_scale.status is gn.Status.NO_INTERVAL
    assert math.isnan(float(pooled.noise_scale))
    assert all(map(math.isnan, pooled.sharpness))


def test_agreement_is_the_factor_between_both_predictions() -> None:
    run, steps = [curved(loss=3.0, sharpness=2.0), curved(loss=2.0, sharpness=2.0)], [1, math.e]
    pooled = gn.pool(run, steps=steps)  # ε_max·trΣ/D = 1 = B_simple
    assert pooled.agreement() == pytest.approx(1.0)
    assert pooled.agreement(ahead=math.e) == pytest.approx(2.0)
    smaller = gn.pool([curved(4.0, loss=3.0), curved(1.0, sharpness=2.0, loss=2.0)], steps=steps)
    assert smaller.agreement() == pytest.approx(2.5 / (2 / 3))
    assert math.isnan(gn.pool([curved()] * 2, steps=[1, 2]).agreement())


def test_measurements_alone_are_never_good() -> None:
    run = [curved(loss=3.0, sharpness=2.0), curved(loss=2.0, sharpness=2.0)]
    assert gn.pool(run, steps=[1, math.e]).confidence == "rough"
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


def test_the_critical_batch_size_is_that_of_the_members() -> None:
    pooled = gn.pool([curved(loss=2.0), curved(trace=6.0)], steps=[1, 2])
    assert float(pooled.critical_batch_size()) == pytest.approx(2 / 3 * 6.0 * math.log(2))
    assert float(pooled.critical_batch_size(2)) == pytest.approx(2 * 2 / 3 * 6.0 * math.log(2))


def test_the_report_names_what_is_known() -> None:
    text = str(gn.pool([curved(loss=2.0), curved()], steps=[1, 2]))
    assert "2 measurements along a run; confidence: rough" in text
    assert "B_crit = ε_max·trΣ/D" in text
    assert "B_simple = Σ trΣ/Σ|G|²" in text
    assert "3.00 to 3.00 along the run" in text
    assert "B_crit" not in str(gn.pool([curved()] * 3))


def test_a_report_without_sharpness_says_so() -> None:
    text = str(gn.pool([at(1.0, 2.0)] * 2, steps=[1, 2]))
    assert "B_crit = ε_max·trΣ/D not measured" in " ".join(text.split())


@pytest.mark.parametrize("steps", [np.array([1, 2]), torch.tensor([1.0, 2.0]), range(1, 3)])
def test_steps_of_every_kind_are_read(steps: Any) -> None:
    assert gn.pool([curved(loss=2.0), curved()], steps=steps).steps == (1.0, 2.0)


def test_sampling_errors_of_moments_carry_over() -> None:
    moments = gn.noise_scale_from_gradients(rows())
    pooled = gn.pool([moments] * 3).simple_noise_scale
    assert pooled.low < float(moments.simple_noise_scale) < pooled.high


@pytest.mark.parametrize(
    ("members", "options", "message"),
    [
        ([], {}, "`profiles` is empty; measure at several points"),
        (at(1.0, 2.0), {}, "`profiles` must hold the measurements of a run, in a list; got one At"),
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
