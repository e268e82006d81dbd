"""The mean of per-sample losses as a function of the model's trainable parameters."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from .errors import (
    CoupledSamplesError,
    LossError,
    ModelError,
    RandomLossError,
)
from .guard import differentiable_kernels, untouched
from .losses import LossFn, supervised
from .trees import Batch, TensorDict, map_samples, sample_count, select

_COUPLING = (nn.modules.batchnorm._BatchNorm,)
_RANDOM = (nn.modules.dropout._DropoutNd, nn.RReLU, nn.MultiheadAttention, nn.RNNBase)


class Objective:
    """L(w) = mean over samples of ℓ_i(w), differentiable in the trainable parameters w.

    Args:
        model: any `nn.Module`; it is never changed.
        loss_fn: `loss_fn(model, batch)` with one loss per sample, shape (n,), or a torch criterion
            for batches `(inputs, targets)`.

    Raises:
        ModelError: no trainable parameter; parameters not initialised or not real.
        LossError: `loss_fn` is not callable.
    """

    def __init__(self, model: nn.Module, loss_fn: LossFn | nn.Module) -> None:
        self.model = model
        self.loss_fn = _as_loss_fn(loss_fn)
        self.parameters: TensorDict = _trainable(model)
        self._opened_modes = _modes(model)
        self._depth = 0

    @property
    def device(self) -> torch.device:
        """Where the samples have to be."""
        return next(iter(self.parameters.values())).device

    @property
    def size(self) -> int:
        """Number of trainable parameters P."""
        return sum(parameter.numel() for parameter in self.parameters.values())

    @contextmanager
    def guard(self, data: Any = None) -> Iterator[None]:
        """Measure inside this; the outermost one puts everything back."""
        if self._depth:
            yield
            return
        self._check_unchanged()
        self._depth += 1
        try:
            with untouched(self.model, data):
                yield
        finally:
            self._depth -= 1

    def _check_unchanged(self) -> None:
        """The model has to be the one that was opened: same parameters, same modes."""
        now = _trainable(self.model)
        same = [*map(id, now.values())] == [*map(id, self.parameters.values())]
        if not same or _modes(self.model) != self._opened_modes:
            raise ModelError(
                "the model has other trainable parameters, or other training modes, than when "
                "this measurement was set up; build the operator again after changing the model"
            )

    def losses(self, batch: Batch) -> Tensor:
        """Per-sample losses, shape (n,), with their graph.

        Raises:
            LossError: not one loss per sample, or a loss that is not finite.
        """
        own = map_samples(lambda leaf: leaf, batch)  # a loss_fn may pop from its batch
        losses = self.loss_fn(self.model, own)
        _check_shape(losses, sample_count(batch))
        check_finite(losses)
        return losses

    def gradient(
        self, batch: Batch, weights: Tensor | None = None, *, create_graph: bool = False
    ) -> list[Tensor]:
        """Σ_i weights_i ∇ℓ_i over a batch, one tensor per parameter; weights default to 1."""
        losses = self.losses(batch)
        if weights is None:
            weights = torch.ones_like(losses)
        return self.differentiate(losses, weights.to(losses), create_graph=create_graph)

    def differentiate(
        self, outputs: Tensor, weights: Tensor | None = None, *, create_graph: bool = False
    ) -> list[Tensor]:
        """∇_w of outputs (weighted sum), zeros where a parameter does not take part."""
        parameters = list(self.parameters.values())
        if not outputs.requires_grad:
            return [torch.zeros_like(parameter) for parameter in parameters]
        gradients = torch.autograd.grad(
            outputs, parameters, weights, create_graph=create_graph, allow_unused=True
        )
        return [
            torch.zeros_like(parameter) if gradient is None else _dense(gradient)
            for gradient, parameter in zip(gradients, parameters, strict=True)
        ]

    def second_order(self) -> Any:
        """Context in which products with the Hessian are taken."""
        return differentiable_kernels(self.model)

    def check(self, batch: Batch) -> None:
        """Raise unless `batch` has independent, reproducible, differentiable losses.

        Raises:
            LossError: see `losses`; also when no parameter takes part in the loss.
            RandomLossError: two evaluations differ (dropout in training mode).
            CoupledSamplesError: losses of a part differ from losses of the whole (batch
                normalisation in training mode, a loss divided by the batch size).
        """
        whole = self._first_look(batch)
        if not whole.requires_grad:
            raise LossError(
                "the loss does not depend on any trainable parameter of `model`. Does loss_fn "
                "use the model it is given, without detach() or torch.no_grad()?"
            )
        if _differs(whole, self.losses(batch), self._tolerance(whole)):
            raise RandomLossError(self._random_message())
        count = sample_count(batch)
        if count < 2:
            return
        for half in (slice(0, count // 2), slice(count // 2, None)):
            part = self._reading_coupling(lambda half=half: self.losses(select(batch, half)))  # type: ignore[misc]
            if _differs(whole[half], part, self._tolerance(whole)):
                raise CoupledSamplesError(self._coupled_message())

    def refuse_coupling(self) -> None:
        """Raise CoupledSamplesError for a layer that couples by its kind, unseen."""
        if self._coupling_layers():
            raise CoupledSamplesError(self._coupled_message())

    def _first_look(self, batch: Batch) -> Tensor:
        """The losses; a wrong signature is the most common mistake."""
        try:
            return self._reading_coupling(lambda: self.losses(batch))
        except TypeError as error:
            raise LossError(
                f"loss_fn(model, batch) failed with TypeError: {error}. It is called with the "
                f"model and a batch as the data give it; for a criterion(outputs, targets) pass "
                f"gn.supervised(criterion)."
            ) from error

    def _reading_coupling(self, evaluate: Callable[[], Tensor]) -> Tensor:
        """Batch normalisation refuses a batch of one; say what that means here."""
        try:
            return evaluate()
        except ValueError as error:
            if "Expected more than 1 value per channel" not in str(error):
                raise
            raise CoupledSamplesError(self._coupled_message()) from error

    def _tolerance(self, losses: Tensor) -> float:
        """Half of the digits of the coarsest dtype at work: kernels differ with the batch size."""
        dtypes = {p.dtype for p in self.model.parameters() if p.is_floating_point()}
        if torch.is_autocast_enabled(losses.device.type):
            dtypes.add(torch.get_autocast_dtype(losses.device.type))
        coarsest = max(torch.finfo(dtype).eps for dtype in dtypes | {losses.dtype})
        return math.sqrt(coarsest)

    def _random_message(self) -> str:
        names = self._named(_RANDOM, _is_random)
        where = f" Random layers in training mode: {names}." if names else ""
        return (
            f"two evaluations of the same samples gave different losses, so there is no one loss "
            f"to differentiate.{where} Call model.eval() before measuring, or set the dropout "
            f"probability to 0; take random augmentation and state that forward updates (spectral "
            f"norm) out of it."
        )

    def _coupled_message(self) -> str:
        names = self._coupling_layers()
        where = f" Batch normalisation in training mode: {names}." if names else ""
        return (
            f"the losses of part of a batch differ from the same samples' losses within the whole "
            f"batch, so one sample changes the loss of another and per-sample gradients do not "
            f"exist.{where} Call model.eval(), use a norm that does not couple samples (GroupNorm, "
            f"LayerNorm), and do not divide by the batch size inside loss_fn."
        )

    def _coupling_layers(self) -> str:
        return self._named(_COUPLING, lambda _: True)

    def _named(self, kinds: tuple[type[nn.Module], ...], active: Callable[[nn.Module], Any]) -> str:
        found = [
            f"{name or 'model'} ({type(module).__name__})"
            for name, module in self.model.named_modules()
            if isinstance(module, kinds) and module.training and active(module)
        ]
        more = f" and {len(found) - 5} more" if len(found) > 5 else ""
        return ", ".join(found[:5]) + more


def _as_loss_fn(loss_fn: Any) -> LossFn:
    bare = loss_fn.func if isinstance(loss_fn, functools.partial) else loss_fn
    if isinstance(loss_fn, nn.Module) or getattr(bare, "__module__", "") == _FUNCTIONAL:
        return supervised(loss_fn)
    if isinstance(loss_fn, type):
        raise LossError(
            f"`loss_fn` is the class {loss_fn.__name__}; make one: {loss_fn.__name__}()"
        )
    if callable(loss_fn):
        return loss_fn  # type: ignore[no-any-return]
    raise LossError(
        f"`loss_fn` must be a torch criterion or a function of (model, batch) that returns one "
        f"loss per sample, shape (n,); got {type(loss_fn).__name__}"
    )


_FUNCTIONAL = nn.functional.__name__


def _modes(model: nn.Module) -> list[bool]:
    return [module.training for module in model.modules()]


def _trainable(model: nn.Module) -> TensorDict:
    if not isinstance(model, nn.Module):
        raise ModelError(f"`model` must be a torch.nn.Module; got {type(model).__name__}")
    named = list(model.named_parameters())
    for name, parameter in named:
        if isinstance(parameter, nn.parameter.UninitializedParameter):
            raise ModelError(
                f"parameter {name!r} is not initialised yet; run the model once on a batch first"
            )
        if parameter.is_inference():
            raise ModelError(
                f"parameter {name!r} was made under torch.inference_mode() and has no gradient; "
                f"build or load the model outside of it"
            )
        if parameter.is_complex():
            raise ModelError(
                f"parameter {name!r} is complex; keep its real and imaginary parts as two real "
                f"parameters (torch.view_as_real) to measure this model"
            )
    trainable: TensorDict = {
        name: parameter for name, parameter in named if parameter.requires_grad
    }
    if not sum(parameter.numel() for parameter in trainable.values()):
        raise ModelError(
            f"the model has no trainable parameter: {len(named)} parameters, none with entries "
            f"and requires_grad. Unfreeze what you train before measuring."
        )
    return trainable


def check_finite(losses: Tensor) -> None:
    """Raise LossError if any per-sample loss is nan or infinite."""
    bad = (~torch.isfinite(losses.detach())).nonzero().flatten().tolist()
    if bad:
        raise LossError(
            f"the loss is not finite for {len(bad)} of {len(losses)} samples of a micro-batch "
            f"(positions {bad[:5]}). Look at those samples and at the parameters; a model that "
            f"has diverged has no noise scale."
        )


def _check_shape(losses: Any, count: int) -> None:
    if not isinstance(losses, Tensor):
        raise LossError(
            f"loss_fn must return a tensor with one loss per sample, shape ({count},); "
            f"got {type(losses).__name__}"
        )
    if losses.shape == (count,):
        return
    shape = tuple(losses.shape)
    got = "a single number for the whole batch" if losses.ndim == 0 else f"shape {shape}"
    raise LossError(
        f"loss_fn must return one loss per sample, shape ({count},); got {got}. Use "
        f"reduction='none' and average over a sample's own dimensions only, or pass the torch "
        f"criterion itself."
    )


def _differs(first: Tensor, second: Tensor, tolerance: float) -> bool:
    first, second = first.detach().double(), second.detach().double()
    scale = first.abs().mean().clamp(min=torch.finfo(torch.float64).tiny)
    return bool((first - second).abs().max() > tolerance * scale)


def _is_random(module: nn.Module) -> bool:
    rates = getattr(module, "p", 0), getattr(module, "dropout", 0)  # dropout layers; attention, RNN
    return isinstance(module, nn.RReLU) or any(rates)


def _dense(gradient: Tensor) -> Tensor:
    return gradient.to_dense() if gradient.is_sparse else gradient
