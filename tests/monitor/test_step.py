"""The context of a step: what goes wrong in the monitor is a note, never an error of the loop."""

from __future__ import annotations

import warnings
from typing import Any

import pytest
import torch
from torch import nn

import gradnoise as gn
from gradnoise.monitor import monitor as module
from gradnoise.monitor.samples import SampleNorms
from gradnoise.monitor.step import IDLE


def broken(*_: Any, **__: Any) -> Any:
    raise RuntimeError("out of memory\nand more")


def watched(**options: Any) -> tuple[gn.NoiseMonitor, nn.Module]:
    model = nn.Linear(3, 2)
    return gn.NoiseMonitor(model, every=1, source="samples", **options), model


def train(monitor: gn.NoiseMonitor, model: nn.Module, loss: Any = None) -> None:
    model.zero_grad()
    with warnings.catch_warnings(), monitor.step() as step:
        warnings.simplefilter("ignore")
        model(torch.randn(8, 3)).square().mean().backward()
        step.loss = loss


@pytest.mark.parametrize(
    ("owner", "name"),
    [(gn.NoiseMonitor, "listener"), (SampleNorms, "reading"), (module.Averages, "add")],
)
def test_what_fails_is_noted(owner: Any, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monitor, model = watched()
    with monkeypatch.context() as patch:
        patch.setattr(owner, name, broken)
        train(monitor, model)
    assert monitor.notes == ["RuntimeError: out of memory"]
    assert (monitor.measured, monitor.skipped) == (0, 1)
    assert not model._forward_pre_hooks
    assert not model.weight._backward_hooks
    train(monitor, model)
    assert monitor.measured == 1


def test_a_sink_that_fails_does_not_keep_others_from_theirs() -> None:
    monitor, model = watched(sink=broken)
    lines: list[dict[str, Any]] = []
    monitor._sinks.append(lines.append)
    for _ in range(2):
        train(monitor, model)
    assert monitor.notes == ["a sink failed: RuntimeError: out of memory"]
    assert len(lines) == monitor.measured == 2


def test_a_loss_that_is_no_number_is_told() -> None:
    monitor, model = watched()
    train(monitor, model, loss="low")
    assert (monitor.measured, monitor.skipped) == (1, 0)
    assert monitor.notes[0].startswith("`step.loss` is no number: ")
    for loss in (0, torch.tensor(3), torch.tensor([1.0, 2.0])):
        train(monitor, model, loss=loss)
    assert (monitor.measured, len(monitor.notes)) == (4, 1)


def test_warnings_that_are_errors_are_not_raised_into_a_loop() -> None:
    monitor, model = watched(sink=broken)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with monitor.step():
            model(torch.randn(8, 3)).square().mean().backward()
    assert (monitor.measured, monitor.skipped) == (1, 0)
    assert len(monitor.notes) == 1


def test_an_error_of_the_loop_stays_one() -> None:
    monitor, model = watched()
    with pytest.raises(KeyError), monitor.step():
        model({}["inputs"])
    assert (monitor.measured, monitor.skipped, monitor.notes) == (0, 0, [])
    assert not model._forward_hooks


def test_a_step_that_is_not_measured_takes_everything() -> None:
    with IDLE as step:
        step.loss = 3.0
    assert step is IDLE
