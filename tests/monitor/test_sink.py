"""Where values go: whole lines in a file, scalars of TensorBoard, a function."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch import nn
from torch.utils.tensorboard import SummaryWriter

import gradnoise as gn
from gradnoise.files.json import decode
from gradnoise.monitor.sink import JsonLines, as_sink
from tests.monitored import classified, parted, train_step


def watched(sink: Any, steps: int = 3) -> gn.NoiseMonitor:
    torch.manual_seed(0)
    model = nn.Linear(6, 3)
    optimizer = torch.optim.SGD(model.parameters(), 0.25)
    monitor = gn.NoiseMonitor(model, optimizer, every=1, sink=sink)
    for _ in range(steps):
        batch = torch.randn(24, 6), torch.randint(3, (24,))
        optimizer.zero_grad()
        with monitor.step() as step:
            train_step(model, classified, parted(batch, (12, 12)))
            step.loss = classified(model, batch).mean()
        optimizer.step()
    return monitor


def test_lines_are_appended_whole(tmp_path: Path) -> None:
    path = tmp_path / "run.jsonl"
    monitor = watched(path)
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    assert [line["step"] for line in lines] == [1, 2, 3]
    assert lines[0]["gradnoise/noise_scale_high"] == "inf"  # JSON has no such number
    assert lines[-1]["source"] == "micro_batches"
    assert lines[-1]["gradnoise/lr"] == 0.25
    assert lines[-1]["gradnoise/loss"] > 0
    last = decode(lines[-1], set(monitor.values()))
    known = monitor.values()
    assert {key: last[key] for key in known} == pytest.approx(known, nan_ok=True)
    total = sum(line["gradnoise/trace_cov_now"] for line in lines)
    assert total > 0
    watched(str(path), 1)
    assert len(path.read_text().splitlines()) == 4


def test_a_line_that_was_cut_is_ended(tmp_path: Path) -> None:
    path = tmp_path / "run.jsonl"
    path.write_text('{"step": 1}\n{"step": 2, "gra')
    JsonLines(path)({"step": 3})
    assert path.read_text().splitlines() == ['{"step": 1}', '{"step": 2, "gra', '{"step": 3}']


def test_a_kill_leaves_whole_lines(tmp_path: Path) -> None:
    path = tmp_path / "run.jsonl"
    code = (
        "import os, sys\nfrom gradnoise.monitor.sink import JsonLines\n"
        f"sink = JsonLines({str(path)!r})\n"
        "for k in range(200):\n    sink({'step': k, 'text': 'x' * 500})\n    print(k, flush=True)\n"
        "os._exit(0)"
    )
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE)
    assert process.stdout is not None
    for _ in range(50):
        process.stdout.readline()
    process.kill()
    process.wait()
    process.stdout.close()
    lines = path.read_text().splitlines()
    assert len(lines) >= 50
    assert [json.loads(line)["step"] for line in lines] == list(range(len(lines)))


def test_tensorboard_has_the_values(tmp_path: Path) -> None:
    with SummaryWriter(tmp_path) as writer:
        monitor = watched(writer)
    events = EventAccumulator(str(tmp_path))
    events.Reload()
    (*_, last) = events.Scalars("gradnoise/trace_cov")
    assert (last.step, last.value) == (3, pytest.approx(float(monitor.trace_cov), rel=1e-6))
    assert "step" not in events.Tags()["scalars"]


def test_a_function_is_given_the_values() -> None:
    told: list[dict[str, Any]] = []
    watched(told.append)
    assert [values["step"] for values in told] == [1, 2, 3]


def test_a_sink_may_call_the_model() -> None:
    """The hooks of the step are off by then."""
    model = nn.Linear(6, 3)
    batch = torch.randn(24, 6), torch.randint(3, (24,))
    found: list[float] = []
    monitor = gn.NoiseMonitor(
        model, every=1, source="samples",
        sink=lambda _: found.append(float(gn.sharpness(model, classified, batch).estimate)),
    )  # fmt: skip
    for _ in range(2):
        with monitor.step():
            train_step(model, classified, [batch])
    assert monitor.measured == len(found) == 2


def test_what_cannot_be_written_to_is_said_at_once(tmp_path: Path) -> None:
    with pytest.raises(OSError, match=os.strerror(21)):
        JsonLines(tmp_path)
    with pytest.raises(FileNotFoundError):
        JsonLines(tmp_path / "no" / "run.jsonl")
    with pytest.raises(gn.ArgumentError, match="must be a path, a SummaryWriter, or a function"):
        as_sink(3)
