"""What has to be the same on all ranks that measure a model together."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from typing import Any

import torch
from torch import Tensor, nn

from ..errors import ArgumentError, ModelError
from ..ranks.ranks import Ranks
from ..tensors.fingerprint import fingerprints
from ..tensors.trees import Batch
from .options import Options
from .state.guard import untouched
from .state.sharded import is_dtensor, is_sharded, reshard
from .state.wrappers import bare_model

_NOT_COMPARED = ("optimizer", "process_group", "gather")  # calls differ in the last
_PLAIN = (bool, int, float, str)
DRIFTED = (
    "the replicas have drifted apart. Copy rank 0's values to all ranks "
    "(torch.distributed.broadcast), as DistributedDataParallel does at its start"
)


def require_options(ranks: Ranks, options: Options, model: Any) -> None:
    """Compare options over the ranks, and kinds of models: some are gathered together.

    Raises:
        ArgumentError, ModelError: they differ.
    """
    own = {f.name: getattr(options, f.name) for f in fields(options) if f.name not in _NOT_COMPARED}
    optimizer = options.optimizer
    own["optimizer"] = None if optimizer is None else type(optimizer).__name__
    own["metric"] = "optimizer" if options.own_metric else "euclidean"
    own["model"] = type(model).__name__
    if isinstance(model, nn.Module) and is_sharded(model):
        named = model.named_parameters()
        own["parameters"] = [(name, tuple(p.shape), p.requires_grad) for name, p in named]
    first, *others = ranks.gathered(own, "options")
    for rank, asked in enumerate(others, 1):
        differ = [name for name, value in first.items() if asked.get(name) != value]
        if "parameters" in differ:
            raise ModelError(
                f"the sharded models of rank 0 and rank {rank} have other parameters, or other "
                f"ones are trained: make them the same on all ranks"
            )
        if differ:
            raise ArgumentError(
                f"`{differ[0]}` is {first[differ[0]]!r} on rank 0 and {asked[differ[0]]!r} on "
                f"rank {rank}: give all ranks the same options"
            )


def require_replicas(ranks: Ranks, model: nn.Module, criterion: Any) -> None:
    """Compare model and loss over the ranks; of parameters that they share, how they lie.

    Buffers of normalisation layers in training are left out: nothing is computed from them.

    Raises:
        ModelError: other parameters, buffers, modes, or settings of the criterion.
    """
    if not ranks.are_several:
        return
    model = bare_model(model)
    parameters = {name: _comparable(p) for name, p in model.named_parameters()}
    trained = {name: p.requires_grad for name, p in model.named_parameters()}
    settings = dict[str, Any]()
    if isinstance(criterion, nn.Module):
        settings = {n: v for n, v in vars(criterion).items() if isinstance(v, _PLAIN)}
        settings |= dict(criterion.named_parameters()) | dict(criterion.named_buffers())
    own: dict[str, Mapping[str, Any]] = {
        "modes of the modules (train or eval)": _modes(model),
        "trainable parameters": trained,
        "parameters": parameters,
        "buffers": _buffers(model),
        "settings of the criterion": settings,
    }
    require_same(ranks, own)


def require_same(ranks: Ranks, own: Mapping[str, Mapping[str, Any]]) -> None:
    """Compare tensors, by value, and plain objects; each by what it belongs to, and by name.

    Raises:
        ModelError: they differ.
    """
    if not ranks.are_several:
        return
    items = {(what, name): item for what, group in own.items() for name, item in group.items()}
    tensors = {key: item.detach() for key, item in items.items() if isinstance(item, Tensor)}
    bits = (bits for _, bits in fingerprints([*tensors.values()]))
    first, *others = ranks.gathered(items | dict(zip(tensors, bits, strict=True)), "replicas")
    for rank, found in enumerate(others, 1):
        apart = [key for key in {**first, **found} if first.get(key) != found.get(key)]
        if apart:
            what, name = apart[0]
            cure = DRIFTED if apart[0] in tensors else "make them the same on all ranks"
            raise ModelError(
                f"{sum(key[0] == what for key in apart)} of {len(own[what])} {what} of rank {rank} "
                f"are not those of rank 0, the first of them {name!r}: {cure}"
            )


def settings_of(optimizer: torch.optim.Optimizer) -> dict[str, dict[str, Any]]:
    """What of an optimizer every rank has to have alike, where each holds a part of its state."""
    groups = enumerate(optimizer.param_groups)
    steps = (state.get("step", 0) for state in optimizer.state.values())
    return {
        "settings of the optimizer": {
            f"{name} of group {k}": repr(value)
            for k, group in groups
            for name, value in group.items()
            if name != "params"
        },
        "steps of the optimizer": {str(k): float(step) for k, step in enumerate(steps)},
    }


def require_whole(objective: Any, few: Batch, whole: Tensor) -> None:
    """Hold losses of a replica to those of the tensor-parallel model as it was found.

    Args:
        objective: of the replica, outside of its guard.
        few: samples that all ranks have.
        whole: their losses by the replica.

    Raises:
        ModelError: they differ.
    """
    model = objective.model
    reshard(model, first=True)
    with untouched(model), torch.no_grad():
        try:
            found = objective.loss_fn(model, few)
        finally:  # before the parts are put back as they were
            reshard(model)
    found = found.full_tensor() if hasattr(found, "full_tensor") else found
    gap = float((found.to(whole) - whole).abs().max())
    allowed = torch.finfo(whole.dtype).eps ** 0.5 * float(whole.abs().max())
    if any(objective.ranks.gathered(not gap <= allowed, "losses of the model as it is")):
        raise ModelError(
            f"gathered on one rank, the tensor-parallel model has other losses than in parallel "
            f"({gap:.2g} apart): its code computes with the sizes of the parts. Take sizes from "
            f"the tensors, as in view(..., -1, head_dim)"
        )


def _comparable(parameter: Any) -> Any:
    """The parameter itself, or where its parts are."""
    if not is_dtensor(parameter):
        return parameter
    return f"{tuple(parameter.shape)} {parameter.dtype} {parameter.placements}"


def _modes(model: nn.Module) -> dict[str, bool]:
    return {name or "the model": module.training for name, module in model.named_modules()}


def _buffers(model: nn.Module) -> dict[str, Tensor]:
    return {
        f"{prefix}.{name}".lstrip("."): buffer
        for prefix, module in model.named_modules()
        if not (module.training and isinstance(module, nn.modules.batchnorm._BatchNorm))
        for name, buffer in module.named_buffers(recurse=False)
    }
