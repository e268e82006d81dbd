"""The monitor in loops with accelerate's Accelerator."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate import Accelerator
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch import nn
from torch.nn.functional import cross_entropy

import gradnoise as gn
from tests.offline import (
    Numbers,
    assert_agree,
    averaged,
    by_parts,
    by_samples,
    rows_of,
    states_equal,
)
from tests.small_loops import Loop
from tests.small_modules import network

BOTH = pytest.mark.parametrize("parts", [1, 4])


def offline(loop: Loop, source: str, steps: Sequence[int]) -> Numbers:
    found = []
    for step in steps:
        rows, passes = [], loop.passes[step]
        for state, inputs, labels in passes:
            model = network().to(inputs.dtype)
            model.load_state_dict(state)
            losses = cross_entropy(model(inputs), labels, reduction="none")
            rows.append(rows_of(model, list(losses / len(labels) / len(passes))))
        sizes, count = [len(own) for own in rows], len(rows)
        both = torch.cat(rows)
        by = by_samples if source == "samples" else by_parts
        found.append(by(both, sizes, [1 / count] * count))
    return averaged(found)


@pytest.mark.parametrize(
    ("source", "parts"), [("samples", 1), ("samples", 4), ("micro_batches", 4), ("samples", 3)]
)
def test_the_numbers_are_those_of_plain_autograd(source: str, parts: int) -> None:
    """4 + 4 + 4 + 2 samples; in accumulations of 3 the second step of an epoch has one batch."""
    loop = Loop(parts)
    monitor = gn.attach(
        loop.accelerator, model=loop.model, every=2, source=source, max_samples=None
    )
    loop.train()
    steps = range(0, len(loop.passes) - 1, 2)
    assert monitor.measured == len(steps)
    assert_agree(monitor, offline(loop, source, steps))


def test_a_short_accumulation_at_the_end_of_an_epoch_is_scaled() -> None:
    loop = Loop(3)
    monitor = gn.attach(
        loop.accelerator, model=loop.model, every=1, source="samples", max_samples=None
    )
    loop.train()
    assert monitor.measured == 6
    assert_agree(monitor, offline(loop, "samples", range(6)))


@BOTH
def test_the_scale_of_a_grad_scaler_is_taken_out(parts: int) -> None:
    loop, source = Loop(parts), "samples" if parts == 1 else "micro_batches"
    loop.accelerator.scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)
    monitor = gn.attach(
        loop.accelerator, model=loop.model, every=1, source=source, max_samples=None
    )
    loop.train()
    assert_agree(monitor, offline(loop, source, range(len(loop.passes) - 1)))


@BOTH
def test_under_autocast(parts: int) -> None:
    loop = Loop(parts, torch.float32, mixed_precision="bf16")
    source = "samples" if parts == 1 else "micro_batches"
    monitor = gn.attach(
        loop.accelerator, model=loop.model, every=1, source=source, max_samples=None
    )
    loop.train()
    assert_agree(monitor, offline(loop, source, range(len(loop.passes) - 1)), 0.05)


@BOTH
@pytest.mark.parametrize("source", ["samples", "auto"])
def test_training_is_the_same_bit_by_bit(tmp_path: Path, parts: int, source: str) -> None:
    ends = []
    for attached in (False, True):
        loop = Loop(parts, torch.float32, dropout=0.2)
        if attached:
            sink = str(tmp_path / "run.jsonl")
            monitor = gn.attach(
                loop.accelerator, model=loop.model, every=2, source=source, sink=sink
            )
        loop.train(4)
        ends.append(loop.bare.state_dict())
    assert monitor.measured > 0
    assert monitor.notes == []
    assert states_equal(*ends)


def test_values_reach_the_trackers(tmp_path: Path) -> None:
    loop = Loop(4, log_with="tensorboard", project_dir=str(tmp_path))
    loop.accelerator.init_trackers("board")
    monitor = gn.attach(loop.accelerator, model=loop.model, every=1)
    loop.train()
    loop.accelerator.end_training()
    events = EventAccumulator(str(tmp_path / "board"))
    events.Reload()
    written = events.Scalars("gradnoise/trace_cov")
    assert [event.step for event in written] == [1, 2, 3]
    expected = monitor.values()["gradnoise/trace_cov"]
    assert written[-1].value == pytest.approx(expected, rel=1e-6)


@BOTH
def test_a_resumed_run_gives_the_same_numbers(tmp_path: Path, parts: int) -> None:
    whole = Loop(parts)
    monitor = gn.attach(whole.accelerator, model=whole.model, every=2)
    whole.train()
    half = Loop(parts)
    gn.attach(half.accelerator, model=half.model, every=2)
    half.train(1)
    half.accelerator.save_state(str(tmp_path / "half"))
    resumed = Loop(parts)
    other = gn.attach(resumed.accelerator, model=resumed.model, every=2)
    resumed.accelerator.load_state(str(tmp_path / "half"))
    resumed.train(2)
    assert other.measured > 0
    assert other.state_dict() == monitor.state_dict()


@pytest.mark.filterwarnings("ignore:gradnoise")
def test_a_loop_without_accumulate_is_told_what_to_do() -> None:
    loop = Loop()
    monitor = gn.attach(loop.accelerator, model=loop.model, every=1)
    for inputs, labels in loop.data:
        loop.micro_batch(inputs.double(), labels)
    assert monitor.measured == 0
    assert "`with accelerator.accumulate(model):`" in monitor.notes[0]


@pytest.mark.filterwarnings("ignore:gradnoise")
def test_two_backward_passes_for_a_micro_batch_are_told() -> None:
    loop = Loop()
    monitor = gn.attach(loop.accelerator, model=loop.model, every=1)
    for inputs, labels in loop.data:
        with loop.accelerator.accumulate(loop.model):
            loop.micro_batch(inputs.double(), labels)
            loop.accelerator.backward(loop.model(inputs.double()).square().mean())
    assert "`accelerator.backward` was called twice in one micro-batch" in monitor.notes[0]


@pytest.mark.filterwarnings("ignore:gradnoise")
def test_errors_of_the_monitor_become_notes() -> None:
    def broken(_: object) -> None:
        raise OSError("no space left on device")

    loop = Loop()
    monitor = gn.attach(loop.accelerator, model=loop.model, every=1, source="samples", sink=broken)
    loop.train()
    assert "a sink failed: OSError: no space left on device" in monitor.notes


def test_nothing_is_left_on_the_model() -> None:
    loop = Loop()
    gn.attach(loop.accelerator, model=loop.model, every=1)
    loop.train()
    for module in loop.bare.modules():
        assert not module._forward_hooks
        assert not module._forward_pre_hooks
    assert not any(p._backward_hooks for p in loop.bare.parameters())


def test_the_model_is_needed() -> None:
    with pytest.raises(gn.ArgumentError, match="does not say which model is called"):
        gn.attach(Loop().accelerator)


def test_a_model_that_is_replicated_is_refused() -> None:
    loop = Loop()
    with pytest.raises(gn.ArgumentError, match="sharded or replicated"):
        gn.attach(loop.accelerator, model=nn.DataParallel(loop.bare))


@pytest.mark.parametrize("kind", ["sgd", "adamw"])
def test_the_sharpness_is_in_the_metric_of_the_optimizer_that_was_prepared(kind: str) -> None:
    """As of a monitor of one's own, with the optimizer itself."""
    lines: dict[str, list[dict[str, Any]]] = {"attached": [], "own": []}
    for name, found in lines.items():
        torch.manual_seed(0)
        model, inputs = nn.Linear(4, 3), torch.randn(64, 4)
        optimizer: Any = (
            torch.optim.SGD(model.parameters(), 0.02, momentum=0.9)
            if kind == "sgd"
            else torch.optim.AdamW(model.parameters(), 3e-3)
        )
        accelerator = Accelerator(cpu=True)
        called, prepared = accelerator.prepare(model, optimizer)
        options = {
            "every": 20, "sink": found.append, "source": "samples", "sharpness_every": 1,
            "loss_fn": nn.MSELoss(), "data": (inputs, inputs[:, :3]),
        }  # fmt: skip
        if name == "attached":
            monitor = gn.attach(accelerator, model=called, **options)
        else:
            monitor = gn.NoiseMonitor(called, optimizer, **options)
        for _ in range(121):
            with accelerator.accumulate(called):
                step = nullcontext() if name == "attached" else monitor.step()
                with step:
                    loss = nn.functional.mse_loss(called(inputs), inputs[:, :3])
                    accelerator.backward(loss)
                prepared.step()
                prepared.zero_grad()
        assert not monitor.notes
    for key in ("sharpness", "momentum", "metric_factor", "lr"):
        own = [line[f"gradnoise/{key}"] for line in lines["own"][-1:]]
        assert own == pytest.approx([line[f"gradnoise/{key}"] for line in lines["attached"][-1:]])
    factor = lines["own"][-1]["gradnoise/metric_factor"]
    assert (factor == 1) is (kind == "sgd")
