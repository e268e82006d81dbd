"""The user's model, gradients, buffers and random states, put back as they were found."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel


@contextmanager
def untouched(model: nn.Module, data: Any = None) -> Iterator[None]:
    """Everything that a measurement could change is restored on leaving, also after an error.

    Kept: training mode of each module, buffers (identity and content), `requires_grad`, `.grad`,
    and the random states of torch (CPU and accelerators), NumPy, Python and the data loader's own
    generators. Tensor hooks of the parameters are set aside meanwhile, so that a clipping or
    logging hook neither fires nor distorts the measurement.
    """
    with ExitStack() as stack:
        stack.enter_context(_random_states(data))
        stack.enter_context(_modules(model))
        stack.enter_context(_parameters(model))
        stack.enter_context(torch.inference_mode(False))
        stack.enter_context(torch.enable_grad())
        yield


@contextmanager
def differentiable_kernels(model: nn.Module) -> Iterator[None]:
    """Kernels that can be differentiated twice.

    The fused attention kernels and cuDNN's recurrent ones have no second derivative.
    """
    recurrent = any(isinstance(module, nn.RNNBase) for module in model.modules())
    with ExitStack() as stack:
        stack.enter_context(sdpa_kernel(SDPBackend.MATH))
        if recurrent:
            stack.enter_context(torch.backends.cudnn.flags(enabled=False))
        yield


def seed_everything(seed: int) -> None:
    """Seed the global random states; only inside `untouched`, which puts them back."""
    torch.manual_seed(seed)
    np.random.seed(seed % 2**32)
    random.seed(seed)


@contextmanager
def _modules(model: nn.Module) -> Iterator[None]:
    modes = [(module, module.training) for module in model.modules()]
    buffers = [(module, dict(module._buffers)) for module in model.modules()]
    contents = [
        (tensor, tensor.detach().clone())
        for _, named in buffers
        for tensor in named.values()
        if tensor is not None
    ]
    try:
        yield
    finally:
        for module, training in modes:
            module.training = training
        for module, named in buffers:
            if [*map(id, module._buffers.values())] != [*map(id, named.values())]:
                module._buffers.clear()
                module._buffers.update(named)
        for tensor, content in contents:
            if not torch.equal(tensor, content):  # else it may belong to a pending backward
                with torch.no_grad():
                    tensor.copy_(content)


@contextmanager
def _parameters(model: nn.Module) -> Iterator[None]:
    found = [(p, p.requires_grad, p.grad, p._backward_hooks) for p in model.parameters()]
    try:
        for parameter, _, _, hooks in found:
            parameter.grad = None  # so that nothing can be added to the user's
            if hooks:
                parameter._backward_hooks = None
        yield
    finally:
        for parameter, requires_grad, grad, hooks in found:
            parameter.requires_grad_(requires_grad)
            parameter.grad = grad
            if hooks:
                parameter._backward_hooks = hooks


@contextmanager
def _random_states(data: Any) -> Iterator[None]:
    generators = [(source, source.get_state()) for source in _generators(data)]
    accelerator = torch.cuda.get_rng_state_all() if torch.cuda.is_initialized() else None  # type: ignore[no-untyped-call]
    states = torch.get_rng_state(), np.random.get_state(), random.getstate()
    try:
        yield
    finally:
        torch.set_rng_state(states[0])
        np.random.set_state(states[1])
        random.setstate(states[2])
        if accelerator is not None:
            torch.cuda.set_rng_state_all(accelerator)
        for source, state in generators:
            source.set_state(state)


def _generators(data: Any) -> list[torch.Generator]:
    """Generators that a data loader draws its order from."""
    samplers = [getattr(data, "sampler", None), getattr(data, "batch_sampler", None)]
    inner = [getattr(sampler, "sampler", None) for sampler in samplers]
    owners = [data, *samplers, *inner]
    found = [getattr(owner, "generator", None) for owner in owners]
    return list({id(g): g for g in found if isinstance(g, torch.Generator)}.values())
