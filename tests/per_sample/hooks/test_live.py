"""Norms in the user's own passes: right on every layer, or refused; and nothing is changed."""

from __future__ import annotations

import gc
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import gradnoise as gn
from gradnoise.per_sample.hooks.live import LivePass, _LiveReplay, live_plan
from tests.cases import named
from tests.layer_cases import LAYERS, squares

FUSED, IN_PLACE = "is one fused operation", "is a view, and is changed in place"
REFUSED = {
    **dict.fromkeys(
        (
            *("embedding bag, mean", "embedding bag, sum with padding", "embedding bag, max"),
            *("LSTM", "LSTM, two layers, both directions", "LSTM with projection, without bias"),
            *("GRU", "GRU with a learned initial state", "LSTM cell", "GRU cell", "RNN cell"),
        ),
        FUSED,
    ),
    "last state of a time-first RNN": "some gradients are zero",
    "outputs behind a layer, changed in place": IN_PLACE,
    # nothing is said here: the comparison with the gradient finds them (monitor/samples.py)
    "custom autograd function": "",
    "custom function beside layers": "",
}


def arguments(batch: Any) -> tuple[tuple[Any, ...], int]:
    args = batch if isinstance(batch, tuple) else (batch,)
    return args, len(args[0])


def measured(model: nn.Module, loss_fn: Any, batch: Any, **options: Any) -> LivePass:
    """One forward and backward pass of the mean loss."""
    args, count = arguments(batch)
    parameters = {n: p for n, p in model.named_parameters() if p.requires_grad}
    own = LivePass(parameters, count, live_plan(model, args, {}, count), **options)
    own.begin()
    try:
        losses = loss_fn(model, batch)
    finally:
        own.forward_done()
    losses.sum().backward()
    return own


def alone(model: nn.Module, loss_fn: Any, batch: Any) -> dict[str, Tensor]:
    """g_i of every parameter, by plain autograd."""
    trainable = {n: p for n, p in model.named_parameters() if p.requires_grad}
    names, parameters = zip(*trainable.items(), strict=True)
    rows = [
        torch.autograd.grad(loss, parameters, retain_graph=True, materialize_grads=True)
        for loss in loss_fn(model, batch)
    ]
    columns = zip(*rows, strict=True)
    return {
        n: torch.stack([g.to_dense() for g in g_i]) for n, g_i in zip(names, columns, strict=True)
    }


def test_the_layers_refused_are_in_the_table() -> None:
    assert set(REFUSED) <= {case.name for case in LAYERS}


@pytest.mark.parametrize("case", [c for c in LAYERS if c.name not in REFUSED], ids=named)
def test_norms_and_sums_are_those_of_single_samples(case: Any) -> None:
    model, loss_fn, batch = case.build()
    directions = {n: torch.randn(2, *p.shape).double() for n, p in model.named_parameters()}
    state = torch.get_rng_state()
    norms, along = measured(model, loss_fn, batch, directions=directions).sums()
    gradients = {n: p.grad for n, p in model.named_parameters()}
    for name, own in alone(model, loss_fn, batch).items():
        torch.testing.assert_close(float(norms[name]), float(own.square().sum()), rtol=1e-9, atol=0)
        expected = (own.sum(0) * directions[name]).reshape(2, -1).sum(1)
        torch.testing.assert_close(along[name], expected, rtol=1e-9, atol=1e-10)
    assert torch.equal(torch.get_rng_state(), state)
    model.zero_grad()
    loss_fn(model, batch).sum().backward()
    for name, parameter in model.named_parameters():  # bit by bit those without hooks
        if parameter.grad is None:
            assert gradients[name] is None
        else:
            assert torch.equal(gradients[name].to_dense(), parameter.grad.to_dense())


@pytest.mark.parametrize("case", [c for c in LAYERS if REFUSED.get(c.name)], ids=named)
def test_what_cannot_be_followed_is_refused(case: Any) -> None:
    model, loss_fn, batch = case.build()
    if REFUSED[case.name] == IN_PLACE:  # is seen as it happens
        own = measured(model, loss_fn, batch)
        assert own.sums() is None
        assert IN_PLACE in own.reason
        return
    with pytest.raises(gn.EngineError, match=REFUSED[case.name]):
        measured(model, loss_fn, batch)


@pytest.mark.parametrize("rows", [slice(0, None, 3), slice(1, None, 2)])
@pytest.mark.parametrize("case", [c for c in LAYERS if c.name not in REFUSED], ids=named)
def test_some_rows_alone_are_scaled_to_all(case: Any, rows: slice) -> None:
    model, loss_fn, batch = case.build()
    norms, _ = measured(model, loss_fn, batch, rows=rows).sums()
    for name, own in alone(model, loss_fn, batch).items():
        expected = float(own.reshape(len(own), -1)[rows].square().sum(1).mean()) * len(own)
        assert float(norms[name]) == pytest.approx(expected, rel=1e-9)


def test_some_parameters_alone() -> None:
    model, batch = nn.Sequential(nn.Linear(4, 4), nn.LayerNorm(4)).double(), torch.randn(6, 4)
    norms, _ = measured(model, squares, batch.double(), only=["1.weight"]).sums()
    assert list(norms) == ["1.weight"]
    expected = alone(model, squares, batch.double())["1.weight"].square().sum()
    assert float(norms["1.weight"]) == pytest.approx(float(expected), rel=1e-9)


class Switching(nn.Module):
    """Other operations in other passes."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.switch = nn.Linear(4, 4), nn.Linear(4, 4), False

    def forward(self, x: Tensor) -> Any:
        hidden = self.first(x) * (self.second.weight.sum() if self.switch else 1.0)
        return self.second(hidden)


def test_operations_that_change_are_noticed_and_run() -> None:
    model, batch = Switching().double(), torch.randn(6, 4).double()
    plan = live_plan(model, (batch,), {}, 6)
    model.switch = True
    own = LivePass(dict(model.named_parameters()), 6, plan)
    own.begin()
    outputs = model(batch)
    own.forward_done()
    assert torch.equal(outputs, model(batch))
    outputs.sum().backward()
    assert own.sums() is None
    assert own.reason.startswith("the operations of the model are not those of the steps before")


def test_a_part_that_is_not_differentiated() -> None:
    model, batch = nn.Linear(4, 3).double(), torch.randn(6, 4).double()
    own = LivePass(dict(model.named_parameters()), 6, live_plan(model, (batch,), {}, 6))
    own.begin()
    model(batch)
    own.forward_done()
    assert own.is_untouched
    assert own.sums() is None
    assert "was not differentiated" in own.reason


def test_an_error_in_a_hook_does_not_reach_the_backward_pass(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def fails(*_: Any) -> None:
        raise RuntimeError("out of luck")

    monkeypatch.setattr(LivePass, "arrive", fails)
    model, batch = nn.Linear(4, 3).double(), torch.randn(6, 4).double()
    own = measured(model, squares, batch)
    assert own.sums() is None
    assert own.reason == "RuntimeError: out of luck"
    assert model.weight.grad is not None


def test_an_error_in_a_twin_does_not_reach_the_forward_pass(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def fails(*_: Any) -> None:
        raise RuntimeError("out of memory")

    model = nn.utils.parametrizations.weight_norm(nn.Linear(4, 3)).double()
    batch = torch.randn(6, 4).double()
    plan = live_plan(model, (batch,), {}, 6)
    monkeypatch.setattr(_LiveReplay, "twin", fails)
    own = LivePass(dict(model.named_parameters()), 6, plan)
    own.begin()
    model(batch).square().sum().backward()
    own.forward_done()
    assert own.sums() is None
    assert own.reason == "RuntimeError: out of memory"
    assert all(parameter.grad is not None for parameter in model.parameters())


def test_inputs_by_name_and_inputs_without_samples() -> None:
    class Shifted(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(4, 3)

        def forward(self, x: Tensor, shift: Tensor, factor: float) -> Any:
            return {"logits": self.layer(x + shift) * factor, "loss": torch.zeros(())}

    model, x, shift = Shifted().double(), torch.randn(6, 4).double(), torch.randn(1, 4).double()
    (step,) = live_plan(model, (), {"x": x, "shift": shift, "factor": 2.0}, 6)
    assert step.func is nn.functional.linear
    assert step.layout is not None


@pytest.mark.parametrize(
    ("model", "said"),
    [
        (nn.Sequential(nn.Linear(4, 3), nn.BatchNorm1d(3)), "one sample changes the loss of"),
        (nn.Sequential(nn.Linear(4, 3), nn.Flatten(0)), "no tensor with one entry per sample"),
    ],
)
def test_what_has_no_samples_apart_is_refused(model: nn.Module, said: str) -> None:
    with pytest.raises(gn.GradNoiseError, match=said):
        live_plan(model, (torch.randn(6, 4),), {}, 6)


def test_experts_that_data_choose_are_refused() -> None:
    class Routed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.experts = nn.ModuleList([nn.Linear(4, 4), nn.Linear(4, 4)])

        def forward(self, x: Tensor) -> Any:
            outputs = torch.zeros_like(x)
            for k, expert in enumerate(self.experts):
                rows = ((x[:, 0] > 0) == bool(k)).nonzero().flatten()
                outputs = outputs.index_add(0, rows, expert(x[rows]))
            return outputs

    with pytest.raises(gn.EngineError):
        live_plan(Routed().double(), (torch.randn(12, 4).double(),), {}, 12)


def test_random_numbers_of_other_devices_are_not_touched(monkeypatch: pytest.MonkeyPatch) -> None:
    """torch would warn where there are several, and open all of them."""
    forked, fork = [], torch.random.fork_rng

    def spy(devices: Any = None) -> Any:
        forked.append(devices)
        return fork(devices)

    monkeypatch.setattr(torch.random, "fork_rng", spy)
    model = nn.Linear(3, 2).double()
    own = measured(model, squares, torch.randn(8, 3).double())
    assert own.sums() is not None
    assert forked
    assert forked[-1] == []


class Made(nn.Module):
    """Meets parameters with tensors of its own that have a row for every sample."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.kind, self.last = kind, nn.Linear(4, 1)
        self.table = nn.Embedding(5, 4)
        self.weight = nn.Parameter(torch.randn(4, 4))
        self.scale = nn.Parameter(torch.randn(4))

    def forward(self, x: Tensor) -> Tensor:
        n, made = len(x), x
        if self.kind == "positions":
            made = x[:, None] + self.table(torch.arange(5).unsqueeze(0).expand(n, 5))
        elif self.kind == "types":
            made = x + self.table(torch.zeros(n, dtype=torch.long))
        elif self.kind == "ones":
            made = x + self.scale * torch.ones(n, 1).double()
        elif self.kind == "states":
            made = x + nn.functional.linear(torch.ones(n, 4).double(), self.weight, self.scale)
        elif self.kind == "gates":
            made = x * self.scale + x[:, :1] * self.scale
        out: Tensor = self.last(torch.tanh(made))
        return out.reshape(n, -1).sum(1)


@pytest.mark.parametrize("rows", [slice(0, None, 3), slice(1, None, 8), slice(2, None, 2)])
@pytest.mark.parametrize("kind", ["positions", "types", "ones", "states", "gates"])
def test_rows_of_what_the_model_makes_itself(kind: str, rows: slice) -> None:
    torch.manual_seed(0)
    model, batch = Made(kind).double(), torch.randn(9, 4).double()

    def loss(model: nn.Module, batch: Tensor) -> Any:
        return model(batch).square()

    sums = measured(model, loss, batch, rows=rows).sums()
    assert sums is not None
    for name, own in alone(model, loss, batch).items():
        expected = float(own.reshape(9, -1)[rows].square().sum(1).mean()) * 9
        assert float(sums[0][name]) == pytest.approx(expected, rel=1e-9)


def graphs() -> int:
    """Tensors with a graph that are not let go."""
    gc.collect()
    tensors = [t for t in gc.get_objects() if isinstance(t, torch.Tensor)]
    return sum(t.grad_fn is not None for t in tensors)


def test_a_plan_leaves_no_graph_behind() -> None:
    """Operations that save their own output would hold themselves: tanh, softmax, exp."""
    model = nn.Sequential(nn.Linear(4, 4), nn.Tanh(), nn.Linear(4, 4), nn.Softmax(1))
    before = graphs()
    live_plan(model, (torch.randn(9, 4),), {}, 9)
    assert graphs() == before
