"""How much was computed, against passes that are counted by hand."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

import gradnoise as gn
from gradnoise.measurement.opened import Opened
from gradnoise.operators.gauss_newton import GaussNewton
from gradnoise.operators.hessian import Hessian
from gradnoise.per_sample.choice import choose
from gradnoise.problem.directional import per_sample_curvatures, weighted_product
from gradnoise.problem.options import Options
from gradnoise.problem.work import Work
from tests.many import COUNT, SIZE, opened, regression


def test_a_forward_and_a_backward_pass_are_a_plain_pass() -> None:
    assert Work(forward=8, gradients=8).passes(8) == pytest.approx(1)
    assert Work(products=8).passes(8) == pytest.approx(2)


def test_what_came_since_is_the_difference() -> None:
    work = Work(5, 4, 3, 2)
    before = work.copy()
    work.differentiated(10)
    work.multiplied(10, directions=2)
    assert work.since(before) == Work(0, 10, 20, 2)
    assert before == Work(5, 4, 3, 2)


def spent(own: Opened, run: Any) -> Work:
    before = own.problem.objective.work.copy()
    with own.problem.guard(), own.problem.objective.second_order():
        run(own.problem)
    return own.problem.objective.work.since(before)


@pytest.mark.parametrize("engine", ["hooks", "functional", "loop"])
def test_engines_evaluate_and_differentiate_every_sample_once(engine: str) -> None:
    own = opened()
    with own.problem.guard():
        chosen = choose(own.problem.objective, own.problem.largest_batch(), engine)
    found = spent(own, lambda p: [list(chosen.chunks(batch)) for batch in p.batches()])
    assert (found.forward, found.gradients, found.products) == (COUNT, COUNT, 0)


@pytest.mark.parametrize(("hvp", "graphs"), [("kept", 1), ("fresh", 3)])
def test_graphs_are_built_once_where_they_are_kept(hvp: str, graphs: int) -> None:
    own = opened()
    hessian = Hessian.of(own.problem, hvp=hvp)
    sizing = spent(own, lambda _: hessian @ torch.ones(SIZE).double())
    found = spent(own, lambda _: hessian @ torch.ones(SIZE, 2).double())
    found = spent(own, lambda _: [hessian @ torch.ones(SIZE).double() for _ in range(graphs)])
    assert found.products == graphs * COUNT
    assert found.forward == found.gradients == (0 if hvp == "kept" else graphs * COUNT)
    assert sizing.products == COUNT


@pytest.mark.parametrize("hvp", ["forward", "kept"])
def test_products_count_samples_and_directions(hvp: str) -> None:
    own = opened()
    hessian = Hessian.of(own.problem, hvp=hvp)
    found = spent(own, lambda _: hessian @ torch.ones(SIZE, 3).double())
    assert found.products == 3 * COUNT
    few = Hessian.of_few(own.problem, torch.tensor([0, 0, 5]), torch.ones(3))
    assert spent(own, lambda _: few @ torch.ones(SIZE).double()).products == 3


def test_gauss_newton_products_count_as_well() -> None:
    own = opened()
    matrix = GaussNewton.of(own.problem)
    assert spent(own, lambda _: matrix @ torch.ones(SIZE).double()).products == COUNT


def test_derivatives_of_single_samples_count_as_products() -> None:
    own, v = opened(), torch.ones(SIZE).double()
    found = spent(own, lambda p: per_sample_curvatures(p, v, [v, v]))
    assert (found.forward, found.gradients, found.products) == (COUNT, COUNT, 3 * COUNT)
    weights = torch.ones(COUNT).double()
    assert spent(own, lambda p: weighted_product(p, v, weights)).products == COUNT


def test_backpack_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    model, _, (inputs, targets) = regression()
    own = Opened.open(model.float(), nn.MSELoss(), (inputs.float(), targets.float()), Options())
    with own.problem.guard():
        chosen = choose(own.problem.objective, own.problem.largest_batch(), "backpack")
        list(chosen.chunks(own.problem.largest_batch()))  # verified
    found = spent(own, lambda p: [list(chosen.chunks(batch)) for batch in p.batches()])
    assert (found.forward, found.gradients) == (COUNT, COUNT)


def test_random_losses_are_counted_with_those_that_found_them() -> None:
    model = nn.Sequential(nn.Linear(4, 8), nn.Dropout(0.5), nn.Linear(8, 1))
    data = torch.randn(32, 4), torch.randn(32, 1)
    p = gn.profile(model, nn.MSELoss(), data)
    assert p.cost is not None
    assert p.cost.passes > 50
