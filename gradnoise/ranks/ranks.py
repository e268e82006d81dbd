"""What ranks exchange: sums, rows, objects, and the error of one of them.

In every exchange each rank says whether it has failed, and what it is about to exchange. A rank
that raises says so at the next exchange, or at the end of the measurement, and all stop with its
error; ranks that have taken different ways stop as well, in place of waiting for each other. What
is short is exchanged along with that: most exchanges are one message to every rank.
"""

from __future__ import annotations

import datetime
import functools
import pickle
import time
import weakref
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.device_mesh import DeviceMesh

from .. import errors
from ..errors import ArgumentError, GradNoiseError, RanksError, first_line, said
from .frames import Frame, room_of, size_of
from .share import Share

KINDS = (
    "a torch.distributed.ProcessGroup (torch.distributed.group.WORLD: all ranks) or a DeviceMesh"
)

PATIENCE = 20.0  # seconds that a rank which has failed waits where others may never come
TOLD, NOBODY = "ranks_told", "nobody"  # the attribute of an error that says who knows of it
CLOSED = "Connection closed by peer"  # what torch says in an exchange with a rank that has ended
LINE = 160  # characters of an error of another library


class Ranks:
    """The ranks of a process group; without one, this process alone, which exchanges nothing.

    Args:
        group: of torch.distributed.

    Attributes:
        size: their number.
        rank: this one's place among them.
        is_patient: whether a rank that has failed waits for the others as long as the group allows;
            else they may wait in exchanges of other code, and it waits for `PATIENCE`.
    """

    def __init__(self, group: dist.ProcessGroup | None = None) -> None:
        # what is left of a measurement must not keep the group: torch aborts at exit then
        self._held = None if group is None else weakref.ref(group)
        self.is_patient, self._depth = True, 0
        self.size = 1 if group is None else dist.get_world_size(group)
        self.rank = 0 if group is None else dist.get_rank(group)
        self._room = room_of(self.size)
        self._device = torch.device("cpu")  # of long sums
        if group is not None and dist.get_backend(group) == "nccl":
            self._device = torch.device("cuda", torch.cuda.current_device())

    @property
    def _group(self) -> dist.ProcessGroup | None:
        return None if self._held is None else _alive(self._held)

    @functools.cached_property
    def _apart(self) -> weakref.ref[dist.ProcessGroup]:
        """The same ranks, for frames alone.

        A rank that has failed would else be heard in an exchange of FSDP's, or of the user's, that
        others wait in.
        """
        assert self._group is not None
        key = self._group.group_name
        known = _APART.get(key)
        if known is None or known() is None:
            _APART[key] = known = weakref.ref(_twin_of(self._group))
        return known

    @property
    def are_several(self) -> bool:
        """Whether there are others."""
        return self.size > 1

    @contextmanager
    def together(self, *, always: bool = False) -> Iterator[None]:
        """All ranks leave the outermost of these with no error, or all with one.

        Args:
            always: also inside of another one, where the caller deals with the error.

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
            self.meet("the end of a measurement")
        except BaseException as error:
            agreed = error if is_told(error) else self._tell(error)
            if agreed is error:
                raise
            raise agreed from error
        finally:
            self._depth -= 1

    @contextmanager
    def in_step(self) -> Iterator[None]:
        """All ranks begin this together, and leave it as `together`."""
        self.meet("a pass of the model")
        with self.together(always=True):
            yield

    @property
    def places(self) -> list[int]:
        """The ranks among all of torch.distributed."""
        return [] if self._group is None else dist.get_process_group_ranks(self._group)

    def sum(self, own: Tensor, what: str = "a sum") -> Tensor:
        """The sum over the ranks, the same on all of them; in place. `what` it is, likewise."""
        if not self.are_several:
            return own
        what = f"{what} of shape {tuple(own.shape)}"
        if own.nbytes <= self._room:
            found = self._exchange(what, _bytes_of(own))
            return own.copy_(torch.stack([_tensor_of(part, own) for part in found]).sum(0))
        self.meet(what)
        moved = own if self._device.type == "cpu" else own.to(self._device)
        with _connected():
            dist.all_reduce(moved, group=self._group)
        return own if moved is own else own.copy_(moved)

    def largest(self, own: float) -> float:
        """The largest of the ranks' numbers."""
        return float(max(self.gathered(own, "numbers")))

    def rows(self, own: Tensor, share: Share | None) -> Tensor:
        """The rows of all ranks, shape (n, ...), from those of this one."""
        if share is None:
            return own
        whole = own.new_zeros(share.count, *own.shape[1:])
        share.of(whole).copy_(own)
        return self.sum(whole)

    def gathered(self, own: Any, what: str) -> list[Any]:
        """An object of every rank, in their order; `what` it is, the same on all ranks."""
        if not self.are_several:
            return [own]
        return [pickle.loads(found) for found in self._exchange(what, pickle.dumps(own))]

    def meet(self, purpose: str, kind: type[GradNoiseError] = RanksError) -> None:
        """Raise where a rank has failed, or, an error of this kind, is about something else."""
        if self.are_several:
            self._exchange(purpose, b"", kind)

    def _exchange(
        self, purpose: str, own: bytes, kind: type[GradNoiseError] = RanksError
    ) -> list[bytes]:
        """The bytes of every rank; or raise as `meet`."""
        frames = self._frames(Frame.of(own, purpose))
        told = self._told(frames, b"")
        if told:
            raise _error_of(told)
        if len({frame.code for frame in frames}) > 1:
            way = purpose.encode()[: self._room].ljust(self._room)
            ways = dict.fromkeys(
                found.decode(errors="ignore").rstrip() for found in self._all_gather(way)
            )
            raise _marked(
                kind(
                    f"the ranks have taken different ways: they are about to exchange "
                    f"{'; '.join(ways)}. Give all of them the same arguments, and let model and "
                    f"loss_fn do the same on each"
                )
            )
        return self._contents(frames, own)

    def _told(self, frames: list[Frame], own: bytes) -> list[Any]:
        """The errors of the ranks that have failed, and None for others; empty where none has."""
        if not any(frame.has_failed for frame in frames):
            return []
        errors = [frame if frame.has_failed else Frame.of(b"") for frame in frames]
        return [pickle.loads(found) if found else None for found in self._contents(errors, own)]

    def _contents(self, frames: list[Frame], own: bytes) -> list[bytes]:
        """What the frames say, in an exchange of its own where one of them is too short."""
        longest = max(frame.length for frame in frames)
        if longest <= self._room:
            return [frame.content for frame in frames]
        pairs = zip(self._all_gather(own.ljust(longest, b"\0")), frames, strict=True)
        return [found[: frame.length] for found, frame in pairs]

    def _tell(self, error: BaseException) -> BaseException:
        """Say that this rank has failed; the error that all of them raise, the first rank's.

        Others come to an exchange sooner or later, except those that wait in an exchange of the
        user's own code, or of FSDP2. A rank that is not patient then ends alone, and what has
        started them all, or the lost connection, ends the others.
        """
        own, start = pickle.dumps((_kind_of(error), _text_of(error))), time.monotonic()
        patience = None if self.is_patient else PATIENCE
        try:
            told = self._told(self._frames(Frame.of(own, has_failed=True), patience), own)
        except LostError as lost:  # its own error says more, but for that of the other's end
            is_late = patience is not None and time.monotonic() - start >= patience
            if CLOSED in str(error):
                return lost
            return _marked(error, NOBODY) if is_late else error
        first = next(rank for rank, own in enumerate(told) if own is not None)
        return _marked(error) if first == self.rank else _error_of(told)

    def _frames(self, own: Frame, patience: float | None = None) -> list[Frame]:
        written = own.written(size_of(self.size))
        return [Frame.read(found) for found in self._all_gather(written, patience)]

    def _all_gather(self, own: bytes, patience: float | None = None) -> list[bytes]:
        """The bytes of all ranks, of which each has as many.

        Args:
            own: of this rank.
            patience: seconds to wait for the others; None for the time limit of the group.
        """
        with _connected():
            row = torch.frombuffer(bytearray(own), dtype=torch.uint8)
            rows = list(torch.empty(self.size, len(own), dtype=torch.uint8))
            options = dist.distributed_c10d.AllgatherOptions()  # type: ignore[attr-defined]
            if patience is not None:  # an exchange that waits on would hold up the end of the group
                options.timeout = datetime.timedelta(seconds=patience)
            _alive(self._apart).allgather([rows], [row], options).wait()
            return [found.numpy().tobytes() for found in rows]


class LostError(RanksError):
    """Another rank or the group has ended, or did not answer within the group's time limit."""


ALONE = Ranks()

_APART: dict[str, weakref.ref[dist.ProcessGroup]] = {}  # by the names of the groups


def _alive(held: weakref.ref[dist.ProcessGroup]) -> dist.ProcessGroup:
    group = held()
    if group is None:
        raise LostError("the process group that this measures with has been destroyed")
    return group


def _twin_of(group: dist.ProcessGroup) -> dist.ProcessGroup:
    """Another group of the same ranks, on the CPU; all of them call.

    Raises:
        RanksError: torch was built without gloo.
    """
    if not dist.is_gloo_available():
        raise RanksError("several ranks need gloo, which this build of torch lacks")
    try:
        timeout = group._get_backend(torch.device("cpu")).options._timeout
    except (AttributeError, RuntimeError):
        timeout = None
    places = dist.get_process_group_ranks(group)
    return dist.new_group(places, timeout, "gloo", use_local_synchronization=True)  # type: ignore[no-any-return]


def ranks_of(process_group: Any) -> Ranks:
    """The ranks of what `process_group` may be: a process group, a mesh, None, or such ranks.

    Raises:
        ArgumentError: something else; or this process is not one of them.
    """
    if process_group is None:
        return ALONE
    if isinstance(process_group, Ranks):
        return Ranks(process_group._group)
    if not dist.is_available() or not dist.is_initialized():
        raise ArgumentError(
            "`process_group` needs torch.distributed: start the program with torchrun, and call "
            "torch.distributed.init_process_group() first"
        )
    return Ranks(_group_of(process_group))


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


def _bytes_of(tensor: Tensor) -> bytes:
    return tensor.detach().cpu().numpy().tobytes()


def _tensor_of(found: bytes, like: Tensor) -> Tensor:
    flat = torch.frombuffer(bytearray(found), dtype=like.dtype) if found else like.new_zeros(0)
    return flat.to(like.device).view(like.shape)


def is_told(error: BaseException) -> bool:
    """Whether all ranks know of an error, or cannot be told: whoever deals with it ends alone."""
    return isinstance(error, LostError) or hasattr(error, TOLD)


def is_untold(error: BaseException) -> bool:
    """Whether the others have not come to be told of an error."""
    return getattr(error, TOLD, "") == NOBODY


def _marked(error: BaseException, who: str = "all ranks") -> BaseException:
    setattr(error, TOLD, who)
    return error


def _kind_of(error: BaseException) -> str:
    """The first of its classes that is one of our public errors."""
    kinds = (kind.__name__ for kind in type(error).__mro__)
    return next((name for name in kinds if _is_public(name)), RanksError.__name__)


def _is_public(name: str) -> bool:
    kind = getattr(errors, name, None)
    return isinstance(kind, type) and issubclass(kind, GradNoiseError)


def _text_of(error: BaseException) -> str:
    """The error in a line; of one that has passed through a worker process, the last as well."""
    text, last = said(error), str(error).strip().split("\n")[-1][:LINE]
    return text if isinstance(error, GradNoiseError) or last in text else f"{text} ... {last}"


def _error_of(told: Sequence[tuple[str, str] | None]) -> BaseException:
    """The error of the first rank that has failed, for the others."""
    rank, (name, text) = next((rank, own) for rank, own in enumerate(told) if own is not None)
    return _marked(getattr(errors, name)(f"on rank {rank}: {text}"))
