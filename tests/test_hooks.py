"""The hooks engine: every layer, every way of using a parameter, held to single samples."""

from __future__ import annotations

import gc
import weakref
from dataclasses import replace
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional as F
from torch.overrides import wrap_torch_function

import gradnoise as gn
from gradnoise.objective import Objective
from gradnoise.pergrad import Chunk, Summary, Wanted, choose
from gradnoise.pergrad.hooks import Hooks
from gradnoise.pergrad.layout import Layout
from gradnoise.pergrad.rules import RULES, At, add, linear

from . import oracles
from .cases import SAMPLES, Case, features, labelled, mlp, named
from .fuzz import examples
from .layer_cases import LAYERS, Function, first, ids, numbers, squares

ENGINES = ("hooks", "functional", "loop")
MATRIX = [(case, engine) for case in LAYERS for engine in ENGINES]
CLOSE = {"rtol": 1e-9, "atol": 1e-11}


def rows(parts: dict[str, Tensor]) -> Tensor:
    return torch.cat([part.reshape(len(part), -1) for part in parts.values()], 1)


def flat(parts: dict[str, Tensor]) -> Tensor:
    return torch.cat([part.reshape(-1) for part in parts.values()])


@pytest.mark.parametrize(
    ("case", "engine"), MATRIX, ids=lambda x: named(x) if isinstance(x, Case) else x
)
def test_gradients_and_sums_are_those_of_single_samples_or_refused(case: Case, engine: str) -> None:
    model, loss_fn, batch = case.build()
    if engine not in (*case.engines, "loop"):
        with pytest.raises(gn.EngineError, match=f"engine='{engine}' cannot measure this model"):
            gn.per_sample_sq_norms(model, loss_fn, batch, engine=engine)
        return
    truth = oracles.dense(model, loss_fn, batch, second=False).gradients
    gradients = gn.per_sample_gradients(model, loss_fn, batch, engine=engine)
    torch.testing.assert_close(rows(gradients), truth, **CLOSE)
    objective = Objective(model, loss_fn)
    along = {name: torch.randn_like(p) for name, p in objective.parameters.items()}
    with objective.guard():
        chosen = choose(objective, batch, engine)
        found = list(chosen.summaries(batch, Wanted(direction=along, variance=True)))
        scale = {name: torch.rand_like(p) for name, p in objective.parameters.items()}
        scaled = list(chosen.summaries(batch, Wanted(direction=along, scale=scale)))
    assert sum(len(part.losses) for part in found) == SAMPLES
    norms = torch.cat([torch.stack(list(part.sq_norms.values())).sum(0) for part in found])
    torch.testing.assert_close(norms, truth.square().sum(1), **CLOSE)
    torch.testing.assert_close(sum(flat(part.total) for part in found), truth.sum(0), **CLOSE)
    slopes = torch.cat([sum(part.dots.values()) for part in found])  # type: ignore[union-attr]
    torch.testing.assert_close(slopes, truth @ flat(along), **CLOSE)
    own = truth * flat(scale)
    norms = torch.cat([torch.stack(list(part.sq_norms.values())).sum(0) for part in scaled])
    torch.testing.assert_close(norms, own.square().sum(1), **CLOSE)
    torch.testing.assert_close(sum(flat(part.total) for part in scaled), own.sum(0), **CLOSE)
    slopes = torch.cat([sum(part.dots.values()) for part in scaled])  # type: ignore[union-attr]
    torch.testing.assert_close(slopes, own @ flat(along), **CLOSE)
    moments = gn.gradient_moments(model, loss_fn, batch, engine=engine, variance=True)
    assert moments.variance is not None
    torch.testing.assert_close(flat(moments.variance), truth.var(0), **CLOSE)


def test_the_matrix_holds_what_it_promises() -> None:
    assert len({case.name for case in LAYERS}) == len(LAYERS) >= 80
    refused = [case.name for case in LAYERS if "hooks" not in case.engines]
    assert refused == ["custom autograd function", "custom function beside layers"]


LAYER_KINDS = ("linear", "conv", "norm", "scale", "gru", "twice", "skip")


class Stack(nn.Module):
    """Random layers over (n, 4, 6): channels and positions, or positions and features."""

    def __init__(self, kinds: list[str]) -> None:
        super().__init__()
        make = {
            "linear": lambda: nn.Linear(6, 6),
            "conv": lambda: nn.Conv1d(4, 4, 3, padding=1, groups=2),
            "norm": lambda: nn.GroupNorm(2, 4),
            "scale": lambda: nn.ParameterDict({"g": torch.randn(4, 1), "b": torch.randn(6)}),
            "gru": lambda: nn.GRU(6, 6, batch_first=True),
            "twice": lambda: nn.Linear(6, 6, bias=False),
            "skip": lambda: nn.LayerNorm(6),
        }
        self.kinds, self.layers = kinds, nn.ModuleList(make[kind]() for kind in kinds)

    def forward(self, x: Tensor) -> Tensor:
        for kind, module in zip(self.kinds, self.layers, strict=True):
            if kind == "scale":
                x = x * module["g"] + module["b"]
            elif kind == "gru":
                x = module(x)[0]
            elif kind == "twice":
                x = module(module(x).tanh())
            elif kind == "skip":
                x = x + module(x)
            else:
                x = module(x)
        return x.tanh()


@examples(30)
@given(st.lists(st.sampled_from(LAYER_KINDS), min_size=1, max_size=6), st.integers(1, 9))
def test_random_networks_agree_with_single_samples(kinds: list[str], count: int) -> None:
    torch.manual_seed(len(kinds) + count)
    model, batch = Stack(kinds).double(), torch.randn(count, 4, 6, dtype=torch.float64)
    truth = oracles.dense(model, squares, batch, second=False).gradients
    norms = gn.per_sample_sq_norms(model, squares, batch, engine="hooks")
    torch.testing.assert_close(norms, truth.square().sum(1), **CLOSE)
    gradients = gn.per_sample_gradients(model, squares, batch, engine="hooks")
    torch.testing.assert_close(rows(gradients), truth, **CLOSE)


def summary(model: nn.Module, loss_fn: Any, batch: Any, wanted: Wanted | None = None) -> Summary:
    objective = Objective(model, loss_fn)
    with objective.guard():
        (found,) = Hooks(objective).summaries(batch, wanted or Wanted())
    return found


def test_a_plan_serves_batches_of_other_lengths_and_sizes() -> None:
    model = nn.Sequential(nn.Embedding(5, 4), nn.Linear(4, 3)).double()
    objective = Objective(model, squares)
    with objective.guard():
        engine = Hooks(objective)
        for length, count in ((4, 6), (7, 3), (1, 1), (3, 2)):
            batch = torch.randint(5, (count, length))
            (found,) = engine.summaries(batch, Wanted())
            truth = oracles.dense(model, squares, batch, second=False).gradients
            norms = torch.stack(list(found.sq_norms.values())).sum(0)
            torch.testing.assert_close(norms, truth.square().sum(1), **CLOSE)


def test_other_operations_get_another_plan() -> None:
    """A recurrent layer unrolled has as many operations as time steps."""
    model = Function(lambda self, x: self.r(x)[0], r=nn.GRU(3, 2, batch_first=True)).double()
    batches = [(torch.randn(6, length, 3, dtype=torch.float64),) for length in (4, 2, 5)]
    moments = gn.gradient_moments(model, squares, batches, engine="hooks")
    truth = torch.cat([oracles.dense(model, squares, b, second=False).gradients for b in batches])
    torch.testing.assert_close(moments.sq_norms, truth.square().sum(1), **CLOSE)


def test_operations_that_never_repeat_are_refused() -> None:
    calls = []

    def forward(self: Any, x: Tensor) -> Tensor:
        calls.append(None)
        return F.linear(x, self.w) if len(calls) % 2 else x @ self.w.T

    model = Function(forward, w=(3, 4)).double()
    with pytest.raises(gn.EngineError, match="change from one evaluation to the next"):
        summary(model, squares, features())


def test_samples_without_an_axis_of_their_own_are_named() -> None:
    model = Function(lambda self, x: torch.stack([self.a(row) for row in x]), a=nn.Linear(4, 3))
    with pytest.raises(gn.EngineError, match=r"linear gives a tensor of shape \(3,\)"):
        summary(model.double(), squares, features())


def test_parameters_used_unseen_are_named() -> None:
    case = next(case for case in LAYERS if case.name == "custom function beside layers")
    with pytest.raises(gn.EngineError, match="'w' is used where its samples cannot be seen"):
        summary(*case.build())


def test_a_model_that_is_random_is_not_followed() -> None:
    model = Function(lambda self, x: self.a(x) * torch.rand(()), a=nn.Linear(4, 3)).double()
    with pytest.raises(gn.EngineError, match="losses differ where the operations"):
        summary(model, squares, features())


def test_an_operation_of_several_outputs_is_refused() -> None:
    model = Function(lambda s, x: torch.native_layer_norm(x, (4,), s.w, None, 0.1)[0], w=(4,))
    with pytest.raises(gn.EngineError, match=r"native_layer_norm .* gives several outputs"):
        summary(model.double(), squares, features())


@pytest.mark.parametrize(
    ("factor", "message"),
    [
        (2, "the norms of parameter 'weight' differ from the plain ones"),
        (-1, "the gradient of parameter 'weight' differs from the plain one"),
    ],
)
def test_a_rule_that_is_wrong_is_noticed(
    factor: int, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def wrong(at: At, delta: Tensor, *arguments: Any) -> Any:
        return linear(at, factor * delta, *arguments)

    monkeypatch.setitem(RULES, F.linear, replace(RULES[F.linear], forms=wrong))
    with pytest.raises(gn.EngineError, match=message):
        summary(nn.Linear(4, 3).double(), squares, features())


FIVE = torch.linspace(-1, 1, 5 * 5 * 4, dtype=torch.float64).reshape(5, 5, 4)
AMBIGUOUS = {
    "several axes that could be those of the samples": (
        lambda s, x: torch.einsum("nti,io->tno", x, s.w).transpose(0, 1),
        {"w": (4, 3)},
        FIVE,
    ),
    r"an input of shape \(3, 4, 5\) has no axis of the samples": (
        lambda s, x: torch.einsum("tin,io->nto", x.permute(1, 2, 0), s.w),
        {"w": (4, 3)},
        FIVE[:, :3],
    ),
    "an operation whose samples cannot be told apart": (
        lambda s, x: torch.where(x > 0, x, s.w),
        {"w": (5, 4)},
        FIVE[:, 0],
    ),
    "a bias that differs between positions": (
        lambda s, x: torch.addmm(s.b, x, s.w),
        {"b": (5, 3), "w": (4, 3)},
        FIVE[:, 0],
    ),
}


@pytest.mark.parametrize("message", AMBIGUOUS)
def test_what_cannot_be_attributed_to_samples_is_refused(message: str) -> None:
    forward, shapes, batch = AMBIGUOUS[message]
    with pytest.raises(gn.EngineError, match=message):
        summary(Function(forward, **shapes).double(), squares, batch)


def test_a_parameter_written_into_activations_is_refused() -> None:
    def forward(self: Any, x: Tensor) -> Tensor:
        x = self.a(x)
        x[:, 0] = self.w
        return x

    model = Function(forward, a=nn.Linear(4, 3), w=()).double()
    with pytest.raises(gn.EngineError, match="written into a tensor in place, by setitem"):
        summary(model, squares, features())


def test_a_packed_sequence_is_refused() -> None:
    def forward(self: Any, x: Tensor) -> Tensor:
        packed = nn.utils.rnn.pack_padded_sequence(x, [3] * len(x), batch_first=True)
        return self.r(packed)[1][0]

    model = Function(forward, r=nn.GRU(3, 2, batch_first=True)).double()
    with pytest.raises(gn.EngineError, match="packed sequence"):
        summary(model, squares, numbers(3, 3)())


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (nn.Embedding(5, 3, scale_grad_by_freq=True), "scale_grad_by_freq"),
        (nn.EmbeddingBag(5, 3, scale_grad_by_freq=True, mode="sum"), "scale_grad_by_freq"),
    ],
)
def test_tables_that_couple_samples_are_refused(model: nn.Module, message: str) -> None:
    with pytest.raises(gn.EngineError, match=message):
        summary(model.double(), squares, ids(4)())


@pytest.mark.parametrize("options", [{"max_norm": 1.0}, {"offsets": True}])
def test_bags_of_other_kinds_are_refused(options: dict[str, Any]) -> None:
    def forward(self: Any, x: Tensor) -> Tensor:
        if "offsets" not in options:
            return F.embedding_bag(x, self.w, **options)
        return F.embedding_bag(x.reshape(-1), self.w, offsets=torch.arange(0, x.numel(), 4))

    with pytest.raises(gn.EngineError, match="an embedding bag with offsets, max_norm or"):
        summary(Function(forward, w=(5, 3)).double(), squares, ids(4)())


def test_a_parameter_with_an_entry_for_every_sample_is_refused() -> None:
    at, delta = At(Layout(0), SAMPLES, torch.float64), features()
    with pytest.raises(gn.EngineError, match="entries of its own for every sample"):
        add(at, delta, features(), torch.zeros(SAMPLES, 4))["other"]()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_is_summed_in_float32(dtype: torch.dtype) -> None:
    model, loss_fn, (inputs, labels) = mlp(), nn.CrossEntropyLoss(), labelled()
    truth = oracles.dense(model.double(), loss_fn, (inputs, labels), second=False).gradients
    found = summary(model.to(dtype), loss_fn, (inputs.to(dtype), labels))
    assert all(norm.dtype == torch.float64 for norm in found.sq_norms.values())
    norms = torch.stack(list(found.sq_norms.values())).sum(0)
    digits = 16 * torch.finfo(dtype).eps
    torch.testing.assert_close(norms, truth.square().sum(1), rtol=digits, atol=0)
    torch.testing.assert_close(flat(found.total).double(), truth.sum(0), rtol=0.1, atol=digits)


def test_squares_beyond_float16_are_summed_in_float32() -> None:
    model = nn.Linear(4, 3).half()
    inputs = 300 * torch.ones(SAMPLES, 4, dtype=torch.float16)

    def loss(model: nn.Module, x: Tensor) -> Tensor:
        return model(x).float().sum(1)

    found = summary(model, loss, inputs)  # 300² = 90 000 overflows float16
    expected = torch.full((SAMPLES,), 12 * 300.0**2).double()
    torch.testing.assert_close(found.sq_norms["weight"], expected)


def test_overflow_in_half_precision_is_reported() -> None:
    model = nn.Sequential(nn.Linear(4, 3), nn.Linear(3, 3)).half()
    inputs = 100 * torch.ones(SAMPLES, 4, dtype=torch.float16)

    def loss(model: nn.Module, x: Tensor) -> Tensor:
        return 1e6 * model(x).float().sum(1)

    with pytest.raises(gn.LossError, match=r"not finite .*overflow in half precision"):
        gn.per_sample_sq_norms(model, loss, inputs, engine="hooks")


def test_autocast_inside_the_loss_is_followed() -> None:
    model, (inputs, labels) = (
        nn.Sequential(nn.Linear(4, 5), nn.LayerNorm(5), nn.Linear(5, 3)),
        labelled(),
    )

    def loss(model: nn.Module, batch: Any) -> Tensor:
        with torch.autocast("cpu", torch.bfloat16):
            outputs = model(batch[0])
        return F.cross_entropy(outputs.float(), batch[1], reduction="none")

    batch = inputs.float(), labels
    singles = oracles.dense(model, loss, batch, second=False).gradients.double()
    assert choose_engine(model, loss, batch) == "hooks"
    norms = gn.per_sample_sq_norms(model, loss, batch)
    torch.testing.assert_close(norms, singles.square().sum(1), rtol=0.03, atol=0)


@pytest.mark.parametrize(
    "make",
    [
        lambda: nn.Linear(4, 4),
        lambda: torch.compile(nn.Linear(4, 4), backend="eager"),
        lambda: first(nn.MultiheadAttention(4, 2, batch_first=True)),
        lambda: first(nn.LSTM(4, 4, batch_first=True)),
    ],
    ids=["linear", "compiled", "attention", "lstm"],
)
@pytest.mark.parametrize("engine", ["auto", "functional", "loop"])
def test_autocast_within_parts_is_noticed(make: Any, engine: str) -> None:
    model, batch = make(), torch.randn(9, 5, 4)
    given = 3 if isinstance(getattr(model, "inner", None), nn.MultiheadAttention) else 1

    def loss(model: nn.Module, x: Tensor) -> Tensor:
        with torch.autocast("cpu", torch.bfloat16):
            outputs = model(*[x] * given)
        return outputs.float().square().sum((1, 2))

    objective = Objective(model, loss)
    with objective.guard():
        chosen = choose(objective, batch, engine)
    assert chosen.eps == torch.finfo(torch.bfloat16).eps


def choose_engine(model: nn.Module, loss_fn: Any, batch: Any) -> str:
    objective = Objective(model, loss_fn)
    with objective.guard():
        return choose(objective, batch).name


def test_compiled_models_run_the_code_that_was_compiled() -> None:
    model, loss_fn, batch = mlp().double(), nn.CrossEntropyLoss(), labelled()
    plain = gn.per_sample_sq_norms(model, loss_fn, batch)
    compiled = torch.compile(model, backend="eager")
    compiled(batch[0])
    assert choose_engine(compiled, loss_fn, batch) == "hooks"
    torch.testing.assert_close(gn.per_sample_sq_norms(compiled, loss_fn, batch), plain)
    inside = nn.Sequential(
        torch.compile(nn.Linear(4, 4), backend="eager"), nn.Linear(4, 3)
    ).double()
    assert choose_engine(inside, loss_fn, batch) == "hooks"


@pytest.mark.parametrize("frozen", ["0.weight", "0.bias", "2.weight"])
def test_frozen_parts_take_no_part(frozen: str) -> None:
    model, loss_fn, batch = mlp().double(), nn.CrossEntropyLoss(), labelled()
    model.get_parameter(frozen).requires_grad_(False)
    truth = oracles.dense(model, loss_fn, batch, second=False).gradients
    norms = gn.per_sample_sq_norms(model, loss_fn, batch, engine="hooks", per_parameter=True)
    assert frozen not in norms
    torch.testing.assert_close(torch.stack(list(norms.values())).sum(0), truth.square().sum(1))


def test_activations_changed_in_place_are_noticed_by_autograd() -> None:
    def forward(self: Any, x: Tensor) -> Tensor:
        hidden = self.a(x)
        outputs = self.b(hidden)
        hidden.mul_(2)
        return outputs

    model = Function(forward, a=nn.Linear(4, 4), b=nn.Linear(4, 3)).double()
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        summary(model, squares, features())


def test_nothing_of_a_pass_is_left_behind() -> None:
    model, loss_fn, batch = mlp().double(), nn.CrossEntropyLoss(), labelled()
    before = [dict(vars(module)) for module in model.modules()]
    summary(model, loss_fn, batch)
    assert [dict(vars(module)) for module in model.modules()] == before
    assert all(p.grad is None and not p._backward_hooks for p in model.parameters())
    assert type(torch.randn(2) + 1) is Tensor


def test_functions_that_a_model_makes_are_not_kept() -> None:
    made: list[weakref.ref[Any]] = []

    def forward(self: Any, x: Tensor) -> Tensor:
        twice = wrap_torch_function(lambda own: (own,))(lambda own: 2 * own)
        made.append(weakref.ref(twice))
        return twice(self.a(x))

    assert choose_engine(Function(forward, a=nn.Linear(4, 3)).double(), squares, features())
    gc.collect()
    assert len(made) > 3
    assert not any(reference() for reference in made)


def test_chunks_bound_the_memory_of_gradients_written_out() -> None:
    model, loss_fn, batch = mlp().double(), nn.CrossEntropyLoss(), labelled()
    objective = Objective(model, loss_fn)
    engine = Hooks(objective, memory_budget=2 * 4 * 8 * objective.size)
    assert engine.chunk_size == 4
    with objective.guard():
        chunks: list[Chunk] = list(engine.chunks(batch))
    assert [len(chunk.losses) for chunk in chunks] == [4, 2]


def test_a_strong_signal_is_centred_before_it_is_squared() -> None:
    """In float32 Σ‖g_i‖² - n‖ḡ‖² has no digit left when the spread is 1e-8 of it."""
    torch.manual_seed(0)
    model, inputs = nn.Linear(4, 3, bias=False), 1 + 1e-4 * torch.randn(64, 4)
    spread = float(3 * inputs.double().var(0).sum())
    moments = gn.gradient_moments(model, lambda m, x: m(x).sum(1), inputs, engine="hooks")
    assert float(moments.trace_cov) == pytest.approx(spread, rel=1e-5)
