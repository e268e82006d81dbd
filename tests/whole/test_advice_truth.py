"""The ground truth of benchmarks/advice: continued training, divergence, and the fitted B_crit."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.optim import Optimizer

from benchmarks.advice.fit import along_budget, along_gain, critical, fitted, lowest, reached
from benchmarks.advice.problems import PROBLEMS, Params, Problem, adamw, momentum, sgd
from benchmarks.advice.store import Cell, Store
from benchmarks.advice.train import Trained, batches, fresh, restored, train

SIZES = (4, 16, 64, 256, 1024)


def small(make_optimizer: Callable[[Params, float], Optimizer]) -> Problem:
    """The regression on 64 samples."""

    def few() -> tuple[torch.Tensor, ...]:
        draw = torch.Generator().manual_seed(0)
        return torch.randn(64, 10, generator=draw), torch.randn(64, generator=draw)

    problem = PROBLEMS["noisy_regression"]
    return dataclasses.replace(problem, make_data=few, make_optimizer=make_optimizer)


# ---- training


@pytest.mark.parametrize("make_optimizer", [sgd, momentum, adamw])
def test_a_run_continued_from_a_checkpoint_is_the_run(
    make_optimizer: Callable[[Params, float], Optimizer],
) -> None:
    problem = small(make_optimizer)
    data = problem.make_data()
    whole, half = fresh(problem, 0.01, 3), fresh(problem, 0.01, 3)
    expected = train(problem, whole, data, 8, [48, 96, 160], 1.0)
    train(problem, half, data, 8, [96], 1.0)
    rest = restored(problem, half.saved())
    found = train(problem, rest, data, 8, [160], 1.0)
    assert found.losses == expected.losses[2:]
    for one, other in zip(whole.model.parameters(), rest.model.parameters(), strict=True):
        assert torch.equal(one, other)


def test_a_checkpoint_is_continued_at_another_rate_and_not_changed() -> None:
    problem = small(momentum)
    state = fresh(problem, 0.01, 0)
    train(problem, state, problem.make_data(), 8, [64], 1.0)
    saved = state.saved()
    states = saved["optimizer"]["state"].values()
    kept = [*saved["model"].values(), *(state["momentum_buffer"] for state in states)]
    before = [buffer.clone() for buffer in kept]
    other = restored(problem, saved, lr=0.5)
    assert [group["lr"] for group in other.optimizer.param_groups] == [0.5]
    assert len(other.optimizer.state) == len(saved["model"])  # the momentum came along
    train(problem, other, problem.make_data(), 16, [128], 1.0)
    for one, buffer in zip(before, kept, strict=True):
        assert torch.equal(one, buffer)


def test_every_batch_size_sees_the_same_order() -> None:
    data = (torch.arange(32),)
    orders = [torch.cat([b[0] for b in batches(data, size, 1, 0, 64)]) for size in (4, 16)]
    assert torch.equal(*orders)
    for epoch in orders[0].split(32):
        assert sorted(epoch.tolist()) == list(range(32))
    assert not torch.equal(*orders[0].split(32))
    later = torch.cat([b[0] for b in batches(data, 4, 1, 8, 64)])
    assert torch.equal(later, orders[0][8:])


def test_batches_that_do_not_divide_an_epoch_are_refused() -> None:
    with pytest.raises(ValueError, match="batch size 5 does not divide 32 samples"):
        next(batches((torch.arange(32),), 5, 0, 0, 32))


def test_a_run_that_diverges_stops() -> None:
    problem = small(sgd)
    run = train(problem, fresh(problem, 50.0, 0), problem.make_data(), 8, [8, 6400], 1.0)
    assert run.diverged
    assert len(run.losses) < 2
    assert run.peak > 3


@pytest.mark.parametrize("name", PROBLEMS)
def test_every_problem_has_a_loss_per_sample(name: str) -> None:
    problem = PROBLEMS[name]
    data = problem.make_data()
    assert all(len(data[0]) % size == 0 for size in problem.batch_sizes)
    model = problem.make_model(0)
    losses = problem.loss_fn(model, tuple(part[:3] for part in data))
    assert losses.shape == (3,)
    alone = problem.loss_fn(model, tuple(part[1:2] for part in data))
    assert torch.allclose(losses[1:2], alone, rtol=1e-5)


# ---- results


def test_results_are_found_again(tmp_path: Path) -> None:
    problem = PROBLEMS["digits_mlp"]
    store = Store(problem, tmp_path)
    cell = Cell(0.1, 4, 0.5, [4, 8])
    cell.add(0, Trained([1.0, 0.25], 1.5))
    cell.add(1, Trained([1.0], 40.0, diverged=True))
    store.cells[0.1, 4, 0.5] = cell
    store.save()
    again = Store(problem, tmp_path)
    assert again.of(0.1, 4) == {0.5: cell}
    assert again.facts == store.facts


def test_a_cell_is_stable_where_every_seed_trained() -> None:
    cell = Cell(0.0, 4, 0.5, [4, 8])
    cell.add(0, Trained([1.0, 0.25]))
    cell.add(1, Trained([1.0, 0.64]))
    assert cell.loss(8) == pytest.approx(0.4)  # √(0.25 · 0.64)
    assert cell.stable(8, 0.75)
    assert not cell.stable(8, 0.7)  # 0.64 is above 0.9 · 0.7
    cell.add(2, Trained([1.0]))
    assert not cell.stable(8, 10.0)
    assert cell.loss(8) == math.inf


# ---- fits


def test_a_curve_reaches_its_target_between_marks() -> None:
    samples = [10, 100, 1000]
    losses = np.array([1.0, 0.1, 0.01])  # 10/samples
    assert reached(samples, losses, 0.05) == pytest.approx(200)
    assert reached(samples, losses, 2.0) == 10
    assert reached(samples, losses, 0.001) == math.inf
    assert reached(samples, np.array([1.0, math.nan, math.nan]), 0.5) == math.inf


def test_the_lowest_value_lies_between_rates() -> None:
    values = [math.exp(0.3 * (k - 1.25) ** 2) for k in range(4)]
    assert lowest([1, 2, 4, 8], values) == pytest.approx(1)
    assert lowest([1, 2, 4], [1e9, 1.0, 1.0]) == pytest.approx(2 ** (-1 / 8))  # not far below
    assert lowest([1, 2, 4], [1.0, 2.0, 3.0]) == 1.0
    assert lowest([1, 2, 4], [math.inf, 2.0, 3.0]) == 2.0


@pytest.mark.parametrize("knee", [8.0, 60.0, 700.0])
def test_the_critical_batch_size_is_found_where_large_batches_end_too_early(knee: float) -> None:
    needed = np.outer([1e3, 5e3], 1 + np.array(SIZES) / knee)
    value, misfit = fitted(SIZES, needed, [1e6] * 5)
    assert value == pytest.approx(knee, rel=0.01)
    assert misfit < 0.005
    limits = needed.min(0) * [3, 3, 3, 2, 2]
    value, _ = fitted(SIZES, np.where(needed > limits, math.inf, needed), limits)
    assert value == pytest.approx(knee, rel=0.01)


def test_a_run_that_ended_too_early_bounds_the_critical_batch_size() -> None:
    needed, limits = np.array([[1.0, 1.0, 1.0, 1.0, math.inf]]), [1.0, 1.0, 1.0, 1.0, 8.0]
    without, _ = fitted(SIZES[:4], needed[:, :4], limits[:4])
    value, _ = fitted(SIZES, needed, limits)
    assert without == SIZES[3] * 8  # no growth is seen: the end of the grid
    assert 1024 / 7 < value < 512  # E(1024) > 8 asks for 1024/7, four others for more


def test_too_few_batch_sizes_have_no_critical_one() -> None:
    assert math.isnan(fitted(SIZES, np.array([[1, 1, math.inf, math.inf, math.inf]]), [9] * 5)[0])


def test_runs_have_the_critical_batch_size_that_made_them() -> None:
    knee, budget = 60.0, 2**16
    marks = [2**k for k in range(10, 19)]
    cells = {}
    for size in SIZES:
        best = 1 / (1 + knee / size)
        cells[size] = [Cell(0.0, size, best * 2.0**step, marks) for step in (-2, -1, 0, 1, 2)]
        for step, cell in zip((-2, -1, 0, 1, 2), cells[size], strict=True):
            slower = (1 + size / knee) * 2 ** (step**2 / 4)
            for seed in (0, 1):
                losses = [(1000 / mark * slower) ** 0.5 for mark in marks]
                cell.add(seed, Trained(losses))
    found = critical(cells, along_budget(cells, (0.1, 0.4), budget))
    assert found.value == pytest.approx(knee, rel=0.02)
    assert found.low <= found.value <= found.high
    assert len(found.values) == len(found.targets) == 2
    ends = [(1000 / budget * (1 + size / knee)) ** 0.5 for size in (4, 16, 64)]
    end = math.prod(ends) ** (1 / 3)
    assert along_gain(cells, (0.5, 1.0), budget, 4 * end) == pytest.approx([2 * end, end], rel=1e-4)
    assert along_gain(cells, (0.5, 1.0), budget, end / 2) == []
    assert math.isnan(critical(cells, []).value)
