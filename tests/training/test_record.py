"""A run, its key, and its row in the table."""

from __future__ import annotations

import math
from dataclasses import asdict, replace

import pytest

import gradnoise as gn
from gradnoise.files.json import encode
from gradnoise.training.record import Record, Run


def test_a_row_holds_the_run_and_what_came_out(found: gn.Sweep) -> None:
    row = found.rows[0]
    assert (row["batch_size"], row["lr"], row["seed"], row["steps"]) == (4, 0.1, 0, 16)
    assert row["train_loss"] < row["start_loss"]


RUN = Run(4, 0.1, 3, "steps", 9)


def test_runs_that_differ_have_different_keys() -> None:
    others = [
        replace(RUN, **{name: value})
        for name, value in (
            ("batch_size", 5), ("lr", 0.1 + 1e-6), ("seed", 4), ("budget", "epochs"), ("steps", 8),
        )
    ]  # fmt: skip
    assert len({run.key for run in (RUN, *others)}) == 6
    assert replace(RUN).key == RUN.key


@pytest.mark.parametrize("test_loss", [None, 0.25])
@pytest.mark.parametrize("stopped", [None, 7])
def test_a_record_comes_back_from_its_dict(test_loss: float | None, stopped: int | None) -> None:
    record = Record(RUN, True, stopped, 1.0, math.inf, test_loss, {"accuracy": 0.5})
    assert Record.from_dict(encode(asdict(record))) == record


def test_metrics_are_columns_of_the_row() -> None:
    row = Record(RUN, False, None, 1.0, 0.5, None, {"accuracy": 0.75}).row()
    assert row["accuracy"] == 0.75
    assert "metrics" not in row
    assert "run" not in row


@pytest.mark.parametrize("averaged", [None, 0.25, math.inf])
def test_the_averaged_loss_is_kept(averaged: float | None) -> None:
    record = Record(Run(4, 0.1, 0, "samples", 9), False, None, 1.0, 0.5, averaged_loss=averaged)
    assert Record.from_dict(asdict(record)) == record
    assert record.row()["averaged_loss"] == averaged


def test_records_from_before_there_were_averages_are_read() -> None:
    fields = asdict(Record(Run(4, 0.1, 0, "epochs", 9), False, None, 1.0, 0.5))
    del fields["averaged_loss"], fields["late_loss"]
    assert Record.from_dict(fields).averaged_loss is None
