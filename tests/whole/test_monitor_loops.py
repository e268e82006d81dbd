"""What training loops do to `gn.NoiseMonitor`: its number is right, or one line says why not."""

from __future__ import annotations

import contextlib
import copy
import gc
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

import gradnoise as gn
from gradnoise.monitor.samples import AGAIN
from tests.monitored import classified, contributions, of_parts, of_samples, parted, train_step

SOURCES = ("samples", "micro_batches")
Batch = tuple[Tensor, Tensor]


def mlp() -> nn.Module:
    return nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 3)).double()


def drawn(size: int = 24) -> Batch:
    return torch.randn(size, 6).double(), torch.randint(3, (size,))


def watching(model: nn.Module, source: str, **options: Any) -> gn.NoiseMonitor:
    """Of the last step alone."""
    return gn.NoiseMonitor(model, every=1, source=source, max_samples=None, decay=1e-9, **options)


def check(monitor: gn.NoiseMonitor, model: nn.Module, parts: list[Batch]) -> None:
    """The last step has the numbers of plain autograd."""
    rows = contributions(model, classified, parts)
    expected = (
        of_samples(rows)
        if monitor.source == "samples"
        else of_parts(rows, [len(part[1]) for part in parts])
    )
    assert monitor.notes == []
    found = float(monitor.trace_cov), float(monitor.grad_sq_norm)
    assert found == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("source", SOURCES)
class TestGradients:
    """`.grad` in the hands of the loop."""

    @pytest.mark.parametrize("set_to_none", [True, False])
    def test_set_to_zero_when_the_step_has_begun(self, source: str, set_to_none: bool) -> None:
        model, parts = mlp(), parted(drawn(), (12, 12))
        monitor = watching(model, source)
        for _ in range(3):
            with monitor.step():
                model.zero_grad(set_to_none)
                train_step(model, classified, parts)
        check(monitor, model, parts)

    def test_of_a_parameter_that_takes_no_part_in_this_step(self, source: str) -> None:
        model = nn.ModuleDict({"used": mlp(), "other": nn.Linear(6, 3).double()})
        model.forward = lambda x: model["used"](x)
        parts = parted(drawn(), (12, 12))
        model["other"](parts[0][0]).sum().backward()
        monitor = watching(model, source)
        with monitor.step():
            train_step(model, classified, parts)
        check(monitor, model, parts)

    @pytest.mark.parametrize(
        "change",
        [
            lambda model: nn.utils.clip_grad_norm_(model.parameters(), 0.01),
            lambda model: model.zero_grad(),
            lambda model: model.zero_grad(set_to_none=False),
        ],
        ids=["clipped", "none", "zero"],
    )
    def test_changed_before_the_step_is_closed(
        self, source: str, change: Callable[[nn.Module], object]
    ) -> None:
        model = mlp()
        monitor = watching(model, source)
        with pytest.warns(UserWarning, match="was changed inside of the step"), monitor.step():  # noqa: PT031
            train_step(model, classified, parted(drawn(), (12, 12)))
            change(model)
        assert (monitor.measured, monitor.skipped) == (0, 1)
        assert "micro-batches" not in monitor.notes[0]

    @pytest.mark.parametrize("whole", [True, False])
    def test_unscaled_before_the_step_is_closed(self, source: str, whole: bool) -> None:
        model = mlp()
        optimizer = torch.optim.SGD(model.parameters(), 0.1)
        scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)
        monitor = watching(model, source)
        with pytest.warns(UserWarning, match="was changed inside"), monitor.step():  # noqa: PT031
            train_step(model, classified, parted(drawn(), (12, 12)), scale=1024.0)
            scaler.scale(torch.ones(()))
            scaler.step(optimizer) if whole else scaler.unscale_(optimizer)
        assert monitor.measured == 0

    def test_an_optimizer_inside_of_the_step_changes_no_gradient(self, source: str) -> None:
        model, parts = mlp(), parted(drawn(), (12, 12))
        optimizer = torch.optim.AdamW(model.parameters(), 0.0)
        monitor = watching(model, source)
        for _ in range(2):
            with monitor.step():
                optimizer.zero_grad()
                train_step(model, classified, parts)
                nn.utils.clip_grad_norm_(model.parameters(), 1e9)
                optimizer.step()
        check(monitor, model, parts)

    def test_changed_between_micro_batches(self, source: str) -> None:
        model = mlp()
        monitor = watching(model, source)
        with pytest.warns(UserWarning, match="was changed inside of the step"), monitor.step():  # noqa: PT031
            for part in parted(drawn(), (12, 12)):
                model.zero_grad()
                train_step(model, classified, [part])
        assert monitor.measured == 0

    def test_never_written(self, source: str) -> None:
        model = mlp()
        monitor = watching(model, source)
        with pytest.warns(UserWarning, match="not added to `.grad`"), monitor.step():  # noqa: PT031
            for part in parted(drawn(), (12, 12)):
                torch.autograd.grad(classified(model, part).mean(), [*model.parameters()])
        assert monitor.measured == 0


def freeze(model: Any) -> None:
    model[0].requires_grad_(False)


def thaw(model: Any) -> None:
    model[1].requires_grad_(True)


def replace(model: Any) -> None:
    model[2].weight = nn.Parameter(2 * model[2].weight.detach())


def assign(model: nn.Module) -> None:
    state = {name: 2 * value for name, value in model.state_dict().items()}
    model.load_state_dict(state, assign=True)


@pytest.mark.parametrize("source", [*SOURCES, "norm_layers"])
@pytest.mark.parametrize("change", [freeze, thaw, replace, assign])
def test_parameters_that_change_between_steps(
    change: Callable[[nn.Module], None], source: str
) -> None:
    model = nn.Sequential(nn.Linear(6, 8), nn.LayerNorm(8), nn.Linear(8, 3)).double()
    if change is thaw:
        model[1].weight.requires_grad_(False)
    parts = parted(drawn(), (12, 12))
    monitor = watching(model, source, layers=True)
    for _ in range(2):
        model.zero_grad()
        with monitor.step():
            train_step(model, classified, parts)
        if monitor.measured == 1:
            change(model)
    assert monitor.measured == 2
    if source == "norm_layers":
        model.requires_grad_(False)
        model[1].requires_grad_(True)
        rows = contributions(model, classified, parts)
        assert float(monitor.trace_cov) == pytest.approx(of_samples(rows)[0], rel=1e-6)
    else:
        check(monitor, model, parts)


def test_batch_normalisation_that_begins_to_couple() -> None:
    model = nn.Sequential(nn.Linear(6, 4), nn.BatchNorm1d(4), nn.Linear(4, 3)).double()
    batch = drawn()
    classified(model, batch)  # statistics
    model[1].eval()
    monitor = watching(model, "samples")
    with monitor.step():
        train_step(model, classified, [batch])
    model.train()
    with pytest.warns(UserWarning, match="batch normalisation"), monitor.step():
        train_step(model, classified, [batch])
    assert monitor.measured == 1


class Nested(nn.Module):
    """Calls itself, or stops."""

    def __init__(self) -> None:
        super().__init__()
        self.inner, self.last = nn.Linear(6, 6), nn.Linear(6, 3)
        self.error: BaseException | None = None

    def forward(self, x: Tensor, depth: int = 2) -> Any:
        inner = self.inner(x)
        if self.error is not None:
            raise self.error
        return self(inner, depth - 1) if depth else self.last(x)


def test_an_interrupt_in_the_forward_pass_leaves_nothing() -> None:
    model, batch = Nested().double(), drawn()
    model.forward = lambda x: Nested.forward(model, x, 0)
    monitor = watching(model, "samples")
    with monitor.step():
        train_step(model, classified, [batch])
    model.error = KeyboardInterrupt()
    with pytest.raises(KeyboardInterrupt), monitor.step():
        train_step(model, classified, [batch])
    assert torch.overrides._len_torch_function_stack() == 0
    assert not model._forward_hooks


class Tied(nn.Module):
    """A table that is used twice, with positions: gradients that are added before the norm."""

    def __init__(self) -> None:
        super().__init__()
        self.table, self.places = nn.Embedding(11, 8), nn.Embedding(5, 8)
        self.inner = nn.utils.parametrizations.weight_norm(nn.Linear(8, 8))

    def forward(self, ids: Tensor) -> Any:
        hidden = self.table(ids) + self.places(torch.arange(ids.shape[1]))
        return self.inner(hidden).relu() @ self.table.weight.T


def tensors() -> int:
    return sum(issubclass(type(found), Tensor) for found in gc.get_objects())


@pytest.mark.parametrize("interrupted", [False, True])
def test_no_tensor_waits_for_the_garbage_collector(interrupted: bool) -> None:
    """On a device they would be the logits of a batch."""
    model, batch = Tied(), (torch.randint(11, (12, 5)), torch.randint(11, (12, 5)))
    monitor = gn.NoiseMonitor(model, every=1, source="samples", max_samples=4)

    def step() -> None:
        model.zero_grad()
        with monitor.step():
            loss = classified(model, batch).mean()
            if interrupted and monitor.measured > 1:
                raise ValueError
            loss.backward()

    for _ in range(2):
        step()
    model.zero_grad()
    gc.collect()
    before = tensors()
    gc.disable()
    try:
        for _ in range(3):
            with contextlib.suppress(ValueError):
                step()
        model.zero_grad()
        assert tensors() == before
    finally:
        gc.enable()


def test_a_model_that_calls_itself() -> None:
    model, parts = Nested().double(), parted(drawn(), (12, 12))
    monitor = watching(model, "samples")
    with pytest.warns(UserWarning, match="the model calls itself"), monitor.step():
        train_step(model, classified, parts)
    assert torch.overrides._len_torch_function_stack() == 0
    model.zero_grad()
    monitor = watching(model, "micro_batches")
    with monitor.step():
        train_step(model, classified, parts)
    check(monitor, model, parts)


class Scaled(nn.Module):
    """A parameter is computed from parameters inside of a checkpoint."""

    def __init__(self) -> None:
        super().__init__()
        self.inner, self.last = nn.Linear(6, 6), nn.Linear(6, 3)
        self.log_scale = nn.Parameter(torch.randn(6))

    def block(self, x: Tensor) -> Tensor:
        return self.inner(x).tanh() * self.log_scale.exp()

    def forward(self, x: Tensor) -> Any:
        return self.last(checkpoint(self.block, x, use_reentrant=False))


def test_parameters_that_are_computed_inside_of_a_checkpoint() -> None:
    model, parts = Scaled().double(), parted(drawn(), (12, 12))
    monitor = watching(model, "samples")
    with monitor.step():
        train_step(model, classified, parts)
    check(monitor, model, parts)


@pytest.mark.parametrize("reentrant", [True, False])
def test_a_whole_model_inside_of_a_checkpoint(reentrant: bool) -> None:
    model, batch = mlp(), drawn()
    plain = copy.deepcopy(model)
    train_step(plain, classified, [batch])

    def checkpointed(own: nn.Module, part: Batch) -> Tensor:
        logits = checkpoint(own, part[0].requires_grad_(), use_reentrant=reentrant)
        return nn.functional.cross_entropy(logits, part[1], reduction="none")

    monitor = watching(model, "samples")
    if reentrant:
        with monitor.step():
            train_step(model, checkpointed, [batch])
        check(monitor, model, [batch])
    else:
        with pytest.warns(UserWarning, match="was not differentiated"), monitor.step():
            train_step(model, checkpointed, [batch])
    for own, other in zip(model.parameters(), plain.parameters(), strict=True):
        assert own.grad is not None
        torch.testing.assert_close(own.grad, other.grad)


@pytest.mark.filterwarnings("ignore:gradnoise")
@pytest.mark.parametrize("source", SOURCES)
def test_a_micro_batch_without_samples(source: str) -> None:
    model, batch = mlp(), drawn()
    monitor = watching(model, source)
    for sizes in ((12, 12), (24, 0)):
        model.zero_grad()
        with monitor.step():
            for inputs, _ in parted(batch, sizes):
                model(inputs).square().sum().backward()
    assert monitor.measured == 1
    assert monitor.notes[0].startswith("a micro-batch without samples")


def test_a_loss_that_changes_is_noticed_at_the_next_comparison() -> None:
    model, batch = mlp(), drawn()
    monitor = gn.NoiseMonitor(model, every=1, source="samples")

    def step(penalty: float) -> None:
        model.zero_grad()
        with monitor.step():
            (classified(model, batch).mean() + penalty * model[0].weight.square().sum()).backward()

    for _ in range(AGAIN):
        step(0.0)
    with pytest.warns(UserWarning, match="do not add up to that of parameter '0.weight'"):
        step(1.0)
    step(1.0)
    assert (monitor.measured, monitor.skipped) == (AGAIN, 2)
    step(0.0)
    assert monitor.measured == AGAIN + 1


@pytest.mark.parametrize("source", SOURCES)
def test_a_copy_of_the_model_is_not_the_model(source: str) -> None:
    model, parts = mlp(), parted(drawn(), (12, 12))
    monitor = watching(model, source)
    with monitor.step():
        (own,) = model._forward_pre_hooks.values()
        average = copy.deepcopy(model)
        for part in parts:
            classified(average, part)
            train_step(model, lambda *own: classified(*own) / 2, [part])
    check(monitor, model, parts)
    (kept,) = average._forward_pre_hooks.values()
    assert kept.__self__ is own.__self__  # and not a copy of it, of the model and its gradients
    classified(average, parts[0]).sum().backward()
    assert torch.overrides._len_torch_function_stack() == 0


@pytest.mark.parametrize(
    ("outer", "inner"), [SOURCES, SOURCES[::-1], ("micro_batches", "micro_batches")]
)
def test_two_monitors(outer: str, inner: str) -> None:
    model, parts = mlp(), parted(drawn(), (12, 12))
    first, second = watching(model, outer), watching(model, inner)
    with first.step(), second.step():
        train_step(model, classified, parts)
    for monitor in (first, second):
        check(monitor, model, parts)


@pytest.mark.parametrize("shares", [None, [0.8, 0.2]])
def test_samples_of_a_small_micro_batch_weigh_more(shares: list[float] | None) -> None:
    """Unbiased with equal micro-batches, or equal samples; here in the mean over 2 000 steps."""
    source = torch.Generator().manual_seed(0)
    model = nn.Linear(6, 1, bias=False).double()
    monitor = gn.NoiseMonitor(model, every=1, source="samples", max_samples=None, decay=1.0)
    for _ in range(2000):
        model.zero_grad()
        with monitor.step(shares=shares):
            for size, share in zip((8, 2), shares or (0.5, 0.5), strict=True):
                noise = torch.randn(size, 6, generator=source, dtype=torch.float64)
                (share * model(0.5 + noise).mean()).backward()  # trΣ = 6, |G|² = 1.5
    for found, truth in ((monitor.trace_cov, 6.0), (monitor.grad_sq_norm, 1.5)):
        assert abs(float(found) - truth) < 4 * found.stderr


def test_one_sample_a_forward_pass() -> None:
    model = mlp()
    monitor = watching(model, "samples")
    with pytest.warns(UserWarning, match="one sample does not tell where"), monitor.step():
        train_step(model, classified, parted(drawn(2), (1, 1)))
    assert "split the step" in monitor.notes[0]


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"shares": [16, 8]}, "have to add up to 1; got a sum of 24"),
        ({"shares": [1.5, -0.5]}, "a share below zero"),
        ({"batch_size": 0}, "a micro-batch without samples"),
    ],
)
def test_sizes_and_shares_that_cannot_be(options: dict[str, Any], told: str) -> None:
    model = mlp()
    monitor = watching(model, "micro_batches")
    with pytest.warns(UserWarning, match="gradnoise, step 1"), monitor.step(**options):
        train_step(model, classified, parted(drawn(), (16, 8)))
    assert told in monitor.notes[0]


@pytest.mark.parametrize("source", SOURCES)
def test_another_default_device(source: str) -> None:
    """As after `torch.set_default_device`: what the monitor counts with stays on the CPU."""
    model, parts = mlp(), parted(drawn(), (12, 12))
    with torch.device("meta"):
        monitor = watching(model, source)
        for _ in range(3):
            model.zero_grad()
            parts = [(2 * inputs, targets) for inputs, targets in parts]
            with monitor.step():
                train_step(model, classified, parts)
        monitor.load_state_dict(monitor.state_dict())
        assert "skipped" not in str(monitor)
    check(monitor, model, parts)


def test_a_resumed_run_measures_the_same_samples() -> None:
    model, batches = mlp(), [drawn(32) for _ in range(6)]

    def followed(resumed: bool) -> dict[str, float]:
        monitor = gn.NoiseMonitor(model, every=1, source="samples", max_samples=8)
        for k, batch in enumerate(batches):
            if resumed and k == 3:
                state = monitor.state_dict()
                monitor = gn.NoiseMonitor(model, every=1, source="samples", max_samples=8)
                monitor.load_state_dict(state)
            model.zero_grad()
            with monitor.step():
                train_step(model, classified, [batch])
        return monitor.values()

    assert followed(True) == followed(False)
