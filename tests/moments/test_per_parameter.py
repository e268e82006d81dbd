"""Moments of some of the parameters, as if there were no others."""

from __future__ import annotations

import itertools
import math
from dataclasses import replace

import pytest
import torch

import gradnoise as gn
from gradnoise.estimators.from_arrays.gradients import noise_scale_from_gradients
from gradnoise.moments.per_parameter import PerParameter
from tests import oracles
from tests.cases import CASES, Case, named
from tests.clouds import moments_of_cloud, split_moments
from tests.oracles import columns


@pytest.mark.parametrize("population", ["distribution", 40])
@pytest.mark.parametrize("case", CASES, ids=named)
def test_a_layer_is_measured_as_if_it_were_alone(case: Case, population: str | int) -> None:
    model, loss_fn, batch = case.build()
    g = oracles.dense(model, loss_fn, batch, second=False).gradients
    moments = gn.gradient_moments(model, loss_fn, batch, population=population)
    size = math.inf if population == "distribution" else float(population)
    for layer in moments.layers.values():
        own = g[:, columns(model, layer.parameters)]
        assert layer.size == own.shape[1]
        trace, signal = oracles.trace_cov(own), oracles.grad_sq_norm(own, size)
        assert float(layer.trace_cov) == pytest.approx(trace, rel=1e-8, abs=1e-12)
        assert float(layer.grad_sq_norm) == pytest.approx(signal, rel=1e-8, abs=1e-12)
        alone, part = moments_of_cloud(own, size), moments.restrict(layer.parameters)
        found, truth = part.deviations()[1:], alone.deviations()[1:]
        torch.testing.assert_close(found, truth, rtol=1e-8, atol=1e-12)
        for name in ("trace_cov", "grad_sq_norm", "simple_noise_scale"):  # except for the probes
            first = getattr(replace(part, trace_cov_sq=math.nan, influence_products=None), name)
            second = getattr(replace(alone, trace_cov_sq=math.nan, influence_products=None), name)
            assert first.status is second.status or not own.any()
            ends = pytest.approx((second.low, second.high), rel=1e-6, abs=1e-10)
            assert (first.low, first.high) == ends or not own.any()


def test_all_batches_of_a_small_population_average_to_its_truth() -> None:
    g = torch.randn(5, 5, dtype=torch.float64)
    drawn = [split_moments(g[list(pick)], 5).layers for pick in itertools.combinations(range(5), 3)]
    (first,) = (key for key in drawn[0])  # both parameters belong to the root
    assert first == ""
    for name, own in (("a", g[:, :2]), ("b", g[:, 2:])):
        parts = [
            split_moments(g[list(pick)], 5).restrict([name])
            for pick in itertools.combinations(range(5), 3)
        ]
        signal = math.fsum(float(part.grad_sq_norm) for part in parts) / len(parts)
        trace = math.fsum(float(part.trace_cov) for part in parts) / len(parts)
        assert signal == pytest.approx(float(own.mean(0).square().sum()), rel=1e-12, abs=1e-14)
        assert trace == pytest.approx(float(own.var(0).sum()), rel=1e-12)


def test_with_all_sign_vectors_the_probes_of_a_layer_are_exact() -> None:
    g = torch.randn(4, 7, dtype=torch.float64) + 1
    part, alone = split_moments(g).restrict(["b"]), moments_of_cloud(g[:, 2:])
    assert part.trace_cov_sq == pytest.approx(alone.trace_cov_sq, rel=1e-12)
    torch.testing.assert_close(
        part.influence_products, alone.influence_products, rtol=1e-11, atol=1e-13
    )


def test_with_many_sign_vectors_they_are_near() -> None:
    g = torch.randn(40, 7, generator=torch.Generator().manual_seed(0), dtype=torch.float64) + 1
    part, alone = split_moments(g, probes=1000).restrict(["b"]), moments_of_cloud(g[:, 2:])
    assert part.trace_cov_sq == pytest.approx(alone.trace_cov_sq, rel=0.1)
    assert alone.influence_products is not None
    assert part.influence_products is not None
    assert float(part.influence_products[1, 1]) == pytest.approx(
        float(alone.influence_products[1, 1]), rel=0.06
    )


def test_nineteen_intervals_in_twenty_hold_the_truth_of_a_layer() -> None:
    """Linear regression, x ~ N(0, C): Σ = (q + s²) C + CδδᵀC, of two parameters."""
    c, offset = torch.tensor([2.0, 1.0, 1.0, 0.5, 0.5]), torch.tensor([1.0, 0.0, 0.5, 0.5, 0.5])
    toy = gn.toy.LinearRegression(c, offset, noise=0.5)
    residual, slope = float(c @ offset**2) + 0.25, (c * offset).double()
    count, hits = 300, dict.fromkeys(itertools.product("ab", range(3)), 0)
    for seed in range(count):
        x, y = toy.sample(64, seed=seed)
        moments = split_moments(x * (x @ offset.double() - y)[:, None])
        for name, own in (("a", slice(0, 2)), ("b", slice(2, 5))):
            signal = float(slope[own].square().sum())
            trace = residual * float(c[own].sum()) + signal
            part = moments.restrict([name])
            for k, (found, truth) in enumerate(
                [
                    (part.grad_sq_norm, signal),
                    (part.trace_cov, trace),
                    (part.simple_noise_scale, trace / signal),
                ]
            ):
                hits[name, k] += found.low <= truth <= found.high
    error = math.sqrt(0.95 * 0.05 / count)
    for key, hit in hits.items():
        assert -3 * error < hit / count - 0.95 < 4 * error, (key, hit / count)


def test_arrays_by_name_have_the_same_layers() -> None:
    model, loss_fn, batch = CASES[0].build()
    gradients = gn.per_sample_gradients(model, loss_fn, batch)
    passed = gn.gradient_moments(model, loss_fn, batch, population=40)
    found = noise_scale_from_gradients(gradients, population=40)
    for name, layer in found.layers.items():
        assert float(layer.trace_cov) == pytest.approx(float(passed.layers[name].trace_cov))
        torch.testing.assert_close(
            found.restrict(layer.parameters).deviations()[1:],
            passed.restrict(layer.parameters).deviations()[1:],
        )
    whole = noise_scale_from_gradients(torch.cat([g.flatten(1) for g in gradients.values()], 1))
    assert whole.trace_cov_sq == pytest.approx(found.trace_cov_sq)


def test_merged_moments_keep_their_layers_without_intervals() -> None:
    g = torch.randn(20, 5, dtype=torch.float64) + 1
    merged, whole = split_moments(g[:8]).merge(split_moments(g[8:])), split_moments(g)
    part = merged.restrict(["b"])
    torch.testing.assert_close(part.sq_norms, whole.restrict(["b"]).sq_norms)
    assert float(part.trace_cov) == pytest.approx(float(whole.restrict(["b"]).trace_cov))
    assert part.trace_cov.status is gn.Status.NO_INTERVAL


def test_what_cannot_be_restricted_is_refused() -> None:
    moments = split_moments(torch.randn(6, 5, dtype=torch.float64))
    for names in ([], ["a", "c"]):
        with pytest.raises(gn.ArgumentError, match="one or more of the parameters a, b; got"):
            moments.restrict(names)
    with pytest.raises(gn.ArgumentError, match="sums over all parameters and cannot be restricted"):
        replace(moments, per_parameter=None).restrict(["a"])


def test_what_was_not_measured_is_not_known() -> None:
    norms = PerParameter({"a": torch.ones(4), "b": torch.ones(4)})
    assert (norms.slope, norms.gaps) == (None, None)
    assert norms.influence_products(torch.zeros(2, 4), 1.0) is None
    assert math.isnan(norms.trace_cov_sq(1.0, 2))
    assert norms.restrict(["a"]).sq_norms.keys() == {"a"}


def test_gaps_are_summed_over_the_parameters_that_are_kept() -> None:
    gaps = {"a": torch.tensor([1.0, 2.0]), "b": torch.tensor([3.0, 4.0])}
    known = PerParameter(gaps, gap_sq_norms=gaps)
    assert known.gaps is not None
    assert known.gaps.tolist() == [4.0, 6.0]
    part = known.restrict(["b"]).gaps
    assert part is not None
    assert part.tolist() == [3.0, 4.0]
