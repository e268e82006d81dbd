"""`gn.NoiseMonitor` in training loops: its numbers are those of plain autograd."""

from __future__ import annotations

import copy
import json
import math
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

import gradnoise as gn
from gradnoise.history.run_file import Run
from gradnoise.monitor.monitor import SOURCES
from gradnoise.monitor.step import IDLE
from gradnoise.problem.optimizer_settings import read_optimizer
from tests.monitored import (
    classified,
    contributions,
    of_parts,
    of_samples,
    parted,
    train_step,
)
from tests.offline import by_parts

SIZES = {"whole": (24,), "accumulated": (6, 6, 6, 6), "uneven": (7, 7, 7, 3)}


class Sequences(nn.Module):
    """A small decoder with tied tables, learned positions and dropout."""

    def __init__(self, checkpointed: bool = False) -> None:
        super().__init__()
        self.table, self.places = nn.Embedding(11, 8), nn.Embedding(5, 8)
        self.layer = nn.TransformerEncoderLayer(8, 2, 16, 0.1, batch_first=True, norm_first=True)
        self.head = nn.Linear(8, 11, bias=False)
        self.head.weight = self.table.weight
        self.checkpointed = checkpointed

    def forward(self, ids: Tensor) -> Any:
        hidden = self.table(ids) + self.places(torch.arange(ids.shape[1]))
        if self.checkpointed:
            hidden = checkpoint(self.layer, hidden, use_reentrant=False)
        else:
            hidden = self.layer(hidden)
        return self.head(hidden)


class InPlace(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.shift = nn.Linear(6, 8), nn.Parameter(torch.randn(8))
        self.last = nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Any:
        return self.last(self.first(x).add_(self.shift).relu_())


def mlp() -> nn.Module:
    return nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 3))


def frozen() -> nn.Module:
    model = nn.Sequential(nn.Linear(6, 8), nn.ReLU(inplace=True), nn.Linear(8, 8), nn.Linear(8, 3))
    model[2].requires_grad_(False)
    return model


def weight_normed() -> nn.Module:
    first = nn.utils.parametrizations.weight_norm(nn.Linear(6, 8))
    return nn.Sequential(first, nn.Tanh(), nn.Linear(8, 3))


def convolutions() -> nn.Module:
    return nn.Sequential(
        nn.Unflatten(1, (1, 6)), nn.Conv1d(1, 4, 3), nn.GroupNorm(2, 4), nn.ReLU(inplace=True),
        nn.Flatten(), nn.Linear(16, 3),
    )  # fmt: skip


def sparse() -> nn.Module:
    return nn.Sequential(nn.Embedding(11, 4, sparse=True), nn.Flatten(), nn.Linear(20, 3))


MODELS: dict[str, Callable[[], nn.Module]] = {
    "mlp": mlp,
    "frozen": frozen,
    "weight_normed": weight_normed,
    "in_place": InPlace,
    "convolutions": convolutions,
    "sequences": lambda: Sequences().eval(),
    "checkpointed": lambda: Sequences(checkpointed=True).eval(),
    "sparse": sparse,
}


def batch_of(name: str) -> tuple[Tensor, Tensor]:
    if name in ("sequences", "checkpointed"):
        return torch.randint(11, (24, 5)), torch.randint(11, (24, 5))
    if name == "sparse":
        return torch.randint(11, (24, 5)), torch.randint(3, (24,))
    return torch.randn(24, 6).double(), torch.randint(3, (24,))


def found(monitor: gn.NoiseMonitor) -> tuple[float, float]:
    assert monitor.notes == []
    return float(monitor.trace_cov), float(monitor.grad_sq_norm)


@pytest.mark.parametrize("sizes", SIZES.values(), ids=SIZES)
@pytest.mark.parametrize("name", MODELS)
def test_single_samples_are_those_of_autograd(name: str, sizes: tuple[int, ...]) -> None:
    model, batch = MODELS[name]().double(), batch_of(name)
    parts = parted(batch, sizes)
    monitor = gn.NoiseMonitor(model, every=1, source="samples", max_samples=None)
    with monitor.step():
        train_step(model, classified, parts)
    expected = of_samples(contributions(model, classified, parts), sizes)
    assert found(monitor) == pytest.approx(expected, rel=1e-9)
    assert monitor.batch_size == 24


@pytest.mark.parametrize("sizes", [SIZES["accumulated"], SIZES["uneven"]])
@pytest.mark.parametrize("name", MODELS)
def test_micro_batches_are_those_of_autograd(name: str, sizes: tuple[int, ...]) -> None:
    model, batch = MODELS[name]().double(), batch_of(name)
    parts = parted(batch, sizes)
    monitor = gn.NoiseMonitor(model, every=1)
    with monitor.step():
        train_step(model, classified, parts)
    expected = of_parts(contributions(model, classified, parts), sizes)
    assert found(monitor) == pytest.approx(expected, rel=1e-9)
    assert monitor.source == "micro_batches"


@pytest.mark.parametrize("curvature", [False, True])
@pytest.mark.parametrize("source", ["samples", "micro_batches"])
@pytest.mark.parametrize("name", ["sequences", "convolutions", "in_place", "frozen"])
def test_training_is_the_same_bit_by_bit(name: str, source: str, curvature: bool) -> None:
    """With dropout, accumulation, clipping and momentum; half of the steps are measured."""
    start = MODELS[name]().train()
    batch = tuple(t.float() if t.is_floating_point() else t for t in batch_of(name))

    def trained(watched: bool) -> list[Tensor]:
        torch.manual_seed(1)
        model = copy.deepcopy(start)
        optimizer = torch.optim.SGD(model.parameters(), 0.1, momentum=0.9)
        given = {"loss_fn": classified, "data": batch, "sharpness_every": 1} if curvature else {}
        monitor = gn.NoiseMonitor(model, optimizer, every=2, source=source, **given)
        for _ in range(4):
            optimizer.zero_grad()
            with monitor.step() if watched else torch.enable_grad():
                train_step(model, classified, parted(batch, SIZES["uneven"]))
            torch.nn.utils.clip_grad_norm_(model.parameters(), 0.1)
            optimizer.step()
        assert monitor.measured == (2 if watched else 0), monitor.notes
        assert math.isfinite(monitor.sharpness) is (watched and curvature)
        return [*model.parameters(), torch.rand(3)]

    for plain, watched in zip(trained(False), trained(True), strict=True):
        assert torch.equal(plain, watched)


def zero(parameter: Tensor) -> None:
    assert parameter.grad is not None
    parameter.grad.zero_()


class TestLoops:
    """What loops do beside a forward and a backward pass."""

    def test_a_scaled_loss(self) -> None:
        model, batch = mlp().double(), batch_of("mlp")
        scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)
        monitor = gn.NoiseMonitor(model, every=1, source="samples", max_samples=None)
        with monitor.step(loss_scale=scaler):
            scaler.scale(classified(model, batch).mean()).backward()
        assert found(monitor) == pytest.approx(
            of_samples(contributions(model, classified, [batch])), rel=1e-9
        )

    def test_gradients_that_are_not_finite_are_counted(self) -> None:
        model, batch = mlp().double(), batch_of("mlp")
        monitor = gn.NoiseMonitor(model, every=1, source="samples")
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            with monitor.step():
                (classified(model, batch).mean() * math.inf).backward()
        assert (monitor.measured, monitor.skipped) == (0, 1)
        assert monitor.notes == ["a gradient was not finite"]

    @pytest.mark.parametrize("source", ["samples", "micro_batches"])
    def test_gradients_that_are_there_already(self, source: str) -> None:
        model, batch = mlp().double(), batch_of("mlp")
        parts = parted(batch, (12, 12))
        train_step(model, classified, parts)  # and no zero_grad
        monitor = gn.NoiseMonitor(model, every=1, source=source, max_samples=None)
        with monitor.step():
            train_step(model, classified, parts)
        rows = contributions(model, classified, parts)
        expected = of_samples(rows) if source == "samples" else of_parts(rows, (12, 12))
        assert found(monitor) == pytest.approx(expected, rel=1e-9)

    @pytest.mark.parametrize("source", ["samples", "micro_batches"])
    def test_hooks_of_the_users_change_no_number(self, source: str) -> None:
        model, batch = mlp().double(), batch_of("mlp")
        parts = parted(batch, (12, 12))
        model[0].weight.register_hook(lambda g: 3 * g)
        model[2].bias.register_post_accumulate_grad_hook(zero)
        monitor = gn.NoiseMonitor(model, every=1, source=source, max_samples=None)
        with monitor.step():
            train_step(model, classified, parts)
        model[0].weight._backward_hooks.clear()
        rows = contributions(model, classified, parts)
        expected = of_samples(rows) if source == "samples" else of_parts(rows, (12, 12))
        assert found(monitor) == pytest.approx(expected, rel=1e-9)

    @pytest.mark.parametrize("source", ["samples", "micro_batches"])
    def test_autocast(self, source: str) -> None:
        model, batch = mlp(), [t.float() if t.is_floating_point() else t for t in batch_of("mlp")]
        parts = parted(batch, (12, 12))
        monitor = gn.NoiseMonitor(model, every=1, source=source, max_samples=None)
        with monitor.step():
            train_step(model, classified, parts, lambda: torch.autocast("cpu", torch.bfloat16))
        rows = contributions(model, classified, parts)
        expected = of_samples(rows) if source == "samples" else of_parts(rows, (12, 12))
        assert found(monitor) == pytest.approx(expected, rel=0.05)

    def test_an_error_in_the_step_takes_the_hooks_off(self) -> None:
        model, batch = mlp().double(), batch_of("mlp")
        for source in ("samples", "micro_batches"):
            monitor = gn.NoiseMonitor(model, every=1, source=source)
            with pytest.raises(RuntimeError, match="second time"), monitor.step():  # noqa: PT012
                loss = classified(model, batch).mean()
                for _ in range(2):
                    loss.backward()
            assert (monitor.steps, monitor.measured, monitor.skipped) == (1, 0, 0)
        assert not model._forward_pre_hooks
        assert not model._forward_hooks
        assert not any(p._backward_hooks for p in model.parameters())

    def test_a_forward_pass_that_fails(self) -> None:
        model, batch = mlp().double(), batch_of("mlp")
        monitor = gn.NoiseMonitor(model, every=1, source="samples")
        for _ in range(2):
            with pytest.raises(RuntimeError, match="shapes cannot be multiplied"), monitor.step():
                model(batch[0][:, :5])
        assert torch.overrides._len_torch_function_stack() == 0
        with monitor.step():
            train_step(model, classified, [batch])
        assert monitor.measured == 1

    @pytest.mark.parametrize("source", ["samples", "micro_batches"])
    def test_evaluation_inside_of_a_step_is_no_part(self, source: str) -> None:
        model, batch = mlp().double(), batch_of("mlp")
        parts = parted(batch, (12, 12))
        monitor = gn.NoiseMonitor(model, every=1, source=source, max_samples=None)
        with monitor.step():
            with torch.no_grad():
                model(batch[0])
            train_step(model, classified, parts)
            model(batch[0])  # with a graph, and not differentiated
        rows = contributions(model, classified, parts)
        expected = of_samples(rows) if source == "samples" else of_parts(rows, (12, 12))
        assert found(monitor) == pytest.approx(expected, rel=1e-9)
        assert monitor.batch_size == 24

    def test_two_forward_passes_for_one_backward_pass(self) -> None:
        model, batch = mlp().double(), batch_of("mlp")

        def twice(model: nn.Module, part: Any) -> Tensor:
            return classified(model, part) + model(part[0].flip(1)).square().sum(1)

        parts = parted(batch, (12, 12))
        monitor = gn.NoiseMonitor(model, every=1, source="micro_batches")
        with monitor.step():
            train_step(model, twice, parts)
        rows = contributions(model, twice, parts)
        assert found(monitor) == pytest.approx(of_parts(rows, (12, 12)), rel=1e-9)
        monitor = gn.NoiseMonitor(model, every=1, source="samples")
        with pytest.warns(UserWarning, match="several times for one backward"), monitor.step():
            train_step(model, twice, parts)

    def test_a_model_whose_parts_are_called(self) -> None:
        model, batch = mlp().double(), batch_of("mlp")
        parts = parted(batch, (12, 12))

        def by_parts(model: Any, part: Any) -> Tensor:
            return classified(nn.Sequential(*model), part)

        monitor = gn.NoiseMonitor(model, every=1)
        with monitor.step(24):
            train_step(model, by_parts, parts)
        rows = contributions(model, classified, parts)
        assert found(monitor) == pytest.approx(of_parts(rows, (12, 12)), rel=1e-9)

    def test_shares_of_the_loop(self) -> None:
        """Where micro-batches weigh by their samples, their shares are b_j/B."""
        model, batch = mlp().double(), batch_of("mlp")
        sizes = (16, 8)
        monitor = gn.NoiseMonitor(model, every=1)
        with monitor.step() as step:
            for part in parted(batch, sizes):
                (classified(model, part).sum() / 24).backward()
            step.shares = [16 / 24, 8 / 24]
        rows = contributions(model, classified, [batch])
        expected = by_parts(rows, sizes, [16 / 24, 8 / 24])
        assert found(monitor) == pytest.approx(expected, rel=1e-9)


class TestNothingToMeasure:
    """One line says what to do, once."""

    def said(self, monitor: gn.NoiseMonitor, step: Callable[[], None], times: int = 2) -> str:
        with warnings.catch_warnings(record=True) as told:
            warnings.simplefilter("always")
            for _ in range(times):
                with monitor.step():
                    step()
        assert (monitor.measured, len(told), len(monitor.notes)) == (0, 1, 1)
        assert math.isnan(float(monitor.noise_scale))
        assert monitor.notes[0] in str(monitor)
        return str(told[0].message)

    def test_one_micro_batch(self) -> None:
        model, batch = mlp().double(), batch_of("mlp")
        monitor = gn.NoiseMonitor(model, every=1, source="micro_batches")
        line = self.said(monitor, lambda: train_step(model, classified, [batch]))
        assert line.startswith("gradnoise, step 1: the step has one micro-batch")

    def test_batch_normalisation(self) -> None:
        model = nn.Sequential(nn.Linear(6, 4), nn.BatchNorm1d(4), nn.Linear(4, 3)).double()
        before = copy.deepcopy(model.state_dict())
        monitor = gn.NoiseMonitor(model, every=1, source="samples")
        line = self.said(monitor, lambda: train_step(model, classified, [batch_of("mlp")]))
        assert "batch normalisation" in line
        assert "split the step into two micro-batches" in line
        assert int(model[1].num_batches_tracked) == int(before["1.num_batches_tracked"]) + 2

    def test_a_compiled_model(self) -> None:
        model = torch.compile(mlp().double(), backend="eager")
        monitor = gn.NoiseMonitor(model, every=1, source="samples")
        line = self.said(monitor, lambda: train_step(model, classified, [batch_of("mlp")]))
        assert "cannot follow a compiled model: split the step" in line

    def test_a_recurrent_layer(self) -> None:
        class Recurrent(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.layer, self.head = nn.LSTM(1, 4, batch_first=True), nn.Linear(4, 3)

            def forward(self, x: Tensor) -> Any:
                return self.head(self.layer(x[..., None])[0][:, -1])

        model = Recurrent().double()
        monitor = gn.NoiseMonitor(model, every=1, source="samples")
        line = self.said(monitor, lambda: train_step(model, classified, [batch_of("mlp")]))
        assert "lstm is one fused operation" in line

    def test_a_parameter_outside_of_the_forward_pass(self) -> None:
        model, batch = InPlace().double(), batch_of("mlp")

        def penalised(model: Any, part: Any) -> Tensor:
            return classified(model, part) + model.last.weight.square().sum()

        monitor = gn.NoiseMonitor(model, every=1, source="samples")
        line = self.said(monitor, lambda: train_step(model, penalised, [batch]))
        assert "do not add up to that of parameter 'last.weight'" in line

    def test_two_backward_passes_for_one_forward_pass(self) -> None:
        model, batch = mlp().double(), batch_of("mlp")

        def step() -> None:
            losses = classified(model, batch)
            losses[:12].mean().backward(retain_graph=True)
            losses[12:].mean().backward()

        monitor = gn.NoiseMonitor(model, every=1, source="micro_batches")
        assert "followed by several backward passes" in self.said(monitor, step)
        monitor = gn.NoiseMonitor(model, every=1, source="samples")
        assert "differentiated twice" in self.said(monitor, step)

    @pytest.mark.parametrize("source", ["samples", "micro_batches"])
    def test_a_backward_pass_outside_of_the_step(self, source: str) -> None:
        model, batch = mlp().double(), batch_of("mlp")
        monitor = gn.NoiseMonitor(model, every=1, source=source)
        assert "no gradient came" in self.said(monitor, lambda: classified(model, batch))

    @pytest.mark.parametrize("told", [7, [20, 5]])
    def test_rows_that_are_no_samples(self, told: Any) -> None:
        model, batch = mlp().double(), batch_of("mlp")
        monitor = gn.NoiseMonitor(model, every=1, source="samples")
        with (
            pytest.warns(UserWarning, match=r"the model's inputs have 24 rows"),
            monitor.step(told),
        ):
            train_step(model, classified, [batch])
        assert monitor.measured == 0

    def test_a_model_that_is_not_called(self) -> None:
        model, batch = mlp().double(), batch_of("mlp")
        called = nn.Sequential(*model)
        monitor = gn.NoiseMonitor(model, every=1, source="samples")
        line = self.said(monitor, lambda: train_step(called, classified, [batch]))
        assert "the model was not called: give the monitor the object that is called" in line


def test_a_plan_that_fails_is_tried_three_times() -> None:
    model = nn.Sequential(nn.Linear(6, 4), nn.BatchNorm1d(4), nn.Linear(4, 3)).double()
    monitor = gn.NoiseMonitor(model, every=1, source="samples")
    passes = []
    model.register_forward_hook(lambda *_: passes.append(1))
    counts = []
    for _ in range(5):
        passes.clear()
        with warnings.catch_warnings(), monitor.step():
            warnings.simplefilter("ignore")
            train_step(model, classified, [batch_of("mlp")])
        counts.append(len(passes))
    assert counts[2] > 1
    assert counts[3:] == [1, 1]


def test_a_sum_below_zero_is_no_lower_bound() -> None:
    """Two backward passes of opposed losses are not micro-batches of one."""
    model = mlp().double()
    monitor = gn.NoiseMonitor(model, every=1)
    with pytest.warns(UserWarning, match=r"\|G\|² is far below zero, which indep"):  # noqa: PT031
        for _ in range(32):
            model.zero_grad()
            with monitor.step():
                for sign in (1, -1):
                    (sign * model(torch.randn(12, 6).double()).sum(1).mean()).backward()
    assert float(monitor.grad_sq_norm) < 0


def test_auto_takes_single_samples_where_there_is_one_micro_batch() -> None:
    model, batch = mlp().double(), batch_of("mlp")
    monitor = gn.NoiseMonitor(model, every=5)
    for _ in range(11):
        with monitor.step():
            train_step(model, classified, [batch])
    assert monitor.source == "samples"
    assert monitor.measured == 3  # the second, the sixth and the eleventh step
    assert (monitor.skipped, monitor.notes) == (0, [])


def test_steps_between_cost_a_comparison() -> None:
    model = mlp()
    monitor = gn.NoiseMonitor(model, every=3)
    assert [monitor.step(8) is IDLE for _ in range(7)] == [False, True, True] * 2 + [False]
    with monitor.step(8) as step:
        step.loss = 3.0  # is forgotten
    assert not hasattr(IDLE, "loss")


def test_a_part_of_the_samples_is_unbiased() -> None:
    """Other samples at every turn: over a whole round their mean is that of all."""
    model, batch = mlp().double(), batch_of("mlp")
    monitor = gn.NoiseMonitor(model, every=1, source="samples", max_samples=8, decay=1.0)
    rows = contributions(model, classified, [batch])
    for _ in range(1 + 3):  # the first one measures all, to be compared with the gradient
        model.zero_grad()
        with monitor.step():
            train_step(model, classified, [batch])
    trace, signal = found(monitor)
    assert (trace, signal) == pytest.approx(of_samples(rows), rel=1e-9)
    assert monitor.trace_cov.stderr > 0


def test_norm_layers_alone() -> None:
    model, batch = MODELS["convolutions"]().double(), batch_of("mlp")
    monitor = gn.NoiseMonitor(model, every=1, source="norm_layers", max_samples=None)
    with monitor.step():
        train_step(model, classified, [batch])
    model.requires_grad_(False)
    model[2].requires_grad_(True)
    expected = of_samples(contributions(model, classified, [batch]))
    assert found(monitor) == pytest.approx(expected, rel=1e-9)


def test_given_norms_are_those_of_the_function() -> None:
    monitor = gn.NoiseMonitor(mlp(), every=1, decay=1.0)
    norms = [(10.0, 4.0), (9.0, 4.5), (12.0, 4.2)]
    for small, big in norms:
        monitor.update(small, big, 4, 32)
    expected = gn.simple_noise_scale_from_norms(*zip(*norms, strict=True), 4, 32)
    assert float(monitor.noise_scale) == pytest.approx(float(expected), rel=1e-12)
    assert found(monitor) == pytest.approx(
        (float(expected.trace_cov), float(expected.grad_sq_norm)), rel=1e-12
    )
    assert monitor.source == "given"
    assert monitor.step(8) is IDLE


def test_layers_add_up() -> None:
    model, batch = mlp().double(), batch_of("mlp")
    monitor = gn.NoiseMonitor(model, every=1, layers=True)
    for _ in range(2):
        model.zero_grad()
        with monitor.step():
            train_step(model, classified, parted(batch, (6,) * 4))
    layers = monitor.layer_noise_scales
    assert list(layers) == ["0", "2"]
    for part in ("trace_cov", "grad_sq_norm"):
        total = sum(float(getattr(layer, part)) for layer in layers.values())
        assert total == pytest.approx(float(getattr(monitor, part)), rel=1e-12)


def test_a_run_goes_on_from_its_state(tmp_path: Any) -> None:
    batch = batch_of("mlp")

    def watched(model: nn.Module, monitor: gn.NoiseMonitor, steps: int) -> None:
        optimizer = torch.optim.SGD(model.parameters(), 0.1)
        for _ in range(steps):
            optimizer.zero_grad()
            with monitor.step():
                train_step(model, classified, [batch])
            optimizer.step()

    start = mlp().double()
    whole = gn.NoiseMonitor(copy.deepcopy(start), every=3, max_samples=None, layers=True)
    watched(whole.model, whole, 20)
    first = gn.NoiseMonitor(start, every=3, max_samples=None, layers=True)
    watched(start, first, 8)
    torch.save((start.state_dict(), first.state_dict()), tmp_path / "run.pt")
    weights, state = torch.load(tmp_path / "run.pt")  # built-in values alone
    model = mlp().double()
    model.load_state_dict(weights)
    second = gn.NoiseMonitor(model, every=3, max_samples=None, layers=True)
    second.load_state_dict(state)
    watched(model, second, 12)
    assert second.state_dict() == whole.state_dict()
    assert second.noise_scale == whole.noise_scale
    other = gn.NoiseMonitor(model)
    with pytest.raises(gn.ArgumentError, match="a monitor with other layers"):
        other.load_state_dict(state)


def test_detached_it_measures_nothing_and_keeps_what_it_has() -> None:
    model, batch = mlp().double(), batch_of("mlp")
    monitor = gn.NoiseMonitor(model, every=1)
    with monitor.step():
        train_step(model, classified, parted(batch, (12, 12)))
    before = monitor.values()
    monitor.detach()
    with monitor.step():
        train_step(model, classified, parted(batch, (12, 12)))
    assert (monitor.steps, monitor.measured) == (2, 1)
    assert monitor.values() == pytest.approx(before, nan_ok=True)


def test_what_is_asked_for_wrongly_is_refused() -> None:
    model = mlp()
    for source in ("sketch", "Samples"):
        with pytest.raises(gn.ArgumentError, match=f"must be one of {', '.join(SOURCES)}; got"):
            gn.NoiseMonitor(model, source=source)
    with pytest.raises(gn.ArgumentError, match="needs the process group of several ranks"):
        gn.NoiseMonitor(model, source="ranks")
    with pytest.raises(gn.ArgumentError, match=r"`optimizer` must be a torch.optim.Optimizer"):
        gn.NoiseMonitor(model, 0.1)  # type: ignore[arg-type]
    with pytest.raises(gn.ArgumentError, match="distributed process group; got bool"):
        gn.NoiseMonitor(model, group=True)
    with pytest.raises(gn.ArgumentError, match="no trainable parameters"):
        gn.NoiseMonitor(nn.ReLU())
    with pytest.raises(gn.ArgumentError, match="`every` must be a whole number from 1"):
        gn.NoiseMonitor(model, every=0)
    with pytest.raises(gn.ArgumentError, match="`max_samples` must be a whole number"):
        gn.NoiseMonitor(model, max_samples=0)
    with pytest.raises(gn.ArgumentError, match="`loss_fn` and `data`; give both, or neither"):
        gn.NoiseMonitor(model, loss_fn=classified)
    monitor = gn.NoiseMonitor(model)
    with pytest.raises(gn.ArgumentError, match="`small_batch` must be positive and below"):
        monitor.update(1.0, 1.0, 8, 8)
    with pytest.raises(gn.ArgumentError, match="say nothing about its layers"):
        gn.NoiseMonitor(model, layers=True).update(2.0, 1.0, 4, 8)


def test_an_optimizer_that_comes_later_has_its_metric() -> None:
    """As with frameworks that make it when training starts."""
    model, batch = mlp().double(), batch_of("mlp")
    optimizer = torch.optim.Adam(model.parameters(), betas=(0.9, 0.5))
    lines: list[dict[str, Any]] = []
    monitor = gn.NoiseMonitor(
        model, every=1, source="samples", loss_fn=classified, data=batch, sink=lines.append
    )
    monitor.optimizer = optimizer
    settled = read_optimizer(optimizer).settled_after  # type: ignore[union-attr]
    for _ in range(settled + 2):
        optimizer.zero_grad()
        with monitor.step():
            train_step(model, classified, [batch])
        optimizer.step()
    (line,) = [line for line in lines if "gradnoise/sharpness" in line]
    assert line["step"] == settled + 1
    expected = gn.stable_lr(monitor.sharpness, "adam", 0.9)
    assert line["gradnoise/stable_lr"] == pytest.approx(expected)


def test_the_critical_batch_size_is_that_of_the_file(tmp_path: Path) -> None:
    """Of what the monitor knows, of the last line of its file, and of `gn.pool`."""
    torch.manual_seed(0)
    model, data = mlp().double(), batch_of("mlp")
    optimizer = torch.optim.SGD(model.parameters(), 0.05)

    def watching() -> gn.NoiseMonitor:
        return gn.NoiseMonitor(
            model, optimizer, every=1, source="samples", sink=tmp_path / "run.jsonl",
            loss_fn=classified, data=data, sharpness_every=3, layers=True,
        )  # fmt: skip

    monitor = watching()
    for k in range(20):
        if k == 10:  # as after a resumption
            state = json.loads(json.dumps(monitor.state_dict()))
            monitor = watching()
            monitor.load_state_dict(state)
        optimizer.zero_grad()
        with monitor.step() as step:
            loss = classified(model, data).mean()
            loss.backward()
            step.loss = loss
        optimizer.step()
        assert math.isnan(float(monitor.critical_batch_size)) == (k < 4)
    own, pool = monitor.critical_batch_size, gn.pool(tmp_path / "run.jsonl")
    assert float(own) == pytest.approx(float(pool.critical_batch_size()))
    assert (own.low, own.high) == pytest.approx(
        (pool.critical_batch_size().low, pool.critical_batch_size().high)
    )
    assert pool.run.last("critical_batch_size") == pytest.approx(float(own))
    assert pool.run.last("critical_batch_size_high") == pytest.approx(own.high)
    assert "gradnoise/critical_batch_size" in monitor.values()


def test_without_losses_or_sharpness_there_is_no_critical_batch_size() -> None:
    model, data = mlp().double(), batch_of("mlp")
    monitor = gn.NoiseMonitor(model, every=1, source="samples")
    for _ in range(8):
        with monitor.step():
            train_step(model, classified, [data])
    assert monitor.critical_batch_size.status is gn.Status.NO_INTERVAL
    assert "gradnoise/critical_batch_size" not in monitor.values()


def test_reasons_are_in_the_file(tmp_path: Path) -> None:
    """Loggers, which take numbers, are not given them."""
    model, data = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4)), torch.randn(8, 3)
    given: list[dict[str, Any]] = []
    for sink in (tmp_path / "run.jsonl", given.append):
        monitor = gn.NoiseMonitor(model, every=1, source="samples", sink=sink)
        for _ in range(2):
            with warnings.catch_warnings(), monitor.step():
                warnings.simplefilter("ignore")
                model(data).square().mean().backward()
    assert given == []
    found = Run.load(tmp_path / "run.jsonl")
    assert found.notes == tuple(monitor.notes)
    assert "depend on each other" in found.notes[0]


def test_norm_layers_that_are_frozen_along_the_run_are_told() -> None:
    model, (inputs, labels) = nn.Sequential(nn.Linear(6, 8), nn.LayerNorm(8), nn.Linear(8, 3)), (
        torch.randn(16, 6), torch.randint(3, (16,)),
    )  # fmt: skip
    monitor = gn.NoiseMonitor(model, every=1, source="norm_layers")
    for k in range(4):
        model[1].requires_grad_(k < 2)
        with warnings.catch_warnings(), monitor.step():
            warnings.simplefilter("ignore")
            nn.functional.cross_entropy(model(inputs), labels).backward()
    assert (monitor.measured, monitor.skipped) == (2, 2)
    assert "no trainable layer, group or RMS normalisations" in monitor.notes[0]


def test_independent_parts_seldom_look_dependent() -> None:
    """|G|² = 0: at the level of the interval, half of the runs of this length would be told."""
    source, told = torch.Generator().manual_seed(0), 0
    for _ in range(40):
        monitor = gn.NoiseMonitor(nn.Linear(2, 2))
        for _ in range(200):
            parts = torch.randn(4, 20, generator=source) / 8**0.5
            monitor.update(parts.square().sum(1).mean(), parts.mean(0).square().sum(), 8, 32)
        told += bool(monitor.notes)
    assert told == 0
    assert str(monitor).count("200 of 200 steps measured") == 1


def test_the_sharpness_is_followed_anew_where_parameters_change() -> None:
    model, data = mlp().double(), batch_of("mlp")
    monitor = gn.NoiseMonitor(
        model, every=1, source="samples", loss_fn=classified, data=data, sharpness_every=1
    )
    found = []
    for k in range(6):
        model[0].requires_grad_(k not in (2, 3))
        with monitor.step():
            train_step(model, classified, [data])
        found.append(monitor.sharpness)
    assert monitor.notes == []
    assert all(map(math.isfinite, found))
    assert found[2] == pytest.approx(found[3], rel=0.02)
    assert found[2] < 0.98 * found[1]  # of fewer parameters
    assert found[4] == pytest.approx(found[1], rel=0.02)


def test_a_wrapper_of_the_model_is_followed() -> None:
    model = nn.Linear(3, 2)
    monitor = gn.NoiseMonitor(model, every=1, source="samples")
    wrapper = torch.compile(model, backend="eager")
    monitor.follow(wrapper)
    assert monitor.model is wrapper


def test_another_model_is_not_followed() -> None:
    monitor = gn.NoiseMonitor(nn.Linear(3, 2))
    with pytest.raises(gn.ArgumentError, match="it has other trainable parameters"):
        monitor.follow(nn.Sequential(nn.Linear(3, 2)))


@pytest.mark.parametrize(
    ("batch", "critical", "is_told"), [(32, None, False), (320, None, True), (320, 1e6, False)]
)
def test_a_large_batch_is_told_beyond_a_factor_and_where_nothing_speaks_against_it(
    batch: int,
    critical: float | None,
    is_told: bool,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """B_simple = 10, surely: trΣ = 10 and |G|² = 1 with little noise."""
    if critical is not None:
        known = gn.Estimate(critical, critical / 5, critical * 5, 0.95, math.nan, 9)
        monkeypatch.setattr(gn.NoiseMonitor, "critical_batch_size", known)
    monitor, draw = gn.NoiseMonitor(nn.Linear(2, 2)), torch.Generator().manual_seed(0)
    for _ in range(15):
        noise = 1 + 0.01 * torch.randn(2, generator=draw)
        monitor.update(11 * noise[0], (1 + 10 / batch) * noise[1], 1, batch)
    assert float(monitor.noise_scale) == pytest.approx(10, rel=0.05)
    assert ("more samples hardly help" in caplog.text) is is_told


def test_the_noise_of_norm_layers_gives_no_critical_batch_size() -> None:
    model = nn.Sequential(nn.Linear(6, 8), nn.LayerNorm(8), nn.Linear(8, 3)).double()
    data, found = batch_of("mlp"), {}
    optimizer = torch.optim.SGD(model.parameters(), 0.05)
    for source in ("samples", "norm_layers"):
        monitor = gn.NoiseMonitor(
            model, optimizer, every=1, source=source, loss_fn=classified, data=data
        )
        for _ in range(12):
            optimizer.zero_grad()
            with monitor.step() as step:
                step.loss = classified(model, data).mean()
                step.loss.backward()
            optimizer.step()
        found[source] = monitor.critical_batch_size.status
    assert found["samples"] is not gn.Status.NO_INTERVAL
    assert found["norm_layers"] is gn.Status.NO_INTERVAL
