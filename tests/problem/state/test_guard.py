"""The user's model, gradients, buffers and random states stay as they were."""

from __future__ import annotations

import copy
import random
import threading
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader

import gradnoise as gn
from gradnoise.problem.state.guard import (
    differentiable_kernels,
    frozen,
    moved,
    seed_everything,
    untouched,
)


def fresh() -> nn.Module:
    model = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2), nn.Dropout())
    model[0].weight.grad = torch.ones(2, 2)
    model[1].bias.requires_grad_(False)
    model[2].eval()
    model.kept, model.known = [torch.zeros(1)], {"first": 1}
    return model


def replace_buffer(model: nn.Module) -> None:
    model[1].running_mean = torch.full((2,), 9.0)


VANDALS: dict[str, Callable[[nn.Module], Any]] = {
    "mode": lambda model: model.eval(),
    "mode of one part": lambda model: model[2].train(),
    "buffers in place": lambda model: model(torch.randn(4, 2)),
    "buffers replaced": replace_buffer,
    "buffers added": lambda model: model.register_buffer("new", torch.ones(1)),
    "gradients filled": lambda model: model(torch.randn(4, 2)).sum().backward(),
    "gradients dropped": lambda model: model.zero_grad(set_to_none=True),
    "requires_grad": lambda model: model.requires_grad_(False),
    "torch seed": lambda model: torch.manual_seed(1),
    "numpy seed": lambda model: np.random.seed(1),
    "python seed": lambda model: random.seed(1),
    "an attribute": lambda model: setattr(model, "last", torch.ones(1)),
    "a list filled": lambda model: model.kept.append(torch.ones(1)),
    "an entry of a list": lambda model: model.kept.__setitem__(0, torch.ones(1)),
    "a key of a dict": lambda model: model.known.update(second=model.known.pop("first")),
    "a counter": lambda model: setattr(model[0], "out_features", 7),
    "all seeds": lambda model: seed_everything(3),
}


def state(model: nn.Module) -> Any:
    """Everything that must not change, comparable."""
    return (
        [module.training for module in model.modules()],
        [
            {name: id(item) for name, item in vars(module).items() if name[0] != "_"}
            for module in model.modules()
        ],
        [id(item) for item in getattr(model, "kept", [])],
        list(getattr(model, "known", {}).items()),
        {name: (id(b), b.tolist()) for name, b in model.named_buffers()},
        {
            name: (id(p), p.tolist(), p.requires_grad, None if p.grad is None else id(p.grad))
            for name, p in model.named_parameters()
        },
        torch.get_rng_state().tolist(),
        np.random.get_state()[1].tolist(),
        random.getstate(),
    )


@pytest.mark.parametrize("vandal", VANDALS)
@pytest.mark.parametrize("error", [None, ValueError, KeyboardInterrupt])
def test_what_a_measurement_changes_is_put_back(vandal: str, error: type | None) -> None:
    model = fresh()
    before = state(model)
    try:
        with untouched(model):
            VANDALS[vandal](model)
            if error is not None:
                raise error
    except (ValueError, KeyboardInterrupt):
        pass
    assert state(model) == before


def test_the_gradient_of_the_user_keeps_its_content() -> None:
    model = fresh()
    model.train()
    with untouched(model):
        model[0](torch.ones(1, 2)).sum().backward()
    assert model[0].weight.grad.tolist() == [[1, 1], [1, 1]]


def test_generators_of_a_loader_are_put_back() -> None:
    source = torch.Generator().manual_seed(5)
    loader = DataLoader(torch.arange(8), shuffle=True, generator=source)
    before = source.get_state()
    with untouched(nn.Linear(1, 1), loader):
        list(loader)
        assert not torch.equal(source.get_state(), before)
    assert torch.equal(source.get_state(), before)


def test_parameter_hooks_do_not_fire_inside_and_do_afterwards() -> None:
    model, calls = nn.Linear(1, 1), []
    model.weight.register_hook(lambda gradient: calls.append(1))
    with untouched(model):
        torch.autograd.grad(model(torch.ones(1, 1)).sum(), [model.weight])
    assert calls == []
    model(torch.ones(1, 1)).sum().backward()
    assert calls == [1]


@pytest.mark.parametrize("training", [False, True])
def test_a_pending_backward_of_the_user_survives_batch_norm_that_ran_again(training: bool) -> None:
    layers = nn.Linear(2, 2), nn.BatchNorm1d(2).train(training), nn.Linear(2, 1)
    model = nn.Sequential(*layers)
    loss = model(torch.randn(4, 2)).sum()
    with untouched(model):
        model(torch.randn(4, 2))
    loss.backward()
    assert model[0].weight.grad is not None


def test_gradients_are_on_inside_whatever_the_caller_set() -> None:
    with torch.no_grad(), untouched(nn.Linear(1, 1)):
        assert torch.is_grad_enabled()
    with torch.inference_mode(), untouched(nn.Linear(1, 1)):
        assert not torch.is_inference_mode_enabled()


def test_attention_can_be_differentiated_twice_inside() -> None:
    q = torch.randn(2, 1, 3, 4, requires_grad=True)

    def twice() -> torch.Tensor:
        out = nn.functional.scaled_dot_product_attention(q, q, q).sum()
        (first,) = torch.autograd.grad(out, q, create_graph=True)
        return torch.autograd.grad(first.square().sum(), q)[0]

    with pytest.raises(RuntimeError, match="derivative for"):
        twice()
    with differentiable_kernels(nn.LSTM(1, 1)):
        assert torch.isfinite(twice()).all()


def test_module_backward_hooks_rest_and_come_back() -> None:
    model, calls = nn.Linear(1, 1), []
    model.register_full_backward_hook(lambda *_: calls.append(1))
    model.register_full_backward_pre_hook(lambda *_: calls.append(2))
    x = torch.ones(1, 1, requires_grad=True)
    with untouched(model):
        torch.autograd.grad(model(x).sum(), [model.weight])
    assert calls == []
    model(x).sum().backward()
    assert calls == [2, 1]


def test_a_running_iteration_of_persistent_workers_goes_on() -> None:
    loader = DataLoader(torch.arange(8), batch_size=2, num_workers=1, persistent_workers=True)
    running = iter(loader)
    first = next(running)
    with untouched(nn.Linear(1, 1), loader):
        assert len(list(loader)) == 4
    assert torch.cat([first, *running]).tolist() == list(range(8))


def test_a_seed_does_not_reach_a_sleeping_accelerator() -> None:
    torch.manual_seed(42)
    queued = list(torch.cuda._lazy_seed_tracker.get_calls())
    with untouched(nn.Linear(1, 1)):
        seed_everything(0)
    assert list(torch.cuda._lazy_seed_tracker.get_calls()) == queued


class Frozen(dict[str, Any]):
    """Settings that cannot be written to, such as those of the models of diffusers."""

    def update(self, *_: Any, **__: Any) -> None:
        raise TypeError("frozen")


def test_a_dict_that_refuses_to_be_written_to_is_left_alone() -> None:
    model = fresh()
    model.config = Frozen(width=2)
    with untouched(model):
        model(torch.randn(4, 2))
    assert model.config == {"width": 2}


def test_a_buffer_that_cannot_be_written_is_left_alone() -> None:
    model = nn.Linear(2, 2)
    model.register_buffer("wide", torch.zeros(1).expand(5))
    with untouched(model):
        model(torch.ones(1, 2))
    assert model.wide.tolist() == [0.0] * 5


def test_frozen_parameters_are_trained_again_after_an_error() -> None:
    model = nn.Linear(2, 2)
    with frozen([model.weight]):
        assert [p.requires_grad for p in model.parameters()] == [False, True]
    with pytest.raises(ZeroDivisionError, match="by zero"), frozen([model.weight]):
        _ = 1 / 0
    assert all(p.requires_grad for p in model.parameters())


LINEAR, MODEL = nn.Linear(1, 1), nn.Linear(4, 3)  # making one draws random numbers


def drawn() -> tuple[float, float, float]:
    """One number of each of the process's random states."""
    return float(torch.rand(1)), float(np.random.rand()), random.random()


def test_threads_that_overlap_leave_the_random_states_as_found() -> None:
    seed_everything(3)
    expected = drawn()
    seed_everything(3)
    measuring, drawing = threading.Event(), threading.Event()

    def longer() -> None:  # begins inside of the other measurement and ends after it
        with untouched(LINEAR):
            measuring.set()
            drawing.wait(timeout=10)
            drawn()

    thread = threading.Thread(target=longer)
    with untouched(LINEAR):
        drawn()
        thread.start()
        measuring.wait(timeout=10)
        with untouched(LINEAR):
            drawn()
    drawing.set()
    thread.join()
    assert drawn() == expected


def test_a_measurement_inside_of_another_leaves_its_random_states_alone() -> None:
    with untouched(LINEAR):
        seed_everything(4)
        expected = drawn()
        seed_everything(4)
        with untouched(LINEAR):
            drawn()
        assert drawn() == expected


def test_profiles_in_several_threads_leave_the_random_states_as_found() -> None:
    batch = (torch.linspace(-1, 1, 64).reshape(16, 4), torch.arange(16) % 3)
    models = [copy.deepcopy(MODEL) for _ in range(4)]
    results: list[float] = []

    def measure(model: nn.Module) -> None:
        p = gn.profile(model, nn.CrossEntropyLoss(), batch, max_samples=12)
        results.append(float(p.trace_cov))

    seed_everything(5)
    expected = drawn()
    seed_everything(5)
    threads = [threading.Thread(target=measure, args=(model,)) for model in models]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(results) == 4
    assert len(set(results)) == 1
    assert drawn() == expected


def test_parameters_are_moved_and_put_back_bit_for_bit_also_after_an_error() -> None:
    parameters = [torch.tensor([0.1, -0.0]), torch.tensor([3.0]).bfloat16()]
    before = [(p.clone(), p._version) for p in parameters]
    direction = [torch.tensor([1.0, 2.0]).double(), torch.tensor([4.0]).double()]
    inside: list[float] = []

    def fails() -> None:
        with moved(parameters, direction, -0.5):
            inside.extend([*parameters[0].tolist(), float(parameters[1])])
            raise KeyError("meanwhile")

    with pytest.raises(KeyError, match="meanwhile"):
        fails()
    assert inside == pytest.approx([-0.4, -1.0, 1.0])
    for p, (content, version) in zip(parameters, before, strict=True):
        assert torch.equal(p, content)
        assert torch.equal(p.signbit(), content.signbit())
        assert p._version == version


def test_a_model_that_is_not_initialised_yet_is_no_obstacle() -> None:
    model = nn.Sequential(nn.LazyLinear(3))
    with untouched(model):
        pass
    assert model[0].weight.requires_grad


def test_what_is_no_module_is_refused() -> None:
    with (
        pytest.raises(gn.ModelError, match=r"`model` must be a torch\.nn\.Module; got tuple"),
        (
            untouched((torch.ones(2), torch.ones(2)))  # type: ignore[arg-type]
        ),
    ):
        pass
