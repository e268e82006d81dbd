"""A device is not waited for at every layer, and a few times at most for a Hessian product.

Counted on the CPU; on CUDA by torch itself.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import gradnoise as gn
from gradnoise.linalg.lanczos import lanczos
from gradnoise.per_sample.choice import choose
from gradnoise.per_sample.contract.summary import Wanted
from gradnoise.problem.directional import curvatures_of_each, weighted_product
from gradnoise.problem.options import Options
from gradnoise.problem.problem import Problem
from tests.layer_cases import Function
from tests.waits import waits

SAMPLES, WIDTH, POSITIONS = 16, 32, 4  # Gram matrices are cheaper than gradients written out
CHECKS = 2  # of the losses and of the norms of a batch
OF_A_PRODUCT = 1  # the size of the vector, which is divided by it
OF_LANCZOS = 4 + OF_A_PRODUCT  # α with a look at the image, β, overlap with the basis, β again


def linear(layers: int) -> nn.Module:
    hidden = [part for _ in range(layers) for part in (nn.Linear(WIDTH, WIDTH), nn.Tanh())]
    return nn.Sequential(*hidden)


def normed(layers: int) -> nn.Module:
    hidden = [part for _ in range(layers) for part in (nn.Conv1d(4, 4, 1), nn.GroupNorm(2, 4))]
    return nn.Sequential(*hidden)


def attention(layers: int) -> nn.Module:
    block = nn.TransformerEncoderLayer(WIDTH, 2, 48, dropout=0.0, batch_first=True)
    return nn.TransformerEncoder(block, layers, enable_nested_tensor=False)


def stacked(layers: int) -> nn.Module:
    """Two weights in each parameter."""

    def forward(self: Any, x: Tensor) -> Tensor:
        for index in range(layers):
            weights = getattr(self, f"w{index}")
            x = F.linear(F.linear(x, weights[0]), weights[1]).tanh()
        return x

    return Function(forward, **{f"w{index}": (2, WIDTH, WIDTH) for index in range(layers)})


def used_twice(layers: int) -> nn.Module:
    """Each weight once as itself and once scaled."""

    def forward(self: Any, x: Tensor) -> Tensor:
        for index in range(layers):
            weight = getattr(self, f"w{index}")
            x = F.linear(F.linear(x, weight).tanh(), 0.5 * weight)
        return x

    return Function(forward, **{f"w{index}": (WIDTH, WIDTH) for index in range(layers)})


MODELS = {made.__name__: made for made in (linear, normed, attention, stacked, used_twice)}


def squares(model: nn.Module, inputs: Tensor) -> Tensor:
    return (model(inputs) - inputs).square().mean((1, 2))


def problem(model: nn.Module, micro_batch: int = SAMPLES, device: str = "cpu") -> Problem:
    inputs = torch.randn(SAMPLES, POSITIONS, WIDTH).to(device)
    return Problem.open(model.to(device), squares, inputs, Options(micro_batch=micro_batch))


def everything(opened: Problem) -> Wanted:
    parameters = opened.objective.parameters
    like = {name: torch.randn_like(p) for name, p in parameters.items()}
    return Wanted({n: own[None] for n, own in like.items()}, variance=True, centre=like)


def passing(opened: Problem, engine: str, wanted: Wanted) -> Callable[[], Any]:
    """A second pass over the samples, inside of the guard."""
    chosen = choose(opened.objective, opened.largest_batch(), engine)

    def run() -> Any:
        return [list(chosen.summaries(batch, wanted)) for batch in opened.batches()]

    run()
    return run


def waits_of_pass(made: Callable[[int], nn.Module], layers: int, engine: str, all_: bool) -> int:
    opened = problem(made(layers))
    with opened.guard():
        return waits(passing(opened, engine, everything(opened) if all_ else Wanted()))


@pytest.mark.parametrize("all_", [False, True], ids=["norms", "everything"])
@pytest.mark.parametrize("name", MODELS)
def test_a_pass_of_the_hooks_waits_as_often_for_eight_layers_as_for_two(
    name: str, all_: bool
) -> None:
    for layers in (2, 4, 8):
        assert waits_of_pass(MODELS[name], layers, "hooks", all_) == CHECKS


@pytest.mark.parametrize("engine", ["functional", "backpack"])
def test_engines_that_write_gradients_out_do_not_wait_at_every_layer(engine: str) -> None:
    two, eight = (waits_of_pass(linear, layers, engine, True) for layers in (2, 8))
    assert two == eight == CHECKS + 1  # and the sums of squares


def test_moments_do_not_wait_at_every_layer() -> None:
    def count(layers: int) -> int:
        model, inputs = linear(layers), torch.randn(SAMPLES, POSITIONS, WIDTH)
        gn.gradient_moments(model, squares, inputs)
        return waits(lambda: gn.gradient_moments(model, squares, inputs))

    assert count(2) == count(8)


def multiplying(hvp: str, layers: int, micro_batch: int, times: int) -> int:
    opened = problem(linear(layers), micro_batch)
    hessian = gn.Hessian.of(opened, hvp=hvp)
    vector = torch.randn(hessian.shape[0])
    with opened.guard():
        hessian @ vector
        return waits(lambda: [hessian @ vector for _ in range(times)])


@pytest.mark.parametrize("hvp", ["kept", "fresh", "forward", "finite"])
def test_a_product_with_the_hessian_waits_once_and_for_the_losses(hvp: str) -> None:
    batches = {"kept": 0, "fresh": 4, "forward": 0, "finite": 8}[hvp]  # evaluated for a product
    more = hvp == "finite"  # the length of the step
    for layers, times in ((2, 5), (2, 10), (8, 5)):
        found = multiplying(hvp, layers, SAMPLES // 4, times)
        assert found == times * (OF_A_PRODUCT + batches + more), (layers, times)


def test_outside_of_a_guard_the_parameters_are_waited_for_once() -> None:
    counts = []
    for layers in (2, 8):
        hessian = gn.Hessian.of(problem(linear(layers)), hvp="kept")
        vector = torch.randn(hessian.shape[0])
        hessian @ vector
        counts.append(waits(lambda h=hessian, v=vector: h @ v))
    assert counts == [OF_A_PRODUCT + 1] * 2


def test_lanczos_waits_for_its_coefficients() -> None:
    def count(products: int, layers: int = 2) -> int:
        hessian = gn.Hessian.of(problem(linear(layers)), hvp="kept")
        with hessian.problem.guard():
            return waits(lambda: lanczos(hessian, tol=1e-12, max_iterations=products))

    assert count(10) - count(5) == 5 * OF_LANCZOS
    assert count(5) == count(5, layers=8)


def test_derivatives_along_directions_wait_for_the_directions_alone() -> None:
    def count(layers: int) -> list[int]:
        opened = problem(linear(layers))
        u, v = torch.randn(2, opened.objective.size, dtype=torch.float64)
        weights = torch.ones(SAMPLES, dtype=torch.float64)
        with opened.guard():
            return [
                waits(lambda: curvatures_of_each(opened, [(u, [v]), (v, [u, v])])),
                waits(lambda: weighted_product(opened, u, weights)),
            ]

    assert count(2) == count(8) == [5 + 1, 1]  # five vectors, and the losses of a batch


@pytest.mark.cuda
@pytest.mark.parametrize("name", MODELS)
def test_on_a_device_torch_sees_no_wait_at_every_layer(name: str) -> None:
    def count(layers: int) -> tuple[int, int]:
        opened = problem(MODELS[name](layers), device="cuda")
        hessian = gn.Hessian.of(opened, hvp="kept")
        vector = torch.randn(hessian.shape[0], device="cuda")
        with opened.guard():
            hessian @ vector
            run = passing(opened, "hooks", Wanted())
            return synchronising(run), synchronising(lambda: hessian @ vector)

    assert count(2) == count(8)


def synchronising(call: Callable[[], Any]) -> int:
    """How often torch says that an operation synchronises."""
    torch.cuda.set_sync_debug_mode("warn")
    try:
        with warnings.catch_warnings(record=True) as seen:
            warnings.simplefilter("always")
            call()
    finally:
        torch.cuda.set_sync_debug_mode("default")
    return sum("synchroniz" in str(warning.message) for warning in seen)
