"""A model whose parameters ranks share by `fully_shard`: whole ones, and this rank's parts.

The operations of a forward pass are given the *whole* parameters of the layer at work: one object
each, which lives as long as the model, and has memory only while its layer is at work. Gradients of
them are summed over the ranks and cut into parts as they come, so that no rank holds more of the
mean gradient than its own part. Every method is called by all ranks in the same order.
"""

from __future__ import annotations

import functools
import importlib
import itertools
import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Any

import torch
from torch import Tensor, nn

from ..errors import ShardedError
from ..ranks.ranks import Ranks
from ..tensors.random import Normals
from ..tensors.trees import TensorDict, wide_dtype
from .state.sharded import is_dtensor

FREED = "out of bounds for storage of size 0"  # what torch says of parameters that FSDP left apart
WHOLE = "measure with gather='model'"


def needs_whole(what: str) -> ShardedError:
    """The error of what cannot be measured one layer at a time."""
    return ShardedError(f"{what} needs whole parameters: {WHOLE}")


class Shards:
    """The trainable parameters of a model under `fully_shard`; see `shards_of`.

    Args:
        model: whose layers are in groups.
        groups: modules that were given to `fully_shard`, in order.
        ranks: that measure it.
        reason: why one layer is gathered at a time.

    Attributes:
        sharded: name -> the parameter that the model shows between passes, a DTensor.
        unsharded: name -> the parameter that operations are given.

    Raises:
        ShardedError: a trainable parameter outside of `fully_shard`, or cut along two mesh axes;
            or gradients that wait for their sum over the ranks.
    """

    def __init__(self, model: nn.Module, groups: list[Any], ranks: Ranks, reason: str = "") -> None:
        self._groups, self._ranks, self.reason = groups, ranks, reason
        self.reshard()
        self.sharded: dict[str, Any] = {
            n: p for n, p in model.named_parameters() if p.requires_grad
        }
        self.unsharded: TensorDict = {}
        self._group: dict[str, Any] = {}
        for group in groups:  # one after the other: no more than a group is whole at a time
            group.unshard()
            for name, parameter in model.named_parameters():
                if name in self.sharded and parameter is not self.sharded[name]:
                    self.unsharded[name], self._group[name] = parameter, group
            group.reshard()
        if any(parameter.grad is not None for parameter in self.unsharded.values()):
            raise ShardedError(
                f"gradients were accumulated without a sum over the ranks, and wait for it: {WHOLE}"
            )
        self.unsharded = {
            name: self.unsharded[name] for name in self.sharded if name in self.unsharded
        }
        bad = [n for n, p in self.sharded.items() if n not in self.unsharded or not _is_cut_once(p)]
        if bad:
            raise ShardedError(
                f"the parameters {', '.join(bad[:3])} are not sharded by fully_shard alone, along "
                f"one axis of a device mesh: give the whole model to fully_shard, once its layers "
                f"have been, or measure with gather='model'"
            )

    @property
    def world_size(self) -> int:
        """How many hold parts or copies of them."""
        return int(self._mesh.size())

    @property
    def _mesh(self) -> Any:
        return next(iter(self.sharded.values())).device_mesh

    def reshard(self) -> None:
        """Put the parts back into the modules, and let go of what is whole."""
        for group in self._groups:
            group.reshard()

    @contextmanager
    def resharded(self) -> Iterator[None]:
        """Parts are in the modules before and afterwards, also after an error in a pass."""
        self.reshard()
        try:
            yield
        except BaseException as error:
            with suppress(AttributeError, RuntimeError):  # before any pass there is no such state
                self._groups[0].reset_iter_state()
            if FREED in str(error):
                raise needs_whole("a model whose output FSDP does not look into") from error
            raise
        finally:
            self.reshard()

    @contextmanager
    def unsharded_now(self, name: str) -> Iterator[None]:
        """A parameter is whole here, after its layer's turn."""
        group = self._group[name]
        group.unshard()
        try:
            yield
        finally:
            group.reshard()

    def local_part(self, name: str) -> Tensor:
        """This rank's part of a parameter, in the parameter's own memory."""
        own: Tensor = self.sharded[name].to_local()
        return own.detach()

    def local_parts(self) -> TensorDict:
        """All parts by name."""
        return {name: self.local_part(name) for name in self.sharded}

    def reduce_scattered(self, name: str, own: Tensor) -> Tensor:
        """This rank's part of the sum over the ranks of their `own`, each of the whole shape.

        Raises:
            ShardedError: other ranks have come to another parameter: their order depends on data.
        """
        self._ranks.meet(f"gradients of {name}", ShardedError)
        mesh, placements = self.sharded[name].device_mesh, self.sharded[name].placements
        tensors = _dtensors()
        sums = [tensors.Partial()] * mesh.ndim
        partial = tensors.DTensor.from_local(own, mesh, sums, run_check=False)
        part: Tensor = partial.redistribute(placements=placements).to_local()
        return part

    def as_dtensors(self, parts: TensorDict) -> TensorDict:
        """Parts by name as tensors in the layout of their parameters."""
        return {name: self._dtensor(name, part) for name, part in parts.items()}

    def _dtensor(self, name: str, part: Tensor) -> Any:
        kept = self.sharded[name]
        return _dtensors().DTensor.from_local(
            part.contiguous(), kept.device_mesh, kept.placements, run_check=False,
            shape=kept.shape, stride=kept.stride(),
        )  # fmt: skip

    def full(self, name: str, part: Tensor) -> Tensor:
        """The whole tensor, of the parameter's shape, of which every rank has a part."""
        whole: Tensor = self._dtensor(name, part).full_tensor()
        return whole

    def full_rows(self, name: str, parts: Tensor) -> Tensor:
        """The same for k tensors: (k, *part) to (k, *shape)."""
        return torch.stack([self.full(name, part) for part in parts])

    def normals(self, source: torch.Generator) -> TensorDict:
        """Parts of a standard normal vector over all parameters, the same on any number of ranks.

        In float64 where the device has it.
        """
        sizes = [parameter.numel() for parameter in self.sharded.values()]
        numbers, offsets = Normals(sum(sizes), source), itertools.accumulate(sizes, initial=0)
        pairs = zip(self.sharded, offsets, strict=False)
        return {name: self._normals_of(name, offset, numbers) for name, offset in pairs}

    def _normals_of(self, name: str, offset: int, numbers: Normals) -> Tensor:
        kept, part = self.sharded[name], self.local_part(name)
        dim, start = self._placement(name)
        if dim == 0:  # rows are neighbours
            first = offset + start * math.prod(kept.shape[1:])
            rows = numbers.entries(first, first + part.numel()).view(part.shape)
        else:
            whole = numbers.entries(offset, offset + kept.numel()).view(kept.shape)
            rows = self._narrowed(name, whole)
        return rows.to(part.device, wide_dtype(part.device))

    def _placement(self, name: str) -> tuple[int, int]:
        """Along which dimension a parameter is cut, and where this rank's part begins."""
        kept = self.sharded[name]
        dim, last = kept.placements[-1].dim, kept.device_mesh.ndim - 1
        each = -(-kept.shape[dim] // kept.device_mesh.size(last))  # as torch.chunk divides
        return dim, min(kept.device_mesh.get_local_rank(last) * each, kept.shape[dim])

    def _narrowed(self, name: str, whole: Tensor) -> Tensor:
        dim, start = self._placement(name)
        return whole.narrow(dim, start, self.local_part(name).shape[dim])

    def as_local_parts(self, tensors: TensorDict) -> TensorDict:
        """This rank's parts of tensors by name, which are DTensors or whole."""
        return {name: self._to_local(name, tensors[name]) for name in self.sharded}

    def _to_local(self, name: str, tensor: Any) -> Tensor:
        if not is_dtensor(tensor):
            return self._narrowed(name, tensor)
        kept, own = self.sharded[name], tensor.detach()
        alike: Tensor = own.redistribute(kept.device_mesh, kept.placements).to_local()
        return alike

    def summed(self, numbers: Tensor) -> Tensor:
        """Numbers summed over the ranks that hold different parts."""
        total = self._ranks.sum(numbers.clone(), "a sum over the parameters")
        return total.div_(self.world_size / self._mesh.size(self._mesh.ndim - 1))  # no copies

    def largest(self, own: float) -> float:
        """The largest number of all ranks."""
        return self._ranks.largest(own)

    def any_of(self, own: str) -> str:
        """The first text of any rank that is not empty."""
        return next(filter(None, self._ranks.gathered(own, "reasons")), "")

    @functools.cached_property
    def largest_local_size(self) -> int:
        """The most entries of a vector over the parameters that any rank has."""
        return int(self.largest(sum(part.numel() for part in self.local_parts().values())))

    def differentiate(
        self, outputs: Tensor, weights: Tensor | None, keep_graph: bool
    ) -> TensorDict:
        """Parts of the sum over all ranks of ∇ outputs (weighted sum), by name.

        By autograd, with FSDP's own reduction left out: `.grad` is neither read nor written.
        """
        found: TensorDict = {}

        def take(name: str, own: Tensor) -> None:
            found[name] = self.reduce_scattered(name, own)

        with as_they_come(self.unsharded, take):
            torch.autograd.grad(
                outputs,
                [*self.unsharded.values()],
                weights,
                retain_graph=keep_graph,
                allow_unused=True,
            )
        for name in self.unsharded:
            if name not in found:  # on all ranks, or they wait for each other
                found[name] = torch.zeros_like(self.local_part(name))
        return {name: found[name] for name in self.unsharded}


@contextmanager
def as_they_come(
    parameters: Mapping[str, Tensor], take: Callable[[str, Tensor], None]
) -> Iterator[None]:
    """Hand the gradient of every parameter over as soon as it is complete; autograd keeps none.

    In its place `torch.autograd.grad` gives zeros without memory.
    """

    def hook(name: str) -> Callable[[Tensor], Tensor]:
        def act(gradient: Tensor) -> Tensor:
            if gradient.is_sparse:  # which autograd does not let a hook change into another kind
                take(name, gradient.to_dense())
                return gradient
            take(name, gradient)
            return gradient.new_zeros(()).expand(gradient.shape)

        return act

    handles: list[Any] = []
    try:
        for name, parameter in parameters.items():
            handles.append(parameter.register_hook(hook(name)))  # type: ignore[no-untyped-call]
        yield
    finally:
        for handle in handles:
            handle.remove()


def _dtensors() -> Any:
    """torch's module, which takes half a second to import, and which a sharded model has."""
    return importlib.import_module("torch.distributed.tensor")


def _is_cut_once(parameter: Any) -> bool:
    """Whether one axis of the mesh cuts it, the last, and others repeat it."""
    *others, last = parameter.placements
    return last.is_shard() and all(other.is_replicate() for other in others)
