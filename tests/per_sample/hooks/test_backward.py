"""One pass with hooks: what it refuses, and that nothing of it is left behind."""

from __future__ import annotations

import gc
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import gradnoise as gn
from gradnoise.per_sample.contract.summary import Wanted
from gradnoise.per_sample.hooks.backward import BackwardPass
from gradnoise.per_sample.hooks.engine import Hooks
from gradnoise.problem.objective import Objective
from tests.cases import features, labelled, mlp
from tests.engines import agree, summary
from tests.layer_cases import LAYERS, Function, changed_by_itself, squares


def test_parameters_used_unseen_are_named() -> None:
    case = next(case for case in LAYERS if case.name == "custom function beside layers")
    with pytest.raises(gn.EngineError, match="'w' is used by an operation that the hooks"):
        summary(*case.build())


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


def test_an_empty_parameter_is_no_obstacle() -> None:
    model = Function(lambda s, x: s.a(x), a=nn.Linear(4, 2), w=(0, 3)).double()
    gradients = gn.per_sample_gradients(model, squares, torch.randn(6, 4).double(), engine="hooks")
    assert gradients["w"].shape == (6, 0, 3)


def test_autocast_around_the_call_does_not_round_the_sums() -> None:
    torch.manual_seed(0)
    model, inputs = nn.Linear(16, 16), 1 + 0.03 * torch.randn(64, 5, 16)

    def loss(model: nn.Module, x: Tensor) -> Tensor:
        return model(x).float().sum((1, 2))

    with torch.autocast("cpu", torch.bfloat16):
        moments = gn.gradient_moments(model, loss, inputs, engine="hooks")
    seen = inputs.bfloat16().double()  # what the operation saw
    spread = float(16 * seen.sum(1).var(0).sum())
    assert float(moments.trace_cov) == pytest.approx(spread, rel=1e-3)


def test_a_pass_that_fails_leaves_no_graph_behind() -> None:
    class Broken(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, x: Tensor) -> Tensor:
            return x.clone()

        @staticmethod
        def backward(ctx: Any, grad: Tensor) -> Tensor:
            if len(grad) > 7:
                raise ValueError("broken")
            return grad

    model = nn.Linear(4, 3)
    objective = Objective(model, lambda m, x: Broken.apply(m(x)).square().sum(1))
    with objective.guard():
        engine = Hooks(objective)
        for _ in range(3):
            with pytest.raises(ValueError, match="broken"):
                list(engine.summaries(torch.randn(9, 4), Wanted()))
    gc.collect()
    assert not [item for item in gc.get_objects() if isinstance(item, BackwardPass)]


def test_a_pass_that_is_given_up_leaves_no_graph_behind() -> None:
    layers = {name: nn.Linear(4, 4) for name in "abcd"}
    batches = [(torch.randn(9, time, 4), torch.ones(9)) for time in (3, 2)]

    def unplanned(self: Any, x: Tensor, has: Tensor) -> Tensor:
        hidden = self.b(self.a(x)).tanh()
        return hidden if x.shape[1] == 3 else self.c(hidden)

    for forward in (changed_by_itself, unplanned):
        gn.gradient_moments(Function(forward, **layers), squares, batches, engine="hooks")
    gc.collect()
    assert not [item for item in gc.get_objects() if isinstance(item, BackwardPass)]


def test_an_input_that_is_changed_after_its_use_is_not_read_again() -> None:
    def forward(self: Any, x: Tensor) -> Tensor:
        own = x.clone()
        chosen = torch.where(own > 0, own, self.p)
        return chosen * own.add_(1)

    model = Function(forward, p=(4,)).double()
    batch = torch.randn(9, 4).double()
    with pytest.raises(gn.EngineError, match="input of where is changed in place after its use"):
        gn.per_sample_sq_norms(model, squares, batch, engine="hooks")
    assert agree(model, squares, batch) == "functional"


@pytest.mark.parametrize("broken", ["a.weight", "b.weight"])
def test_a_gradient_that_is_not_finite_is_blamed_on_its_own_parameter(broken: str) -> None:
    model = Function(lambda s, x: s.a(x) + s.b(x), a=nn.Linear(4, 3), b=nn.Linear(4, 3)).double()
    twin = {"a.weight": model.a, "b.weight": model.b}[broken]
    twin.register_forward_hook(lambda m, i, o: (0 * o).sqrt())
    with pytest.raises(gn.LossError, match=f"gradient of parameter '{broken}' is not finite"):
        gn.per_sample_sq_norms(model, squares, torch.randn(9, 4).double(), engine="hooks")


def test_hooks_of_the_users_on_activations_come_first() -> None:
    def forward(self: Any, x: Tensor) -> Tensor:
        hidden = self.a(x)
        hidden.register_hook(lambda grad: grad.clamp(-1, 1))
        return hidden

    model = Function(forward, a=nn.Linear(4, 3)).double()
    x = torch.randn(50, 4).double()
    x[[3, 20, 33]] *= 1000  # clamped, and none of them is looked at for the plan
    assert agree(model, lambda m, batch: squares(m, batch) / 100, x) == "hooks"


class HandsOn(torch.autograd.Function):
    """Hands on no gradient at all once the batch says so."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, silent: Tensor) -> Tensor:
        ctx.silent = bool(silent.any())
        return x.clone()

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Any:
        return (None if ctx.silent else grad), None


def test_an_output_may_get_no_gradient() -> None:
    model = Function(
        lambda s, x, silent: s.b(x) + HandsOn.apply(s.a(x), silent),
        a=nn.Linear(4, 3),
        b=nn.Linear(4, 3),
    ).double()
    batches = [(torch.randn(9, 4).double(), torch.full((9,), silent)) for silent in (False, True)]
    assert agree(model, squares, batches) == "hooks"


def test_a_half_precision_parameter_without_a_part_in_the_first_batches() -> None:
    model = Function(lambda s, x, on: s.a(x) + on[0] * s.b(x), a=nn.Linear(8, 4), b=nn.Linear(8, 4))
    model = model.bfloat16()
    x = torch.randn(8, 16, 8).bfloat16()
    used = [(part, torch.full((16,), float(i > 0)).bfloat16()) for i, part in enumerate(x)]
    skip = Function(lambda s, x, on: s.a(x) + s.b(x) if on[0] else s.a(x), a=model.a, b=model.b)
    loss = lambda m, batch: m(*batch).float().square().sum(1)  # noqa: E731
    moments = gn.gradient_moments(skip, loss, used)
    engine = gn.gradient_moments(skip, loss, used, engine="loop")
    torch.testing.assert_close(
        moments.mean["b.weight"], engine.mean["b.weight"], rtol=5e-3, atol=5e-4
    )


def forces(model: nn.Module, x: Tensor) -> Tensor:
    """Forces are derivatives of an energy with respect to the inputs."""
    x = x.detach().requires_grad_()
    (force,) = torch.autograd.grad(model(x).sum(), x, create_graph=True)
    return force.square().sum(1)


def test_a_loss_that_differentiates_the_model_is_named_and_measured_by_the_loop() -> None:
    model, x = nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 1)).double(), features()
    with pytest.raises(gn.EngineError, match=r"loss_fn calls torch.autograd.grad or .backward"):
        gn.per_sample_sq_norms(model, forces, x, engine="hooks")
    assert gn.explain_engine(model, forces, x).engine == "loop"
    single = torch.autograd.grad(forces(model, x[:1])[0], list(model.parameters())[:3])
    norms = gn.per_sample_sq_norms(model, forces, x)
    assert float(norms[0]) == pytest.approx(float(sum(g.square().sum() for g in single)))
