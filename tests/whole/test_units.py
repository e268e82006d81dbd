"""Groups and replayed draws, held to gradients and Hessians that are written out."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

import gradnoise as gn
from gradnoise.problem.options import Options
from gradnoise.problem.problem import Problem
from tests.refusals import snapshot
from tests.unit_cases import CE, COUPLED, X, Y, group_loss, groups_of, mlp, written_out

SIZE = 12
EXACT: dict[str, Any] = {"rtol": 1e-9, "atol": 1e-12}


@pytest.fixture(scope="module", params=COUPLED)
def case(request: Any) -> Any:
    build, loss_fn = COUPLED[request.param]
    model = build()
    groups = groups_of(Problem.open(model, loss_fn, (X, Y), Options(group_size=SIZE)))
    losses = [group_loss(model, loss_fn, group) for group in groups]
    return (model, loss_fn, (X, Y)), *written_out(model, losses)


def test_moments_of_groups(case: Any) -> None:
    problem, gradients, _ = case
    mean, count = gradients.mean(0), len(gradients)
    sigma = SIZE * torch.cov(gradients.T)
    found = gn.gradient_moments(*problem, group_size=SIZE, population="distribution", variance=True)
    signal = mean @ mean - sigma.trace() / (SIZE * count)
    assert found.trace_cov.samples == SIZE * count == 96
    torch.testing.assert_close(torch.cat([m.flatten() for m in found.mean.values()]), mean, **EXACT)
    assert float(found.trace_cov) == pytest.approx(float(sigma.trace()), rel=1e-9)
    assert float(found.grad_sq_norm) == pytest.approx(float(signal), rel=1e-9)
    ratio = float(sigma.trace() / signal)
    if found.simple_noise_scale.is_resolved:
        assert float(found.simple_noise_scale) == pytest.approx(ratio, rel=1e-9)
    assert found.variance is not None
    spread = torch.cat([v.flatten() for v in found.variance.values()])
    torch.testing.assert_close(spread, sigma.diagonal(), **EXACT)
    layers = [float(layer.trace_cov) for layer in found.layers.values()]
    assert sum(layers) == pytest.approx(float(sigma.trace()), rel=1e-9)


def test_operators_of_groups(case: Any) -> None:
    problem, gradients, hessians = case
    vector = torch.randn(gradients.shape[1], generator=torch.Generator().manual_seed(1)).double()
    sigma = SIZE * torch.cov(gradients.T)
    covariance = gn.GradientCovariance(*problem, group_size=SIZE)
    torch.testing.assert_close(covariance @ vector, sigma @ vector, **EXACT)
    hessian = gn.Hessian(*problem, group_size=SIZE)
    torch.testing.assert_close(hessian @ vector, hessians.mean(0) @ vector, **EXACT)
    rows = gn.PerSampleGradients(*problem, group_size=SIZE)
    torch.testing.assert_close(rows @ vector, gradients @ vector, **EXACT)
    eigenvalues = torch.linalg.eigvalsh(sigma).flip(0)[:3]
    found = gn.covariance(*problem, k=3, group_size=SIZE)
    torch.testing.assert_close(found.eigenvalues, eigenvalues, **EXACT)
    assert found.samples == 96


def test_a_profile_of_groups(case: Any) -> None:
    """K = 8 groups, so that 128 sign vectors are all there are: tr(HΣ) has no random error."""
    problem, gradients, hessians = case
    sigma, hessian = SIZE * torch.cov(gradients.T), hessians.mean(0)
    p = gn.profile(*problem, group_size=SIZE, tol=1e-8)
    values, vectors = torch.linalg.eigh(hessian)
    assert (p.unit, p.group_size, p.samples, p.population) == ("group", SIZE, 96, 96)
    assert "groups of 12" in str(p)
    assert p.sharpness.low <= float(values[-1]) + 1e-9
    assert float(p.trace_cov) == pytest.approx(float(sigma.trace()), rel=1e-9)
    noise = float((hessian @ sigma).trace())
    assert p.trace_hessian_cov.low <= noise <= p.trace_hessian_cov.high
    top = vectors[:, -1]
    curvatures = torch.einsum("p,kpq,q->k", top, hessians, top)
    ratio = SIZE * float(curvatures.var()) / float(curvatures.mean()) ** 2
    known = p.curvature_noise_scale
    assert known.low <= ratio <= known.high


def test_one_number_for_a_batch_is_measured_in_groups() -> None:
    whole = gn.gradient_moments(mlp(), lambda m, b: CE(m(b[0]), b[1]), (X, Y), group_size=SIZE)
    each = gn.gradient_moments(mlp(), CE, (X, Y), unit="group", group_size=SIZE)
    assert float(whole.trace_cov) == pytest.approx(float(each.trace_cov), rel=1e-12)


def test_the_batch_size_of_a_loader_is_that_of_the_groups() -> None:
    loader = DataLoader(TensorDataset(X, Y), batch_size=24, shuffle=True)
    p = gn.profile(mlp(nn.BatchNorm1d(5)), CE, loader)
    assert (p.group_size, p.batch_size, p.samples) == (24, 24, 96)


def test_what_is_left_over_is_left_out() -> None:
    p = gn.profile(mlp(nn.BatchNorm1d(5)), CE, (X, Y), group_size=20)
    assert (p.samples, p.population) == (80, 96)


DROPPED: dict[str, Any] = {
    "samples": (lambda: mlp(nn.Dropout(0.3)), {}),
    "groups": (lambda: mlp(nn.BatchNorm1d(5), nn.Dropout(0.3)), {"group_size": SIZE}),
}


class Masks(nn.Module):
    """Dropout that notes its masks."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[Tensor] = []

    def forward(self, x: Tensor) -> Tensor:
        mask = (torch.rand_like(x) > 0.3) / 0.7
        self.seen.append(mask)
        return x * mask


@pytest.mark.parametrize("engine", ["auto", "loop"])
def test_every_pass_has_the_draws_of_the_first(engine: str) -> None:
    """Moments, products and λ with the masks that one forward pass of the samples drew."""
    masks = Masks()
    model = mlp(masks)
    data, two = (model, CE, (X[:32], Y[:32])), {"micro_batch": 16}  # with a seed each
    problem = Problem.open(*data, Options(**two))
    assert problem.samples.counts == (16, 16)
    assert problem.unit.is_replayed
    assert not problem.unit.is_group
    masks.seen.clear()
    losses, stored = [], []
    with problem.guard():
        for batch in problem.batches():
            losses.append(problem.objective.losses(batch))
            stored.append(masks.seen[-1].clone())
    gradients, hessians = written_out(model, list(torch.cat(losses)))
    again = torch.cat(
        [
            nn.functional.cross_entropy(
                model[3](torch.tanh(model[0](batch.batch[0]) * mask)),
                batch.batch[1],
                reduction="none",
            )
            for batch, mask in zip(problem.batches(), stored, strict=True)
        ]
    )
    torch.testing.assert_close(torch.cat(losses), again, **EXACT)
    moments = gn.gradient_moments(*data, engine=engine, **two)
    sigma = torch.cov(gradients.T)
    assert float(moments.trace_cov) == pytest.approx(float(sigma.trace()), rel=1e-9)
    mean = torch.cat([m.flatten() for m in moments.mean.values()])
    torch.testing.assert_close(mean, gradients.mean(0), **EXACT)
    vector = torch.randn(len(mean), generator=torch.Generator().manual_seed(1)).double()
    covariance = gn.GradientCovariance(*data, engine=engine, **two)
    torch.testing.assert_close(covariance @ vector, sigma @ vector, **EXACT)
    for hvp in ("kept", "fresh", "finite"):
        exact = EXACT if hvp != "finite" else {"rtol": 1e-4, "atol": 1e-5}
        hessian = gn.Hessian(*data, hvp=hvp, **two)
        torch.testing.assert_close(hessian @ vector, hessians.mean(0) @ vector, **exact)
    top = float(torch.linalg.eigvalsh(hessians.mean(0))[-1])
    assert float(gn.sharpness(*data, tol=1e-9, **two).values[0]) == pytest.approx(top, rel=1e-9)


@pytest.mark.parametrize("kind", DROPPED)
def test_the_same_seed_gives_the_same_numbers_and_leaves_everything(kind: str) -> None:
    build, options = DROPPED[kind]
    model = build()
    before = snapshot(model)
    first, second = (gn.profile(model, CE, (X, Y), seed=3, **options) for _ in range(2))
    one, two = ({**p.to_dict(), "cost": None, "date": ""} for p in (first, second))
    assert one == two
    assert snapshot(model) == before
    other = gn.profile(model, CE, (X, Y), seed=4, **options)
    assert float(other.trace_cov) != float(first.trace_cov)
    assert "draws are about" in first.randomness
    assert first.population == float("inf")


def test_the_share_of_the_draws_is_their_part_of_the_covariance() -> None:
    """One linear unit with dropout: Var_draw(g) is known for every sample."""
    x = torch.ones(512, 1, dtype=torch.float64)
    target = torch.randn(512, 1, generator=torch.Generator().manual_seed(0)).double()
    torch.manual_seed(0)
    model = nn.Sequential(nn.Dropout(0.5), nn.Linear(1, 1, bias=False)).double()
    nn.init.zeros_(model[1].weight)
    # g = 2(w m - y) m with m = 0 or 2, w = 0: -2ym, of mean -2y, and of variance 4y² by draws
    p = gn.profile(model, nn.MSELoss(), (x, target))
    by_draws, by_data = 4 * float(target.square().mean()), 4 * float(target.var())
    share = by_draws / (by_draws + by_data)
    told = float(p.randomness.split("about ")[1].split("%")[0]) / 100
    assert told == pytest.approx(share, abs=0.12)
