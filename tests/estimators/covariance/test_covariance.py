"""Σ itself: eigenpairs, ranks, and how it lies beside H."""

from __future__ import annotations

import itertools
import math
from typing import Any

import pytest
import torch
from scipy import linalg
from torch import Tensor, nn

import gradnoise as gn
from gradnoise.estimators.covariance.cosine import Influences, spread_over_samples
from gradnoise.estimators.covariance.spectrum import Iteration, noise_spectrum
from gradnoise.estimators.covariance.subspace import gradient_in, principal_angles, share_of_noise
from gradnoise.moments.measure import stream
from gradnoise.per_sample.choice import choose
from gradnoise.problem.problem import Problem
from gradnoise.statistics.fourth_moments import unbiased_squares
from tests import oracles
from tests.cases import CASES, CORE, Case, labelled, mlp, named

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


@pytest.mark.parametrize("case", CORE, ids=named)
def test_alignment_is_that_of_the_dense_matrices(case: Case) -> None:
    model, loss_fn, batch = case.build()
    dense = oracles.dense(model, loss_fn, batch)
    h, sigma, mean = dense.hessian, dense.covariance, dense.gradients.mean(0)
    found = gn.covariance(model, loss_fn, batch, k=3, tol=1e-9, products=len(mean)).alignment
    top_h = torch.linalg.eigh(h)[1].flip(1)[:, :3]
    top_sigma = torch.linalg.eigh(sigma)[1].flip(1)[:, :3]
    trace = float((h * sigma).sum())
    assert found.overlap.is_exact  # all 32 sign vectors of six samples
    assert float(found.overlap) == pytest.approx(trace / float(h.norm() * sigma.norm()), rel=1e-6)
    assert float(found.trace_hessian_cov) == pytest.approx(trace, rel=1e-6)
    assert float(found.hessian_norm) == pytest.approx(float(h.norm()), rel=1e-9)
    cosines = torch.linalg.svdvals(top_sigma.T @ top_h).clamp(max=1)
    torch.testing.assert_close(found.angles, cosines.arccos(), rtol=1e-5, atol=1e-5)
    assert found.subspace_overlap == pytest.approx(float(cosines.square().mean()), abs=1e-6)
    shares = (
        float((top_h.T @ mean).square().sum() / mean.square().sum()),
        float((top_h.T @ sigma @ top_h).trace() / sigma.trace()),
    )
    assert float(found.grad_share) == pytest.approx(shares[0], rel=1e-6)
    assert float(found.noise_share) == pytest.approx(shares[1], rel=1e-6)
    assert found.grad_share.is_exact
    assert found.noise_share.is_exact


def test_a_known_mean_gradient_inside_and_outside_of_the_noise() -> None:
    """c_i along e_1 and e_2 only, G = (3, 0, 4): 9/25 of |G|² in their span."""
    model = gn.toy.NoisyQuadratic(torch.eye(3), torch.tensor([3.0, 0, 4])).model()
    centres = torch.tensor([[2.0, 0, 0], [-2, 0, 0], [0, 1, 0], [0, -1, 0]]).double()

    def loss_fn(model: Any, batch: Tensor) -> Tensor:
        return 0.5 * (model.w - batch).square().sum(1)

    found = gn.covariance(model, loss_fn, centres)
    assert len(found.eigenvalues) == 2
    assert float(found.grad_share) == pytest.approx(9 / 25)
    assert float(found.alignment.grad_share) == pytest.approx(1.0)


@pytest.mark.parametrize("k", [1, 43])
def test_influences_are_those_of_the_dense_matrices(k: int) -> None:
    """All eight sign vectors of four samples; of ‖H‖² where nothing is left to chance, k = P."""
    model, loss_fn, (x, y) = CORE[0].build()
    batch = x[:4], y[:4]
    dense = oracles.dense(model, loss_fn, batch)
    h, sigma, gaps = dense.hessian, dense.covariance, dense.gradients - dense.gradients.mean(0)
    assert k in (1, len(h))
    problem = Problem.open(model, loss_fn, batch)
    with problem.guard():
        engine = choose(problem.objective, batch, "auto")
        moments = stream(problem, engine)
        aim = Iteration(min(k, 2), 1e-10, 0, 2**30)
        spectrum = noise_spectrum(problem, engine, moments, aim, "gram")
        hessian = gn.Hessian.of(problem, hvp="kept")
        rows = gn.PerSampleGradients.of(problem, engine=engine)
        pairs = gn.lanczos(hessian, k=k, tol=1e-10)
        along = rows.along(pairs.vectors)
        found = Influences.measure(hessian, rows, pairs, along, spectrum, seed=0)
    own = ((gaps @ h) * gaps).sum(1) + (dense.hessians * sigma).sum((1, 2))
    torch.testing.assert_close(found.trace.mean(0), own, rtol=1e-7, atol=1e-9)
    if k == len(h):
        squares = 2 * (dense.hessians * h).sum((1, 2))
        torch.testing.assert_close(found.hessian_sq.mean(0), squares, rtol=1e-6, atol=1e-8)
        assert float(found.traces.abs().max()) < 1e-8


def test_the_noise_of_random_directions_is_taken_off_the_spread() -> None:
    truth = torch.randn(400, dtype=torch.float64)
    noisy = truth + 2 * torch.randn(8, 400, dtype=torch.float64) + torch.randn(8, 1).double()
    assert spread_over_samples(noisy) == pytest.approx(float(truth.var()), rel=0.15)
    assert float(noisy.mean(0).var()) > 1.35 * float(truth.var())
    assert spread_over_samples(truth.expand(8, -1)) == pytest.approx(float(truth.var()))


def every_sample(rows: Tensor, size: int) -> list[Tensor]:
    return [rows[list(pick)] for pick in itertools.combinations(range(len(rows)), size)]


def plain(rows: Tensor) -> tuple[float, Tensor]:
    centred = rows - rows.mean(0)
    return float((centred @ centred.T).square().sum()) / (len(rows) - 1) ** 2, centred.square().sum(
        1
    )


@pytest.mark.parametrize("size", [4, 5, 6])
def test_squares_are_unbiased_over_all_samples_of_a_population(size: int) -> None:
    rows = torch.randn(7, 3, dtype=torch.float64) ** 3
    sigma = torch.cov(rows.T)
    found = torch.tensor([unbiased_squares(*plain(s), 7) for s in every_sample(rows, size)])
    truth = torch.stack([sigma.square().sum(), sigma.trace() ** 2])
    torch.testing.assert_close(found.double().mean(0), truth, rtol=1e-6, atol=0)
    raw = torch.tensor([plain(s)[0] for s in every_sample(rows, size)])
    assert abs(float(raw.mean()) - float(truth[0])) > 0.05 * float(truth[0])


def test_squares_for_a_distribution_are_means_over_distinct_samples() -> None:
    """tr(Σ²) by pairs of differences, ¼((g_i - g_j)ᵀ(g_k - g_l))² over distinct i, j, k, l."""
    rows = torch.randn(6, 4, dtype=torch.float64)
    quads = list(itertools.permutations(range(6), 4))
    first = torch.stack([rows[i] - rows[j] for i, j, _, _ in quads])
    second = torch.stack([rows[k] - rows[m] for _, _, k, m in quads])
    own, both = unbiased_squares(*plain(rows))
    assert own == pytest.approx(float((first * second).sum(1).square().mean()) / 4)
    norms = first.square().sum(1) * second.square().sum(1)
    assert both == pytest.approx(float(norms.mean()) / 4)
    assert math.isnan(unbiased_squares(*plain(rows[:3]))[0])


def test_the_gradient_in_a_given_subspace_is_unbiased_over_all_samples() -> None:
    rows, v = torch.randn(6, 5, dtype=torch.float64) + 1, torch.eye(5, dtype=torch.float64)[:, :2]
    truth = float((v.T @ rows.mean(0)).square().sum())
    found = []
    for sample in every_sample(rows, 3):
        moments = gn.noise_scale_from_gradients(sample, population=6)
        found.append(gradient_in(sample @ v, moments)[0])
    assert sum(found) / len(found) == pytest.approx(truth, rel=1e-12)


def test_angles_are_those_of_the_textbook() -> None:
    a, b = (torch.linalg.qr(torch.randn(9, k, dtype=torch.float64))[0] for k in (3, 2))
    expected = linalg.subspace_angles(a.numpy(), b.numpy())[::-1].copy()
    torch.testing.assert_close(principal_angles(a, b), torch.from_numpy(expected))
    turned = a @ torch.linalg.qr(torch.randn(3, 3, dtype=torch.float64))[0]
    assert float(principal_angles(a, turned).max()) < 1e-14
    assert principal_angles(a[:, :0], b).shape == (0,)
    whole = torch.linalg.qr(torch.cat([a, torch.randn(9, 6).double()], dim=1))[0]
    right = principal_angles(whole[:, :3], whole[:, 3:])
    torch.testing.assert_close(right, torch.full((3,), math.pi / 2).double())


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


SPECTRUM, OFFSET = torch.tensor([3.0, 2.0, 1.0, 0.5, 0.2]), torch.tensor([0.3, -0.2, 0.1, 0.0, 0.4])
REPLICATES = 40


def truth(toy: gn.toy.LinearRegression) -> tuple[Tensor, Tensor]:
    """H and Σ = C(q + s²) + CδδᵀC."""
    c, slope = toy.spectrum.diag(), toy.spectrum * toy.offset
    return c, c * (float(slope @ toy.offset) + toy.noise**2) + torch.outer(slope, slope)


@pytest.fixture(scope="module")
def measured() -> list[gn.Covariance]:
    toy = gn.toy.LinearRegression(SPECTRUM, OFFSET)
    return [
        gn.covariance(
            toy.model(), toy.loss_fn, toy.sample(96, seed), k=2, population="distribution"
        )
        for seed in range(REPLICATES)
    ]


def z_score(values: list[float], expected: float) -> float:
    found = torch.tensor(values, dtype=torch.float64)
    return float((found.mean() - expected) / (found.std() / math.sqrt(len(found))))


def test_unbiased_parts_have_no_bias_and_the_rest_is_bracketed(measured: list[Any]) -> None:
    h, sigma = truth(gn.toy.LinearRegression(SPECTRUM, OFFSET))
    values = torch.linalg.eigvalsh(sigma).flip(0)
    assert abs(z_score([float(f.trace_sq) for f in measured], float(sigma.square().sum()))) < 3
    squares = [float(f.alignment.hessian_norm) ** 2 for f in measured]
    assert abs(z_score(squares, float(h.square().sum()))) < 3
    for j in (1, 2):
        above = z_score([float(f.eigenvalues[:j].sum()) for f in measured], float(values[:j].sum()))
        below = z_score([float(f.held_out[:j].sum()) for f in measured], float(values[:j].sum()))
        assert above > 1.5
        assert below < 0
    assert abs(z_score([float(f.top_eigenvalue) for f in measured], float(values[0]))) < 3


@pytest.mark.parametrize(
    "name", ["trace_sq", "top_eigenvalue", "effective_rank", "participation_ratio", "overlap"]
)
def test_intervals_hold_the_analytic_truth(measured: list[Any], name: str) -> None:
    h, sigma = truth(gn.toy.LinearRegression(SPECTRUM, OFFSET))
    expected = {
        "trace_sq": float(sigma.square().sum()),
        "top_eigenvalue": float(torch.linalg.eigvalsh(sigma)[-1]),
        "effective_rank": ranks(sigma)[0],
        "participation_ratio": ranks(sigma)[1],
        "overlap": float((h * sigma).sum() / (h.norm() * sigma.norm())),
    }[name]
    found = [getattr(f.alignment if name == "overlap" else f, name) for f in measured]
    held = sum(e.low <= expected <= e.high for e in found)
    assert held >= 34  # 2.9 binomial standard errors below 38


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


def test_more_parameters_than_samples_and_flat_noise() -> None:
    """Σ = I of 200 dimensions from 40 samples, whose Σ̂ has rank 39."""
    toy = gn.toy.NoisyQuadratic(torch.eye(200), torch.zeros(200))
    data = toy.sample(40, seed=1)
    for method in METHODS:
        found = gn.covariance(
            toy.model(),
            toy.loss_fn,
            data,
            population="distribution",
            hessian=False,
            method=method,
            tol=1e-2,
        )
        assert len(found.eigenvalues) == 10
        assert float(found.eigenvalues[0]) > 5
        assert found.top_eigenvalue.low < 1 < float(found.top_eigenvalue)
        assert found.participation_ratio.low < 200 < found.participation_ratio.high
        assert found.participation_ratio.low > 39  # not fooled by the rank of Σ̂
        assert found.effective_rank.low < 200 < found.effective_rank.high


def test_both_ways_agree_on_a_part() -> None:
    toy = gn.toy.LinearRegression(SPECTRUM, OFFSET)
    data = toy.sample(64, seed=3)
    options: Any = {"population": 100, "k": 5, "tol": 1e-9, "hessian": False}
    gram, iterated = (
        gn.covariance(toy.model(), toy.loss_fn, data, method=method, **options)
        for method in METHODS
    )
    torch.testing.assert_close(gram.eigenvalues, iterated.eigenvalues)
    torch.testing.assert_close(gram.stderr, iterated.stderr)
    torch.testing.assert_close(gram.held_out, iterated.held_out)
    for name in ("trace_sq", "top_eigenvalue", "effective_rank", "participation_ratio"):
        mine, other = getattr(gram, name), getattr(iterated, name)
        for end in ("value", "low", "high"):
            assert getattr(mine, end) == pytest.approx(getattr(other, end), rel=1e-6), (name, end)


def test_a_share_is_that_of_the_population_where_it_is_measured() -> None:
    rows = torch.tensor([[1.0, 0], [-1, 0], [0, 2], [0, -2]]).double()
    moments = gn.noise_scale_from_gradients(rows, population="dataset")
    assert float(share_of_noise(rows[:, :1], moments)) == pytest.approx(0.2)


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
    print(found, three)
    with pytest.raises(gn.DataError, match="at least 2 needed"):
        gn.covariance(model, criterion, (x[:1], y[:1]))


def test_arguments_are_checked() -> None:
    model, loss_fn, batch = CORE[0].build()
    with pytest.raises(gn.ArgumentError, match="`k` must be a whole number from 1 on; got 0"):
        gn.covariance(model, loss_fn, batch, k=0)
    with pytest.raises(gn.ArgumentError, match="`method` must be one of auto, gram, lanczos"):
        gn.covariance(model, loss_fn, batch, method="svd")


class _Once(torch.autograd.Function):
    """A square whose backward cannot be differentiated."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return x * x

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        return 2 * ctx.saved_tensors[0] * grad


def test_without_second_derivatives_the_way_out_is_named() -> None:
    model, _, (x, _) = CORE[0].build()

    def loss_fn(model: nn.Module, batch: Tensor) -> Tensor:
        return _Once.apply(model(batch)).sum(1)

    with pytest.raises(gn.CurvatureError, match="`hessian=False`"):
        gn.covariance(model, loss_fn, x)
    assert float(gn.covariance(model, loss_fn, x, hessian=False).trace) > 0


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
    toy = gn.toy.LinearRegression(SPECTRUM, OFFSET)
    found = gn.covariance(toy.model(), toy.loss_fn, toy.sample(64, seed=0), k=2)
    lines = str(found).splitlines()
    assert lines[0].startswith("gradient covariance of 64 samples out of 64, 95% intervals, top 2")
    assert len(lines) == 10
    assert "participation ratio" in str(found)
