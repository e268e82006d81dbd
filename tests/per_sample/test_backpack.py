"""BackPACK as an engine: right where it is believed, refused elsewhere, nothing of it stays."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import gradnoise as gn
from gradnoise.moments.measure import stream
from gradnoise.per_sample.backpack import BackPACK
from gradnoise.per_sample.contract.summary import Summary, Wanted
from gradnoise.per_sample.loop import Loop
from gradnoise.problem.objective import Objective
from gradnoise.problem.problem import Problem
from tests import oracles
from tests.cases import CASES, SAMPLES, Case, features, images, mlp, named

REFUSED = {
    "embedding and LSTM": r"RuntimeError: expected scalar type Float",  # its embedding is float32
    "tied weights": r"encode.weight and decode.weight are one tensor",
    "a module called twice": r"calls module 'layer' 2 times",
    "parameters on the root": r"scale of RootParameter: nothing; layers.0 of ParameterList",
    "scripted": r"module '0' is scripted",
    "layer norm and unused parameters": r"used.weight of LayerNorm: nothing",
    "sparse embedding": r"NotImplementedError: Only sparse=False",
    "control flow on the data": r"calls module .* 2 times",
}
SERVED = {
    "MLP with cross-entropy",
    "MLP with mean squared error",
    "CNN",
    "summed squared error",
    "frozen parts",
    "nested dict batch",
    "UserDict batch",
    "batch of one tensor",
    "fused attention",
    "attention with a key bias",
    "outputs kept in a list",
    "batch norm in eval mode",
}
served = pytest.mark.parametrize("case", [c for c in CASES if c.name in SERVED], ids=named)
refused = pytest.mark.parametrize("case", [c for c in CASES if c.name in REFUSED], ids=named)

VARIANCE = Wanted(variance=True)


def square_loss(model: nn.Module, batch: Any) -> Tensor:
    return model(batch).flatten(1).square().sum(1)


def gradients(model: nn.Module, loss_fn: Any, batch: Any, engine: Any = BackPACK) -> Tensor:
    """Shape (n, P)."""
    objective = Objective(model, loss_fn)
    with objective.guard():
        chunks = list(engine(objective).chunks(batch))
    return torch.cat(
        [torch.cat([g.flatten(1) for g in chunk.gradients.values()], 1) for chunk in chunks]
    )


def summary(model: nn.Module, loss_fn: Any, batch: Any, wanted: Wanted = VARIANCE) -> Summary:
    objective = Objective(model, loss_fn)
    with objective.guard():
        (only,) = BackPACK(objective).summaries(batch, wanted)
    return only


def joined(parts: dict[str, Tensor] | None) -> Tensor:
    assert parts is not None
    return torch.cat([part.reshape(-1) for part in parts.values()])


def sums_agree(found: Summary, truth: Tensor, digits: float = 1e-9) -> None:
    close = {"rtol": digits, "atol": digits**1.4}
    norms = torch.stack(list(found.sq_norms.values())).sum(0)
    torch.testing.assert_close(norms, truth.square().sum(1), **close)
    torch.testing.assert_close(joined(found.total).double(), truth.sum(0), **close)
    rows = truth - truth.mean(0)
    torch.testing.assert_close(joined(found.squares), rows.square().sum(0), **close)
    assert found.centred_sq is not None
    assert sum(found.centred_sq.values()) == pytest.approx(float(rows.square().sum()))


def test_the_table_has_the_cases_named_here() -> None:
    assert {*SERVED, *REFUSED} <= {case.name for case in CASES}


@served
def test_gradients_are_those_of_single_samples(case: Case) -> None:
    truth = oracles.dense(*case.build(), second=False).gradients
    torch.testing.assert_close(gradients(*case.build()), truth, rtol=1e-9, atol=1e-12)


@served
def test_sums_are_those_of_single_samples(case: Case) -> None:
    truth = oracles.dense(*case.build(), second=False).gradients
    found = summary(*case.build())
    assert found.losses.shape == (SAMPLES,)
    assert not found.losses.requires_grad
    sums_agree(found, truth)


@refused
def test_what_it_would_get_wrong_is_refused_with_the_way_out(case: Case) -> None:
    with pytest.raises(gn.EngineError, match=REFUSED[case.name]) as told:
        gradients(*case.build())
    assert "engine='auto'" in str(told.value)
    with pytest.raises(gn.EngineError, match=REFUSED[case.name]):
        summary(*case.build())


def test_embedding_and_lstm_in_float32_are_served() -> None:
    case = CASES[3]
    assert case.name == "embedding and LSTM"
    truth = oracles.dense(*case.build(), second=False).gradients
    model, loss_fn, batch = case.build()
    sums_agree(summary(model.float(), loss_fn, batch), truth, digits=1e-5)


def test_slopes_along_a_direction_come_from_the_gradients() -> None:
    model, loss_fn, batch = CASES[0].build()
    direction = {name: torch.randn_like(p) for name, p in model.named_parameters()}
    found = summary(
        model, loss_fn, batch, Wanted(directions={n: own[None] for n, own in direction.items()})
    )
    assert found.dots is not None
    truth = oracles.dense(model, loss_fn, batch, second=False).gradients
    torch.testing.assert_close(sum(found.dots.values())[:, 0], truth @ joined(direction))


def layer(module: nn.Module, *shape: int) -> tuple[nn.Module, Tensor]:
    return nn.Sequential(module).double(), torch.randn(SAMPLES, *shape, dtype=torch.float64)


LAYERS: dict[str, Callable[[], tuple[nn.Module, Tensor]]] = {
    "a sequence": lambda: layer(nn.Linear(3, 2), 5, 3),
    "strided": lambda: layer(nn.Conv1d(4, 6, 3, stride=2, dilation=2), 4, 9),
    "transposed": lambda: layer(nn.ConvTranspose2d(2, 4, 3, stride=2), 2, 5, 5),
    "three dimensions": lambda: layer(nn.Conv3d(1, 2, 2), 1, 3, 3, 3),
    "batch norm": lambda: layer(nn.BatchNorm2d(3).eval(), 3, 4, 4),
    "grouped": lambda: layer(nn.Conv2d(4, 6, 3, groups=2), 4, 5, 5),
    "grouped and transposed": lambda: layer(nn.ConvTranspose2d(2, 4, 3, groups=2), 2, 5, 5),
}


@pytest.mark.parametrize("name", LAYERS)
def test_sums_of_layers_are_those_of_single_samples(name: str) -> None:
    model, batch = LAYERS[name]()
    truth = oracles.dense(model, square_loss, batch, second=False).gradients
    sums_agree(summary(model, square_loss, batch), truth)


class Wraps(nn.Module):
    """A layer, and what is done with it."""

    def __init__(self, inner: nn.Module, use: Callable[[Any, Tensor], Tensor]) -> None:
        super().__init__()
        self.inner, self.use = inner, use

    def forward(self, x: Tensor) -> Tensor:
        return self.use(self.inner, x)


def linear() -> nn.Module:
    return nn.Linear(4, 4)


def positions_first(inner: Any, x: Tensor) -> Tensor:
    """As many positions as there are samples, so that the shapes tell nothing."""
    rows = torch.stack([x * (t + 1) for t in range(len(x))])  # [positions, samples, 4]
    return torch.tanh(inner(rows)).transpose(0, 1)


WRONG = {
    "padding same": (
        lambda: nn.Conv2d(2, 3, 3, padding="same"),
        lambda inner, x: inner(x),
        "'inner' has padding 'same'",
    ),
    "padding circular": (
        lambda: nn.Conv2d(2, 3, 3, padding=1, padding_mode="circular"),
        lambda inner, x: inner(x),
        r"'inner' has padding \(1, 1\) in mode 'circular'",
    ),
    "positions first": (linear, positions_first, "inner.weight; inner.bias are not"),
    "samples reordered": (
        linear,
        lambda inner, x: torch.tanh(inner(x.flip(0))).flip(0),
        "inner.weight; inner.bias are not",
    ),
    "used beside its layer": (
        linear,
        lambda inner, x: torch.tanh(inner(x)) @ inner.weight,
        "inner.weight are not",
    ),
    "called again and detached": (
        linear,
        lambda inner, x: torch.tanh(inner(x)) * inner(x + 1).detach(),
        "'inner' 2 times",
    ),
    "never called": (
        linear,
        lambda inner, x: F.linear(x, inner.weight, inner.bias),
        "inner.weight of Linear: nothing; inner.bias",
    ),
    "samples flattened away": (
        lambda: nn.Linear(2, 2),
        lambda inner, x: inner(x.reshape(-1, 2)).reshape(len(x), -1),
        r"inner.weight of Linear: shape \(8, 2, 2\)",
    ),
    "initial state": (
        lambda: nn.RNN(4, 4, batch_first=True),
        lambda inner, x: inner(x[:, None], torch.ones(1, len(x), 4, dtype=x.dtype))[0],
        "inner.weight_hh_l0 are not",
    ),
    "changed in place": (
        linear,
        lambda inner, x: F.relu_(inner(x)),
        r"output of a layer in place.*Use relu\(x\) and not relu_\(x\)",
    ),
}


@pytest.mark.parametrize("name", WRONG)
def test_what_it_overlooks_is_refused(name: str) -> None:
    make, use, message = WRONG[name]
    model = Wraps(make(), use).double()
    batch = images()[0] if "padding" in name else features()
    with pytest.raises(gn.EngineError, match=message):
        summary(model, square_loss, batch)


@pytest.mark.parametrize("seed", range(4))
def test_a_gradient_that_is_only_rounding_is_not_held_against_it(seed: int) -> None:
    """The bias of attention keys has none: softmax does not see a shift."""

    def attend(inner: Any, x: Tensor) -> Tensor:
        weights = (inner["query"](x) @ inner["key"](x).transpose(1, 2)).softmax(-1)
        return inner["head"]((weights @ inner["value"](x)).mean(1))

    torch.manual_seed(seed)
    layers = {name: nn.Linear(8, 8) for name in ("query", "key", "value", "head")}
    model, batch = Wraps(nn.ModuleDict(layers), attend), torch.randn(SAMPLES, 5, 8)
    found = summary(model, square_loss, batch)
    truth = oracles.dense(model.double(), square_loss, batch.double(), second=False).gradients
    torch.testing.assert_close(joined(found.total).double(), truth.sum(0), rtol=1e-4, atol=1e-4)


def test_calls_without_gradients_do_not_count() -> None:
    def use(inner: Any, x: Tensor) -> Tensor:
        with torch.no_grad():
            scale = inner(x + 1)
        return torch.tanh(inner(x)) * scale

    model, batch = Wraps(linear(), use).double(), features()
    truth = oracles.dense(model, square_loss, batch, second=False).gradients
    sums_agree(summary(model, square_loss, batch), truth)


def test_long_lists_are_cut() -> None:
    model = nn.Sequential(*[nn.LayerNorm(4) for _ in range(4)]).double()
    with pytest.raises(gn.EngineError, match=r"2.weight of LayerNorm: nothing and 3 more\)"):
        summary(model, square_loss, features())


def test_without_backpack_it_says_how_to_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "backpack", None)
    with pytest.raises(gn.EngineError, match=r"pip install 'gradnoise\[backpack\]'.*engine='auto'"):
        BackPACK(Objective(mlp(), nn.CrossEntropyLoss()))


def test_relu_in_place_is_served_and_stays_in_place() -> None:
    relu = nn.ReLU(inplace=True)
    model, batch = nn.Sequential(nn.Linear(4, 5), relu, nn.Linear(5, 3)).double(), features()
    truth = oracles.dense(model, square_loss, batch, second=False).gradients
    sums_agree(summary(model, square_loss, batch), truth)
    assert relu.inplace


def test_parameters_without_part_in_the_loss_have_zeros() -> None:
    model = nn.ModuleDict({"used": nn.Linear(4, 3), "unused": nn.Linear(2, 2)}).double()

    def loss(model: nn.Module, batch: Any) -> Tensor:
        return square_loss(model["used"], batch)

    batch, weight = features(), model["unused"].weight
    weight.grad_batch = weight.batch_l2 = torch.ones(SAMPLES)  # of the user's own pass
    truth = oracles.dense(model, loss, batch, second=False).gradients
    assert not truth[:, -6:].any()
    torch.testing.assert_close(gradients(model, loss, batch), truth)
    sums_agree(summary(model, loss, batch), truth)


def test_losses_without_any_parameter_have_zeros() -> None:
    def loss(model: nn.Module, batch: Any) -> Tensor:
        return square_loss(model, batch).detach()

    assert not gradients(mlp().double(), loss, features()).any()


@pytest.mark.parametrize("rows", [1, 2, 4, 100])
def test_what_is_written_out_stays_within_the_memory_budget(rows: int) -> None:
    model, loss_fn, batch = CASES[0].build()
    objective = Objective(model, loss_fn)
    with objective.guard():
        engine = BackPACK(objective, memory_budget=4 * rows * 8 * objective.size)
        chunks = list(engine.chunks(batch))
        summaries = list(engine.summaries(batch, Wanted()))
    for parts in (chunks, summaries):
        assert max(len(part.losses) for part in parts) == min(rows, SAMPLES)
        assert sum(len(part.losses) for part in parts) == SAMPLES


def test_a_larger_batch_is_held_to_single_samples_anew() -> None:
    """A batch of one sample cannot tell in which order they are."""
    model = Wraps(linear(), lambda inner, x: torch.tanh(inner(x.flip(0))).flip(0)).double()
    objective, batch = Objective(model, square_loss), features()
    with objective.guard():
        engine = BackPACK(objective)
        list(engine.chunks(batch[:1]))
        with pytest.raises(gn.EngineError, match="are not those of single samples"):
            list(engine.chunks(batch))


def test_half_precision_is_squared_in_float64() -> None:
    """Squares of 3e-5 have no room in float16; their sums would be zero."""
    model, batch = nn.Linear(4, 3).half(), features().half()

    def loss(model: nn.Module, batch: Any) -> Tensor:
        return 3e-5 * model(batch).sum(1)

    truth = gradients(model, loss, batch, Loop).double()
    norms = torch.stack(list(summary(model, loss, batch).sq_norms.values())).sum(0)
    torch.testing.assert_close(norms, truth.square().sum(1), rtol=1e-2, atol=0)


def test_a_strong_signal_is_centred_before_it_is_squared() -> None:
    """Differences of squares in float32 keep no digit of a spread 1e-8 of the norms."""
    torch.manual_seed(0)
    model, batch = nn.Linear(4, 3, bias=False), 1 + 1e-4 * torch.randn(SAMPLES, 4)

    def loss(model: nn.Module, batch: Any) -> Tensor:
        return model(batch).sum(1)

    problem = Problem.open(model, loss, batch)
    truth = 3 * (batch.double() - batch.double().mean(0)).square().sum()
    with problem.guard():
        moments = stream(problem, BackPACK(problem.objective), variance=True)
    assert sum(moments.centred_sq.values()) == pytest.approx(float(truth), rel=1e-5)


def test_a_gradient_that_is_not_finite_is_named() -> None:
    model, batch = nn.Linear(4, 1, bias=False).double(), features()
    batch[2] = 0.0

    def loss(model: nn.Module, batch: Tensor) -> Tensor:
        return model(batch).square().sum(1).sqrt()

    with pytest.raises(gn.LossError, match=r"'weight' is not finite for 1 of 6 .*positions \[2\]"):
        summary(model, loss, batch)


def test_a_loss_that_is_not_finite_is_an_error() -> None:
    with pytest.raises(gn.LossError, match="the loss is not finite"):
        gradients(nn.Linear(4, 1).double(), lambda model, x: model(x).sum(1) / 0.0, features())


class Fails(torch.autograd.Function):
    """Raises in its backward pass."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, error: Exception) -> Tensor:
        ctx.error = error
        return x.clone()

    @staticmethod
    def backward(ctx: Any, *_: Tensor) -> Any:
        raise ctx.error


def test_memory_that_runs_out_is_not_taken_for_a_layer_that_is_not_supported() -> None:
    model = Wraps(linear(), lambda inner, x: inner(x)).double()
    error = torch.OutOfMemoryError("no memory left")

    def loss(model: nn.Module, batch: Any) -> Tensor:
        enough = len(batch) == 1  # single samples, to which it is held
        return (
            square_loss(model, batch) if enough else Fails.apply(square_loss(model, batch), error)
        )

    with pytest.raises(torch.OutOfMemoryError, match="no memory left"):
        gradients(model, loss, features())


def traces(model: nn.Module) -> list[Any]:
    """All that a module or a parameter carries, by identity."""
    found: list[Any] = []
    for holder in [*model.modules(), *model.parameters()]:
        for key, value in vars(holder).items():
            inside = value.values() if isinstance(value, dict) else value
            content = [*map(id, inside)] if isinstance(value, (dict, list)) else None
            found.append((id(holder), key, id(value), content))
    return found + [(id(p), id(p.grad)) for p in model.parameters()]


def of_the_user(model: nn.Module, extended: bool) -> None:
    """Hooks, gradients and results of BackPACK that are the user's own."""
    from backpack import extend

    for module in model.modules():
        if extended and not list(module.children()):
            extend(module)
        if not isinstance(module, torch.jit.ScriptModule):
            module.register_forward_hook(lambda *_: None)
    for parameter in model.parameters():
        parameter.grad = torch.ones_like(parameter)
        parameter.grad_batch = parameter.batch_l2 = torch.zeros(SAMPLES)  # type: ignore[attr-defined]


@pytest.mark.parametrize("extended", [False, True])
@pytest.mark.parametrize(
    "case", [case for case in CASES if case.name in SERVED | set(REFUSED)], ids=named
)
def test_the_model_is_left_as_found_also_after_an_error(case: Case, extended: bool) -> None:
    from backpack.context import CTX

    model, loss_fn, batch = case.build()
    of_the_user(model, extended and case.name != "scripted")
    truth = oracles.dense(*case.build(), second=False).gradients
    before, context = traces(model), (dict(vars(CTX)), list(CTX.hook_handles))
    if case.name in SERVED:
        sums_agree(summary(model, loss_fn, batch), truth)
    else:
        with pytest.raises(gn.EngineError) as held:
            summary(model, loss_fn, batch)
        assert held.value  # and with it every frame it went through
    assert traces(model) == before
    assert (dict(vars(CTX)), list(CTX.hook_handles)) == context


def test_old_backward_hooks_of_the_user_do_not_hinder_it() -> None:
    model, batch = mlp().double(), features()
    truth = oracles.dense(model, square_loss, batch, second=False).gradients
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model[0].register_backward_hook(lambda *_: None)  # type: ignore[operator]
    before = traces(model)
    sums_agree(summary(model, square_loss, batch), truth)
    assert traces(model) == before


def test_optimizers_that_step_in_the_backward_pass_do_not_step() -> None:
    model = nn.Linear(4, 3)
    model.weight.register_post_accumulate_grad_hook(lambda p: p.data.zero_())
    summary(model, square_loss, features().float())
    assert model.weight.any()


def test_it_does_not_repeat_the_warnings_of_hooks() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        summary(*CASES[0].build())
        with pytest.raises(gn.EngineError, match="LayerNorm: nothing"):
            summary(nn.LayerNorm(4).double(), square_loss, features())
