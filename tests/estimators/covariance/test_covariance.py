"""Σ itself: eigenpairs, ranks, and how it lies beside H."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import gradnoise as gn
from tests import oracles
from tests.analytic import COUNT, TOY, matrices, replicates, z_score
from tests.cases import CASES, CORE, Case, labelled, mlp, named
from tests.coverage import fewest, holding
from tests.optimizers import in_coordinates, trained

METHODS = ("gram", "lanczos")


def ranks(matrix: Tensor) -> tuple[float, float]:
    """tr/λ_max and tr²/‖·‖², literally."""
    trace = float(matrix.trace())
    return trace / float(torch.linalg.eigvalsh(matrix)[-1]), trace**2 / float(matrix.square().sum())


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("case", CASES, ids=named)
def test_on_a_whole_population_all_is_that_of_the_dense_matrix(case: Case, method: str) -> None:
    model, loss_fn, batch = case.build()
    sigma = oracles.dense(model, loss_fn, batch, second=False).covariance
    found = gn.covariance(
        model, loss_fn, batch, method=method, tol=1e-8, hessian=False, variance=True
    )
    k = len(found.eigenvalues)
    values = torch.linalg.eigvalsh(sigma).flip(0)
    assert k == torch.linalg.matrix_rank(sigma, hermitian=True) <= 5
    torch.testing.assert_close(found.eigenvalues, values[:k], rtol=1e-7, atol=1e-12)
    vectors = found.eigenvectors
    torch.testing.assert_close(vectors.T @ vectors, torch.eye(k).double(), rtol=0, atol=1e-8)
    torch.testing.assert_close(sigma @ vectors, vectors * values[:k], rtol=0, atol=1e-6)
    assert float(found.trace) == pytest.approx(float(sigma.trace()))
    assert float(found.trace_sq) == pytest.approx(float(sigma.square().sum()))
    assert float(found.effective_rank) == pytest.approx(ranks(sigma)[0])
    assert float(found.participation_ratio) == pytest.approx(ranks(sigma)[1])
    diagonal = torch.cat([part.reshape(-1) for part in found.variance.values()])
    torch.testing.assert_close(diagonal, sigma.diagonal(), rtol=1e-7, atol=1e-12)
    assert found.alignment is None
    assert found.method == method
    assert found.top_eigenvalue.is_exact or method == "lanczos"


STEPPED = [(CORE[0], "SGD"), (CORE[0], "AdamW in groups"), (CORE[2], "AdamW")]


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize(
    ("case", "name"), STEPPED, ids=[f"{named(case)}-{name}" for case, name in STEPPED]
)
def test_in_the_metric_of_an_optimizer_all_is_that_of_rescaled_gradients(
    case: Case, name: str, method: str
) -> None:
    """Σ of P^-½(g_i + Dw) beside P^-½(H + D)P^-½, to which decoupled decay adds nothing."""
    model, loss_fn, batch, optimizer = trained(case, name)
    dense = in_coordinates(model, oracles.dense(model, loss_fn, batch), optimizer)
    h, sigma, mean = dense.hessian, dense.covariance, dense.gradients.mean(0)
    options: Any = {"optimizer": optimizer, "metric": "optimizer", "method": method}
    found = gn.covariance(
        model, loss_fn, batch, k=5, tol=1e-9, variance=True, products=len(mean), **options
    )
    values, vectors = (part.flip(-1)[..., :5] for part in torch.linalg.eigh(sigma))
    torch.testing.assert_close(found.eigenvalues, values, rtol=1e-8, atol=0)
    turned = found.eigenvectors.T @ vectors
    torch.testing.assert_close(turned.abs(), torch.eye(5).double(), rtol=0, atol=1e-5)
    assert float(found.trace) == pytest.approx(float(sigma.trace()))
    assert float(found.trace_sq) == pytest.approx(float(sigma.square().sum()))
    assert float(found.effective_rank) == pytest.approx(ranks(sigma)[0])
    assert float(found.participation_ratio) == pytest.approx(ranks(sigma)[1])
    share = float((vectors.T @ mean).square().sum() / mean.square().sum())
    assert float(found.grad_share) == pytest.approx(share, rel=1e-6)
    diagonal = torch.cat([part.reshape(-1) for part in found.variance.values()])
    torch.testing.assert_close(diagonal, sigma.diagonal())
    beside, trace = found.alignment, float((h * sigma).sum())
    assert float(beside.trace_hessian_cov) == pytest.approx(trace, rel=1e-6)
    assert float(beside.hessian_norm) == pytest.approx(float(h.norm()), rel=1e-9)
    assert float(beside.overlap) == pytest.approx(trace / float(h.norm() * sigma.norm()), rel=1e-6)
    values, top = (part.flip(-1)[..., :5] for part in torch.linalg.eigh(h))
    torch.testing.assert_close(beside.hessian_pairs.values, values, rtol=1e-8, atol=0)
    cosines = torch.linalg.svdvals(vectors.T @ top).clamp(max=1)
    torch.testing.assert_close(beside.angles, cosines.arccos(), rtol=1e-4, atol=1e-4)
    shares = (
        float((top.T @ mean).square().sum() / mean.square().sum()),
        float((top.T @ sigma @ top).trace() / sigma.trace()),
    )
    assert float(beside.grad_share) == pytest.approx(shares[0], rel=1e-5)
    assert float(beside.noise_share) == pytest.approx(shares[1], rel=1e-5)


@pytest.mark.parametrize("method", METHODS)
def test_scaling_the_loss_scales_the_covariance_by_the_square(method: str) -> None:
    model, _, batch = CORE[0].build()
    one, three = (
        gn.covariance(
            model,
            lambda m, b, c=c: c * nn.functional.cross_entropy(m(b[0]), b[1], reduction="none"),
            batch,
            k=2,
            tol=1e-10,
            method=method,
            products=64,
        )
        for c in (1.0, 3.0)
    )
    torch.testing.assert_close(three.eigenvalues, 9 * one.eigenvalues)
    assert float(three.trace_sq) == pytest.approx(81 * float(one.trace_sq))
    for name in ("effective_rank", "participation_ratio", "grad_share"):
        assert float(getattr(three, name)) == pytest.approx(float(getattr(one, name))), name
    assert float(three.alignment.overlap) == pytest.approx(float(one.alignment.overlap))
    torch.testing.assert_close(three.alignment.angles, one.alignment.angles, atol=1e-6, rtol=0)


REPLICATES = 12  # more of them, without H, in test_ranks and test_cosine


@pytest.fixture(scope="module")
def measured() -> list[gn.Covariance]:
    return [
        gn.covariance(
            TOY.model(), TOY.loss_fn, TOY.sample(COUNT, seed), k=2, population="distribution"
        )
        for seed in range(REPLICATES)
    ]


def test_unbiased_parts_have_no_bias_and_the_rest_is_bracketed(measured: list[Any]) -> None:
    h, sigma = matrices()
    values = torch.linalg.eigvalsh(sigma).flip(0)
    assert abs(z_score([float(f.trace_sq) for f in measured], float(sigma.square().sum()))) < 3
    squares = [float(f.alignment.hessian_norm) ** 2 for f in measured]
    assert abs(z_score(squares, float(h.square().sum()))) < 3
    assert abs(z_score([float(f.top_eigenvalue) for f in measured], float(values[0]))) < 3


@pytest.mark.parametrize(
    ("name", "coverage"),
    [
        ("trace_sq", 0.88),
        ("top_eigenvalue", 0.95),
        ("effective_rank", 0.95),
        ("participation_ratio", 0.95),
        ("overlap", 0.99),  # wider than it has to be near its end, 1
        ("hessian_norm", 0.95),
    ],
)
def test_intervals_hold_the_analytic_truth(measured: list[Any], name: str, coverage: float) -> None:
    h, sigma = matrices()
    expected = {
        "trace_sq": float(sigma.square().sum()),
        "top_eigenvalue": float(torch.linalg.eigvalsh(sigma)[-1]),
        "effective_rank": ranks(sigma)[0],
        "participation_ratio": ranks(sigma)[1],
        "overlap": float((h * sigma).sum() / (h.norm() * sigma.norm())),
        "hessian_norm": float(h.norm()),
    }[name]
    found = [
        getattr(f.alignment if name in ("overlap", "hessian_norm") else f, name) for f in measured
    ]
    assert holding(found, expected) >= fewest(REPLICATES, coverage)


def test_squares_are_those_of_the_gradients_at_hand(measured: list[Any]) -> None:
    for found, alone in zip(measured[:4], replicates()[:4], strict=True):
        for name in ("trace_sq", "participation_ratio"):
            mine, other = getattr(found, name), getattr(alone.dimensions, name)
            assert float(mine) == pytest.approx(float(other), rel=1e-9, nan_ok=True)
            assert mine.low == pytest.approx(other.low, rel=0.2)


def test_in_a_bowl_the_covariance_is_known() -> None:
    """Σ = HSH: with S = I the top of Σ is that of H, and all of it is aligned."""
    toy = gn.toy.NoisyQuadratic(torch.diag(torch.tensor([3.0, 2.0, 1.0])), torch.ones(3))
    data = toy.sample(2000, seed=0)
    found = gn.covariance(toy.model(), toy.loss_fn, data, k=1, population="distribution")
    assert float(found.effective_rank) == pytest.approx(14 / 9, rel=0.05)
    assert float(found.participation_ratio) == pytest.approx(14**2 / 98, rel=0.05)
    assert float(found.alignment.overlap) == pytest.approx(36 / math.sqrt(14 * 98), abs=0.02)
    assert float(found.alignment.angles) < 0.1
    assert float(found.alignment.noise_share) == pytest.approx(9 / 14, abs=0.05)
    assert found.alignment.hessian_norm.stderr < 1e-6  # all samples have the same Hessian


def test_no_noise_at_all_and_too_few_samples() -> None:
    model, criterion = mlp().double(), nn.CrossEntropyLoss()
    x, y = labelled()
    same = x[:1].repeat(6, 1), y[:1].repeat(6)
    found = gn.covariance(model, criterion, same)
    assert len(found.eigenvalues) == 0
    assert not found.effective_rank.is_resolved
    assert math.isnan(found.alignment.subspace_overlap)
    assert not found.alignment.overlap.is_resolved
    three = gn.covariance(model, criterion, (x[:3], y[:3]), population="distribution")
    assert not three.participation_ratio.is_resolved
    assert three.top_eigenvalue.status is gn.Status.NO_INTERVAL
    assert math.isnan(float(three.alignment.overlap))
    assert "λ_max(Σ)" in str(found)
    assert str(found).splitlines()[-2].split()[1:] == ["≤", "1.00", "signal", "below", "noise"]
    assert "noise below its own error" in str(three)
    assert "interval not measured" in str(three)
    with pytest.raises(gn.DataError, match="at least 2 needed"):
        gn.covariance(model, criterion, (x[:1], y[:1]))


def test_arguments_are_checked() -> None:
    model, loss_fn, batch = CORE[0].build()
    with pytest.raises(gn.ArgumentError, match="`k` must be a whole number from 1 on; got 0"):
        gn.covariance(model, loss_fn, batch, k=0)
    with pytest.raises(gn.ArgumentError, match="`method` must be one of auto, gram, lanczos"):
        gn.covariance(model, loss_fn, batch, method="svd")


@pytest.mark.parametrize("method", METHODS)
def test_bfloat16_and_the_model_is_left_as_found(method: str) -> None:
    model, criterion = mlp().bfloat16(), nn.CrossEntropyLoss()
    x, y = labelled()
    before = {name: p.clone() for name, p in model.named_parameters()}
    state = torch.random.get_rng_state()
    found = gn.covariance(model, criterion, (x.bfloat16(), y), method=method, k=2, tol=0.05)
    assert torch.equal(state, torch.random.get_rng_state())
    wide = oracles.dense(mlp_like(model), criterion, (x.bfloat16().double(), y)).covariance
    assert float(found.eigenvalues[0]) == pytest.approx(
        float(torch.linalg.eigvalsh(wide)[-1]), rel=0.05
    )
    for name, parameter in model.named_parameters():
        assert torch.equal(parameter, before[name])
        assert parameter.grad is None


def mlp_like(model: nn.Module) -> nn.Module:
    twin = mlp().double()
    twin.load_state_dict({name: value.double() for name, value in model.state_dict().items()})
    return twin


def test_what_is_printed() -> None:
    found = gn.covariance(TOY.model(), TOY.loss_fn, TOY.sample(64, seed=0), k=2)
    lines = str(found).splitlines()
    assert lines[0].startswith("gradient covariance of 64 samples out of 64, 95% intervals, top 2")
    assert len(lines) == 12  # the heading, titles and a rule, nine numbers
    assert lines[3].split()[0] == "trΣ"
    assert lines[-1].startswith("overlap of the top subspaces")
    assert "participation ratio" in str(found)


def test_what_does_not_fit_is_refused_before_anything_is_measured() -> None:
    evaluations: list[int] = []
    model = nn.Linear(8, 5).double()  # 45 parameters: 360 bytes in a vector

    def loss_fn(model: nn.Module, x: Tensor) -> Tensor:
        evaluations.append(len(x))
        return model(x).square().sum(1)

    x = torch.randn(40, 8, dtype=torch.float64)
    gn.Hessian(model, loss_fn, x)
    opening = len(evaluations)
    options: dict[str, Any] = {"memory_budget": 20 * 360 - 1, "method": "lanczos"}
    evaluations.clear()
    with pytest.raises(gn.ArgumentError, match=r"7200 bytes: give as many, or .*`hessian=False`"):
        gn.covariance(model, loss_fn, x, **options)
    assert len(evaluations) <= opening
    with pytest.raises(gn.ArgumentError, match="fewer `products`"):
        gn.covariance(model, loss_fn, x, products=10, **options)
    with pytest.raises(gn.ArgumentError, match=r"5040 bytes: give as many, or a smaller `k`$"):
        gn.covariance(model, loss_fn, x, hessian=False, method="lanczos", memory_budget=5039)
    cures: tuple[dict[str, Any], ...] = (
        {"memory_budget": 7200},
        {"hessian": False},
        {"hessian": False, "memory_budget": 5040},
        {"hessian": False, "memory_budget": 5039, "k": 3},
    )
    for cure in cures:
        found = gn.covariance(model, loss_fn, x, **{**options, **cure})
        assert found.trace.is_exact
    whole = gn.covariance(model, loss_fn, x, method="lanczos")
    few = gn.covariance(model, loss_fn, x, method="lanczos", memory_budget=20 * 360)
    assert few.alignment is not None
    assert whole.alignment is not None
    norm = whole.alignment.hessian_norm
    assert few.alignment.hessian_norm.low <= float(norm) <= few.alignment.hessian_norm.high
