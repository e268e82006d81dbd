"""The monitor in Lightning's Trainer."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import pytest
import torch
from lightning.pytorch.callbacks import GradientAccumulationScheduler, ModelCheckpoint
from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch import Tensor, nn

import gradnoise as gn
from gradnoise.integrations.lightning import NoiseMonitorCallback
from tests.offline import (
    Numbers,
    assert_agree,
    averaged,
    by_parts,
    by_samples,
    rows_of,
    states_equal,
)
from tests.small_modules import Classifier, fit, loader, network, samples, trainer

BOTH = pytest.mark.parametrize("parts", [1, 4])


def contributions(passes: list[Any]) -> tuple[Tensor, list[int]]:
    """c_i of the samples of a step, and the sizes of its micro-batches, which are averaged."""
    rows = []
    for state, inputs, labels in passes:
        model = network().to(inputs.dtype)
        model.load_state_dict(state)
        losses = nn.functional.cross_entropy(model(inputs), labels, reduction="none")
        rows.append(rows_of(model, list(losses / len(labels) / len(passes))))
    return torch.cat(rows), [len(own) for own in rows]


def offline(module: Classifier, source: str, every: int = 1) -> Numbers:
    found = []
    for step in range(0, len(module.passes), every):
        rows, sizes = contributions(module.passes[step])
        count = len(sizes)
        by = by_samples if source == "samples" else by_parts
        found.append(by(rows, sizes, [1 / count] * count))
    return averaged(found)


@pytest.mark.parametrize("through", ["net", "forward"])
@pytest.mark.parametrize(
    ("source", "parts"), [("samples", 1), ("samples", 4), ("micro_batches", 4)]
)
def test_the_numbers_are_those_of_plain_autograd(
    tmp_path: Path, source: str, parts: int, through: str
) -> None:
    """Clipped at 0.1; gradients are zeroed after the forward pass; 4 + 4 + 4 + 2 samples."""
    module = Classifier(through=through)
    run = trainer(tmp_path, precision="64-true", accumulate_grad_batches=parts)
    monitor = gn.attach(run, model=module, every=2, source=source, max_samples=None)
    fit(run, module)
    assert monitor.measured == len(range(0, run.global_step, 2)) > 1
    assert_agree(monitor, offline(module, source, every=2))


@pytest.mark.parametrize(("batches", "steps"), [(None, 6), (2, 3)])
def test_a_short_accumulation_at_the_end_of_an_epoch_is_scaled(
    tmp_path: Path, batches: int | None, steps: int
) -> None:
    """4 batches in accumulations of 3: Lightning divides the last one by 3 as well."""
    module = Classifier()
    options: dict[str, Any] = {"accumulate_grad_batches": 3, "limit_train_batches": batches}
    run = trainer(tmp_path, precision="64-true", **options)
    monitor = gn.attach(run, model=module, every=1, source="samples", max_samples=None)
    fit(run, module)
    assert run.global_step == monitor.measured == steps
    assert_agree(monitor, offline(module, "samples"))


def test_a_stream_without_a_length_ends_when_it_ends(tmp_path: Path) -> None:
    class Stream(torch.utils.data.IterableDataset[Any]):
        def __iter__(self) -> Any:
            return iter(samples())

    module = Classifier()
    run = trainer(tmp_path, precision="64-true", accumulate_grad_batches=3)
    monitor = gn.attach(run, model=module, every=1, source="samples", max_samples=None)
    run.fit(module, torch.utils.data.DataLoader(Stream(), batch_size=4))
    assert run.global_step == monitor.measured == 6
    assert_agree(monitor, offline(module, "samples"))


@BOTH
def test_under_autocast_and_with_a_grad_scaler(tmp_path: Path, parts: int) -> None:
    """The plug-in for float16 on the CPU: its forward passes are in bfloat16 here."""
    plugin = pl.plugins.MixedPrecision(
        "16-mixed", "cpu", torch.amp.GradScaler("cpu", init_scale=256.0)
    )
    plugin.autocast_context_manager = lambda: torch.autocast("cpu", torch.bfloat16)
    module, source = Classifier(), "samples" if parts == 1 else "micro_batches"
    run = trainer(tmp_path, plugins=[plugin], accumulate_grad_batches=parts)
    monitor = gn.attach(run, model=module, every=1, source=source, max_samples=None)
    fit(run, module)
    assert_agree(monitor, offline(module, source), 0.05)


@BOTH
@pytest.mark.parametrize("source", ["samples", "auto"])
def test_training_is_the_same_bit_by_bit(tmp_path: Path, parts: int, source: str) -> None:
    ends = []
    for attached in (False, True):
        module = Classifier(dropout=0.2)
        run = trainer(tmp_path, accumulate_grad_batches=parts, max_epochs=4)
        if attached:
            sink = str(tmp_path / "run.jsonl")
            monitor = gn.attach(run, model=module, every=2, source=source, sink=sink)
        fit(run, module, val_dataloaders=loader(7))
        ends.append(module.state_dict())
    assert monitor.measured > 0
    assert monitor.notes == []
    assert states_equal(*ends)


def test_values_reach_all_loggers(tmp_path: Path) -> None:
    board, table = TensorBoardLogger(tmp_path, name="board"), CSVLogger(tmp_path, name="table")
    module = Classifier()
    run = trainer(tmp_path, accumulate_grad_batches=4, logger=[board, table])
    monitor = gn.attach(run, model=module, every=1)
    fit(run, module)
    events = EventAccumulator(board.log_dir)
    events.Reload()
    written = events.Scalars("gradnoise/trace_cov")
    assert [event.step for event in written] == [0, 1, 2]
    expected = monitor.values()["gradnoise/trace_cov"]
    assert written[-1].value == pytest.approx(expected, rel=1e-6)
    assert "gradnoise/trace_cov" in (Path(table.log_dir) / "metrics.csv").read_text()


@pytest.mark.parametrize("first", [False, True])
def test_other_callbacks_may_come_before_and_after(tmp_path: Path, first: bool) -> None:
    module = Classifier()
    monitor = gn.NoiseMonitor(module.net, every=1, source="samples")
    others = [GradientAccumulationScheduler({0: 1, 1: 2}), ModelCheckpoint(tmp_path / "kept")]
    own = [NoiseMonitorCallback(monitor)]
    callbacks = own + others if first else others + own
    run = trainer(tmp_path, callbacks=callbacks, enable_checkpointing=True)
    fit(run, module)
    assert run.global_step == monitor.measured == 8


@pytest.mark.parametrize("parts", [1, 2])
def test_a_resumed_run_gives_the_same_numbers(tmp_path: Path, parts: int) -> None:
    whole, module = trainer(tmp_path, accumulate_grad_batches=parts), Classifier()
    monitor = gn.attach(whole, model=module, every=2, max_samples=2)
    fit(whole, module)
    half, module = trainer(tmp_path, accumulate_grad_batches=parts, max_epochs=1), Classifier()
    gn.attach(half, model=module, every=2, max_samples=2)
    fit(half, module)
    half.save_checkpoint(tmp_path / "half.ckpt")
    resumed, module = trainer(tmp_path, accumulate_grad_batches=parts), Classifier(dropout=0.0)
    other = gn.attach(resumed, model=module, every=2, max_samples=2)
    fit(resumed, module, ckpt_path=tmp_path / "half.ckpt")
    assert other.measured > 1
    assert other.state_dict() == monitor.state_dict()


def test_nothing_is_left_behind(tmp_path: Path) -> None:
    class Breaks(Classifier):
        def training_step(self, batch: Any, batch_idx: int) -> Tensor:
            if batch_idx == 1:
                raise KeyError("of the user's")
            return super().training_step(batch, batch_idx)

    module = Breaks()
    run = trainer(tmp_path, accumulate_grad_batches=2)
    gn.attach(run, model=module, every=1)
    with pytest.raises(KeyError, match="of the user's"):
        fit(run, module)
    for own in module.modules():
        assert not own._forward_hooks
        assert not own._forward_pre_hooks
    assert not any(p._backward_hooks for p in module.parameters())


def test_a_compiled_model_is_measured_by_micro_batches(tmp_path: Path) -> None:
    module = Classifier()
    module.net = torch.compile(module.net, backend="eager")
    run = trainer(tmp_path, precision="64-true", accumulate_grad_batches=4)
    monitor = gn.attach(run, model=module, every=1)
    fit(run, module)
    assert monitor.source == "micro_batches"
    plain, again = Classifier(), trainer(tmp_path, precision="64-true", accumulate_grad_batches=4)
    other = gn.attach(again, model=plain, every=1)
    fit(again, plain)
    assert_agree(monitor, (other.trace_cov.value, other.grad_sq_norm.value))


@pytest.mark.filterwarnings("ignore:gradnoise")
def test_errors_of_the_monitor_become_notes(tmp_path: Path) -> None:
    def broken(_: object) -> None:
        raise OSError("no space left on device")

    module, run = Classifier(), trainer(tmp_path)
    monitor = gn.attach(run, model=module, every=1, source="samples", sink=broken)
    fit(run, module)
    assert run.global_step == 12
    assert "a sink failed: OSError: no space left on device" in monitor.notes


@pytest.mark.filterwarnings("ignore:gradnoise")
def test_manual_optimization_is_not_measured(tmp_path: Path) -> None:
    class Manual(Classifier):
        def __init__(self) -> None:
            super().__init__()
            self.automatic_optimization = False

        def training_step(self, batch: Any, batch_idx: int) -> None:
            optimizer = self.optimizers()
            optimizer.zero_grad()
            self.manual_backward(nn.functional.cross_entropy(self(batch[0]), batch[1]))
            optimizer.step()

    module, run = Manual(), trainer(tmp_path, gradient_clip_val=None)
    monitor = gn.attach(run, model=module, every=1)
    fit(run, module)
    assert monitor.measured == 0
    assert "with manual optimization only `training_step` knows the steps" in monitor.notes[0]


def test_a_module_that_calls_its_parts_is_measured_by_micro_batches(tmp_path: Path) -> None:
    """The sizes of the micro-batches, 4 + 4 + 4 + 2, are those of the batches."""

    class InParts(Classifier):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.second = self.net[:2], self.net[2:]
            del self.net

        @property
        def net(self) -> nn.Module:
            return nn.Sequential(*self.first, *self.second)

    module = InParts()
    run = trainer(tmp_path, precision="64-true", accumulate_grad_batches=4)
    monitor = gn.attach(run, model=module, every=1)
    assert monitor.model is module
    fit(run, module)
    assert_agree(monitor, offline(module, "micro_batches"))


def test_the_part_that_is_called_may_be_given(tmp_path: Path) -> None:
    module, run = Classifier(), trainer(tmp_path)
    monitor = gn.attach(run, model=module.net[3], every=1, source="samples", layers=True)
    fit(run, module)
    assert monitor.measured == 12
    assert monitor.model is module.net[3]


def test_a_module_is_needed(tmp_path: Path) -> None:
    with pytest.raises(gn.ArgumentError, match="give the LightningModule as `model`"):
        gn.attach(trainer(tmp_path))
