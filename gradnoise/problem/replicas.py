"""What has to be the same on all ranks that measure a model together."""

from __future__ import annotations

from dataclasses import fields

import torch
from torch import nn

from ..errors import ArgumentError, ModelError
from ..tensors.fingerprint import fingerprints
from .objective import Objective
from .options import Options
from .state.wrappers import bare_model

_OWN = ("optimizer", "process_group")  # options that are objects of each rank


def device_of(model: nn.Module) -> torch.device:
    """Where the parameters of a model are; the CPU for whatever has none."""
    found = next(iter(model.parameters()), None) if isinstance(model, nn.Module) else None
    return torch.device("cpu") if found is None else found.device


def require_replicas(objective: Objective, options: Options) -> None:
    """Compare options and parameters over the ranks.

    Raises:
        ArgumentError: other options.
        ModelError: other parameters.
    """
    ranks = objective.ranks
    if not ranks.are_several:
        return
    named = dict(bare_model(objective.model).named_parameters())
    values = [0] * len(named)
    if objective.shards is None:  # parts differ
        values = [bits for _, bits in fingerprints([p.detach() for p in named.values()])]
    own = {f.name: getattr(options, f.name) for f in fields(options) if f.name not in _OWN}
    first, *others = ranks.gathered((own, dict(zip(named, values, strict=True))))
    for rank, (asked, found) in enumerate(others, 1):
        differ = [name for name, value in first[0].items() if asked[name] != value]
        if differ:
            raise ArgumentError(
                f"`{differ[0]}` is {first[0][differ[0]]!r} on rank 0 and {asked[differ[0]]!r} on "
                f"rank {rank}: give all ranks the same options"
            )
        if found.keys() != first[1].keys():
            raise ModelError(f"the models of rank 0 and rank {rank} have other parameters")
        apart = [name for name, value in first[1].items() if found[name] != value]
        if apart:
            raise ModelError(
                f"{len(apart)} of {len(found)} parameters of rank {rank} are not those of rank 0, "
                f"the first of them {apart[0]!r}: the replicas have drifted apart. Copy rank 0's "
                f"to all ranks (torch.distributed.broadcast), as DistributedDataParallel does when "
                f"it is made"
            )
