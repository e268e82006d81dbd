"""A program that was cut off goes on where it stood."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import gradnoise as gn
from gradnoise.training.checkpoint import Checkpoint
from gradnoise.training.ensemble import Ensemble
from tests.small_runs import penalised, swept


def interrupt(*_) -> None:
    raise KeyboardInterrupt


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"momentum": 0.9, "optimizer": "nesterov"},
        {"momentum": 0.9, "optimizer": "adam", "weight_decay": 0.1},
    ],
)
def test_a_program_that_was_cut_off_goes_on_where_it_stood(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, options: dict[str, Any]
) -> None:
    """Interrupted after 21 of 32 steps, with one run of six given up before."""
    path = tmp_path / "sweep.jsonl"
    chosen = {"batch_sizes": [4], "lrs": [0.01, 0.1, 1e30], "epochs": 4, **options}
    whole = swept(**chosen)
    monkeypatch.setattr("gradnoise.training.checkpoint.EVERY", 0.0)
    real, taken = Ensemble.update, []

    def step(self, at, gradients):
        if len(taken) == 21:
            raise KeyboardInterrupt
        taken.append(at)
        real(self, at, gradients)

    monkeypatch.setattr(Ensemble, "update", step)
    with pytest.raises(KeyboardInterrupt):
        swept(path=path, **chosen)
    assert len(list(tmp_path.glob("*.part"))) == 1
    assert not gn.Sweep.load(path).records
    taken.append("resumed")
    again = swept(path=path, **chosen)
    assert taken == [*range(21), "resumed", *range(21, 32)]
    assert again.records == whole.records
    assert not list(tmp_path.glob("*.part"))


def test_a_new_file_does_not_go_on_from_what_a_lost_one_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Interrupted under one loss, the file deleted, then swept under another."""
    path = tmp_path / "sweep.jsonl"
    monkeypatch.setattr("gradnoise.training.checkpoint.EVERY", 0.0)
    with monkeypatch.context() as once:
        once.setattr("gradnoise.training.ensemble.ended", interrupt)
        with pytest.raises(KeyboardInterrupt):
            swept(path=path, loss_fn=penalised(0.5))
    assert len(list(tmp_path.glob("*.part"))) == 1
    path.unlink()
    found = swept(path=path)
    assert found.records == swept().records
    assert not list(tmp_path.glob("*.part"))


def test_a_checkpoint_that_cannot_be_read_is_left_out(tmp_path: Path) -> None:
    kept = Checkpoint(tmp_path / "s.jsonl", "mark", ("a",))
    assert kept.load() is None
    kept.path.write_bytes(b"half a file")
    assert kept.load() is None
    assert Checkpoint(kept.ledger, "other", ("a",)).path != kept.path
    kept.save({"step": 3})
    assert kept.load() == {"step": 3}
    kept.clear()
    kept.clear()
    assert not kept.path.exists()


def test_a_checkpoint_that_cannot_be_written_is_said(tmp_path: Path) -> None:
    kept = Checkpoint(tmp_path / "no folder" / "s.jsonl", "mark", ("a",))
    with pytest.raises(gn.SweepFileError, match=r"cannot write .*\.part: No such file"):
        kept.save({"step": 3})


def test_the_end_of_a_program_clears_what_a_killed_write_left(tmp_path: Path) -> None:
    kept = Checkpoint(tmp_path / "s.jsonl", "mark", ("a",))
    kept.save({"step": 3})
    kept.path.with_name(kept.path.name + ".01234567.new").touch()
    kept.clear()
    assert not list(tmp_path.iterdir())


def test_it_is_due_every_so_often_and_never_without_a_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept = Checkpoint(tmp_path / "s.jsonl", "mark", ("a",))
    assert not kept.is_due
    kept.last -= 31.0
    assert kept.is_due
    kept.save({"step": 3})
    assert not kept.is_due
    monkeypatch.setattr("gradnoise.training.checkpoint.EVERY", 0.0)
    assert not Checkpoint(None, "mark", ("a",)).is_due
