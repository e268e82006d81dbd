"""Runs by an executor are the runs of this process."""

from __future__ import annotations

import pickle
from concurrent.futures import Executor, Future, ProcessPoolExecutor, ThreadPoolExecutor

import pytest
from torch import nn

import gradnoise as gn
from gradnoise.training.execute import run_all, run_group
from gradnoise.training.ledger import Ledger
from gradnoise.training.record import Run
from tests.small_runs import COUNTED, DATA, NOWHERE, counted, plan_of, small, swept


class Inline(Executor):
    """Runs what it is sent at once, from a copy as another process would have."""

    def submit(self, function, *given):
        future = Future()
        future.set_result(function(*pickle.loads(pickle.dumps(given))))
        return future


def test_the_loss_at_the_start_is_sent_to_an_executor() -> None:
    COUNTED.clear()
    found = swept(loss_fn=counted, executor=Inline())
    assert len(COUNTED) == 2 + 8
    assert found.records == swept().records


def test_processes_give_the_same_table() -> None:
    with ProcessPoolExecutor(max_workers=2) as pool:
        found = swept(executor=pool)
    for first, second in zip(found.rows, swept().rows, strict=True):
        assert first == pytest.approx(second)


def test_what_cannot_be_sent_is_said() -> None:
    with (
        ProcessPoolExecutor(max_workers=1) as pool,
        pytest.raises(gn.ArgumentError, match="have to be picklable"),
    ):
        gn.sweep(
            lambda: small(), nn.CrossEntropyLoss(), DATA, batch_sizes=[8], lrs=[0.1], epochs=1,
            executor=pool,
        )  # fmt: skip
    with (
        ThreadPoolExecutor(max_workers=1) as pool,
        pytest.raises(gn.ArgumentError, match="runs threads"),
    ):
        swept(executor=pool)


@pytest.mark.parametrize("vectorised", [True, False])
def test_progress_counts_the_steps_of_all_runs(vectorised: bool) -> None:
    runs = [Run(4, lr, 0, "steps", 6) for lr in (0.1, 1e30, 0.2)]  # one is given up
    steps: list[int] = []
    records = run_group(plan_of(), runs, NOWHERE, vectorised, steps.append)
    assert sum(steps) == 18
    assert {record.run for record in records} == set(runs)


@pytest.mark.parametrize("at_once", [0, 2])
def test_only_what_the_ledger_lacks_is_trained(at_once: int) -> None:
    plan, ledger = plan_of(), Ledger(None, {})
    runs = [Run(4, lr, 0, "steps", 2) for lr in (0.1, 0.2, 0.3)]
    run_all(plan, runs[:1], ledger, at_once, None, False)
    first = ledger.records[0]
    run_all(plan, runs, ledger, at_once, None, False)
    assert ledger.records[0] is first
    assert [record.run for record in ledger.records] == runs
