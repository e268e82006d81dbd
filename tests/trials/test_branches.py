"""Branches are read from the file that they are written to."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import gradnoise as gn
from gradnoise.trials.branches import in_order
from tests.small_runs import swept
from tests.starts import CE, DATA, branched, ended, trained


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
