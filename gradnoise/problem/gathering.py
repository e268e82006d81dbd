"""What of a sharded model is gathered at a time: all of it, or one layer."""

from __future__ import annotations

import math
import os
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn

from ..errors import ShardedError
from ..ranks.ranks import ALONE, Ranks
from .options import AUTO, LAYERS, MODEL, Options
from .shards import WHOLE, Shards
from .state.sharded import fsdp_modules
from .state.wrappers import bare_model

COPIES = 24  # of the parameters that a measurement of the whole model holds; docs/distributed.md
GIB = 2**30


def shards_of(model: Any, options: Options, ranks: Ranks) -> Shards | None:
    """The parameters of a model of which one layer is gathered at a time; None where all is.

    Raises:
        ShardedError: it cannot be.
    """
    whole = options.gather == MODEL or not options.by_layers
    if whole or not isinstance(model, nn.Module) or ranks is ALONE:
        return None
    bare = bare_model(model)
    groups, why = fsdp_modules(bare.modules()), "as asked for"
    if not groups and options.gather == LAYERS:
        raise ShardedError("gather='layers' is for models of fully_shard: pass gather='model'")
    if options.gather == AUTO:
        why = too_large(bare.parameters(), ranks) if groups else ""
    if not why:
        return None
    found = Shards(bare, groups, ranks, why)
    if found.ranks != ranks.size:
        raise ShardedError(
            f"the model is sharded over {found.ranks} ranks, and {ranks.size} measure it: {WHOLE}"
        )
    return found


def too_large(parameters: Iterable[Tensor], ranks: Ranks) -> str:
    """Why a whole model does not fit the memory of every rank; empty where it does."""
    own = list(parameters)
    needed = COPIES * sum(p.numel() * p.element_size() for p in own)
    room = -ranks.largest(-memory_of(own[0].device))
    if needed <= room:
        return ""
    return (
        f"the whole model would take about {needed / GIB:.2g} GiB on each rank, and one has "
        f"{room / GIB:.2g} GiB"
    )


def memory_of(device: torch.device) -> float:
    """Bytes that this rank may take; inf where that is not known."""
    if device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
        own = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return float(free + own)
    try:
        pages, size = os.sysconf("SC_PHYS_PAGES"), os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, OSError, ValueError):
        return math.inf
    return pages * size / int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
