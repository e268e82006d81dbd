"""What of a sharded model is gathered at a time: all of it, or one layer."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from ..errors import EngineError, ShardedError
from ..ranks.ranks import ALONE, Ranks
from .options import AUTO, LAYERS, MODEL, Options
from .shards import WHOLE, Shards
from .state.sharded import fsdp_modules
from .state.wrappers import bare_model

COPIES = 24  # of what is trained, that a measurement of the whole model holds; docs/distributed.md
GIB = 2**30

Measured = TypeVar("Measured")


def by_layers_or_whole(measure: Callable[[Options], Measured], options: Options) -> Measured:
    """What is measured with these options; with gather="auto" of the model where layers fail."""
    try:
        return measure(options)
    except (ShardedError, EngineError) as error:
        by_layers = isinstance(error, ShardedError) or options.process_group is not None
        if options.gather != AUTO or not by_layers:
            raise
    return measure(replace(options, gather=MODEL))


def sharded_parameters(model: Any, options: Options, ranks: Ranks) -> Shards | None:
    """The parameters of a model of which one layer is gathered at a time; None where all is.

    Raises:
        ShardedError: it cannot be.
    """
    if options.gather == MODEL or not isinstance(model, nn.Module) or ranks is ALONE:
        return None
    bare = bare_model(model)
    groups, reason = fsdp_modules(bare.modules()), "as asked for"
    if not groups and options.gather == LAYERS:
        raise ShardedError("gather='layers' is for models of fully_shard: pass gather='model'")
    if options.gather == AUTO:
        reason = too_large([*bare.parameters()], ranks) if groups else ""
    if not reason:
        return None
    found = Shards(bare, groups, ranks, reason)
    if found.world_size != ranks.size:
        raise ShardedError(
            f"the model is sharded over {found.world_size} ranks, and {ranks.size} measure it: "
            f"{WHOLE}"
        )
    return found


def too_large(parameters: Sequence[Tensor], ranks: Ranks) -> str:
    """Why a whole model does not fit the memory of every rank; empty where it does."""
    needed = sum(
        (COPIES if p.requires_grad else 1) * p.numel() * p.element_size() for p in parameters
    )
    least = -ranks.largest(-memory_of(parameters[0].device))
    if needed <= least:
        return ""
    return (
        f"the whole model would take about {needed / GIB:.2g} GiB on each rank, and one has "
        f"{least / GIB:.2g} GiB"
    )


def memory_of(device: torch.device) -> float:
    """Bytes that a rank can have at most; inf where that is not known."""
    if device.type == "cuda":
        return float(torch.cuda.get_device_properties(device).total_memory)
    try:
        pages, size = os.sysconf("SC_PHYS_PAGES"), os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, OSError, ValueError):
        return math.inf
    return pages * size / int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
