"""Runs from one start: what they cost, what is kept, and what is refused before any is trained."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils.data import DataLoader, TensorDataset

import gradnoise as gn
from gradnoise.tensors.trees import sample_count
from gradnoise.trials.trials import JUDGED, Trials, known_batch_size, plan_from, samples_of
from tests.small_runs import DATA
from tests.starts import CE, STACKED, branched, ended, plan_at, runs_of, trained


def trials_at(**options: Any) -> Trials:
    return Trials(plan_at(*trained()), {"batch_size": 4}, **options)


def test_what_was_asked_for_before_is_not_trained_or_paid_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    trials = trials_at()
    first = trials.run(runs_of())
    assert [r.run for r in first] == runs_of()
    assert trials.spent == 4 * 10 * 4 == samples_of(first)
    monkeypatch.setattr("gradnoise.trials.trials.run_all", None)  # nothing to train
    assert trials.run(runs_of()[1:3]) == first[1:3]
    assert trials.spent == 160


def test_runs_of_the_file_cost_the_same_as_those_that_are_trained(tmp_path: Path) -> None:
    path = tmp_path / "runs.jsonl"
    trials_at(path=path).run(runs_of())
    again = trials_at(path=path)
    assert again.spent == 0
    again.run(runs_of()[:2])
    assert again.spent == 80


def test_the_budget_counts_new_runs_alone() -> None:
    trials = trials_at(budget=200)
    assert trials.can_pay(runs_of())
    trials.run(runs_of())
    assert trials.can_pay(runs_of())
    assert trials.can_pay(runs_of((0.01, 0.1, 0.2), 1))
    assert not trials.can_pay(runs_of((0.2,), 2))


def test_whether_runs_are_one_program_is_found_out_once(monkeypatch: pytest.MonkeyPatch) -> None:
    timed: list[int] = []
    monkeypatch.setattr(
        "gradnoise.training.vectorise.seconds_per_step", lambda *_: timed.append(1) or (2.0, 1.0)
    )
    trials = trials_at()
    for seeds in (1, 2, 3):
        trials.run(runs_of(seeds=seeds))
    assert len(timed) == 1
    assert trials.how[0] == 0
    assert "one by one" in trials.how[1]


def test_a_run_that_was_stopped_costs_what_it_took() -> None:
    (record,) = trials_at().run(runs_of((1e30,), 1, steps=50))
    assert record.stopped is not None
    assert samples_of([record]) == 4 * record.stopped < 200
    assert samples_of(ended(8, 0.1, (0.5, 0.5))) == 128


def test_losses_are_judged_on_a_part_of_large_data() -> None:
    model, optimizer = trained()
    inputs = torch.randn(JUDGED + 100, 5, generator=torch.Generator().manual_seed(1)).double()
    data = inputs, (inputs[:, 0] > 0).long()
    plan = plan_from(model, CE, data, optimizer, samples=None)
    assert (plan.count, sample_count(plan.judged)) == (JUDGED + 100, JUDGED)
    assert len(plan.judged[0].unique(dim=0)) == JUDGED
    assert plan_from(model, CE, DATA, optimizer, samples=None).judged is None


def test_of_larger_data_a_part_is_drawn() -> None:
    model, optimizer = trained()
    inputs = torch.zeros(5000, 5).double()
    data = inputs, torch.zeros(5000).long()
    assert plan_from(model, CE, data, optimizer, samples=10).count == 4096
    assert plan_from(model, CE, data, optimizer, samples=4500).count == 4500
    assert plan_from(model, CE, data, optimizer, samples=None).count == 5000


def test_the_batch_size_is_that_of_the_loader_or_as_given() -> None:
    loader = DataLoader(TensorDataset(*DATA), batch_size=8)
    assert known_batch_size(loader, None) == 8
    assert known_batch_size(loader, 16) == 16
    with pytest.raises(gn.ArgumentError, match="`batch_size` is needed, the batch size that the"):
        known_batch_size(DATA, None)
    with pytest.raises(gn.ArgumentError, match="`batch_size` must be a whole number from 1 on"):
        known_batch_size(DATA, 0)


@pytest.mark.parametrize("norm", [0.0, -1.0, float("nan")])
def test_a_norm_that_is_not_positive_is_refused(norm: float) -> None:
    with pytest.raises(gn.ArgumentError, match="`max_grad_norm` must be positive, or None; got"):
        branched(max_grad_norm=norm)


@pytest.mark.parametrize("optimizer", [None, "adam", torch.optim.SGD])
def test_an_optimizer_is_needed(optimizer: Any) -> None:
    model, _ = trained()
    with pytest.raises(gn.ArgumentError, match="`optimizer` must be the torch"):
        gn.branch(
            model, CE, DATA, optimizer, batch_size=4, batch_sizes=[4], samples=8
        )  # fmt: skip


def test_a_warm_up_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    model, optimizer = trained(STACKED["AdamW"])
    scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: step / 10)
    path = tmp_path / "runs.jsonl"
    with pytest.raises(gn.ArgumentError, match=r"got 0\.0\. Is this the first step of a warm-up\?"):
        gn.branch(
            model, CE, DATA, optimizer, batch_size=4, batch_sizes=[4], samples=8, path=path
        )  # fmt: skip
    assert not path.exists()
    optimizer.step()
    scheduler.step()
    gn.branch(model, CE, DATA, optimizer, batch_size=4, batch_sizes=[4], samples=8, path=path)


def test_the_trace_is_that_of_the_parameters_that_are_trained() -> None:
    model, _ = trained()
    optimizer = torch.optim.SGD(list(model.parameters())[-1:], 0.05)
    found = Trials(plan_at(model, optimizer), {"batch_size": 4}).noise[0]
    assert all(p.requires_grad for p in model.parameters())
    for parameter in list(model.parameters())[:-1]:
        parameter.requires_grad_(False)
    assert found == pytest.approx(float(gn.gradient_moments(model, CE, DATA).trace_cov))
