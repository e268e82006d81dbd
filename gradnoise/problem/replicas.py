"""What has to be the same on all ranks that measure a model together."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from typing import Any

from torch import Tensor, nn

from ..errors import ArgumentError, ModelError
from ..ranks.ranks import Ranks
from ..tensors.fingerprint import fingerprints
from .options import Options
from .state.wrappers import bare_model

_OBJECTS = ("optimizer", "process_group")  # options that are objects of each rank
_PLAIN = (bool, int, float, str)
DRIFTED = (
    "the replicas have drifted apart. Copy rank 0's to all ranks (torch.distributed.broadcast), as "
    "DistributedDataParallel does at its start"
)


def require_options(ranks: Ranks, options: Options) -> None:
    """Compare options over the ranks.

    Raises:
        ArgumentError: they differ.
    """
    own = {f.name: getattr(options, f.name) for f in fields(options) if f.name not in _OBJECTS}
    optimizer = options.optimizer
    own["optimizer"] = None if optimizer is None else type(optimizer).__name__
    own["metric"] = "optimizer" if options.own_metric else "euclidean"
    first, *others = ranks.gathered(own, "options")
    for rank, asked in enumerate(others, 1):
        differ = [name for name, value in first.items() if asked[name] != value]
        if differ:
            raise ArgumentError(
                f"`{differ[0]}` is {first[differ[0]]!r} on rank 0 and {asked[differ[0]]!r} on "
                f"rank {rank}: give all ranks the same options"
            )


def require_replicas(ranks: Ranks, model: nn.Module, criterion: Any) -> None:
    """Compare model and loss over the ranks, where each has all of their parameters.

    Buffers of normalisation layers in training are left out: nothing is computed from them.

    Raises:
        ModelError: other parameters, buffers, modes, or settings of the criterion.
    """
    if not ranks.are_several:
        return
    model = bare_model(model)
    parameters, settings = dict(model.named_parameters()), dict[str, Any]()
    if isinstance(criterion, nn.Module):
        settings = {n: v for n, v in vars(criterion).items() if isinstance(v, _PLAIN)}
        settings |= dict(criterion.named_parameters()) | dict(criterion.named_buffers())
    own: dict[str, Mapping[str, Any]] = {
        "modes of the modules (train or eval)": _modes(model),
        "trainable parameters": {name: p.requires_grad for name, p in parameters.items()},
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


def _modes(model: nn.Module) -> dict[str, bool]:
    return {name or "the model": module.training for name, module in model.named_modules()}


def _buffers(model: nn.Module) -> dict[str, Tensor]:
    return {
        f"{prefix}.{name}".lstrip("."): buffer
        for prefix, module in model.named_modules()
        if not (module.training and isinstance(module, nn.modules.batchnorm._BatchNorm))
        for name, buffer in module.named_buffers(recurse=False)
    }
