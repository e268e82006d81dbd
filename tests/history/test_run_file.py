"""The file of a monitor: whole, cut, damaged, appended to, and while it is written."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
import torch
from torch import nn

import gradnoise as gn
from gradnoise.history.run_file import Run, RunFile
from tests.run_files import DIGITS, line, run_of, written


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "run.jsonl"


def steps(run: Run) -> list[float]:
    return run.column("step").tolist()


def test_a_monitors_own_file_comes_back(path: Path) -> None:
    torch.manual_seed(0)
    model = nn.Linear(3, 1)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    monitor = gn.NoiseMonitor(model, optimizer, every=2, source="micro_batches", sink=path)
    losses = []
    for _ in range(6):
        model.zero_grad()
        with monitor.step(batch_size=8) as step:
            for _ in range(2):
                loss = (model(torch.randn(4, 3)) - 1).square().mean() / 2
                loss.backward()
            step.loss = loss
        losses.append(loss.item())
    found = Run.load(path)
    assert steps(found) == [1, 3, 5]
    assert found.sources == ("micro_batches",) * 3
    assert found.last("trace_cov") == float(monitor.trace_cov)
    assert found.last("noise_scale_high") == monitor.noise_scale.high
    assert found.last("lr") == 0.1
    assert found.column("loss").tolist() == losses[::2]
    assert (found.unreadable, found.restarts) == (0, 0)


def test_infinities_and_nan_are_numbers(path: Path) -> None:
    found = Run.load(written(path, line(1, noise_scale=math.nan, noise_scale_high=math.inf)))
    assert math.isnan(found.last("noise_scale"))
    assert found.last("noise_scale_high") == math.inf


@pytest.mark.parametrize("cut", ['{"step": 3, "gradn', "{", '{"step": 3, "\u00e9'])
def test_a_last_line_that_is_cut_is_left_out(path: Path, cut: str) -> None:
    found = Run.load(written(path, line(1), line(2), cut, end=""))
    assert steps(found) == [1, 2]
    assert found.unreadable == 0


def test_a_last_line_without_its_end_is_a_line(path: Path) -> None:
    assert steps(Run.load(written(path, line(1), line(2), end=""))) == [1, 2]
    assert steps(Run.load(written(path, line(2), line(3), line(2), end=""))) == [2]


def test_lines_that_are_no_lines_of_a_monitor_are_skipped_and_counted(path: Path) -> None:
    strange = ["no JSON", "[1, 2]", "3", '{"step": 4}', '{"step": "x", "gradnoise/noise_scale": 1}']
    found = Run.load(written(path, line(1), *strange, "", line(2)))
    assert steps(found) == [1, 2]
    assert found.unreadable == len(strange)
    path.write_bytes(b"\xff\xfe\x00\n" + line(3).encode() + b"\n")
    assert steps(Run.load(path)) == [3]


@pytest.mark.parametrize("text", ["", "\n", '{"step": 1, "gradn'])
def test_a_file_without_a_whole_line_is_a_run_without_steps(path: Path, text: str) -> None:
    path.write_text(text)
    found = Run.load(path)
    assert len(found) == 0
    assert math.isnan(found.last("loss"))
    assert found.column("loss").tolist() == []


def test_a_file_of_something_else_is_refused(path: Path) -> None:
    written(path, '{"step": 1, "loss": 2}', "text")
    with pytest.raises(gn.DataError, match=r"no file of a gn.NoiseMonitor: none of its 2 lines"):
        Run.load(path)


def test_after_a_resumption_the_later_lines_count(path: Path) -> None:
    first = [line(step, loss=1.0) for step in (1, 2, 3, 4)]
    again = [line(step, loss=2.0) for step in (3, 5)]
    found = Run.load(written(path, *first, *again, line(5, loss=3.0)))
    assert steps(found) == [1, 2, 3, 5]
    assert found.column("loss").tolist() == [1, 1, 2, 3]
    assert found.restarts == 1  # a step that is written twice, as by two ranks, is none


def test_a_column_may_begin_late(path: Path) -> None:
    found = Run.load(written(path, line(1), line(2, sharpness=3.0), line(3)))
    assert found.column("sharpness").tolist() == pytest.approx([math.nan, 3, math.nan], nan_ok=True)
    assert found.last_of("step", "sharpness") == (2, 3)
    assert all(math.isnan(x) for x in found.last_of("step", "stable_lr"))


def test_what_is_appended_is_read_and_nothing_twice(path: Path) -> None:
    file = RunFile(written(path, line(1), line(2)[:20], end=""))
    assert steps(file.read()) == [1]
    with path.open("a") as out:
        out.write(line(2)[20:] + "\n" + line(3) + "\nnonsense\n")
    assert steps(file.read()) == [1, 2, 3]
    assert file.read().unreadable == 1
    assert steps(file.read()) == [1, 2, 3]


def test_a_file_that_is_written_anew_is_read_anew(path: Path) -> None:
    file = RunFile(written(path, line(10), line(20), "nonsense", line(10)))
    assert file.read().restarts == 1
    written(path, line(1))
    found = file.read()
    assert (steps(found), found.unreadable, found.restarts) == ([1], 0, 0)


def test_a_file_that_is_not_there_is_an_error_of_the_system(path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        Run.load(path)


def test_the_example_is_a_whole_run() -> None:
    assert len(Run.load(DIGITS)) == 100
    assert len(run_of({}, {})) == 2


def test_notes_are_kept_and_are_no_measurements(tmp_path: Path) -> None:
    note = json.dumps({"step": 1, "time": 1.0, "source": "samples", "note": "no single samples"})
    path = written(tmp_path / "a.jsonl", note)
    assert (len(Run.load(path)), Run.load(path).notes) == (0, ("no single samples",))
    other = note.replace("no single", "other")
    found = Run.load(written(path, note, line(2), note, other, line(3)))
    assert found.notes == ("no single samples", "other samples")
    assert (len(found), found.unreadable, found.restarts) == (2, 0, 0)


def test_a_note_without_a_step_is_no_line_of_a_monitor(tmp_path: Path) -> None:
    with pytest.raises(gn.DataError):
        Run.load(written(tmp_path / "a.jsonl", json.dumps({"note": "something"})))
