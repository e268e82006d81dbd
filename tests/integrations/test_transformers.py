"""The monitor in transformers.Trainer."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch import Tensor, nn
from transformers import TrainerCallback
from transformers.integrations import TensorBoardCallback

import gradnoise as gn
from gradnoise.integrations.transformers import NoiseMonitorCallback
from tests.offline import (
    Numbers,
    assert_agree,
    averaged,
    by_parts,
    by_samples,
    rows_of,
    states_equal,
)
from tests.small_trainers import Recording, language_model, sequences, token_losses, trainer

BOTH = pytest.mark.parametrize("parts", [1, 4])


def tokens_of(inputs: dict[str, Tensor]) -> float:
    """How many tokens have a loss."""
    return float(inputs["labels"][:, 1:].ne(-100).sum())


def contributions(run: Recording, step: int) -> tuple[Tensor, list[int], list[float]]:
    """c_i of the samples of one step; sizes and shares of its micro-batches."""
    rows, sizes, shares = [], [], []
    for own in run.passes[step]:
        model = language_model().to(next(iter(own.state.values())).dtype)
        model.load_state_dict(own.state)
        rows.append(rows_of(model, list(token_losses(model, own.inputs) / own.items)))
        sizes.append(len(rows[-1]))
        shares.append(tokens_of(own.inputs) / sum(tokens_of(p.inputs) for p in run.passes[step]))
    return torch.cat(rows), sizes, shares


def offline(run: Recording, source: str, steps: Any) -> Numbers:
    """trΣ and |G|² as plain autograd gives them."""
    found = []
    for step in steps:
        rows, sizes, shares = contributions(run, step)
        by = by_samples if source == "samples" else by_parts
        found.append(by(rows, sizes, shares))
    return averaged(found)


@pytest.mark.parametrize(
    ("source", "parts"), [("samples", 1), ("samples", 4), ("micro_batches", 4)]
)
def test_the_numbers_are_those_of_plain_autograd(tmp_path: Path, source: str, parts: int) -> None:
    """Clipped at 0.1; the last micro-batch has 2 sequences, not 4, of several lengths."""
    model = language_model().double()
    run = trainer(tmp_path, model, gradient_accumulation_steps=parts)
    monitor = gn.attach(run, every=2, source=source, max_samples=None)
    run.train()
    steps = range(0, run.state.global_step, 2)
    assert monitor.measured == len(steps) > 1
    assert_agree(monitor, offline(run, source, steps))


def test_a_trainer_that_averages_its_own_losses_has_equal_shares(tmp_path: Path) -> None:
    class Averaging(Recording):
        loss_is_scaled_for_ga = False

        def compute_loss(self, model: nn.Module, inputs: Any, *_: Any, **__: Any) -> Tensor:
            return token_losses(model, inputs).mean()

    run = trainer(
        tmp_path, language_model().double(), kind=Averaging, gradient_accumulation_steps=4
    )
    monitor = gn.attach(run, every=1)
    run.train()
    found = []
    for passes in run.passes.values():
        model = language_model().double()
        model.load_state_dict(passes[0].state)
        sizes = [len(own.inputs["labels"]) for own in passes]
        means = [token_losses(model, own.inputs) / len(own.inputs["labels"]) / 4 for own in passes]
        found.append(by_parts(rows_of(model, list(torch.cat(means))), sizes, [1 / 4] * 4))
    assert_agree(monitor, averaged(found))


def test_under_autocast_micro_batches_are_exact(tmp_path: Path) -> None:
    run = trainer(tmp_path, gradient_accumulation_steps=4, bf16=True)
    monitor = gn.attach(run, every=1)
    run.train()
    found = []
    for passes in run.passes.values():
        model, total = language_model(), passes[0].items
        model.load_state_dict(passes[0].state)
        with torch.autocast("cpu", torch.bfloat16):
            losses = [token_losses(model, own.inputs).sum() / total for own in passes]
        sizes = [len(own.inputs["labels"]) for own in passes]
        tokens = [tokens_of(own.inputs) for own in passes]
        shares = [own / sum(tokens) for own in tokens]
        rows = rows_of(model, losses)
        squares = sum(w * w for w in shares)
        own, both = float(rows.square().sum()), float(rows.sum(0).square().sum())
        signal = (both - own) / (1 - squares)
        spread = sum(w * w / b for w, b in zip(shares, sizes, strict=True))
        found.append(((own - signal * squares) / spread, signal))
    assert_agree(monitor, averaged(found), 1e-5)


@BOTH
def test_the_scale_of_a_grad_scaler_is_taken_out(tmp_path: Path, parts: int) -> None:
    run = trainer(tmp_path, language_model().double(), gradient_accumulation_steps=parts)
    run.accelerator.scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)
    source = "samples" if parts == 1 else "micro_batches"
    monitor = gn.attach(run, every=1, source=source)
    run.train()
    assert_agree(monitor, offline(run, source, run.passes))


@BOTH
@pytest.mark.parametrize("source", ["samples", "auto"])
def test_training_is_the_same_bit_by_bit(tmp_path: Path, parts: int, source: str) -> None:
    ends = []
    for attached in (False, True):
        options: dict[str, Any] = {"eval_strategy": "steps", "eval_steps": 2, "adam_epsilon": 1e-6}
        model = language_model(dropout=0.1)
        run = trainer(
            tmp_path, model, gradient_accumulation_steps=parts, optim="adamw_torch", **options
        )
        if attached:
            monitor = gn.attach(run, every=2, source=source, sink=str(tmp_path / "run.jsonl"))
        run.train()
        ends.append((model.state_dict(), [x.get("loss") for x in run.state.log_history]))
    assert monitor.measured > 0
    assert monitor.notes == []
    assert states_equal(ends[0][0], ends[1][0])
    assert ends[0][1] == ends[1][1]


def test_values_reach_tensorboard_and_the_history(tmp_path: Path) -> None:
    run = trainer(tmp_path, gradient_accumulation_steps=4, report_to=["tensorboard"])
    monitor = gn.attach(run, every=1)
    run.train()
    (folder,) = (tmp_path / "runs").iterdir()
    events = EventAccumulator(str(folder))
    events.Reload()
    written = events.Scalars("train/gradnoise/trace_cov")
    assert [event.step for event in written] == [1, 2, 3]
    expected = monitor.values()["gradnoise/trace_cov"]
    assert written[-1].value == pytest.approx(expected, rel=1e-6)
    in_history = [x for x in run.state.log_history if "gradnoise/trace_cov" in x]
    assert in_history[-1]["gradnoise/trace_cov"] == expected
    assert in_history[-1]["step"] == 3


def test_logs_that_are_not_of_training_are_left_alone(tmp_path: Path) -> None:
    run = trainer(tmp_path, logging_steps=100, eval_strategy="epoch")
    gn.attach(run, every=1)
    run.train()
    assert not any("gradnoise/measured" in own for own in run.state.log_history)


class Listens(TrainerCallback):
    """Keeps what is logged."""

    def __init__(self) -> None:
        self.logs: list[dict[str, float]] = []

    def on_log(self, *_: Any, logs: Any = None, **__: Any) -> None:
        self.logs.append(dict(logs))


@pytest.mark.parametrize("last", [False, True])
def test_other_callbacks_may_come_before_and_after(tmp_path: Path, last: bool) -> None:
    first, second = Listens(), Listens()
    run = trainer(tmp_path, report_to=["tensorboard"], callbacks=[first])
    assert any(isinstance(c, TensorBoardCallback) for c in run.callback_handler.callbacks)
    monitor = gn.NoiseMonitor(run.model, every=1)
    if last:
        run.add_callback(second)
    run.add_callback(NoiseMonitorCallback(run, monitor))
    if not last:
        run.add_callback(second)
    run.train()
    assert monitor.measured == 11  # the first of 12 steps found that there is one micro-batch
    assert [("gradnoise/trace_cov" in own) for own in first.logs[:12]] == [False] + [True] * 11
    assert first.logs[:12] == second.logs[:12]


@pytest.mark.parametrize(("source", "parts"), [("auto", 1), ("auto", 4)])
def test_a_resumed_run_gives_the_same_numbers(tmp_path: Path, source: str, parts: int) -> None:
    options: dict[str, Any] = {
        "gradient_accumulation_steps": parts,
        "num_train_epochs": 6,
        "save_strategy": "steps",
        "save_steps": 3,
    }
    whole = trainer(tmp_path / "whole", **options)
    monitor = gn.attach(whole, every=2, source=source)
    whole.train()
    (tmp_path / "whole/checkpoint-3").rename(tmp_path / "elsewhere")
    resumed = trainer(tmp_path / "resumed", **options)
    other = gn.attach(resumed, every=2, source=source)
    resumed.train(resume_from_checkpoint=str(tmp_path / "elsewhere"))
    assert resumed.state.log_history[-2]["loss"] == whole.state.log_history[-2]["loss"]
    assert other.state_dict() == monitor.state_dict()
    assert other.values() == pytest.approx(monitor.values(), nan_ok=True)


def test_a_checkpoint_of_a_run_without_the_monitor_begins_at_its_step(tmp_path: Path) -> None:
    options: dict[str, Any] = {"save_strategy": "steps", "save_steps": 3}
    trainer(tmp_path, **options).train()
    resumed = trainer(tmp_path, **options)
    monitor = gn.attach(resumed, every=4, source="samples")
    resumed.train(resume_from_checkpoint=str(tmp_path / "checkpoint-3"))
    assert (monitor.steps, monitor.measured) == (12, 2)  # at steps 4 and 8


def test_a_second_training_begins_anew(tmp_path: Path) -> None:
    run = trainer(tmp_path)
    monitor = gn.attach(run, every=4, source="samples")
    run.train()
    assert monitor.measured == 3
    run.train()
    assert monitor.measured == 3


def test_nothing_is_left_behind(tmp_path: Path) -> None:
    run = trainer(tmp_path)
    gn.attach(run, every=1)
    run.train()
    assert "training_step" not in vars(run)
    for module in run.model.modules():
        assert not module._forward_hooks
        assert not module._forward_pre_hooks
    assert not any(p._backward_hooks for p in run.model.parameters())


def test_a_training_that_is_stopped_leaves_nothing_behind(tmp_path: Path) -> None:
    class Stops(TrainerCallback):
        def on_substep_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            control.should_training_stop = True

    run = trainer(tmp_path, gradient_accumulation_steps=4, callbacks=[Stops()])
    monitor = gn.attach(run, every=1)
    run.train()
    assert monitor.measured == 0
    assert not run.model._forward_pre_hooks


@pytest.mark.filterwarnings("ignore:gradnoise")
def test_errors_of_the_monitor_become_notes(tmp_path: Path) -> None:
    def broken(_: object) -> None:
        raise OSError("no space left on device")

    run = trainer(tmp_path)
    monitor = gn.attach(run, every=1, sink=broken)
    run.train()
    assert run.state.global_step == 12
    assert "a sink failed: OSError: no space left on device" in monitor.notes


@pytest.mark.filterwarnings("ignore:gradnoise")
def test_a_model_that_is_replicated_is_not_measured(tmp_path: Path) -> None:
    run = trainer(tmp_path)
    monitor = gn.attach(run, every=1)
    run.model_wrapped = nn.DataParallel(run.model)
    run.train()
    assert monitor.measured == 0
    assert "sharded or replicated" in monitor.notes[0]


def test_a_compiled_model_is_measured_by_micro_batches(tmp_path: Path) -> None:
    compiled: dict[str, Any] = {"torch_compile": True, "torch_compile_backend": "eager"}
    found = []
    for own in ({}, compiled):
        own = {**own, "data": sequences(8), "gradient_accumulation_steps": 2}
        run = trainer(tmp_path, language_model().double(), num_train_epochs=2, **own)
        monitor = gn.attach(run, every=1)
        run.train()
        assert monitor.notes == []
        found.append((monitor.trace_cov.value, monitor.grad_sq_norm.value))
    assert found[0] == pytest.approx(found[1], rel=1e-6)


def test_a_model_is_not_given(tmp_path: Path) -> None:
    with pytest.raises(gn.ArgumentError, match="`model` is taken from the Trainer"):
        gn.attach(trainer(tmp_path), model=nn.Linear(2, 1))
