"""A command that torchrun has started on several ranks: the first one prints, all end alike."""

from __future__ import annotations

import gc
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch.distributed as dist

from ..ranks.ranks import is_untold, ranks_of
from .arguments import complain, one_line

FAILED = 2  # the exit code of any error


@contextmanager
def launched() -> Iterator[Any]:
    """The process group of all ranks, made here where torchrun has started them; else None.

    Where one rank fails all end with the exit code of an error, and the first one says why.
    """
    if not (dist.is_available() and dist.is_torchelastic_launched()):
        yield None
        return
    if torch.cuda.is_available():
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
    dist.init_process_group()
    group = dist.group.WORLD
    ranks = ranks_of(group)
    ranks.is_patient = False  # the factory may exchange something itself
    try:
        with ranks.together():
            yield group
    except Exception as error:
        if is_first(group):
            raise
        if is_untold(error):  # the others wait in the user's code, and so would a normal exit
            complain(f"error: {one_line(error)}")
            os._exit(FAILED)
        raise SystemExit(FAILED) from error
    finally:
        del group, ranks
        gc.collect()  # torch aborts at exit where something still holds the group
        dist.destroy_process_group()


def is_first(group: Any) -> bool:
    """Whether this is the rank that prints."""
    return group is None or dist.get_rank(group) == 0
