"""tr(HΣ) and GᵀHG from blocks of samples that are a part of the population."""

from __future__ import annotations

import math
import statistics

import pytest
import torch

import gradnoise as gn
from gradnoise.estimators.curvature.few_samples import chances, near_spectrum
from gradnoise.estimators.noise.block_probes import BLOCKS, block_noise_scale
from gradnoise.estimators.noise.sums import NoiseScale
from gradnoise.tensors.trees import flatten
from tests.many import COUNT, opened, regression, written


def found_with(seeds: range, population: str | int) -> list[NoiseScale]:
    """The same samples in other blocks, with other signs."""
    own = opened(population)
    with own.problem.guard():
        moments, hessian = own.moments(), own.hessian()
        image = hessian @ flatten([*moments.mean.values()])
        near = near_spectrum(hessian, chances(moments), 0)
        return [
            block_noise_scale(hessian, own.engine, moments, near, image, seed=seed)
            for seed in seeds
        ]


@pytest.mark.parametrize("population", ["distribution", 700])
def test_they_are_unbiased_over_blocks_and_signs(population: str | int) -> None:
    model, _, batch = regression()
    size = math.inf if population == "distribution" else 700
    expected = written(batch, model).unbiased(size)
    found = found_with(range(60), population)
    for name, truth in zip(("trace_hessian_cov", "grad_curvature"), expected, strict=True):
        values = [float(getattr(scale, name)) for scale in found]
        error = statistics.stdev(values) / math.sqrt(len(values))
        assert abs(statistics.fmean(values) - truth) < 4 * error + 1e-9
        assert error < 0.03 * truth


def test_the_stated_error_of_chance_is_that_of_other_blocks_and_signs() -> None:
    """Of two samples of 640 out of 641, all that moves the estimate is blocks and signs."""
    found = found_with(range(60), COUNT + 1)
    spread = statistics.stdev(float(scale.trace_hessian_cov) for scale in found)
    stated = statistics.median(scale.trace_hessian_cov.stderr for scale in found)
    assert 0.8 * spread < stated < 1.6 * spread


@pytest.mark.parametrize("name", ["trace_hessian_cov", "grad_curvature", "hessian"])
def test_intervals_hold_the_truth_of_a_distribution(name: str) -> None:
    toy = gn.toy.LinearRegression(torch.tensor([3.0, 2.0, 1.0, 0.5, 0.2]), torch.full((5,), 0.5))
    truth = toy.truth()
    exact = truth.noise_scale if name == "hessian" else getattr(truth, name)
    inside = 0
    for seed in range(40):
        found = getattr(scale_of(toy, seed), name)
        inside += found.low <= exact <= found.high
    assert 34 <= inside <= 40


def scale_of(toy: gn.toy.LinearRegression, seed: int) -> NoiseScale:
    data = toy.sample(640, seed=seed)
    return gn.noise_scale(toy.model(), toy.loss_fn, data, population="distribution", seed=seed)


def test_parts_add_up_to_the_whole() -> None:
    (found,) = found_with(range(1), "distribution")
    assert found.parts is not None
    # K3, which is of the whole, is left out of the parts: 1/n of them
    assert float(found.parts.traces.mean(0).sum()) == pytest.approx(
        float(found.trace_hessian_cov), rel=1e-9
    )
    assert found.parts.traces.shape[0] == 2 * BLOCKS
