"""Whether a batch has losses that can be measured: independent, reproducible, differentiable."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from ..errors import CoupledSamplesError, LossError, ModelError, RandomLossError, explained
from ..tensors.trees import Batch, sample_count, select, widen
from .objective import Objective
from .other_model import refuse_other_model

_COUPLING = (nn.modules.batchnorm._BatchNorm,)
_RANDOM = (nn.modules.dropout._DropoutNd, nn.RReLU, nn.MultiheadAttention, nn.RNNBase)


def check_batch(objective: Objective, batch: Batch) -> None:
    """Raise unless `batch` has independent, reproducible, differentiable losses.

    Raises:
        LossError: see `losses`; also when no parameter takes part in the loss, or only those of
            another model (`refuse_other_model`).
        RandomLossError: two evaluations differ (dropout in training mode).
        ModelError: gradients reach parameters by a backward pass of the model's own.
        CoupledSamplesError: losses of a part differ from losses of the whole (batch
            normalisation in training mode, a loss divided by the batch size).
    """
    whole = _first_look(objective, batch)
    if not whole.requires_grad:
        raise LossError(
            "the loss does not depend on any trainable parameter of `model`. Does loss_fn "
            "use the model it is given, without detach() or torch.no_grad()?"
        )
    whole = whole.detach()  # and with it the graph, before there is another
    if _differs(whole, objective.losses(batch), _tolerance(objective, whole)):
        raise RandomLossError(_random_message(objective))
    _refuse_hidden_gradients(objective, select(batch, slice(0, 2)))
    refuse_other_model(objective, batch)
    count = sample_count(batch)
    if count < 2:
        return
    for half in (slice(0, count // 2), slice(count // 2, None)):
        part = _losses(objective, select(batch, half))
        if _differs(whole[half], part, _tolerance(objective, whole)):
            raise _coupled(objective)
    for index in (0, count - 1):
        alone = _alone(objective, select(batch, slice(index, index + 1)))
        replaced = whole.detach().clone()
        replaced[index] = replaced[index] if alone is None else alone.detach()[0]
        if _differs(whole, replaced, _tolerance(objective, whole)):
            raise _coupled(objective)


def _refuse_hidden_gradients(objective: Objective, batch: Batch) -> None:
    """`.grad` is None inside the guard; only a backward pass of the model's own fills it."""
    objective.gradient(batch)
    hidden = [name for name, p in objective.parameters.items() if p.grad is not None]
    if hidden:
        raise ModelError(
            f"the backward pass of some operation fills .grad of {', '.join(hidden[:3])} by a "
            f"backward pass of its own (reversible layers, checkpoints of another library), which "
            f"cannot be followed: turn it off for the measurement"
        )


def _alone(objective: Objective, sample: Batch) -> Tensor | None:
    """The loss of a single sample; None for a model that cannot take one."""
    try:
        return objective.losses(sample)
    except Exception:  # the user's code: it need not take batches of one
        return None


def refuse_coupling(objective: Objective) -> None:
    """Raise CoupledSamplesError for a layer of a kind that couples samples, without a test."""
    if _coupling_layers(objective):
        raise _coupled(objective)


def _first_look(objective: Objective, batch: Batch) -> Tensor:
    """The losses; a wrong signature is the most common mistake."""
    try:
        return _losses(objective, batch)
    except TypeError as error:
        raise LossError(
            f"loss_fn(model, batch) failed with TypeError: {error}. It is called with the "
            f"model and a batch as the data give it; for a criterion(outputs, targets) pass "
            f"gn.supervised(criterion)."
        ) from error


def _losses(objective: Objective, batch: Batch) -> Tensor:
    """The losses; where batch normalisation refuses a single sample, our error."""
    refused = "Expected more than 1 value per channel"
    with explained(ValueError, refused, partial(_coupled, objective)):
        return objective.losses(batch)


def resolution(objective: Objective, losses: Tensor) -> float:
    """eps of the coarsest dtype that is used."""
    dtypes = {p.dtype for p in objective.model.parameters() if p.is_floating_point()}
    if torch.is_autocast_enabled(losses.device.type):
        dtypes.add(torch.get_autocast_dtype(losses.device.type))
    return max(torch.finfo(dtype).eps for dtype in dtypes | {losses.dtype})


def _tolerance(objective: Objective, losses: Tensor) -> float:
    """√eps, since kernels differ with the batch size."""
    return math.sqrt(resolution(objective, losses))


def _random_message(objective: Objective) -> str:
    names = _named(objective.model, _RANDOM, _is_random)
    where = f" Random layers in training mode: {names}." if names else ""
    return (
        f"two evaluations of the same samples gave different losses, so there is no one loss "
        f"to differentiate.{where} Call model.eval() before measuring, or set the dropout "
        f"probability to 0; take random augmentation and state that forward updates (spectral "
        f"norm) out of it."
    )


def _coupled(objective: Objective) -> CoupledSamplesError:
    names = _coupling_layers(objective)
    where = f" Batch normalisation in training mode: {names}." if names else ""
    return CoupledSamplesError(
        f"the losses of part of a batch differ from the same samples' losses within the whole "
        f"batch, so one sample changes the loss of another and per-sample gradients do not "
        f"exist.{where} Call model.eval(), use a norm that does not couple samples (GroupNorm, "
        f"LayerNorm), and do not divide by the batch size inside loss_fn."
    )


def _coupling_layers(objective: Objective) -> str:
    return _named(objective.model, _COUPLING, lambda _: True)


def _named(
    model: nn.Module, kinds: tuple[type[nn.Module], ...], active: Callable[[nn.Module], Any]
) -> str:
    found = [
        f"{name or 'model'} ({type(module).__name__})"
        for name, module in model.named_modules()
        if isinstance(module, kinds) and module.training and active(module)
    ]
    more = f" and {len(found) - 5} more" if len(found) > 5 else ""
    return ", ".join(found[:5]) + more


def _differs(first: Tensor, second: Tensor, tolerance: float) -> bool:
    first, second = widen(first.detach()), widen(second.detach())
    scale = first.abs().mean().clamp(min=torch.finfo(first.dtype).tiny)
    return bool((first - second).abs().max() > tolerance * scale)


def _is_random(module: nn.Module) -> bool:
    rates = getattr(module, "p", 0), getattr(module, "dropout", 0)  # dropout layers; attention, RNN
    return isinstance(module, nn.RReLU) or any(rates)
