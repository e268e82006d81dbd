"""Advice by trials: its budget, what it leaves as found, and how it goes on."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils.data import DataLoader, TensorDataset

import gradnoise as gn
from tests.small_runs import DATA
from tests.starts import ALONE, CE, STACKED, CutOff, KilledError, state_of, trained


def advised(make: Any = STACKED["momentum"], loss_fn: Any = CE, **options: Any) -> gn.Advice:
    model, optimizer = trained(make)
    given = {"batch_size": 2, "budget": 2000, "seeds": 2, **options}
    return gn.advise(model, loss_fn, DATA, optimizer, **given)


@pytest.mark.parametrize("seeds", [1, 3])
@pytest.mark.parametrize("batch_size", [1, 2, 4, 16, 32])
@pytest.mark.parametrize("budget", [1, 100, 777, 2000, 4096])
def test_it_never_spends_more_than_the_budget(budget: int, batch_size: int, seeds: int) -> None:
    found = advised(budget=budget, batch_size=batch_size, seeds=seeds)
    assert found.samples <= budget
    assert found.samples >= found.branches.samples
    assert (found.confidence == "none") == (found.lr is None) == (found.batch_size is None)


@pytest.mark.parametrize("make", [STACKED["momentum"], STACKED["AdamW"], ALONE["RMSprop"]])
def test_what_it_names_was_tried_and_held(make: Any) -> None:
    found = advised(make, budget=4000)
    assert found.confidence in ("good", "rough")
    assert found.batch_size in found.branches.batch_sizes
    assert found.steps >= 8
    assert found.seeds == 2
    unstable = [
        r.run.lr
        for r in found.branches.records
        if r.diverged and r.run.batch_size == found.batch_size
    ]
    assert found.lr <= min(unstable, default=float("inf")) / 2


def test_from_a_quadratic_the_rate_is_below_two_over_the_sharpness() -> None:
    toy = gn.toy.NoisyQuadratic(torch.diag(torch.tensor([4.0, 1.0])), torch.ones(2))
    model, data = toy.model(), toy.sample(4096, seed=0)
    sgd = torch.optim.SGD(model.parameters(), lr=0.1)
    found = gn.advise(model, toy.loss_fn, data, sgd, batch_size=4, budget=8192)
    assert found.lr is not None
    assert found.lr < 0.5
    assert found.samples <= 8192


def test_the_default_budget_is_two_epochs() -> None:
    assert advised(budget=None).samples <= 64


@pytest.mark.parametrize("end", [None, KilledError, KeyboardInterrupt])
def test_all_is_left_as_it_was_found(end: Any) -> None:
    model, optimizer = trained(STACKED["AdamW in groups"])
    loader = DataLoader(
        TensorDataset(*DATA), batch_size=2, shuffle=True, generator=torch.Generator().manual_seed(5)
    )
    before = state_of(model, optimizer, loader)
    loss_fn: Any = CutOff(end, 60)
    if end is None:
        gn.advise(model, loss_fn, loader, optimizer, budget=2000)
    else:
        with pytest.raises(end):
            gn.advise(model, loss_fn, loader, optimizer, budget=2000)
    assert state_of(model, optimizer, loader) == before


@pytest.mark.parametrize("calls", [40, 80, 120])
def test_cut_off_and_restarted_it_gives_the_same_advice(
    calls: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gradnoise.training.checkpoint.EVERY", 0.0)
    path, expected = tmp_path / "advice.jsonl", advised()
    with pytest.raises(KilledError):
        advised(loss_fn=CutOff(KilledError, calls), path=path)
    again = CutOff(None, 0)
    found = advised(loss_fn=again, path=path)
    whole = CutOff(None, 0)
    advised(loss_fn=whole)
    assert again.calls < whole.calls
    assert (found.lr, found.batch_size, found.samples, found.reasons) == (
        expected.lr, expected.batch_size, expected.samples, expected.reasons,
    )  # fmt: skip


def test_the_file_of_another_budget_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "advice.jsonl"
    advised(path=path)
    with pytest.raises(gn.SweepFileError, match="is of other runs: budget"):
        advised(path=path, budget=2001)


def test_a_budget_that_is_too_small_says_what_is_enough() -> None:
    found = advised(budget=100)
    assert (found.confidence, found.samples, found.branches.records) == ("none", 0, ())
    (reason,) = found.reasons
    needed = int(reason.split("`budget` = ")[1].split()[0])
    assert advised(budget=needed).confidence != "none"
    assert "no runs" in str(found.branches)


def test_where_everything_diverges_nothing_is_advised() -> None:
    model, optimizer = trained()
    optimizer.param_groups[0]["lr"] = 1e12
    found = gn.advise(model, CE, DATA, optimizer, batch_size=2, budget=2000, seeds=2)
    assert (found.lr, found.confidence) == (None, "none")
    assert "No learning rate held: start from a smaller one" in str(found)
    assert "every run of these branches diverged" in str(found.branches)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"budget": 0}, "`budget` must be a whole number from 1 on; got 0"),
        ({"seeds": 0}, "`seeds` must be a whole number from 1 on; got 0"),
        ({"extra": 0.0}, r"`extra` must be positive; got 0\.0"),
        ({"extra": float("nan")}, "`extra` must be positive; got nan"),
        ({"batch_size": None}, "`batch_size` is needed"),
        ({"batch_size": 2.5}, "`batch_size` must be a whole number"),
        ({"max_grad_norm": 0}, "`max_grad_norm` must be positive"),
    ],
)
def test_what_cannot_be_is_refused(options: dict[str, Any], said: str) -> None:
    with pytest.raises(gn.ArgumentError, match=said):
        advised(**options)
