"""Steps of a monitor that a framework opens and closes."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

import gradnoise as gn
from gradnoise.integrations.steps import Steps, quiet


def monitored(**options: Any) -> tuple[nn.Linear, gn.NoiseMonitor, Steps]:
    model = nn.Linear(3, 2)
    monitor = gn.NoiseMonitor(model, every=2, source="micro_batches", **options)
    return model, monitor, Steps(monitor)


def micro_batch(model: nn.Module, steps: Steps, size: int = 4) -> None:
    loss = model(torch.randn(size, 3)).square().mean() / 2
    loss.backward()
    steps.add(size, loss)


def test_a_step_is_measured_where_the_monitor_is_due() -> None:
    model, monitor, steps = monitored()
    found = []
    for _ in range(4):
        model.zero_grad()
        steps.begin()
        assert steps.has_begun
        is_open = steps.is_open
        for _ in range(2):
            micro_batch(model, steps)
        found.append((is_open, steps.end()))
        assert not steps.has_begun
    assert found == [(True, True), (False, False)] * 2
    assert monitor.measured == 2


@pytest.mark.filterwarnings("ignore:gradnoise")
def test_the_loss_goes_to_the_sink() -> None:
    lines: list[dict[str, Any]] = []
    model, _, steps = monitored(sink=lines.append)
    steps.begin()
    for _ in range(2):
        micro_batch(model, steps)
        steps.add(0, 1.0)  # told twice
    steps.end(divided_by=2)
    assert lines == []  # four sizes for two micro-batches: not measured
    model, _, steps = monitored(sink=lines.append)
    steps.begin()
    micro_batch(model, steps)
    micro_batch(model, steps)
    expected = float(steps._loss)
    steps.end(divided_by=4)  # half of the loss that was meant
    assert lines[0]["gradnoise/loss"] == pytest.approx(2 * expected)


def test_a_step_that_is_dropped_leaves_nothing() -> None:
    model, monitor, steps = monitored()
    steps.begin()
    micro_batch(model, steps)
    steps.drop()
    assert not steps.is_open
    assert not model._forward_pre_hooks
    assert not model.weight._backward_hooks
    assert (monitor.measured, monitor.skipped) == (0, 0)


def test_a_scale_is_read_at_the_end() -> None:
    """The scaler's at that time, times the parts of a short accumulation over its full number."""
    torch.manual_seed(0)
    found = []
    for scale in (1.0, 8.0):
        torch.manual_seed(1)
        model, monitor, steps = monitored()
        scaler = torch.amp.GradScaler("cpu", init_scale=scale)
        scaler.scale(torch.ones(()))  # it has a scale from the first use on
        steps.begin(scaler)
        for _ in range(2):
            steps.add(4, scale)
            (model(torch.randn(4, 3)).square().mean() * scale / 4).backward()
        steps.end(divided_by=4)
        found.append(float(monitor.trace_cov))
    assert found[1] == pytest.approx(found[0])


@pytest.mark.filterwarnings("error")
def test_errors_become_notes_also_where_warnings_are_errors() -> None:
    class Callback:
        def __init__(self) -> None:
            self.steps = monitored()[2]

        @quiet
        def event(self) -> int:
            raise KeyError("of ours")

        @quiet
        def other(self) -> int:
            return 3

    callback = Callback()
    assert callback.event() is None
    assert callback.steps.monitor.notes == ["KeyError: 'of ours'"]
    assert callback.other() == 3


def test_a_model_that_cannot_be_followed_ends_the_monitor() -> None:
    model, monitor, steps = monitored()
    with pytest.raises(gn.ArgumentError, match="it has other trainable parameters"):
        steps.follow(nn.Sequential(model), model, 1, None)
    steps.begin()
    assert not steps.is_open
    assert monitor.measured == 0


def test_a_new_model_of_the_same_kind_is_followed() -> None:
    _, monitor, steps = monitored()
    other = nn.Linear(3, 2)
    optimizer = torch.optim.SGD(other.parameters(), lr=0.1)
    steps.follow(other, other, 1, optimizer)
    assert monitor.optimizer is optimizer
    steps.begin()
    micro_batch(other, steps)
    micro_batch(other, steps)
    assert steps.end()
