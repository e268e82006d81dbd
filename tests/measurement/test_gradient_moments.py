"""The moments of a model's gradients in one call, against gradients written out one by one."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import nn

import gradnoise as gn
from tests import counting, oracles
from tests.counting import BugError, Counted, adam_after_steps, small_data, small_model, written_out

CRITERION = nn.CrossEntropyLoss()


def measured(**options: Any) -> gn.GradientMoments:
    return gn.gradient_moments(small_model(), CRITERION, small_data(), **options)


def gradients() -> torch.Tensor:
    return oracles.dense(small_model(), CRITERION, small_data(), second=False).gradients


@pytest.mark.parametrize("engine", ["auto", "hooks", "functional", "loop"])
def test_they_are_those_of_the_gradients_written_out(engine: str) -> None:
    g, moments = gradients(), measured(engine=engine)
    mean = torch.cat([part.flatten() for part in moments.mean.values()])
    torch.testing.assert_close(mean, g.mean(0), rtol=1e-11, atol=1e-14)
    torch.testing.assert_close(moments.sq_norms, g.square().sum(1), rtol=1e-11, atol=1e-14)
    assert float(moments.trace_cov) == pytest.approx(oracles.trace_cov(g), rel=1e-11)
    assert float(moments.grad_sq_norm) == pytest.approx(float(g.mean(0) @ g.mean(0)), rel=1e-11)
    ratio = float(moments.trace_cov) / float(moments.grad_sq_norm)
    assert float(moments.simple_noise_scale) == pytest.approx(ratio, rel=1e-14)


def test_the_variance_per_coordinate_comes_where_it_is_asked_for() -> None:
    assert measured().variance is None
    variance = measured(variance=True).variance
    assert variance is not None
    found = torch.cat([part.flatten() for part in variance.values()])
    torch.testing.assert_close(found, gradients().var(0), rtol=1e-10, atol=1e-14)


def test_of_a_part_of_the_population_the_signal_is_unbiased_for_it() -> None:
    g = gradients()
    for population, count in ((100, 100.0), ("distribution", math.inf)):
        moments = measured(population=population)
        assert moments.population == count
        expected = oracles.grad_sq_norm(g, count)
        assert float(moments.grad_sq_norm) == pytest.approx(expected, rel=1e-9)


def test_intervals_come_unless_they_are_not_wanted() -> None:
    with_them, without = (
        measured(population="distribution", intervals=wanted).trace_cov for wanted in (True, False)
    )
    assert with_them.low < float(with_them) < with_them.high
    assert float(without) == float(with_them)
    assert without.status is gn.Status.NO_INTERVAL


def test_a_wider_level_gives_a_wider_interval() -> None:
    narrow, wide = (measured(population="distribution", level=x).trace_cov for x in (0.8, 0.99))
    assert wide.low < narrow.low < narrow.high < wide.high
    assert (narrow.level, wide.level) == (0.8, 0.99)


def test_the_whole_population_is_exact() -> None:
    assert measured().trace_cov.is_exact
    assert measured().grad_sq_norm.is_exact


def test_all_samples_are_taken_unless_fewer_are_asked_for() -> None:
    data = torch.randn(5000, 2), torch.zeros(5000, 1)
    model = nn.Linear(2, 1)
    assert gn.gradient_moments(model, nn.MSELoss(), data).count == 5000
    part = gn.gradient_moments(model, nn.MSELoss(), data, max_samples=100)
    assert (part.count, part.population) == (100, 5000)


def test_the_seed_chooses_the_samples() -> None:
    first, again, other = (measured(max_samples=10, seed=seed) for seed in (3, 3, 4))
    assert written_out(first) == written_out(again)
    assert float(first.loss) != float(other.loss)


def test_micro_batches_change_memory_and_no_number() -> None:
    loss = Counted()
    small = gn.gradient_moments(small_model(), loss, small_data(), micro_batch=7)
    assert float(small.trace_cov) == pytest.approx(float(measured().trace_cov), rel=1e-12)


def test_in_the_metric_of_adam_gradients_are_divided_by_the_root_of_its_preconditioner() -> None:
    model = small_model()
    optimizer = adam_after_steps(model)
    g = oracles.dense(model, CRITERION, small_data(), second=False).gradients
    scales = []
    for parameter in model.parameters():
        state = optimizer.state[parameter]
        unbiased = state["exp_avg_sq"] / (1 - 0.999 ** float(state["step"]))
        scales.append((unbiased.sqrt() + 1e-8).flatten())
    rescaled = g / torch.cat(scales).sqrt()
    options = {"optimizer": optimizer, "metric": "optimizer"}
    moments = gn.gradient_moments(model, CRITERION, small_data(), **options)
    assert float(moments.trace_cov) == pytest.approx(oracles.trace_cov(rescaled), rel=1e-9)
    mean = rescaled.mean(0)
    assert float(moments.grad_sq_norm) == pytest.approx(float(mean @ mean), rel=1e-9)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"level": 0.0}, gn.ArgumentError, r"`level` is a coverage.*got 0.0"),
        ({"max_samples": 1}, gn.ArgumentError, r"`max_samples` must be a whole number from 2"),
        ({"metric": "optimizer"}, gn.ArgumentError, r"needs `optimizer`"),
        ({"engine": "warp"}, gn.EngineError, r"`engine` must be one of .*got 'warp'"),
        ({"population": 3}, gn.ArgumentError, r"`population` = 3 is smaller than the 40"),
    ],
)
def test_options_out_of_range_are_refused(
    options: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        measured(**options)


@pytest.mark.parametrize("fails_from", [2, 4, 7, 12])
def test_after_an_error_the_model_is_as_found(fails_from: int) -> None:
    model = small_model()
    model(small_data()[0]).sum().backward()
    before = [(p.tolist(), p.grad.tolist()) for p in model.parameters()]
    options = {"population": counting.SAMPLES + 1}
    with pytest.raises(BugError, match="a bug in my loss_fn"):
        gn.gradient_moments(model, Counted(fails_from), small_data(), **options)
    assert [(p.tolist(), p.grad.tolist()) for p in model.parameters()] == before
    assert not any(module._forward_hooks for module in model.modules())
