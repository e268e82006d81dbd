"""The step that an optimizer would take next, found on a copy of its state."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from ..errors import ArgumentError, first_line, is_out_of_memory
from ..tensors.trees import TensorDict, widen
from .state.wrappers import bare_optimizer


def next_update(
    optimizer: torch.optim.Optimizer,
    parameters: TensorDict,
    gradient: Tensor,
    max_norm: float | None = None,
) -> list[Tensor]:
    """u of the next step w ← w - εu, one tensor per parameter; float64 (float32 on MPS).

    ε is the learning rate of the first group, so that other groups move in proportion. Momentum,
    second moments and weight decay are included; parameters that the optimizer does not hold have
    u = 0. The optimizer and the parameters are only read: hooks of its step do not run.

    Args:
        optimizer: any whose `step()` needs neither a closure nor sparse gradients.
        parameters: those that the gradient is about, by name.
        gradient: of the next step, shape (P,).
        max_norm: norm to which the gradient is clipped first; None for no clipping.

    Raises:
        ArgumentError: not a torch optimizer, one that holds none of the parameters, a learning
            rate that is not positive, a step that fails on the copy, or a step that is not finite.
    """
    optimizer = bare_optimizer(optimizer)
    rate = _rate(optimizer, parameters)
    try:
        copied: dict[int, Any] = {id(old): new for old, new in _wide_copies(optimizer)}
        twin = _twin(optimizer, copied)
        moved = [copied.get(id(parameter)) for parameter in parameters.values()]
        parts = torch.split(gradient, [p.numel() for p in parameters.values()])
        for own, part in zip(moved, parts, strict=True):
            if own is not None:
                own.grad = part.reshape(own.shape).clone()
        if max_norm is not None:
            nn.utils.clip_grad_norm_([own for own in moved if own is not None], max_norm)
        twin.step()
    except (RuntimeError, TypeError, ValueError, AttributeError, KeyError) as error:
        if is_out_of_memory(error):
            raise
        raise ArgumentError(
            f"the next step of {type(optimizer).__name__} cannot be taken on a copy of it: "
            f"{first_line(error).rstrip('.')}. `optimizer` must be one whose step() needs no "
            f"closure and takes dense gradients, with the state of these parameters"
        ) from error
    update = [
        widen(torch.zeros_like(p)) if own is None else (widen(p.detach()) - own.detach()) / rate
        for own, p in zip(moved, parameters.values(), strict=True)
    ]
    if not all(bool(torch.isfinite(part).all()) for part in update):
        raise ArgumentError(
            f"the next step of {type(optimizer).__name__} is not finite: its state or the gradient "
            f"has overflowed; measure at a checkpoint from before that"
        )
    return update


def _rate(optimizer: Any, parameters: TensorDict) -> float:
    if not isinstance(optimizer, torch.optim.Optimizer):
        raise ArgumentError(
            f"`optimizer` must be a torch.optim.Optimizer; got {type(optimizer).__name__}"
        )
    held = {id(p) for group in optimizer.param_groups for p in group["params"]}
    if held.isdisjoint(map(id, parameters.values())):
        raise ArgumentError(
            "`optimizer` holds no trainable parameter of `model`; pass the optimizer that trains it"
        )
    rate = float(optimizer.param_groups[0].get("lr", 0.0))
    if not rate > 0:
        raise ArgumentError(
            f"the learning rate of the first group is the unit of the step and must be positive; "
            f"got {rate:g}. Set optimizer.param_groups[0]['lr'] to a small positive number"
        )
    return rate


def _wide_copies(optimizer: torch.optim.Optimizer) -> Iterator[tuple[Tensor, Tensor]]:
    """Parameters and state in float64: a step is often smaller than a parameter's rounding."""
    for group in optimizer.param_groups:
        for parameter in group["params"]:
            yield parameter, nn.Parameter(_wide(parameter), parameter.requires_grad)
    for tensor in _tensors(optimizer.state):
        yield tensor, _wide(tensor)


def _wide(tensor: Tensor) -> Tensor:
    own = tensor.detach()
    return widen(own).clone() if own.is_floating_point() else own.clone()


def _tensors(state: Any) -> Iterator[Tensor]:
    if isinstance(state, Tensor):
        yield state
    elif isinstance(state, Mapping):
        for key, item in state.items():
            if not isinstance(key, str) or key != "step":  # fused kernels want it in float32
                yield from _tensors(item)
    elif isinstance(state, (list, tuple)):
        for item in state:
            yield from _tensors(item)


def _twin(optimizer: torch.optim.Optimizer, copied: dict[int, Any]) -> torch.optim.Optimizer:
    """A copy that holds the tensors in `copied` in place of the optimizer's own."""
    twin: torch.optim.Optimizer = copy.deepcopy(optimizer, copied)
    # torch copies defaults, groups and state alone: neither hooks nor what a subclass adds
    for name, value in vars(optimizer).items():
        if name not in vars(twin) and not callable(value):
            setattr(twin, name, copy.deepcopy(value, copied))
    return twin
