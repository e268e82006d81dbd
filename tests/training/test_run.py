"""One run is a plain loop with torch's optimizer."""

from __future__ import annotations

import copy
import math
from typing import Any

import pytest
import torch
from torch import nn

import gradnoise as gn
from gradnoise.training.batch_order import BatchOrder
from gradnoise.training.record import Run
from gradnoise.training.run import in_last, step_losses, stepper, train
from gradnoise.training.schedule import linear
from tests.small_runs import DATA, dropping, normalised, plan_of, small, swept
from tests.starts import ALONE, CE, STACKED, by_hand, plan_at, runs_of, trained


def test_a_run_is_a_plain_loop_over_its_batches() -> None:
    plan, run = plan_of(schedule=None), Run(8, 0.3, 7, "steps", 9)
    _, model = train(plan, run)
    with torch.random.fork_rng():
        torch.manual_seed(7)
        own = small()
    step = torch.optim.SGD(own.parameters(), lr=0.3)
    order = BatchOrder(32, 8, seed=7)
    for count in range(9):
        rows = order.rows(count)
        step.zero_grad()
        nn.functional.cross_entropy(own(DATA[0][rows]), DATA[1][rows]).backward()
        step.step()
    for ours, theirs in zip(model.parameters(), own.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("model", [normalised, dropping])
def test_a_run_is_the_same_whatever_was_swept_before(model: Any) -> None:
    alone = swept(model, batch_sizes=[8], lrs=[0.4], vectorise=False).records
    whole = swept(model, vectorise=False).records
    assert [r for r in whole if (r.run.batch_size, r.run.lr) == (8, 0.4)] == list(alone)


def test_the_losses_of_a_step_are_one_per_sample() -> None:
    assert step_losses(torch.ones(3, 4), 4).shape == (3, 4)
    with pytest.raises(gn.LossError, match=r"one loss per sample, shape \(4,\); got shape \(1,\)"):
        step_losses(torch.ones(1), 4)


def test_a_run_that_diverges_is_given_up_with_the_step() -> None:
    record, _ = train(plan_of(), Run(4, 1e30, 0, "steps", 50))
    assert record.diverged
    assert record.stopped is not None
    assert record.stopped < 50
    assert record.train_loss == math.inf


def test_a_schedule_multiplies_the_learning_rate_of_each_step() -> None:
    plan = plan_of(schedule=lambda fraction: 1.0 if fraction < 0.5 else 0.0)
    _, whole = train(plan, Run(4, 0.1, 0, "steps", 10))
    _, half = train(plan_of(schedule=None), Run(4, 0.1, 0, "steps", 5))
    for first, second in zip(whole.parameters(), half.parameters(), strict=True):
        torch.testing.assert_close(first, second, rtol=0, atol=0)


@pytest.mark.parametrize("max_grad_norm", [None, 0.05])
@pytest.mark.parametrize("name", [*ALONE, "AdamW in groups", "momentum"])
def test_a_run_goes_on_with_the_optimizer_that_there_is(
    name: str, max_grad_norm: float | None
) -> None:
    model, optimizer = trained({**STACKED, **ALONE}[name])
    run = runs_of()[1]
    order = BatchOrder(32, run.batch_size, run.seed)
    batches = [order.rows(step) for step in range(run.steps)]
    own, mean = by_hand(model, optimizer, run.lr, batches, max_grad_norm)
    record, found = train(plan_at(model, optimizer, max_grad_norm=max_grad_norm), run)
    for ours, theirs in zip(found.parameters(), own.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=1e-12)
    assert record.train_loss == pytest.approx(CE(own(DATA[0]), DATA[1]).item(), rel=1e-12)
    assert record.averaged_loss == pytest.approx(CE(mean(DATA[0]), DATA[1]).item(), rel=1e-12)


@pytest.mark.parametrize(("steps", "late"), [(1, 1), (4, 1), (5, 2), (10, 3)])
def test_the_late_loss_is_that_of_the_batches_in_the_last_quarter(steps: int, late: int) -> None:
    plan, run = plan_at(*trained()), runs_of(steps=steps)[0]
    take_step = stepper(plan, run, plan.model(0))
    losses = [take_step(step).item() for step in range(steps)]
    record, _ = train(plan, run)
    assert record.late_loss == pytest.approx(sum(losses[-late:]) / late, rel=1e-12)
    assert [in_last(4, step, steps) for step in range(steps)].count(True) == late


def test_gradients_of_what_the_optimizer_does_not_hold_do_not_add_up() -> None:
    """They count in the norm that gradients are cut to, once."""
    model, optimizer = trained(lambda m: torch.optim.SGD(m[2].parameters(), 0.05))
    run = runs_of()[0]
    rows = [BatchOrder(32, 4, 0).rows(step) for step in range(run.steps)]
    own = copy.deepcopy(model)
    for batch in rows:
        own.zero_grad()
        CE(own(DATA[0][batch]), DATA[1][batch]).backward()
        nn.utils.clip_grad_norm_(own.parameters(), 0.05)
        with torch.no_grad():
            for p in own[2].parameters():
                p -= run.lr * p.grad
    _, found = train(plan_at(model, optimizer, max_grad_norm=0.05), run)
    for ours, theirs in zip(found.parameters(), own.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=1e-12)


def test_a_run_that_was_given_up_has_no_averaged_loss() -> None:
    record, _ = train(plan_at(*trained()), runs_of((1e30,))[0])
    assert (record.diverged, record.averaged_loss, record.late_loss) == (True, None, None)


def test_without_a_start_no_average_is_taken() -> None:
    record, _ = train(plan_of(), runs_of()[0])
    assert (record.averaged_loss, record.late_loss) == (None, None)


def test_with_a_schedule_all_losses_are_those_at_the_end_and_the_mean_is_of_all_steps() -> None:
    plan, run = plan_at(*trained(), schedule=linear), runs_of(steps=10)[0]
    take_step = stepper(plan, run, plan.model(0))
    losses = [take_step(step).item() for step in range(10)]
    record, _ = train(plan, run)
    assert record.late_loss == record.averaged_loss == record.train_loss
    assert record.mean_batch_loss == pytest.approx(sum(losses) / 10, rel=1e-12)
    constant, _ = train(plan_at(*trained()), run)
    assert constant.mean_batch_loss is None
    assert constant.train_loss != record.train_loss
    alone, _ = train(plan_of(schedule=linear), run)
    assert (alone.averaged_loss, alone.late_loss, alone.mean_batch_loss) == (None, None, None)
