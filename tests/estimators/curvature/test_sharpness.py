"""λ and what the samples think of it."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import nn

import gradnoise as gn
from tests import oracles
from tests.cases import CORE, Case, named
from tests.many import regression, written
from tests.optimizers import OPTIMIZERS, by_hand, trained


@pytest.mark.parametrize("case", CORE, ids=named)
def test_sharpness_is_the_largest_dense_eigenvalue(case: Case) -> None:
    model, loss_fn, batch = case.build()
    truth = torch.linalg.eigvalsh(oracles.dense_of(case).hessian)
    pairs = gn.sharpness(model, loss_fn, batch, tol=1e-9)
    assert float(pairs.values) == pytest.approx(float(truth[-1]), rel=1e-8)
    assert pairs.converged
    profiled = gn.profile(model, loss_fn, batch, tol=1e-9, probes=2).sharpness
    assert float(profiled) == pytest.approx(float(truth[-1]), rel=1e-8)
    lowest = gn.sharpness(model, loss_fn, batch, which="SA", tol=1e-9)
    assert float(lowest.values) == pytest.approx(float(truth[0]), rel=1e-8)


def test_an_iteration_cut_short_says_so() -> None:
    model, loss_fn, batch = CORE[0].build()
    pairs = gn.sharpness(model, loss_fn, batch, max_iterations=2, tol=1e-12)
    assert not pairs.converged
    assert pairs.matvecs == 2


def test_uneven_batches_do_not_change_sharpness() -> None:
    model, loss_fn, (x, y) = CORE[0].build()
    whole = gn.sharpness(model, loss_fn, (x, y), tol=1e-9)
    parts = gn.sharpness(model, loss_fn, [(x[:5], y[:5]), (x[5:], y[5:])], tol=1e-9)
    assert float(parts.values) == pytest.approx(float(whole.values), rel=1e-8)


def test_bfloat16_finds_the_same_two_digits() -> None:
    torch.manual_seed(0)
    model = nn.Linear(4, 3)
    x, y = torch.randn(64, 4), torch.randint(3, (64,))
    exact = float(gn.sharpness(model, nn.CrossEntropyLoss(), (x, y)).values)
    rough = gn.sharpness(model.bfloat16(), nn.CrossEntropyLoss(), (x.bfloat16(), y), tol=0.05)
    assert float(rough.values) == pytest.approx(exact, rel=0.03)


def test_the_gauss_newton_matrix_has_its_own_modes() -> None:
    model, loss_fn, batch = CORE[0].build()
    truth = float(torch.linalg.eigvalsh(oracles.gauss_newton(model, loss_fn, batch))[-1])
    for hvp in ("auto", "kept", "fresh"):
        pairs = gn.sharpness(model, loss_fn, batch, operator="gauss-newton", hvp=hvp, tol=1e-9)
        assert float(pairs.values) == pytest.approx(truth, rel=1e-8)
    with pytest.raises(gn.ArgumentError, match="one of auto, kept, fresh; got 'finite'"):
        gn.sharpness(model, loss_fn, batch, operator="gauss-newton", hvp="finite")
    with pytest.raises(gn.ArgumentError, match="`operator` must be one of hessian, gauss-newton"):
        gn.sharpness(model, loss_fn, batch, operator="fisher")


def test_what_the_samples_leave_open_is_in_the_result() -> None:
    toy = gn.toy.LinearRegression(torch.tensor([3.0, 1.0, 0.2]), torch.ones(3))
    model, data = toy.model(), toy.sample(256, seed=0)
    found = gn.sharpness(model, toy.loss_fn, data, population="distribution")
    x, v = data[0], found.vectors[:, 0]
    quotients = (x @ v) ** 2  # vᵀH_iv with H_i = x_i x_iᵀ
    assert float(found.stderr) == pytest.approx(float(quotients.std()) / 16, rel=1e-9)
    profiled = gn.profile(model, toy.loss_fn, data, population="distribution", probes=2)
    assert found.estimate == profiled.sharpness
    assert found.estimate.low < found.held_out <= float(found.values) < found.estimate.high
    assert found.estimate.low < 3 < found.estimate.high
    assert (found.hvp, found.reason) == ("kept", gn.Hessian(model, toy.loss_fn, data).reason)


def test_the_whole_population_leaves_nothing_open() -> None:
    model, loss_fn, batch = CORE[0].build()
    for options in ({}, {"operator": "gauss-newton"}, {"hvp": "finite"}):
        found = gn.sharpness(model, loss_fn, batch, k=2, **options)
        assert found.stderr.tolist() == [0, 0]
        assert found.estimate.stderr == 0
        assert float(found.estimate) == float(found.values[0])
        assert found.estimate.high - found.estimate.low <= float(found.residuals[0]) * 1.01


def test_a_sampling_error_that_is_not_known_is_not_invented() -> None:
    model, loss_fn, batch = CORE[0].build()
    options: tuple[dict[str, Any], ...] = (
        {"operator": "gauss-newton"},
        {"intervals": False},
    )
    for option in options:
        found = gn.sharpness(model, loss_fn, batch, population="distribution", **option)
        assert found.estimate.status is gn.Status.NO_INTERVAL
        assert math.isnan(float(found.stderr))
        assert math.isnan(found.held_out)


def test_by_differences_the_sampling_error_is_that_of_second_derivatives() -> None:
    model, loss_fn, batch = CORE[0].build()
    known, found = (
        gn.sharpness(model, loss_fn, batch, population="distribution", hvp=hvp, tol=1e-8)
        for hvp in ("kept", "finite")
    )
    assert float(found.stderr) == pytest.approx(float(known.stderr), rel=1e-4)
    assert found.held_out == pytest.approx(known.held_out, rel=1e-4)
    assert found.estimate.low == pytest.approx(known.estimate.low, rel=1e-4)
    assert found.estimate.high == pytest.approx(known.estimate.high, rel=1e-4)


@pytest.mark.parametrize("which", ["SA", "LM", "BE"])
def test_every_end_has_its_bracket(which: str) -> None:
    model, loss_fn, batch = CORE[0].build()
    truth = oracles.dense(model, loss_fn, batch)
    found = gn.sharpness(
        model, loss_fn, batch, which=which, k=2, tol=1e-10, population="distribution"
    )
    for v, error in zip(found.vectors.T, found.stderr, strict=True):
        quotients = truth.hessians @ v @ v
        expected = float(quotients.std()) / len(quotients) ** 0.5
        assert float(error) == pytest.approx(expected, rel=1e-6)
    sign = -1 if float(found.values[0]) < 0 else 1
    assert sign * found.held_out < sign * float(found.values[0])
    assert found.estimate.low < found.held_out < found.estimate.high


def test_the_smallest_eigenvalue_is_the_largest_mirrored() -> None:
    toy = gn.toy.LinearRegression(torch.tensor([3.0, 1.0, 0.2]), torch.ones(3))
    options: dict[str, Any] = {"population": "distribution", "tol": 1e-10}
    model, data = toy.model(), toy.sample(128, seed=0)
    upper = gn.sharpness(model, toy.loss_fn, data, **options)
    lower = gn.sharpness(model, lambda m, b: -toy.loss_fn(m, b), data, which="SA", **options)
    assert lower.held_out == pytest.approx(-upper.held_out)
    one, other = upper.estimate, lower.estimate
    expected = (-one.value, -one.high, -one.low, one.stderr)
    assert (other.value, other.low, other.high, other.stderr) == pytest.approx(expected)


@pytest.mark.parametrize("which", ["LA", "SA", "LM", "BE"])
def test_crowded_eigenvalues_are_bracketed_at_every_end(which: str) -> None:
    toy = gn.toy.LinearRegression(torch.ones(30), torch.zeros(30))
    found = gn.sharpness(
        toy.model(), toy.loss_fn, toy.sample(256, 0), which=which, k=1, population="distribution"
    )
    assert abs(float(found.values[0]) - 1) > 0.3  # of the part
    assert found.estimate.low < 1 < found.estimate.high


@pytest.mark.parametrize("name", OPTIMIZERS)
@pytest.mark.parametrize("case", CORE[:3], ids=named)
def test_sharpness_is_that_of_steps_of_the_optimizer(case: Case, name: str) -> None:
    model, loss_fn, batch, optimizer = trained(case, name)
    scale, inside, outside = by_hand(optimizer)
    h = gn.Hessian(model, loss_fn, batch) @ torch.eye(len(scale)) + torch.diag(inside)
    truth = torch.linalg.eigvals(h / scale[:, None] + torch.diag(outside)).real.max()
    options = {"optimizer": optimizer, "metric": "optimizer", "tol": 1e-9}
    profile = gn.profile(model, loss_fn, batch, probes=2, **options)
    assert float(profile.sharpness) == pytest.approx(float(truth), rel=1e-7)
    alone = gn.sharpness(model, loss_fn, batch, population="distribution", **options)
    assert float(alone.values[0]) == pytest.approx(float(truth), rel=1e-7)
    assert alone.estimate.low < float(alone.estimate) < alone.estimate.high


def test_decoupled_decay_is_in_all_that_is_known_of_the_sharpness() -> None:
    model, loss_fn, batch, optimizer = trained(CORE[0], "AdamW")
    options = {"optimizer": optimizer, "metric": "optimizer", "tol": 1e-10}
    decayed = gn.sharpness(model, loss_fn, batch, population="distribution", **options)
    profile = gn.profile(model, loss_fn, batch, probes=2, **options)
    optimizer.param_groups[0]["weight_decay"] = 0.0
    plain = gn.sharpness(model, loss_fn, batch, population="distribution", **options)
    other = gn.profile(model, loss_fn, batch, probes=2, **options)
    for end in ("value", "low", "high"):
        gap = getattr(decayed.estimate, end) - getattr(plain.estimate, end)
        assert gap == pytest.approx(0.3, rel=1e-6), end
    assert decayed.held_out - plain.held_out == pytest.approx(0.3, rel=1e-6)
    assert float(profile.sharpness) - float(other.sharpness) == pytest.approx(0.3, rel=1e-6)
    spreads = [float(p.curvature_noise_scale) * float(p.sharpness) ** 2 for p in (profile, other)]
    assert spreads[0] == pytest.approx(spreads[1], rel=1e-6)
    assert float(profile.grad_curvature) == pytest.approx(float(other.grad_curvature), rel=1e-9)


@pytest.mark.parametrize("population", ["dataset", "distribution"])
def test_of_many_samples_it_is_found_from_a_part_of_them(population: str) -> None:
    model, criterion, batch = regression()
    matrix = written(batch, model).hessians.mean(0)
    exact = float(torch.linalg.eigvalsh(matrix)[-1])
    found = gn.sharpness(model, criterion, batch, population=population)
    full = gn.sharpness(model, criterion, batch, population=population, tol=1e-6)
    assert float(found.values[0]) <= exact * (1 + 1e-9)
    assert exact <= float(found.values[0]) + float(found.residuals[0])
    assert float(found.values[0]) == pytest.approx(exact, rel=2e-3)
    assert math.isnan(found.bound)
    assert found.matvecs < full.matvecs
    if population == "distribution":
        assert found.estimate.low <= exact <= found.estimate.high
        width, other = (e.high - e.low for e in (found.estimate, full.estimate))
        assert 0.7 * other < width < 1.6 * other  # from 256 of the 640 samples


def test_of_many_samples_a_tolerance_is_kept() -> None:
    model, criterion, batch = regression()
    found = gn.sharpness(model, criterion, batch, tol=2e-3)
    assert float(found.residuals[0]) <= 2e-3 * float(found.values[0])


def squares(model: nn.Module, batch: Any) -> torch.Tensor:
    return (model(batch[0]) - batch[1]).square().sum(1)


@pytest.mark.parametrize("size", [12.0, 30.0])
@pytest.mark.parametrize("seed", range(4))
def test_a_sample_with_a_direction_of_its_own_is_found_among_many(size: float, seed: int) -> None:
    source = torch.Generator().manual_seed(seed)
    features = torch.nn.functional.one_hot(torch.randint(0, 49, (2048,), generator=source), 50)
    inputs = features * torch.randn(2048, 1, generator=source, dtype=torch.float64)
    inputs[7] = size * torch.eye(50, dtype=torch.float64)[-1]  # few samples do not see it
    targets = torch.randn(2048, 1, generator=source, dtype=torch.float64)
    targets[7] = 0
    model = nn.Linear(50, 1, bias=False).double()
    nn.init.zeros_(model.weight)
    truth = 2 * size**2 / 2048
    assert truth > 1.2 * float((2 * inputs[:, :-1].square().sum(0) / 2048).max())
    found = gn.sharpness(model, squares, (inputs, targets), seed=seed)
    assert float(found.values[0]) == pytest.approx(truth, rel=1e-2)
    profiled = gn.profile(model, squares, (inputs, targets), seed=seed).sharpness
    assert float(profiled) == pytest.approx(truth, rel=1e-2)


def test_the_interval_of_many_samples_holds_an_eigenvalue_that_is_not_separated() -> None:
    model, hits = nn.Linear(100, 1, bias=False).double(), 0
    for seed in range(30):  # H = 2 XᵀX/n of white features: λ is 2, that of n samples 2.9
        source = torch.Generator().manual_seed(seed)
        inputs = torch.randn(2048, 100, generator=source, dtype=torch.float64)
        batch = (inputs, torch.zeros(2048, 1, dtype=torch.float64))
        found = gn.sharpness(model, squares, batch, seed=seed, population="distribution").estimate
        hits += found.low <= 2 <= found.high
    assert hits >= 28


def test_of_many_samples_close_eigenvalues_mostly_stay_in_the_interval() -> None:
    model, hits = nn.Linear(30, 1, bias=False).double(), 0  # the second value may be 1% below
    for seed in range(30):
        source = torch.Generator().manual_seed(seed)
        inputs = torch.randn(1024, 30, generator=source, dtype=torch.float64)
        batch = (inputs, torch.zeros(1024, 1, dtype=torch.float64))
        truth = float(torch.linalg.eigvalsh(2 * inputs.T @ inputs / 1024)[-1])
        found = gn.sharpness(model, squares, batch, seed=seed).estimate
        hits += found.low <= truth * (1 + 1e-9) and truth <= found.high
    assert hits >= 26


@pytest.mark.parametrize("scales", [(0.3, 30.0), (0.1, 100.0)])
def test_the_error_of_differences_is_looked_at_along_the_eigenvector(
    scales: tuple[float, float],
) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(10, 16), nn.Tanh(), nn.Linear(16, 3))
    with torch.no_grad():  # products along most directions are far more exact
        model[0].weight.mul_(scales[0])
        model[2].weight.mul_(scales[1])
    data = torch.randn(41, 10), torch.arange(41) % 3
    exact = gn.sharpness(model, nn.CrossEntropyLoss(), data).estimate
    found = gn.sharpness(model, nn.CrossEntropyLoss(), data, hvp="finite").estimate
    assert found.low <= exact.value <= found.high
    hessian = gn.Hessian(model, nn.CrossEntropyLoss(), data, hvp="finite")
    top = gn.lanczos(hessian).vectors[:, 0]
    assert hessian.product_error_along(top) > 3 * hessian.product_error
    kept = gn.Hessian(model, nn.CrossEntropyLoss(), data)
    assert kept.product_error_along(top) == kept.product_error == 0.0
