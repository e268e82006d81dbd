"""λ and v of many samples, from few, then halves, then all."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from gradnoise.estimators.curvature.few_samples import evenly
from gradnoise.estimators.curvature.sharpest import HALF_RESIDUAL, Sharpest, sharpest_of_many
from gradnoise.measurement.opened import Opened
from gradnoise.operators.hessian import Hessian
from gradnoise.problem.options import Options
from tests.many import COUNT, SIZE, opened, regression, written

TOL = 1e-3


def found(own: Opened, *wanted: Tensor, halved: bool = True, tol: float = TOL) -> Sharpest:
    with own.problem.guard():
        return sharpest_of_many(
            own.hessian(), evenly(COUNT), wanted, halved=halved, tol=tol, seed=0
        )


def halves(own: Opened) -> tuple[Tensor, Tensor]:
    """H of either half, written out."""
    model, _, batch = regression()
    hessians = written(batch, model).hessians
    first, second = own.problem.samples.half_positions(0)
    return hessians[first].mean(0), hessians[second].mean(0)


@pytest.mark.parametrize("halved", [True, False])
def test_it_is_the_largest_eigenpair_of_all_samples(halved: bool) -> None:
    model, _, batch = regression()
    matrix = written(batch, model).hessians.mean(0)
    pairs = found(opened(), halved=halved).pairs
    vector = pairs.vectors[:, 0]
    assert float(pairs.values[0]) == pytest.approx(float(torch.linalg.eigvalsh(matrix)[-1]))
    assert float((matrix @ vector - pairs.values[0] * vector).norm()) <= TOL * float(pairs.values)


def test_the_products_of_wanted_vectors_are_known() -> None:
    model, _, batch = regression()
    matrix = written(batch, model).hessians.mean(0)
    vectors = [torch.linspace(-1, 1, SIZE).double(), torch.ones(SIZE).double()]
    for halved in (True, False):
        own = opened()
        result, hessian = found(own, *vectors, halved=halved), own.hessian()
        for vector in vectors:
            torch.testing.assert_close(result.product(hessian, vector), matrix @ vector)


def test_halves_have_their_own_eigenpairs_and_are_held_to_the_other() -> None:
    own = opened()
    result, matrices = found(own).halves, halves(own)
    assert result is not None
    assert result.vectors is not None
    assert result.converged
    values = [float(torch.linalg.eigvalsh(matrix)[-1]) for matrix in matrices]
    assert result.mean == pytest.approx(sum(values) / 2, rel=HALF_RESIDUAL**2)
    for vector, value, matrix in zip(result.vectors, values, matrices, strict=True):
        assert float((matrix @ vector - value * vector).norm()) <= 1.5 * HALF_RESIDUAL * value
    crossed = [v @ m @ v for v, m in zip(result.vectors, reversed(matrices), strict=True)]
    assert result.held_out == pytest.approx(float(sum(crossed)) / 2)


def test_the_direction_of_a_half_does_not_depend_on_the_other() -> None:
    model, criterion, (inputs, targets) = regression()
    other = opened().problem.samples.half_positions(0)[1]
    changed = inputs.clone()
    changed[other] = changed[other].flip(1) * 3
    vectors = []
    for data in (inputs, changed):
        options = Options(population="distribution", micro_batch=100)
        result = found(Opened.open(model, criterion, (data, targets), options)).halves
        assert result is not None
        assert result.vectors is not None
        vectors.append(result.vectors)
    torch.testing.assert_close(vectors[0][0], vectors[1][0])
    assert float((vectors[0][1] @ vectors[1][1]).abs()) < 0.9


@pytest.mark.parametrize("decay", [30.0, 1e4])
@pytest.mark.parametrize("halved", [True, False])
def test_decoupled_weight_decay_is_a_part_of_the_eigenvalue_alone(
    decay: float, halved: bool
) -> None:
    own = decayed([decay])
    wanted = torch.ones(SIZE).double()
    with own.problem.guard():
        hessian = own.hessian()
        matrix = hessian @ torch.eye(SIZE).double()
        result = found(own, wanted, halved=halved)
    value = float(torch.linalg.eigvalsh((matrix + matrix.T) / 2)[-1])
    assert float(result.pairs.values[0]) - decay == pytest.approx(value, rel=1e-5)
    torch.testing.assert_close(result.product(hessian, wanted), matrix @ wanted)
    if result.halves is not None:
        assert result.halves.mean - decay == pytest.approx(value, rel=0.3)
        assert result.halves.held_out - decay == pytest.approx(value, rel=0.3)


@pytest.mark.parametrize("halved", [True, False])
def test_decays_that_differ_turn_the_eigenvector(halved: bool) -> None:
    own = decayed([3.0, 1e6])
    wanted = torch.ones(SIZE + 1).double()
    with own.problem.guard():
        hessian = own.hessian()
        matrix = hessian @ torch.eye(SIZE + 1).double()
        result = found(own, wanted, halved=halved)
    added = torch.tensor([3.0] * SIZE + [1e6]).double().diag()
    value = float(torch.linalg.eigvalsh((matrix + matrix.T) / 2 + added)[-1])
    assert float(result.pairs.values[0]) == pytest.approx(value, rel=1e-6)
    torch.testing.assert_close(result.product(hessian, wanted), matrix @ wanted)


def decayed(decays: list[float]) -> Opened:
    """Linear regression with AdamW; of two decays the second is that of a bias."""
    _, criterion, batch = regression()
    model = nn.Linear(SIZE, 1, bias=len(decays) > 1).double()
    nn.init.zeros_(model.weight)
    groups = [
        {"params": [p], "weight_decay": decay}
        for p, decay in zip(model.parameters(), decays, strict=True)
    ]
    optimizer = torch.optim.AdamW(groups)
    criterion(model(batch[0]), batch[1]).backward()
    optimizer.step()
    options = Options(optimizer=optimizer, population="distribution")
    return Opened.open(model, criterion, batch, options)


def test_halves_are_not_built_where_they_are_not_wanted(monkeypatch: pytest.MonkeyPatch) -> None:
    sizes, make = [], Hessian.of_few

    def counted(problem: object, positions: Tensor, *rest: object) -> Hessian:
        sizes.append(len(positions))
        return make(problem, positions, *rest)

    monkeypatch.setattr(Hessian, "of_few", counted)
    found(opened(), halved=False)
    assert sizes == [128]
    found(opened())
    assert sizes[1:] == [64, COUNT // 2, 64, COUNT // 2]


def test_odd_numbers_of_samples_weigh_by_their_halves() -> None:
    model, criterion, (inputs, targets) = regression(count=COUNT + 1)
    options = Options(population="distribution")
    own = Opened.open(model, criterion, (inputs, targets), options)
    with own.problem.guard():
        result = sharpest_of_many(own.hessian(), evenly(COUNT + 1), halved=True, tol=1e-6, seed=0)
    matrix = written((inputs, targets), model).hessians.mean(0)
    assert float(result.pairs.values[0]) == pytest.approx(float(torch.linalg.eigvalsh(matrix)[-1]))


def test_the_model_is_left_as_found() -> None:
    model, criterion, batch = regression()
    model = nn.Sequential(model)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    own = Opened.open(model, criterion, batch, Options(population="distribution"))
    found(own)
    torch.testing.assert_close(model.state_dict(), before, rtol=0, atol=0)
    assert all(p.grad is None for p in model.parameters())


@pytest.mark.parametrize("halved", [True, False])
def test_graphs_beyond_the_memory_budget_are_built_again(halved: bool) -> None:
    own, budget = opened(population="distribution"), 300  # bytes: a basis of four vectors
    plain, small = own.hessian(), own.hessian(memory_budget=budget)
    spent = []
    for hessian in (plain, small):
        before = own.problem.objective.work.copy()
        with own.problem.guard():
            found = sharpest_of_many(hessian, evenly(COUNT), halved=halved, tol=TOL, seed=0)
        spent.append(own.problem.objective.work.since(before).forward)
        assert found.pairs.converged
    assert spent[1] > spent[0]
