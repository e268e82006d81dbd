"""B_simple of a whole run: a ratio of sums with Fieller's interval, for its thirds as well."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from gradnoise.history.run_file import Run
from gradnoise.history.summary import summary
from gradnoise.statistics.estimate import Status
from tests.coverage import fewest, most
from tests.run_files import run_of

TRACE = (4.0, 6.0, 5.0, 9.0, 7.0, 8.0, 12.0)
SIGNAL = (2.0, 3.0, 4.0, 2.0, 3.0, 2.5, 1.0)


def run(trace: tuple[float, ...] = TRACE, signal: tuple[float, ...] = SIGNAL) -> Run:
    pairs = zip(trace, signal, strict=True)
    return run_of(*({"trace_cov_now": a, "grad_sq_norm_now": b, "lr": b} for a, b in pairs))


def test_it_is_a_ratio_of_sums() -> None:
    found = summary(run())
    assert found is not None
    assert float(found.whole.noise_scale) == pytest.approx(sum(TRACE) / sum(SIGNAL), rel=1e-14)
    assert found.whole.noise_scale.samples == 7
    assert (found.whole.first, found.whole.last) == (0, 6)
    assert found.whole.batch_size == 10
    assert found.whole.lr == pytest.approx(np.mean(SIGNAL))


def test_each_third_has_its_own() -> None:
    found = summary(run())
    assert found is not None
    assert [(part.first, part.last) for part in found.thirds] == [(0, 2), (3, 4), (5, 6)]
    assert float(found.thirds[0].noise_scale) == pytest.approx(15 / 9, rel=1e-14)
    assert [part.noise_scale.samples for part in found.thirds] == [3, 2, 2]
    assert found.thirds[2].lr == 1.75


def test_batch_sizes_are_those_of_the_steps_where_they_are_known() -> None:
    pairs = list(zip(TRACE, SIGNAL, strict=True))
    lines = [{"trace_cov_now": a, "grad_sq_norm_now": b, "batch_size_now": 64.0} for a, b in pairs]
    del lines[0]["batch_size_now"]
    found = summary(run_of(*lines))
    assert found is not None
    assert found.whole.batch_size == pytest.approx((10 + 6 * 64) / 7)


def test_at_the_ends_of_the_interval_students_test_is_just_passed() -> None:
    found = summary(run())
    assert found is not None
    scale = found.whole.noise_scale
    for end in (scale.low, scale.high):
        gaps = np.array(TRACE) - end * np.array(SIGNAL)
        assert stats.ttest_1samp(gaps, 0).pvalue == pytest.approx(0.05, rel=1e-6)


def test_a_sum_that_is_not_above_its_error_gives_a_bound_alone() -> None:
    found = summary(run(signal=(2.0, -3.0, 4.0, -2.0, 3.0, -2.5, 1.0)))
    assert found is not None
    scale = found.whole.noise_scale
    assert scale.status is Status.SIGNAL_BELOW_NOISE
    assert math.isnan(float(scale))
    assert 0 < scale.low < math.inf == scale.high


def test_a_sum_surely_below_zero_is_a_weak_gradient_and_no_curvature() -> None:
    found = summary(run(signal=(-2.0, -2.1, -2.0, -2.2, -2.0, -2.1, -2.0)))
    assert found is not None
    scale = found.whole.noise_scale
    assert scale.status is Status.SIGNAL_BELOW_NOISE
    assert 0 < scale.low < math.inf == scale.high


def test_lines_without_the_numbers_of_their_step_are_left_out() -> None:
    nothing = {"trace_cov_now": math.nan, "grad_sq_norm_now": 1.0}
    full = [{"trace_cov_now": a, "grad_sq_norm_now": 1.0} for a in TRACE]
    found, all_of_them = summary(run_of(nothing, *full, {})), summary(run_of(*full))
    assert found is not None
    assert all_of_them is not None
    assert found.whole.noise_scale == all_of_them.whole.noise_scale
    assert math.isnan(found.whole.lr)


def test_fewer_than_six_steps_have_no_thirds() -> None:
    assert summary(run(TRACE[:5], SIGNAL[:5])) is None
    assert summary(run(TRACE[:6], SIGNAL[:6])) is not None
    assert summary(run_of()) is None


def test_the_interval_holds_the_truth_of_a_run_whose_gradient_fades() -> None:
    """Gaussian gradients at B = 32, |G|² falling by a factor 4: 95 % of the intervals hold."""
    source, steps, draws, batch = np.random.default_rng(0), 60, 400, 32
    sizes = np.geomspace(1, 1 / 4, steps)
    noise = source.standard_normal((draws, steps, 50)) * math.sqrt(40 / batch / 50)
    noise[..., 0] += np.sqrt(sizes)
    trace = 40 * source.chisquare(350, (draws, steps)) / 350
    signal = (noise**2).sum(-1) - trace / batch
    held = 0
    for a, b in zip(trace, signal, strict=True):
        found = summary(run(tuple(a), tuple(b)))
        assert found is not None
        held += found.whole.noise_scale.low <= 40 / sizes.mean() <= found.whole.noise_scale.high
    assert fewest(draws) <= held <= most(draws)
