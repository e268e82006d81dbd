"""Operations seen as torch runs them, and the steps of a plan taken again."""

from __future__ import annotations

import gc
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import gradnoise as gn
from gradnoise.per_sample.choice import choose
from gradnoise.per_sample.contract.summary import Wanted
from gradnoise.per_sample.hooks.backward import BackwardPass
from gradnoise.per_sample.hooks.call import Call
from gradnoise.per_sample.hooks.discovery import Discovery
from gradnoise.per_sample.hooks.steps import DERIVE, OPEN, USE, Sources, Step, UnplannedError
from gradnoise.per_sample.hooks.tracing import Replay
from gradnoise.problem.objective import Objective
from tests.cases import features, labelled, mlp
from tests.engines import agree, choose_engine
from tests.layer_cases import Function, squares


def test_compiled_models_run_the_code_that_was_compiled() -> None:
    # up to torch 2.5 the compiler cannot be told to: what it does under a trace varies
    engines = ["hooks"] if hasattr(torch.compiler, "set_stance") else ["hooks", "functional"]
    model, loss_fn, batch = mlp().double(), nn.CrossEntropyLoss(), labelled()
    plain = gn.per_sample_sq_norms(model, loss_fn, batch)
    compiled = torch.compile(model, backend="eager")
    compiled(batch[0])
    assert choose_engine(compiled, loss_fn, batch) in engines
    torch.testing.assert_close(gn.per_sample_sq_norms(compiled, loss_fn, batch), plain)
    inside = nn.Sequential(
        torch.compile(nn.Linear(4, 4), backend="eager"), nn.Linear(4, 3)
    ).double()
    assert choose_engine(inside, loss_fn, batch) in engines


CHANGING: dict[str, Any] = {
    "bias at times": lambda s, x, turn: torch.nn.functional.linear(x, s.w, *([s.b] * turn)),
    "weight and then bias": lambda s, x, turn: torch.nn.functional.layer_norm(
        x, (4,), *((s.p, None) if turn else (None, s.p))
    ),
    "another order": lambda s, x, turn: torch.mul(x, s.p) if turn else torch.mul(s.p, x),
    "one head at a time": lambda s, x, turn: [x @ s.w.T, x @ (s.v.T + 1)][turn],
}


@pytest.mark.parametrize("name", CHANGING)
def test_arguments_that_change_from_batch_to_batch_are_followed(name: str) -> None:
    def forward(self: Any, x: Tensor, which: Tensor) -> Tensor:
        return CHANGING[name](self, x, int(which[0]))

    model = Function(forward, w=(3, 4), v=(3, 4), b=(3,), p=(4,)).double()
    batches = [(torch.randn(9, 4).double(), torch.full((9,), i % 2)) for i in range(3)]
    assert agree(model, squares, batches) == "hooks"


@pytest.mark.parametrize("samples", [1, 2, 9])
def test_what_was_of_parameters_alone_until_samples_are_written_into_it(samples: int) -> None:
    def forward(self: Any, x: Tensor) -> Tensor:
        hidden = self.p.repeat(len(x), 1)
        hidden += self.a(x)
        return self.b(hidden)

    model = Function(forward, p=(1, 3), a=nn.Linear(4, 3), b=nn.Linear(3, 2)).double()
    objective = Objective(model, squares)
    with objective.guard():
        engine = choose(objective, torch.randn(samples, 4).double())
        assert engine.name == "hooks"
        list(engine.summaries(torch.randn(samples, 4).double(), Wanted()))
    gc.collect()
    assert not [item for item in gc.get_objects() if type(item) is BackwardPass]
    agree(model, squares, [(torch.randn(max(samples, 2), 4).double(),)] * 2)


def run(call: Call, _sources: Sources, _step: Step) -> Any:
    return call.run(call.tensors)


def steps_of(model: nn.Module, batch: Any) -> list[Step]:
    objective = Objective(model, squares)
    trace = Discovery(objective.parameters, run, [batch], frozenset())
    trace.losses(objective, batch)
    return trace.steps


def scaled(self: Any, x: Tensor) -> Tensor:
    return torch.nn.functional.bilinear(F.linear(x, 2 * self.w), x, self.v)


def test_the_steps_are_those_that_are_given_parameters() -> None:
    model = Function(scaled, w=(3, 4), v=(2, 3, 4)).double()
    steps = steps_of(model, features())
    assert [(step.func, step.kind) for step in steps[:2]] == [
        (Tensor.mul, DERIVE),
        (F.linear, USE),
    ]
    assert steps[1].arguments == ("weight",)
    assert steps[1].dependent == (0,)


def test_fused_operations_are_opened() -> None:
    model = Function(lambda s, x: s.r(x)[0], r=nn.GRU(4, 2, batch_first=True)).double()
    steps = steps_of(model, torch.randn(3, 2, 4).double())
    assert steps[0].kind == OPEN
    assert [step.func for step in steps[1:]].count(F.linear) == 3  # inputs, and two time steps


def test_the_same_steps_are_taken_again_and_no_others() -> None:
    model = Function(lambda s, x: F.linear(x, s.w), w=(3, 4)).double()
    objective, batch = Objective(model, squares), features()
    plan = steps_of(model, batch)
    seen: list[str] = []

    def note(call: Call, sources: Sources, step: Step) -> Any:
        seen.append(call.name)
        assert step is plan[0]
        assert {s.parameters for s in sources.values()} == {frozenset(["w"])}
        return call.run(call.tensors)

    replay = Replay(objective.parameters, note, plan)
    torch.testing.assert_close(replay.losses(objective, batch), squares(model, batch))
    assert seen == ["linear"]
    for other in ([], plan * 2):
        with pytest.raises(UnplannedError):
            Replay(objective.parameters, run, other).losses(objective, batch)
