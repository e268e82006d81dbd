"""The mean of per-sample losses as a function of the model's trainable parameters."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn

from ..errors import BatchLossError, LossError, ModelError
from ..ranks.ranks import ALONE, Ranks
from ..tensors.fingerprint import fingerprints
from ..tensors.ragged import opened, tensors_in
from ..tensors.space import Space
from ..tensors.trees import (
    Batch,
    TensorDict,
    binary_size,
    map_samples,
    sample_count,
    unflatten,
    widen,
)
from .custom_functions import differenced
from .full_precision import full_precision
from .function_part import FunctionClass
from .graph import vector_jacobian
from .losses.criterion import supervised
from .losses.loss_fn import LossFn
from .memory import refuse_common
from .once_only import operations_differenced
from .preconditioner import Preconditioner
from .replicas import require_replicas
from .sharded_space import ShardedSpace
from .shards import Shards, needs_whole
from .shares import WeightedLosses
from .state.generators import own_generators
from .state.guard import differentiable_kernels, moved, untouched
from .state.power_iterations import held_still
from .state.replica import Replica, replica_of
from .state.wrappers import bare_model, eager, see_through
from .unit import SAMPLE, Unit, UnitLosses, given
from .work import Work

Watch = Callable[[list[Tensor]], AbstractContextManager[Any]]


class Objective:
    """L(w) = mean over samples of ℓ_i(w), differentiable in the trainable parameters w.

    Args:
        model: any `nn.Module`; it is never changed.
        loss_fn: `loss_fn(model, batch)` with one loss per sample, shape (n,), or a torch criterion
            for batches `(inputs, targets)`.
        unit: what ℓ_i is the loss of, and whether batches are `Seeded`.
        ranks: those that measure it together.
        replica: the model with whole parameters, where it is sharded and was gathered before.
        shards: its parameters, where one layer is gathered at a time.

    Raises:
        ModelError: no trainable parameter; parameters not initialised or not real; several that
            share memory.
        LossError: `loss_fn` is not callable.
    """

    def __init__(
        self,
        model: nn.Module,
        loss_fn: LossFn | nn.Module,
        unit: Unit = SAMPLE,
        ranks: Ranks = ALONE,
        replica: Replica | None = None,
        shards: Shards | None = None,
    ) -> None:
        self.model, self.unit, self.ranks = model, unit, ranks
        self.loss_fn: LossFn = as_loss_fn(loss_fn)
        self.criterion = loss_fn  # as given: a module may hold class weights
        self.shards = shards
        self.replica = replica
        if shards is None and replica is None:
            self.replica = replica_of(model, ranks)
        with self._standing():
            self.parameters: TensorDict = _trainable(model)
        if shards is not None:
            self.parameters = shards.unsharded
        self.generators = own_generators(model, loss_fn)
        if unit.mean_weight is not None:
            self.loss_fn = WeightedLosses(self.loss_fn, unit.mean_weight)
        if unit.is_seeded:
            self.loss_fn = UnitLosses(self.loss_fn, unit, self.generators)
        if shards is None:  # whole parameters have no memory between the turns of their layers
            refuse_common(self.parameters)
        self._opened_modes = _modes(model.modules())
        self._depth = self._entered = 0
        self.hidden: list[FunctionClass] = []  # that hide their second derivatives
        self.once: list[Any] = []  # operations of torch that have none
        self.findings: dict[str, Any] | None = None  # of earlier calls; see `known`
        self.work = Work()
        self.is_unconfirmed = False  # whether they are used and not yet seen to hold still

    preconditioner: Preconditioner | None = None  # of the coordinates z = P^½w, where used

    @property
    def plain(self) -> Objective:
        """The objective in the parameters w themselves, without a preconditioner."""
        return self

    def again(self, unit: Unit | None = None) -> Objective:
        """The same model and loss, of the parameters that are trainable now, or of other units."""
        unit = self.unit if unit is None else unit
        found = Objective(self.model, self.criterion, unit, self.ranks, self.replica, self.shards)
        found.work = self.work
        return found

    @property
    def note(self) -> str:
        """What of the model's own is left out, for the reader."""
        return "" if self.replica is None else self.replica.note

    def decay(self) -> TensorDict | None:
        """What weight decay adds to every gradient, by name; None here."""
        return None

    @property
    def device(self) -> torch.device:
        """The device of the parameters, where the samples have to be."""
        return next(iter(self.parameters.values())).device

    @property
    def size(self) -> int:
        """Number of trainable parameters P."""
        return sum(parameter.numel() for parameter in self.parameters.values())

    @property
    def registered(self) -> TensorDict:
        """The parameters as the model shows them inside of a guard, and before a pass."""
        return self.parameters if self.shards is None else self.shards.sharded

    @property
    def local_parameters(self) -> TensorDict:
        """What a vector over the parameters consists of here: of all of them, or of parts."""
        return self.parameters if self.shards is None else self.shards.local_parts()

    @property
    def sizes(self) -> dict[str, int]:
        """Entries of every whole parameter, by name."""
        return {name: parameter.numel() for name, parameter in self.parameters.items()}

    @functools.cached_property
    def space(self) -> Space:
        """Of the vectors over the parameters."""
        if self.shards is not None:
            return ShardedSpace(self.shards, self.device)
        shapes = {name: parameter.shape for name, parameter in self.parameters.items()}
        return Space(self.size, self.device, shapes)

    def norm(self, tensors: Iterable[Tensor]) -> float:
        """The length of such a vector, of its parts by parameter."""
        squares = torch.stack([widen(own).square().sum().to(self.device) for own in tensors])
        return float(self.space.over(squares.sum()).sqrt())

    def binary_sizes(self, vectors: Iterable[Tensor]) -> list[float]:
        """`binary_size` of such vectors."""
        if self.shards is None:
            return [*map(binary_size, vectors)]
        squares = torch.stack([widen(vector).square().sum() for vector in vectors])
        squares = self.space.over(squares)
        return [binary_size(norm[None]) for norm in squares.sqrt()]

    @contextmanager
    def moved(self, direction: Sequence[Tensor], step: float) -> Iterator[None]:
        """The parameters are moved along a direction, laid out as such vectors are."""
        with moved([*self.local_parameters.values()], direction, step):
            self._reshard()
            yield
        self._reshard()

    def _reshard(self) -> None:
        """No layer keeps whole parameters of before."""
        if self.shards is not None:
            self.shards.reshard()

    @property
    def sample_bytes(self) -> int:
        """Bytes of the gradient of one sample, in the dtypes of the parameters."""
        return sum(p.numel() * p.element_size() for p in self.parameters.values())

    def fingerprint(self) -> Hashable:
        """A tuple that changes with the value of any parameter or buffer of model or loss."""
        parts = [part for part in (self.model, self.criterion) if isinstance(part, nn.Module)]
        if self.shards is not None:
            return fingerprints([*self.shards.local_parts().values()]), *map(_values_of, parts[1:])
        if self.replica is not None:
            return self.replica.fingerprint(), *map(_values_of, parts[1:])
        return tuple(map(_values_of, parts))

    @contextmanager
    def guard(self, data: Any = None) -> Iterator[None]:
        """Measure inside this; the outermost one puts everything back."""
        if self._depth:
            yield
            return
        with self.ranks.together(), self._standing():
            modules = list(self.model.modules())
            self._check_unchanged(modules)
            require_replicas(self.ranks, self.model, self.criterion)
            self._depth += 1
            self._entered += 1
            try:
                with (
                    untouched(self.model, data, self.generators),
                    nullcontext() if self.shards is None else self.shards.resharded(),
                    eager(),
                    held_still(modules),
                ):
                    see_through(modules)
                    yield
            finally:
                self._depth -= 1

    def _standing(self) -> AbstractContextManager[None]:
        """Inside, the parameters of the model are whole, or those of every layer at its turn."""
        self._reshard()
        return nullcontext() if self.replica is None else self.replica.standing()

    def groups(self, optimizer: torch.optim.Optimizer) -> list[dict[str, Any]]:
        """The groups of the user's optimizer, of the parameters here."""
        return optimizer.param_groups if self.replica is None else self.replica.groups(optimizer)

    def optimizer(self, optimizer: torch.optim.Optimizer) -> torch.optim.Optimizer:
        """The user's optimizer, of the parameters here."""
        return optimizer if self.replica is None else self.replica.optimizer(optimizer)

    @property
    def is_guarded(self) -> bool:
        """Whether it is inside of a guard."""
        return self.plain._depth > 0

    @property
    def entered(self) -> int:
        """How often it has been guarded."""
        return self.plain._entered

    def _check_unchanged(self, modules: list[nn.Module]) -> None:
        """The model has to be the one that was opened: same parameters, same modes."""
        now = [p for p in bare_model(self.model).parameters() if p.requires_grad]
        same = [*map(id, now)] == [*map(id, self.registered.values())]
        if not same or _modes(modules) != self._opened_modes:
            raise ModelError(
                "the model has other trainable parameters, or other training modes, than when "
                "this measurement was set up; build the operator again after changing the model"
            )

    def losses(self, batch: Batch, watch: Watch | None = None) -> Tensor:
        """Per-sample losses, shape (n,), with their graph.

        Args:
            batch: the samples.
            watch: gives the context that the user's code runs in, from the tensors of samples that
                are put together here.

        Raises:
            LossError: not one loss per sample, or a loss that is not finite.
        """
        own = given(batch, self.generators)
        made = own is not batch
        if not made:
            own = map_samples(lambda leaf: leaf, batch)  # a loss_fn may pop from its batch
        watched = watch(list(tensors_in(own)) if made else []) if watch else nullcontext()
        with self._in_step(), watched:
            losses = self.loss_fn(self.model, own)
            _check_shape(losses, sample_count(batch))
            self.work.forward += len(losses)
            check_finite(losses)
        return losses

    def _in_step(self) -> AbstractContextManager[None]:
        """Ranks that gather layers together make each pass together, and fail in it together."""
        return nullcontext() if self.shards is None else self.ranks.in_step()

    def gradient(
        self, batch: Batch, weights: Tensor | None = None, *, create_graph: bool = False
    ) -> list[Tensor]:
        """Σ_i weights_i ∇ℓ_i over a batch, one tensor per parameter; weights default to 1."""
        losses = self.losses(batch)
        if weights is None:
            weights = torch.ones_like(losses)
        return self.differentiate(losses, weights.to(losses), create_graph=create_graph)

    def gradients(self, batch: Batch, rows: Tensor) -> Iterator[list[Tensor]]:
        """Σ_i w_i ∇ℓ_i for every row w of weights, shape (K, n): one forward pass for all."""
        losses = self.losses(batch)
        for left, weights in zip(reversed(range(len(rows))), rows.to(losses), strict=True):
            yield self.differentiate(losses, weights, keep_graph=left > 0)

    def differentiate(
        self,
        outputs: Tensor,
        weights: Tensor | None = None,
        *,
        create_graph: bool = False,
        keep_graph: bool = False,
    ) -> list[Tensor]:
        """∇_w of outputs (weighted sum), zeros where a parameter does not take part."""
        parameters = list(self.parameters.values())
        if weights is not None and outputs.requires_grad:
            self.work.differentiated(len(weights))
        if self.shards is not None:
            if create_graph:
                raise needs_whole("a second derivative")
            return [*self.shards.differentiate(outputs, weights, keep_graph).values()]
        if not outputs.requires_grad:
            return [torch.zeros_like(parameter) for parameter in parameters]
        gradients = torch.autograd.grad(
            outputs,
            parameters,
            weights,
            retain_graph=keep_graph or create_graph,
            create_graph=create_graph,
            allow_unused=True,
        )
        return [
            dense(gradient, parameter)
            for gradient, parameter in zip(gradients, parameters, strict=True)
        ]

    def product(
        self, gradient: Sequence[Tensor], direction: Tensor, *, create_graph: bool = False
    ) -> list[Tensor]:
        """Hu = ∇_w gᵀu of a gradient g with its graph, zeros where a parameter takes no part."""
        parameters = [*self.parameters.values()]
        found = vector_jacobian(
            gradient, parameters, unflatten(direction, gradient), create_graph=create_graph
        )
        return [dense(part, parameter) for part, parameter in zip(found, parameters, strict=True)]

    @contextmanager
    def second_order(self) -> Iterator[None]:
        """Context in which products with the Hessian are taken.

        In full precision: an autocast has no effect; see `full_precision`.
        """
        with (
            differentiable_kernels(self.model),
            full_precision(self.device),
            differenced(self.hidden),
            operations_differenced(self.once),
        ):
            yield


class Bound(nn.Module):
    """`loss_fn(model, batch)` as a module, so that `functional_call` can swap the parameters."""

    def __init__(self, model: nn.Module, loss_fn: LossFn) -> None:
        super().__init__()
        self.model = bare_model(model)  # whose parameters have their own names
        self._given = (model,)  # no submodule: what wraps the model holds the same parameters
        self._loss_fn = loss_fn
        self.training = model.training

    def forward(self, batch: Any) -> Tensor:
        return self._loss_fn(self._given[0], batch)


class OfOpened:
    """A loss function that is given the samples of `Ragged` batches put together."""

    def __init__(self, loss_fn: LossFn) -> None:
        self.loss_fn = loss_fn

    def __call__(self, model: nn.Module, batch: Batch) -> Tensor:
        return self.loss_fn(model, opened(batch))

    def weights(self, model: nn.Module, batch: Batch) -> Tensor | None:
        """What the samples weigh, where the loss function tells; see `shares`."""
        return self._told("weights", model, batch)  # type: ignore[no-any-return]

    def weighted(self, model: nn.Module, batch: Batch) -> tuple[Tensor, Tensor] | None:
        """w_iℓ_i and w_i, where the loss function tells."""
        return self._told("weighted", model, batch)  # type: ignore[no-any-return]

    def labels(self, model: nn.Module, batch: Batch) -> Tensor | None:
        """How many labels of every sample count, where the loss function tells; see `labels`."""
        return self._told("labels", model, batch)  # type: ignore[no-any-return]

    def _told(self, name: str, model: nn.Module, batch: Batch) -> Any:
        tell = getattr(self.loss_fn, name, None)
        return tell(model, opened(batch)) if callable(tell) else None


def as_loss_fn(loss_fn: Any) -> OfOpened:
    """The losses of a criterion or a function, of batches of every kind."""
    return OfOpened(_checked(loss_fn))


def _checked(loss_fn: Any) -> LossFn:
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


def _values_of(part: nn.Module) -> Hashable:
    return fingerprints([*part.parameters(), *part.buffers()])


def _modes(modules: Iterable[nn.Module]) -> list[bool]:
    return [module.training for module in modules]


def _trainable(model: nn.Module) -> TensorDict:
    if not isinstance(model, nn.Module):
        raise ModelError(f"`model` must be a torch.nn.Module; got {type(model).__name__}")
    named = list(bare_model(model).named_parameters())
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
    if math.isfinite(float(losses.detach().sum())):
        return
    finite = torch.isfinite(losses.detach())
    if not bool(finite.all()):
        bad = (~finite).nonzero().flatten().tolist()
        raise LossError(
            f"the loss is not finite for {len(bad)} of {len(losses)} samples of a micro-batch "
            f"(positions {bad[:5]}). Look at those samples and at the parameters; a model that "
            f"has diverged cannot be measured."
        )


def _check_shape(losses: Any, count: int) -> None:
    if not isinstance(losses, Tensor):
        raise LossError(
            f"loss_fn must return a tensor with one loss per sample, shape ({count},); "
            f"got {type(losses).__name__}"
        )
    if losses.shape == (count,):
        return
    whole = losses.ndim == 0
    got = "a single number for the whole batch" if whole else f"shape {tuple(losses.shape)}"
    raise (BatchLossError if whole else LossError)(
        f"loss_fn must return one loss per sample, shape ({count},); got {got}. Use "
        f"reduction='none' and average over a sample's own dimensions only, or pass the torch "
        f"criterion itself."
    )


def dense(gradient: Tensor | None, like: Tensor) -> Tensor:
    """What `torch.autograd.grad` gives: zeros for None, and no sparse tensors."""
    if gradient is None:
        return torch.zeros_like(like)
    return gradient.to_dense() if gradient.is_sparse else gradient
