"""What ranks exchange: sums, rows, objects, and the error of one of them.

Every exchange begins with a few whole numbers: whether a rank has failed, and what each is about to
exchange. A rank that raises says so at the next exchange, or at the end of the measurement, and all
stop with its error; ranks that have taken different ways stop as well, in place of waiting for each
other.
"""

from __future__ import annotations

import time
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.device_mesh import DeviceMesh

from .. import errors
from ..errors import ArgumentError, GradNoiseError, RanksError, first_line, said
from .share import Share

KINDS = (
    "a torch.distributed.ProcessGroup (torch.distributed.group.WORLD: all ranks) or a DeviceMesh"
)

PATIENCE = 20.0  # seconds that a rank which has failed waits for the others
POLL = 0.01


class Ranks:
    """The ranks of a process group; without one, this process alone, which exchanges nothing.

    Args:
        group: of torch.distributed.
        device: of the tensors that are exchanged beside results.

    Attributes:
        size: their number.
        rank: this one's place among them.
    """

    def __init__(
        self, group: dist.ProcessGroup | None = None, device: torch.device | None = None
    ) -> None:
        self._group, self._device = group, device
        self.size = 1 if group is None else dist.get_world_size(group)
        self.rank = 0 if group is None else dist.get_rank(group)
        self._depth = 0
        self._told: Exception | None = None  # what all ranks know of

    @property
    def are_several(self) -> bool:
        """Whether there are others."""
        return self.size > 1

    @contextmanager
    def together(self, *, always: bool = False) -> Iterator[None]:
        """All ranks leave the outermost of these with no error, or all with one.

        Args:
            always: also this one, inside of others: the error of a rank may be dealt with.

        Raises:
            GradNoiseError: of the same kind as that of the rank that has failed, or RanksError
                where that is no error of ours.
        """
        if not self.are_several or (self._depth and not always):
            yield
            return
        self._depth += 1
        try:
            yield
            self._meet("the end of a measurement")
        except Exception as error:
            if not self.know(error):
                self._tell(error)
            raise
        finally:
            self._depth -= 1

    @contextmanager
    def in_step(self) -> Iterator[None]:
        """All ranks begin this together, and leave it as `together`."""
        if self.are_several:
            self._meet("a pass of the model")
        with self.together(always=True):
            yield

    def sum(self, own: Tensor) -> Tensor:
        """The sum over the ranks, the same on all of them; in place."""
        if self.are_several:
            self._meet(f"a sum of shape {tuple(own.shape)}")
            self._reduce(own)
        return own

    def largest(self, own: float) -> float:
        """The largest of the ranks' numbers."""
        return float(max(self.gathered(own)))

    def rows(self, own: Tensor, share: Share | None) -> Tensor:
        """The rows of all ranks, shape (n, ...), from those of this one."""
        if share is None or not self.are_several:
            return own
        whole = own.new_zeros(share.count, *own.shape[1:])
        share.of(whole).copy_(own)
        return self.sum(whole)

    def gathered(self, own: Any) -> list[Any]:
        """An object of every rank, in their order."""
        if not self.are_several:
            return [own]
        self._meet("objects")
        return self._objects(own)

    def _meet(self, purpose: str) -> None:
        """Raise where a rank has failed, or is about to exchange something else."""
        code = zlib.crc32(purpose.encode())
        states = torch.tensor([0, code, -code], device=self._device)
        self._reduce(states, dist.ReduceOp.MAX)
        failed, most, least = states.tolist()
        if failed:
            self._told = _error_of(self._objects(None))
            raise self._told
        if most != -least:
            ways = dict.fromkeys(self._objects(purpose))
            self._told = RanksError(
                f"the ranks have taken different ways: they are about to exchange "
                f"{'; '.join(ways)}. Give all of them the same arguments, and let model and "
                f"loss_fn do the same on each"
            )
            raise self._told

    def _tell(self, error: Exception) -> None:
        """Say that this rank has failed: the others wait in an exchange, or come to one soon.

        Others that wait in code of the user's never come. This rank then ends alone, and what has
        started them all, or the lost connection, ends the others.
        """
        if isinstance(error, LostError):
            return
        states, start = torch.tensor([1, 0, 0], device=self._device), time.monotonic()
        with _connected():
            work = dist.all_reduce(states, dist.ReduceOp.MAX, self._group, async_op=True)
        while not work.is_completed():
            if time.monotonic() - start > PATIENCE:
                return
            time.sleep(POLL)
        self._told = error
        self._objects((type(error).__name__, said(error)))

    def know(self, error: Exception) -> bool:
        """Whether all ranks have learnt of an error."""
        return error is self._told

    def _reduce(self, tensor: Tensor, how: Any = dist.ReduceOp.SUM) -> None:
        moved = tensor if self._device is None else tensor.to(self._device)
        with _connected():
            dist.all_reduce(moved, how, group=self._group)
        if moved is not tensor:
            tensor.copy_(moved)

    def _objects(self, own: Any) -> list[Any]:
        found: list[Any] = [None] * self.size
        with _connected():
            dist.all_gather_object(found, own, group=self._group)
        return found


class LostError(RanksError):
    """Another rank has ended, or did not answer within the time limit of the process group."""


ALONE = Ranks()


def ranks_of(process_group: Any, device: torch.device) -> Ranks:
    """The ranks of what `process_group` may be: a process group, a mesh, or None.

    Raises:
        ArgumentError: something else; or this process is not one of them.
    """
    if process_group is None:
        return ALONE
    if not dist.is_available() or not dist.is_initialized():
        raise ArgumentError(
            "`process_group` needs torch.distributed: start the program by torchrun, and call "
            "torch.distributed.init_process_group() first"
        )
    return Ranks(_group_of(process_group), device)


def _group_of(given: Any) -> dist.ProcessGroup:
    if isinstance(given, dist.ProcessGroup):
        return given
    if isinstance(given, DeviceMesh):
        if given.ndim == 1:
            return given.get_group()
        world = dist.group.WORLD
        if given.size() == dist.get_world_size() and world is not None:
            return world
        raise ArgumentError(
            f"`process_group` is a mesh of {given.ndim} dimensions over a part of the ranks: give "
            f"one dimension of it, as mesh['dp']"
        )
    if given == dist.GroupMember.NON_GROUP_MEMBER:
        raise ArgumentError("this process is not a rank of `process_group`: call on its ranks only")
    raise ArgumentError(f"`process_group` must be {KINDS}; got {type(given).__name__}")


@contextmanager
def _connected() -> Iterator[None]:
    try:
        yield
    except (RuntimeError, ValueError) as error:  # dist.DistBackendError is a RuntimeError
        raise LostError(
            f"another rank has ended, or did not answer in time: {first_line(error)}. Its own "
            f"output says why. init_process_group(timeout=...) sets how long is waited"
        ) from error


def _error_of(told: Sequence[tuple[str, str] | None]) -> GradNoiseError:
    """The error of the first rank that has failed, for the others."""
    rank, (name, text) = next((rank, own) for rank, own in enumerate(told) if own is not None)
    kind = getattr(errors, name, RanksError)
    return (kind if issubclass(kind, GradNoiseError) else RanksError)(f"on rank {rank}: {text}")
