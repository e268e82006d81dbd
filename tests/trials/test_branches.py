"""Branches are read from the file that they are written to."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from torch import nn

import gradnoise as gn
from gradnoise.trials.branches import in_order
from tests.small_runs import swept
from tests.starts import CE, DATA, branched, ended, trained


class Dying(nn.Module):
    """Loss 1 - exp(-(w - x)²/2): beyond a large step nothing pulls back."""

    def __init__(self) -> None:
        super().__init__()
        self.w = nn.Parameter(torch.tensor([1.8]))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return 1 - (-(self.w - x).square().sum(1) / 2).exp()


class Point(nn.Module):
    """Loss (w - x)²/2, so that 2/λ = 2."""

    def __init__(self) -> None:
        super().__init__()
        self.w = nn.Parameter(torch.tensor([1.0]))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return (self.w - x).square().sum(1) / 2


def test_a_run_that_swings_is_not_lost_in_the_file_either(tmp_path: Path) -> None:
    """At twice 1/λ the loss stays as it was; the mean weights are in the minimum."""
    model, path = Point(), tmp_path / "b.jsonl"
    found = gn.branch(
        model, lambda model, x: model(x), torch.zeros(8, 1),
        torch.optim.SGD(model.parameters(), 0.5), batch_size=4, batch_sizes=[4], samples=64,
        factors=[1.0, 4.0], further=0, path=path,
    )  # fmt: skip
    assert not any(record.diverged for record in found.records)
    assert gn.Branches.load(path) == found


def test_a_network_that_died_has_diverged_in_the_file_as_well(tmp_path: Path) -> None:
    """From a loss of 0.8 to 1, less than √2 times that; the smaller rate trains."""
    model, path = Dying(), tmp_path / "b.jsonl"
    data = 0.01 * torch.arange(8.0)[:, None]
    found = gn.branch(
        model, lambda model, x: model(x), data, torch.optim.SGD(model.parameters(), 0.5),
        batch_size=4, batch_sizes=[4], samples=64, factors=[1.0, 200.0], further=0, path=path,
        seeds=2,
    )  # fmt: skip
    assert {r.run.lr: r.diverged for r in found.records} == {0.5: False, 100.0: True}
    assert {r.train_loss for r in found.records if r.diverged} == {1.0}
    assert gn.Branches.load(path) == found


def test_the_file_has_all_of_it(tmp_path: Path) -> None:
    path = tmp_path / "branches.jsonl"
    found = branched(path=path, tolerance=0.2, level=0.9)
    assert gn.Branches.load(path) == found
    assert str(gn.Branches.load(path)) == str(found)


def test_pairs_that_were_cut_off_are_left_out(tmp_path: Path) -> None:
    path = tmp_path / "branches.jsonl"
    found = branched(path=path, vectorise=False)
    lines = path.read_text().splitlines()
    path.write_text("\n".join([*lines[:6], lines[6][:20]]))
    kept = gn.Branches.load(path)
    assert 2 <= len(kept.records) < len(found.records)
    assert len(kept.records) % 2 == 0
    assert all(record in found.records for record in kept.records)
    assert kept.losses()


def test_trials_on_further_seeds_are_no_branches(tmp_path: Path) -> None:
    path = tmp_path / "advice.jsonl"
    model, optimizer = trained()
    found = gn.advise(
        model, CE, DATA, optimizer, batch_size=2, budget=2000, seeds=2, path=path
    )  # fmt: skip
    seeds = [json.loads(line)["run"]["seed"] for line in path.read_text().splitlines()[2:]]
    assert max(seeds) >= 2
    kept = gn.Branches.load(path)
    assert in_order(found.branches.records) == kept.records
    assert in_order(found.branches.parts) == kept.parts


def test_a_sweep_is_not_taken_for_branches(tmp_path: Path) -> None:
    swept(path=tmp_path / "sweep.jsonl")
    with pytest.raises(gn.SweepFileError, match=r"is not of branches: .* read by gn.Sweep.load"):
        gn.Branches.load(tmp_path / "sweep.jsonl")
    with pytest.raises(gn.SweepFileError, match="cannot read"):
        gn.Branches.load(tmp_path / "nothing.jsonl")


def test_the_order_is_that_of_the_table() -> None:
    records = [*ended(16, 0.1, (0.5, 0.4)), *ended(4, 0.2, (0.3, 0.2)), *ended(4, 0.1, (0.1, 0.2))]
    runs = [(r.run.batch_size, r.run.lr, r.run.seed) for r in in_order(records)]
    assert runs == sorted(runs)
