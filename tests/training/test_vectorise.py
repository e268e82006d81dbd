"""When the runs of a batch size are one program: where it is possible and faster."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from torch import nn

import gradnoise as gn
from gradnoise.training.record import Run
from gradnoise.training.vectorise import groups, seconds_per_step, why_not_vectorised
from tests.small_runs import DATA, dropping, half_frozen, normalised, plan_of, small, swept
from tests.starts import ALONE, STACKED, Make, plan_at, trained


@pytest.mark.parametrize(
    ("model", "reason"), [(small, None), (normalised, "batch norm"), (dropping, "")]
)
def test_models_that_cannot_be_one_program_are_known(model: Any, reason: str | None) -> None:
    found = why_not_vectorised(plan_of(model), Run(4, 0.1, 0, "epochs", 2))
    assert found is None if reason is None else reason in str(found).lower()


@pytest.mark.parametrize("model", [normalised, dropping])
def test_models_that_cannot_be_one_program_are_trained_one_by_one_and_it_is_said(
    model: Any,
) -> None:
    found = gn.sweep(model, nn.CrossEntropyLoss(), DATA, batch_sizes=[8], lrs=[0.1], epochs=1)
    assert found.vectorised == 0
    assert "cannot be one program" in found.reason
    assert "trained one by one" in str(found)
    with pytest.raises(gn.ArgumentError, match="`vectorise` = True, but the runs cannot"):
        gn.sweep(
            model, nn.CrossEntropyLoss(), DATA, batch_sizes=[8], lrs=[0.1], epochs=1,
            vectorise=True,
        )  # fmt: skip


def test_either_way_gives_the_same_table() -> None:
    one, other = swept(), swept(vectorise=False)
    assert (one.vectorised, other.vectorised) == (4, 0)
    for first, second in zip(one.rows, other.rows, strict=True):
        assert first == pytest.approx(second)


def test_a_model_too_large_to_be_stacked_is_trained_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gradnoise.training.vectorise.MEMORY", 1000)
    found = swept()
    assert found.vectorised == 0
    assert "too large to be stacked" in found.reason


def test_frozen_parameters_that_the_seed_decides_are_not_shared() -> None:
    found = gn.sweep(
        half_frozen, nn.CrossEntropyLoss(), DATA, batch_sizes=[8], lrs=[0.1], epochs=1, seeds=2
    )
    assert found.vectorised == 0
    assert found.records[0].start_loss != found.records[1].start_loss


def test_runs_are_grouped_by_batch_size_and_length() -> None:
    runs = [Run(size, lr, 0, "steps", 9) for lr in (0.1, 0.2, 0.3) for size in (4, 2)]
    assert [[(r.batch_size, r.lr) for r in own] for own in groups(runs, 2)] == [
        [(2, 0.1), (2, 0.2)],
        [(2, 0.3)],
        [(4, 0.1), (4, 0.2)],
        [(4, 0.3)],
    ]


@pytest.mark.parametrize(("stacked", "alone", "count"), [(0.001, 0.0025, 4), (0.0025, 0.001, 0)])
def test_the_faster_way_is_taken_and_its_times_are_said(
    stacked: float, alone: float, count: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        "gradnoise.training.vectorise.seconds_per_step", lambda *_: (stacked, alone)
    )
    found = swept()
    assert found.vectorised == count
    assert found.reason == (
        f"a step of 4 runs at B = 4 takes {1e3 * stacked:g} ms as one program, {1e3 * alone:g} ms "
        f"one by one"
    )
    assert found.reason in " ".join(str(found).split())
    for first, second in zip(found.rows, swept(vectorise=not count).rows, strict=True):
        assert first == pytest.approx(second)


def test_a_single_run_is_told_in_the_singular(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gradnoise.training.vectorise.seconds_per_step", lambda *_: (1.0, 2.0))
    assert swept(lrs=[0.1], seeds=1).reason.startswith("a step of 1 run at B = ")


def test_without_auto_nothing_is_timed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gradnoise.training.vectorise.seconds_per_step", None)
    assert swept(vectorise=True).vectorised == 4
    assert swept(vectorise=False).vectorised == 0


def test_a_sweep_that_goes_on_is_not_timed_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Otherwise what a program that was cut off had done could be lost."""
    path = tmp_path / "sweep.jsonl"
    first = swept(path=path, lrs=[0.1])
    monkeypatch.setattr("gradnoise.training.vectorise.seconds_per_step", None)
    assert swept(path=path).reason == first.reason


@pytest.mark.parametrize(("epochs", "steps", "expected"), [(2, None, 2), (None, 5, 8), (2, 100, 8)])
def test_the_group_with_the_most_samples_is_timed(
    epochs: int | None, steps: int | None, expected: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At equal epochs the smallest batch size, which takes the most steps."""
    timed = []
    monkeypatch.setattr(
        "gradnoise.training.vectorise.seconds_per_step",
        lambda _plan, _model, runs: timed.append(runs) or (1.0, 2.0),
    )
    swept(batch_sizes=[2, 4, 8], epochs=epochs, steps=steps)
    ((run, *others),) = timed
    assert run.batch_size == expected
    assert len(others) == 3


def test_a_step_is_timed_both_ways_the_first_not_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    stacked, alone = [9.0, 3.0, 2.0, 4.0], [9.0, 1.5, 1.0, 2.0]
    times = iter([time for each in (*stacked, *alone) for time in (0.0, each)])
    monkeypatch.setattr("gradnoise.training.vectorise.clock", lambda: next(times))
    runs = [Run(4, lr, seed, "steps", 2) for lr in (0.1, 1e30) for seed in (3, 4)]
    assert seconds_per_step(plan_of(), small(), runs) == (2.0, 4 * 1.0)
    assert next(times, None) is None


@pytest.mark.parametrize(
    ("make", "model", "reason"),
    [
        (STACKED["momentum"], small, None),
        (ALONE["RMSprop"], small, "RMSprop is stepped one by one"),
        (STACKED["momentum"], normalised, "batch norm"),
        (STACKED["momentum"], dropping, ""),
    ],
)
def test_a_start_is_one_program_where_model_and_optimizer_allow(
    make: Make, model: Any, reason: str | None
) -> None:
    plan = plan_at(*trained(make, model()))
    found = why_not_vectorised(plan, Run(4, 0.1, 0, "samples", 2))
    assert found is None if reason is None else reason.lower() in str(found).lower()
