"""The file of a sweep: continued, grown, damaged, and of another sweep."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch

import gradnoise as gn
from gradnoise.training.ledger import Ledger, read
from gradnoise.training.record import Record, Run
from tests.small_runs import normalised, small, swept


def runs_in(path: Path) -> list[dict]:
    lines = map(json.loads, path.read_text().splitlines())
    return [line for line in lines if "run" in line]


def test_what_is_done_is_not_done_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "sweep.jsonl"
    first = swept(path=path)
    monkeypatch.setattr("gradnoise.training.execute.run_group", None)  # nothing left to do
    again = swept(path=path)
    assert again.records == first.records
    assert gn.Sweep.load(path).records == first.records


def test_the_grid_may_grow(tmp_path: Path) -> None:
    path = tmp_path / "sweep.jsonl"
    swept(path=path, lrs=[0.1])
    grown = swept(path=path)
    assert [r.train_loss for r in grown.records] == pytest.approx(
        [r.train_loss for r in swept().records], rel=1e-9
    )
    assert len(runs_in(path)) == 8


def test_a_line_that_was_cut_off_is_trained_again(tmp_path: Path) -> None:
    path = tmp_path / "sweep.jsonl"
    first = swept(path=path)
    path.write_text(path.read_text()[:-40])
    assert len(gn.Sweep.load(path).records) == 7
    assert swept(path=path).records == pytest.approx(first.records)
    assert [json.loads(line) for line in path.read_text().splitlines() if line[-1:] == "}"]
    assert len(gn.Sweep.load(path).records) == 8


@pytest.mark.parametrize(("change", "refused"), [(1e-7, False), (1e-3, True)])
def test_values_at_the_start_may_differ_by_rounding(
    tmp_path: Path, change: float, refused: bool
) -> None:
    path = tmp_path / "sweep.jsonl"
    swept(path=path)
    header, rest = path.read_text().split("\n", 1)
    fields = json.loads(header)
    fields["start"]["loss"] *= 1 + change
    path.write_text(json.dumps(fields) + "\n" + rest)
    if refused:
        with pytest.raises(gn.SweepFileError, match=r"loss at the start \(0\.\d{6,7} in the file"):
            swept(path=path)
    else:
        assert len(swept(path=path).records) == 8


def test_a_file_without_values_at_the_start_is_read_and_not_continued(tmp_path: Path) -> None:
    path = tmp_path / "sweep.jsonl"
    found = swept(path=path)
    header, rest = path.read_text().split("\n", 1)
    path.write_text(json.dumps({**json.loads(header), "start": {}}) + "\n" + rest)
    assert gn.Sweep.load(path).records == found.records
    with pytest.raises(gn.SweepFileError, match=r"values at the start \(an older file has none"):
        swept(path=path)


@pytest.mark.parametrize("model", [small, normalised])
def test_how_runs_were_trained_is_kept(
    tmp_path: Path, model: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "sweep.jsonl"
    found = swept(model, path=path)
    assert str(gn.Sweep.load(path)) == str(found)
    assert gn.Sweep.load(path).vectorised == (4 if model is small else 0)
    assert gn.Sweep.load(path).reason == found.reason
    monkeypatch.setattr(
        "gradnoise.training.vectorise.why_not_vectorised", None
    )  # nothing is tried again
    assert str(swept(model, path=path)) == str(found)


@pytest.mark.parametrize(
    ("line", "damage"),
    [
        (-1, {"start_loss": "0.6e"}),
        (-1, {"train_loss": None}),
        (-1, {"stopped": "soon"}),
        (-1, {"metrics": [1.0]}),
        (-1, {"run": {"lr": "0,1"}}),
        (-1, {"run": [4, 0.1]}),
        (0, {"start": {"loss": "big"}}),
        (1, {"vectorised": "all"}),
    ],
)
def test_a_damaged_number_is_said(tmp_path: Path, line: int, damage: dict[str, Any]) -> None:
    path = tmp_path / "sweep.jsonl"
    swept(path=path)
    lines = path.read_text().splitlines()
    lines[line] = json.dumps({**json.loads(lines[line]), **damage})
    path.write_text("\n".join(lines))
    for use in (gn.Sweep.load, lambda path: swept(path=path)):
        with pytest.raises(gn.SweepFileError, match=r"is damaged \(.+\); sweep again"):
            use(path)


def test_a_file_of_something_else_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "notes.txt"
    path.write_text("buy milk\n")
    with pytest.raises(gn.SweepFileError, match="is not a sweep of this version"):
        swept(path=path)
    with pytest.raises(gn.SweepFileError, match="cannot read"):
        gn.Sweep.load(tmp_path / "nothing.jsonl")
    with pytest.raises(gn.SweepFileError, match="cannot write"):
        swept(path=tmp_path / "no folder" / "sweep.jsonl")


def test_runs_that_diverge_are_strict_json(tmp_path: Path) -> None:
    toy = gn.toy.NoisyQuadratic(torch.eye(2), torch.ones(2))
    path = tmp_path / "sweep.jsonl"
    options = {"batch_sizes": [8], "lrs": [0.1, 90.0], "steps": 60, "path": path}
    found = gn.sweep(toy.model, toy.loss_fn, toy.sample(16, seed=0), **options)
    for line in path.read_text().splitlines():
        json.loads(line, parse_constant=lambda name: pytest.fail(name))
    json.dumps(found.to_dict(), allow_nan=False)
    assert set(map(str, gn.Sweep.load(path).records)) == set(map(str, found.records))
    assert found.records[1].train_loss == math.inf


def test_a_device_or_a_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(gn.SweepFileError, match="cannot write /dev/null: it is a device"):
        swept(path="/dev/null")
    with pytest.raises(gn.SweepFileError, match="Is a directory"):
        swept(path=tmp_path)


def test_a_link_is_kept_and_its_target_continued(tmp_path: Path) -> None:
    link, target = tmp_path / "link.jsonl", tmp_path / "sweep.jsonl"
    link.symlink_to(target.name)
    swept(path=link, lrs=[0.1])
    swept(path=link)
    assert link.is_symlink()
    assert len(runs_in(target)) == 8


def test_records_are_on_the_disk_when_they_are_added(tmp_path: Path) -> None:
    path = tmp_path / "sweep.jsonl"
    record = Record(Run(4, 0.1, 0, "steps", 9), True, 3, 1.0, math.inf)
    ledger = Ledger(path, {"fingerprint": "a", "start": {"loss": 1.0}})
    ledger.trained(2, "")
    ledger.add([record])
    header, how, records = read(path)
    assert (header["fingerprint"], how, records) == ("a", (2, ""), [record])
