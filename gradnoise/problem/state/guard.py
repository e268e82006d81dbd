"""The user's model, gradients, buffers and random states, restored after a measurement."""

from __future__ import annotations

import operator
import random
import threading
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from ...errors import ModelError
from .checkpoints import checkpoints_passed
from .sharded import reshard
from .wrappers import bare_data


@contextmanager
def untouched(
    model: nn.Module, data: Any = None, own: tuple[torch.Generator, ...] = ()
) -> Iterator[None]:
    """Everything that a measurement could change is restored on leaving, also after an error.

    Kept: training mode and attributes of each module, buffers (identity and content),
    `requires_grad`, `.grad`, and the random states of torch (CPU and accelerators), NumPy, Python,
    the data loader's own generators and the user's `own`. Backward hooks of modules and of
    parameters are set aside meanwhile, so that a clipping or logging hook neither fires nor
    distorts the measurement. Regions under activation checkpointing run like any other:
    `torch.utils.checkpoint` is patched for the whole process meanwhile.

    Raises:
        ModelError: `model` is no module.
    """
    if not isinstance(model, nn.Module):
        raise ModelError(f"`model` must be a torch.nn.Module; got {type(model).__name__}")
    data, modules = bare_data(data), list(model.modules())
    with (
        _random_states([*_generators(data), *own]),
        _workers(data),
        _buffers(modules),
        _attributes(modules),
        _parameters(modules),
        checkpoints_passed(),
        torch.inference_mode(False),
        torch.enable_grad(),
    ):
        _remove_backward_hooks(modules)
        try:
            yield
        finally:
            reshard(model)  # FSDP itself, or it takes parameters that are put back for whole ones


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


@contextmanager
def moved(parameters: Sequence[Tensor], direction: Sequence[Tensor], step: float) -> Iterator[None]:
    """Moves the parameters through `.data`, which leaves a pending backward pass valid."""
    found = [parameter.data.clone() for parameter in parameters]
    try:
        for parameter, along in zip(parameters, direction, strict=True):
            parameter.data.add_(along, alpha=step)
        yield
    finally:
        for parameter, value in zip(parameters, found, strict=True):
            parameter.data.copy_(value)


@contextmanager
def frozen(parameters: Sequence[Tensor]) -> Iterator[None]:
    """These parameters, which are trained, without gradients."""
    for parameter in parameters:
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        for parameter in parameters:
            parameter.requires_grad_(True)


def seed_everything(seed: int) -> None:
    """Seed the global random states; only inside `untouched`, which puts them back."""
    seed = int(seed)  # torch refuses whole numbers of NumPy
    torch.default_generator.manual_seed(seed)  # torch.manual_seed would initialise CUDA
    if torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
        torch.cuda.manual_seed_all(seed)
    np.random.seed(seed % 2**32)
    random.seed(seed)


@contextmanager
def attributes(model: nn.Module) -> Iterator[None]:
    """Restores what `forward` stores on its modules: modes, counters, outputs, buffers.

    Tracing leaves dead tensors in such attributes, so engines that trace use this for every call.
    Attributes are put back, and the dicts, lists and sets among them with what they held; what is
    kept deeper, or in `__slots__`, is not. What did not change is not written to: some dicts refuse
    to be written to at all.
    """
    with _attributes(list(model.modules())):
        yield


@contextmanager
def _attributes(modules: list[nn.Module]) -> Iterator[None]:
    found = [(module, dict(vars(module))) for module in modules]
    # the registries of parameters, buffers and modules are dicts among the attributes
    containers = [
        item for _, own in found for item in own.values() if isinstance(item, (dict, list, set))
    ]
    empty = [container for container in containers if not container]  # most of them
    filled = [(container, _content(container)) for container in containers if container]
    try:
        yield
    finally:
        for module, own in found:
            if not _same(vars(module), own):
                vars(module).clear()
                vars(module).update(own)
        for container in empty:
            if container:
                container.clear()
        for container, content in filled:
            if not _same(container, content):
                container.clear()
                (container.extend if isinstance(container, list) else container.update)(content)


def _content(container: Any) -> Any:
    """What a container holds: a dict's in a dict, that of others in a list."""
    return dict(container) if isinstance(container, dict) else list(container)


def _same(first: Any, second: Any) -> bool:
    """Whether two contents are the same objects in the same order."""
    if len(first) != len(second) or not all(map(operator.is_, first, second)):
        return False
    return not isinstance(first, dict) or all(map(operator.is_, first.values(), second.values()))


@contextmanager
def _buffers(modules: list[nn.Module]) -> Iterator[None]:
    buffers = {id(b): b for module in modules for _, b in module._buffers.items() if b is not None}
    contents = [(buffer, buffer.detach().clone()) for buffer in buffers.values()]
    try:
        yield
    finally:
        for buffer, content in contents:
            if not torch.equal(buffer, content):
                # through .data, because it may belong to a pending backward of the user's
                buffer.data.copy_(content)


def _remove_backward_hooks(modules: list[nn.Module]) -> None:
    """Inside `_attributes`, which restores them."""
    for module in modules:
        if module._backward_hooks or module._backward_pre_hooks:
            module._backward_hooks = OrderedDict()
            module._backward_pre_hooks = OrderedDict()


@contextmanager
def _workers(data: Any) -> Iterator[None]:
    """Keep the running iteration that a loader with persistent workers stores on itself."""
    running = getattr(data, "_iterator", None)
    if running is None:
        yield
        return
    data._iterator = None
    try:
        yield
    finally:
        data._iterator = running


@contextmanager
def _parameters(modules: list[nn.Module]) -> Iterator[None]:
    held = {id(p): p for module in modules for _, p in module._parameters.items() if p is not None}
    found = [(p, p.requires_grad, p.grad, p._backward_hooks) for p in held.values()]
    try:
        for parameter, _, _, hooks in found:
            parameter.grad = None  # so that nothing can be added to the user's
            if hooks:
                parameter._backward_hooks = None
        yield
    finally:
        for parameter, requires_grad, grad, hooks in found:
            if parameter.requires_grad != requires_grad:  # lazy ones refuse to be set
                parameter.requires_grad_(requires_grad)
            parameter.grad = grad
            if hooks:
                parameter._backward_hooks = hooks


@contextmanager
def _random_states(sources: list[torch.Generator]) -> Iterator[None]:
    generators = [(source, source.get_state()) for source in sources]
    own = _SHARED.enter()
    try:
        yield
    finally:
        _SHARED.leave(own)
        for source, state in generators:
            source.set_state(state)


class _Shared:
    """The random states of the process, which measurements in several threads share.

    They are put back when the last measurement ends: as they were before the first one began.
    """

    def __init__(self) -> None:
        self._lock, self._holders = threading.Lock(), list[int]()
        self._first: tuple[Any, ...] = ()

    def enter(self) -> tuple[Any, ...]:
        """What `leave` needs."""
        with self._lock:
            own = _states()
            if not self._holders:
                self._first = own
            self._holders.append(threading.get_ident())
        return own

    def leave(self, own: tuple[Any, ...]) -> None:
        """Put the states back, unless another thread is in the middle of a measurement."""
        me = threading.get_ident()
        with self._lock:
            self._holders.remove(me)
            if not self._holders:
                _put_back(*self._first)
            elif set(self._holders) == {me}:  # inside of another measurement in this thread
                _put_back(*own)


_SHARED = _Shared()


def _states() -> tuple[Any, ...]:
    accelerator = torch.cuda.get_rng_state_all() if torch.cuda.is_initialized() else None  # type: ignore[no-untyped-call]
    return torch.get_rng_state(), np.random.get_state(), random.getstate(), accelerator


def _put_back(own: Any, numpy: Any, python: Any, accelerator: Any) -> None:
    torch.set_rng_state(own)
    np.random.set_state(numpy)
    random.setstate(python)
    if accelerator is not None:
        torch.cuda.set_rng_state_all(accelerator)


def _generators(data: Any) -> list[torch.Generator]:
    """Generators that a data loader draws its order from."""
    samplers = [getattr(data, "sampler", None), getattr(data, "batch_sampler", None)]
    inner = [getattr(sampler, "sampler", None) for sampler in samplers]
    owners = [data, *samplers, *inner]
    found = [getattr(owner, "generator", None) for owner in owners]
    return list({id(g): g for g in found if isinstance(g, torch.Generator)}.values())
