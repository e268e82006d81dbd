"""Weighted objectives: gradient, trΣ with the noise of the ratio, tr(HΣ) and λ, written out."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

import gradnoise as gn
from gradnoise.problem.options import Options
from gradnoise.problem.problem import Problem
from gradnoise.problem.shares import adjoint_of_centring, centred_by_share, in_batch
from tests.oracles import flat_grad
from tests.unit_cases import X as MORE_X
from tests.unit_cases import Y as MORE_Y
from tests.unit_cases import groups_of, mlp, written_out

EXACT: dict[str, Any] = {"rtol": 1e-9, "atol": 1e-12}
COUNT = 40
X, Y = MORE_X[:COUNT], MORE_Y[:COUNT]
IGNORED = torch.where(torch.arange(COUNT) % 10 == 0, Y, -100)
CLASSES = torch.tensor([0.5, 2.0, 1.0], dtype=torch.float64)


class Words(nn.Module):
    """Classes for each of four positions of a sample."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = mlp()

    def forward(self, x: Tensor) -> Tensor:
        shifted = torch.stack([x.roll(k, 1) for k in range(4)], 1)
        return self.inner(shifted).transpose(1, 2)  # (n, 3, 4)


TOKENS = torch.stack([Y.roll(k) for k in range(4)], 1)
LENGTHS = torch.arange(COUNT) % 5  # tokens that count: none in some samples
PADDED = torch.where(torch.arange(4) < LENGTHS[:, None], TOKENS, -100)

CASES: dict[str, Any] = {
    "ignored labels": (mlp, nn.CrossEntropyLoss(), IGNORED),
    "class weights": (mlp, nn.CrossEntropyLoss(weight=CLASSES), Y),
    "class weights and ignored labels": (mlp, nn.CrossEntropyLoss(weight=CLASSES), IGNORED),
    "tokens": (Words, nn.CrossEntropyLoss(), PADDED),
    "tokens with class weights": (Words, nn.CrossEntropyLoss(weight=CLASSES), PADDED),
    "log probabilities": (
        lambda: nn.Sequential(mlp(), nn.LogSoftmax(1)),
        nn.NLLLoss(weight=CLASSES, ignore_index=1),
        Y,
    ),
}


@pytest.fixture(scope="module", params=CASES)
def case(request: Any) -> Any:
    """The problem, and shares, gradients and Hessians of its samples as the criterion weighs."""
    build, criterion, targets = CASES[request.param]
    model = build()
    weights, losses = [], []
    for x, y in zip(X, targets, strict=True):
        counts = [
            float(1.0 if criterion.weight is None else criterion.weight[int(t)])
            for t in y.flatten()
            if int(t) != criterion.ignore_index
        ]
        weights.append(sum(counts))
        loss = criterion(model(x[None]), y[None]) if counts else 0 * model(x[None]).sum()
        losses.append(loss)
    gradients, hessians = written_out(model, losses)
    return (model, criterion, (X, targets)), torch.tensor(weights).double(), gradients, hessians


def test_what_a_sample_does_to_the_spread(case: Any) -> None:
    """The derivative of tr Cov(w(g - G))/w̄² with respect to how often a sample is drawn."""
    problem, weights, gradients, _ = case
    often = torch.full((COUNT,), 1 / COUNT, dtype=torch.float64, requires_grad=True)
    total = often @ weights
    mean = (often * weights) @ gradients / total
    squares = (gradients - mean).square()
    found = gn.gradient_moments(*problem, population="distribution")
    parts = {"": squares} | dict(zip(found.layers, squares.split([35, 18], 1), strict=False))
    for name, part in parts.items():
        value = (often * weights.square()) @ part.sum(1) / total**2
        known = torch.autograd.grad(value, often, retain_graph=True)[0]
        own = found.restrict(found.layers[name].parameters) if name else found
        torch.testing.assert_close(own.deviations()[1], known - known.mean(), **EXACT)


def test_the_interval_of_weighted_samples_covers() -> None:
    """Class weights: trΣ and |G|² vary together, and their ratio less than without that."""
    source = torch.Generator().manual_seed(0)
    x = torch.randn(3000, 6, generator=source, dtype=torch.float64)
    y = torch.randint(3, (3000,), generator=source)
    criterion = nn.CrossEntropyLoss(torch.tensor([0.2, 3.0, 1.0]).double())
    model = mlp()
    known = float(gn.gradient_moments(model, criterion, (x, y)).simple_noise_scale)
    covered = 0
    for seed in range(60):
        found = gn.gradient_moments(model, criterion, (x, y), max_samples=300, seed=seed)
        covered += found.simple_noise_scale.low <= known <= found.simple_noise_scale.high
    assert covered >= 52


def test_the_objective_is_that_of_the_criterion(case: Any) -> None:
    (model, criterion, data), weights, gradients, _ = case
    found = gn.gradient_moments(model, criterion, data)
    whole = criterion(model(data[0]), data[1])
    assert float(found.loss) == pytest.approx(float(whole.detach()), rel=1e-9)
    mean = (weights @ gradients) / weights.sum()
    torch.testing.assert_close(torch.cat([m.flatten() for m in found.mean.values()]), mean, **EXACT)


@pytest.mark.parametrize("engine", ["auto", "loop"])
def test_moments_and_products_have_the_noise_of_the_ratio(case: Any, engine: str) -> None:
    problem, weights, gradients, hessians = case
    shares = weights / weights.mean()
    mean = (shares @ gradients) / COUNT
    deviations = shares[:, None] * (gradients - mean)
    sigma = deviations.T @ deviations / (COUNT - 1)
    found = gn.gradient_moments(*problem, engine=engine, population="distribution", variance=True)
    assert float(found.trace_cov) == pytest.approx(float(sigma.trace()), rel=1e-9)
    signal = float(mean @ mean - sigma.trace() / COUNT)
    assert float(found.grad_sq_norm) == pytest.approx(signal, rel=1e-9)
    assert found.variance is not None
    spread = torch.cat([v.flatten() for v in found.variance.values()])
    torch.testing.assert_close(spread, sigma.diagonal(), **EXACT)
    layers = sum(float(layer.trace_cov) for layer in found.layers.values())
    assert layers == pytest.approx(float(sigma.trace()), rel=1e-9)
    hessian = torch.einsum("n,npq->pq", shares, hessians) / COUNT
    vector = torch.randn(len(mean), generator=torch.Generator().manual_seed(1)).double()
    operator = gn.GradientCovariance(*problem, engine=engine)
    torch.testing.assert_close(operator @ vector, sigma @ vector, **EXACT)
    torch.testing.assert_close(gn.Hessian(*problem) @ vector, hessian @ vector, **EXACT)
    top = float(torch.linalg.eigvalsh(hessian)[-1])
    assert float(gn.sharpness(*problem, tol=1e-9).values[0]) == pytest.approx(top, rel=1e-9)
    for method in ("gram", "lanczos"):
        covariance = gn.covariance(*problem, k=2, method=method, engine=engine, tol=1e-9)
        eigenvalues = torch.linalg.eigvalsh(sigma).flip(0)[:2]
        torch.testing.assert_close(covariance.eigenvalues, eigenvalues, rtol=1e-7, atol=1e-12)


def test_a_profile_holds_what_is_written_out(case: Any) -> None:
    problem, weights, gradients, hessians = case
    shares = weights / weights.mean()
    mean = (shares @ gradients) / COUNT
    deviations = shares[:, None] * (gradients - mean)
    sigma = deviations.T @ deviations / (COUNT - 1)
    hessian = torch.einsum("n,npq->pq", shares, hessians) / COUNT
    p = gn.profile(*problem, probes=256, accuracy=0.0, tol=1e-8)
    assert "weighted as in training: Σwℓ/Σw" in p.objective
    report = " ".join(p.report(full=True).split())
    assert f"the loss L is the {p.objective}" in report
    assert "weighted mean over the samples" in report
    noise = p.trace_hessian_cov
    assert noise.low <= float((hessian @ sigma).trace()) <= noise.high
    bend = float(mean @ hessian @ mean)
    assert float(p.grad_curvature) == pytest.approx(bend, rel=1e-6)
    values, vectors = torch.linalg.eigh(hessian)
    top = vectors[:, -1]
    curvatures = torch.einsum("p,npq,q->n", top, hessians, top)
    spread = shares * (curvatures - values[-1])  # of the ratio, as for gradients
    ratio = float(spread.square().sum() / (COUNT - 1) / values[-1] ** 2)
    assert float(p.curvature_noise_scale) == pytest.approx(ratio, rel=1e-4)


def test_the_wrong_answer_of_before() -> None:
    """90 % of 400 labels ignored: the loss was 0.152 and λ 0.0576."""
    torch.manual_seed(0)
    model = nn.Linear(3, 4)
    x, y = torch.randn(400, 3), torch.randint(4, (400,))
    y[torch.rand(400) < 0.9] = -100
    p = gn.profile(model, nn.CrossEntropyLoss(), (x, y))
    known = y != -100
    plain = gn.profile(model, nn.CrossEntropyLoss(), (x[known], y[known]))
    assert float(p.loss) == pytest.approx(float(plain.loss), rel=1e-5)
    assert float(p.sharpness) == pytest.approx(float(plain.sharpness), rel=1e-3)
    # of ten samples one counts: a batch has ten times the noise
    ratio = float(p.trace_cov) / float(plain.trace_cov)
    assert ratio == pytest.approx(400 / int(known.sum()), rel=0.03)


def test_every_sample_can_count_the_same() -> None:
    data = (X, IGNORED)
    equal = gn.gradient_moments(mlp(), gn.supervised(nn.CrossEntropyLoss(), weights="equal"), data)
    losses = nn.functional.cross_entropy(mlp()(X), IGNORED, reduction="none")
    assert float(equal.loss) == pytest.approx(float(losses.mean()), rel=1e-9)
    with pytest.raises(gn.ArgumentError, match="`weights` must be None or 'equal'; got 'tokens'"):
        gn.supervised(nn.CrossEntropyLoss(), weights="tokens")


def test_groups_are_weighted_within() -> None:
    model = mlp(nn.BatchNorm1d(5))
    criterion = nn.CrossEntropyLoss(weight=CLASSES)
    found = gn.gradient_moments(model, criterion, (X, Y), group_size=10)
    assert found.group_size == 10
    other = gn.gradient_moments(model, lambda m, b: criterion(m(b[0]), b[1]), (X, Y), group_size=10)
    assert float(found.trace_cov) == pytest.approx(float(other.trace_cov), rel=1e-9)


@pytest.mark.parametrize("options", [{}, {"unit": "group", "group_size": COUNT // 2}])
def test_smoothed_labels_of_a_class_without_weight_count(options: Any) -> None:
    """Label smoothing adds all classes to the loss of a label whose own weight is 0."""
    criterion = nn.CrossEntropyLoss(torch.tensor([0.0, 2, 1]).double(), label_smoothing=0.3)
    model = mlp()
    found = gn.gradient_moments(model, criterion, (X, IGNORED), **options)
    if options:
        size = options["group_size"]
        groups = groups_of(Problem.open(model, criterion, (X, IGNORED), Options(**options)))
        assert [len(group[0]) for group in groups] == [size, size]
        whole = sum(criterion(model(x), y) for x, y in groups) / 2
    else:
        whole = criterion(model(X), IGNORED)
    assert float(found.loss) == pytest.approx(float(whole.detach()), rel=1e-9)
    mean = flat_grad(whole, list(model.parameters()))
    torch.testing.assert_close(torch.cat([m.flatten() for m in found.mean.values()]), mean, **EXACT)
    loss_fn = gn.supervised(criterion)
    own = in_batch(loss_fn, model, (X[:30], IGNORED[:30])).mean()
    torch.testing.assert_close(own, criterion(model(X[:30]), IGNORED[:30]))


def test_a_group_without_a_label_that_counts_is_an_error() -> None:
    labels = torch.where(torch.arange(COUNT) < 4, Y, -100)
    with pytest.raises(gn.DataError, match="no label of a group of 4 samples counts"):
        gn.gradient_moments(
            mlp(nn.BatchNorm1d(5)), nn.CrossEntropyLoss(), (X, labels), group_size=4
        )


def test_labels_that_are_all_ignored_are_an_error() -> None:
    with pytest.raises(gn.DataError, match="no label of the 40 samples counts"):
        gn.gradient_moments(mlp(), nn.CrossEntropyLoss(), (X, torch.full((COUNT,), -100)))


def test_a_decay_within_the_gradient_is_refused_in_the_metric() -> None:
    model = mlp()
    adam = torch.optim.Adam(model.parameters(), weight_decay=0.1)
    nn.functional.cross_entropy(model(X), Y).backward()
    adam.step()
    data = (model, nn.CrossEntropyLoss(), (X, IGNORED))
    with pytest.raises(gn.ArgumentError, match="samples weigh differently"):
        gn.gradient_moments(*data, optimizer=adam, metric="optimizer")
    assert float(gn.gradient_moments(*data, optimizer=adam).trace_cov) > 0
    cured = (model, gn.supervised(nn.CrossEntropyLoss(), weights="equal"), (X, IGNORED))
    assert float(gn.gradient_moments(*cured, optimizer=adam, metric="optimizer").trace_cov) > 0


def test_a_batch_in_training_is_weighted_as_the_criterion_does(case: Any) -> None:
    model, criterion, (x, y) = case[0]
    batch = x[:25], y[:25]
    found = in_batch(gn.supervised(criterion), model, batch)
    assert found.shape == (25,)
    torch.testing.assert_close(found.mean(), criterion(model(batch[0]), batch[1]))
    whole = in_batch(lambda m, b: criterion(m(b[0]), b[1]), model, batch)
    assert whole.shape == (25,)
    torch.testing.assert_close(whole.mean(), found.mean())


def test_both_maps_are_adjoint() -> None:
    shares = torch.tensor([0.5, 1.5, 1.0, 1.0], dtype=torch.float64)
    rows = torch.randn(2, 4, generator=torch.Generator().manual_seed(0)).double()
    values = torch.randn(4, 3, generator=torch.Generator().manual_seed(1)).double()
    found = adjoint_of_centring(rows, shares) @ values
    torch.testing.assert_close(found, rows @ centred_by_share(values, shares), **EXACT)
    assert adjoint_of_centring(rows, None) is rows
