"""The hooks engine: every layer, every way of using a parameter, held to single samples."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional as F

import gradnoise as gn
from gradnoise.per_sample.choice import choose
from gradnoise.per_sample.contract.summary import Chunk, Wanted
from gradnoise.per_sample.hooks.engine import Hooks
from gradnoise.problem.objective import Objective
from tests import oracles
from tests.cases import SAMPLES, Case, features, labelled, mlp, named
from tests.engines import CLOSE, agree, flat, rows, summary
from tests.fuzz import examples
from tests.layer_cases import LAYERS, Function, changed_by_itself, squares

ENGINES = ("hooks", "functional", "loop")
MATRIX = [(case, engine) for case in LAYERS for engine in ENGINES]


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
    along = {name: torch.randn(2, *p.shape).to(p) for name, p in objective.parameters.items()}
    pair = torch.cat([own.reshape(2, -1) for own in along.values()], dim=1).T
    with objective.guard():
        chosen = choose(objective, batch, engine)
        found = list(chosen.summaries(batch, Wanted(directions=along, variance=True)))
        scale = {name: torch.rand_like(p) for name, p in objective.parameters.items()}
        scaled = list(chosen.summaries(batch, Wanted(directions=along, scale=scale)))
    assert sum(len(part.losses) for part in found) == SAMPLES
    norms = torch.cat([torch.stack(list(part.sq_norms.values())).sum(0) for part in found])
    torch.testing.assert_close(norms, truth.square().sum(1), **CLOSE)
    torch.testing.assert_close(sum(flat(part.total) for part in found), truth.sum(0), **CLOSE)
    slopes = torch.cat([sum(part.dots.values()) for part in found])  # type: ignore[union-attr]
    torch.testing.assert_close(slopes, truth @ pair, **CLOSE)
    own = truth * flat(scale)
    norms = torch.cat([torch.stack(list(part.sq_norms.values())).sum(0) for part in scaled])
    torch.testing.assert_close(norms, own.square().sum(1), **CLOSE)
    torch.testing.assert_close(sum(flat(part.total) for part in scaled), own.sum(0), **CLOSE)
    slopes = torch.cat([sum(part.dots.values()) for part in scaled])  # type: ignore[union-attr]
    torch.testing.assert_close(slopes, own @ pair, **CLOSE)
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


@pytest.mark.parametrize("frozen", ["0.weight", "0.bias", "2.weight"])
def test_frozen_parts_take_no_part(frozen: str) -> None:
    model, loss_fn, batch = mlp().double(), nn.CrossEntropyLoss(), labelled()
    model.get_parameter(frozen).requires_grad_(False)
    truth = oracles.dense(model, loss_fn, batch, second=False).gradients
    norms = gn.per_sample_sq_norms(model, loss_fn, batch, engine="hooks", per_parameter=True)
    assert frozen not in norms
    torch.testing.assert_close(torch.stack(list(norms.values())).sum(0), truth.square().sum(1))


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


@pytest.mark.parametrize("mask", [True, False])
def test_bert_is_measured_at_the_price_of_a_gradient(mask: bool) -> None:
    from transformers import BertConfig, BertForSequenceClassification

    config = BertConfig(
        vocab_size=11,
        hidden_size=8,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=12,
        max_position_embeddings=8,
    )
    model = BertForSequenceClassification(config).double().eval()
    batch = {"input_ids": torch.randint(11, (6, 5)), "labels": torch.randint(2, (6,))}
    if mask:
        batch["attention_mask"] = torch.ones(6, 5, dtype=torch.long)
        batch["attention_mask"][1, 3:] = 0

    def loss(model: nn.Module, batch: Any) -> Tensor:
        inputs = {key: value for key, value in batch.items() if key != "labels"}
        return F.cross_entropy(model(**inputs).logits, batch["labels"], reduction="none")

    assert agree(model, loss, batch) == "hooks"


def partly_silent(self: Any, x: Tensor, has: Tensor) -> Tensor:
    hidden = self.d(self.a(x).tanh())
    before = hidden.tanh()
    hidden.mul_(has[:, None, None])
    return self.b(before) + self.c(hidden.tanh())


@pytest.mark.parametrize("forward", [partly_silent, changed_by_itself])
def test_a_view_that_is_changed_in_place_is_seen_before_and_after(forward: Any) -> None:
    layers = dict(zip("abcd", [nn.Linear(4, 4), *(nn.Linear(4, 4) for _ in range(3))], strict=True))
    model = Function(forward, **layers).double()
    has = torch.ones(40, dtype=torch.float64)
    has[torch.linspace(0, 39, 5).long()] = 0
    has[torch.linspace(0, 39, 7).long()] = 0
    assert agree(model, squares, (torch.randn(40, 3, 4).double(), has)) == "hooks"


def test_outputs_of_fewer_dimensions_get_a_plan_of_their_own() -> None:
    model = Function(lambda s, x: (x.transpose(0, 1).squeeze(0) * s.g).tanh(), g=(8,)).double()

    def loss(model: nn.Module, batch: Any) -> Tensor:
        outputs = model(batch[0])
        outputs = outputs.transpose(0, 1) if outputs.ndim == 3 else outputs
        return outputs.flatten(1).pow(2).mul(torch.arange(1, len(outputs[0].flatten()) + 1)).sum(1)

    batches = [(torch.randn(9, 3, 8).double(),), (torch.randn(8, 1, 8).double(),)]
    assert agree(model, loss, batches) == "hooks"


def test_a_plan_of_one_time_step_or_one_sample_does_not_serve_more() -> None:
    model = Function(
        lambda s, x: s.o(s.m(x, x, x, need_weights=False)[0]),
        m=nn.MultiheadAttention(4, 2, batch_first=True),
        o=nn.Linear(4, 2),
    ).double()
    for shapes in ([(8, 1), (8, 7)], [(1, 7), (8, 7)], [(8, 5), (1, 7), (8, 7)]):
        batches = [(torch.randn(*shape, 4).double(),) for shape in shapes]
        assert agree(model, squares, batches) == "hooks"


def test_samples_whose_positions_cancel_cost_one_more_pass_once() -> None:
    """Their norms are looked for from then on."""
    torch.manual_seed(0)
    model = nn.Linear(64, 64, dtype=torch.float64)
    rows = torch.randn(24, 1, 64, dtype=torch.float64)
    batch = torch.cat([rows, (1 + 1e-5) * rows], dim=1)

    def loss(model: nn.Module, x: Tensor) -> Tensor:
        passes.append(len(x))
        signs = torch.tensor([1.0, -1.0], dtype=torch.float64)[:, None]
        return (signs * model(x)).tanh().sum((1, 2))

    passes: list[int] = []
    truth = oracles.dense(model, loss, batch, second=False).gradients.square().sum(1)
    objective = Objective(model, loss)
    with objective.guard():
        engine = choose(objective, batch, "hooks")
        passes.clear()
        found = [*engine.summaries(batch, Wanted()), *engine.summaries(batch, Wanted())]
    assert passes == [24, 24, 24]
    for part in found:
        norms = torch.stack([*part.sq_norms.values()]).sum(0)
        torch.testing.assert_close(norms, truth, rtol=1e-9, atol=0)
