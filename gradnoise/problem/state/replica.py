"""A model whose parameters are divided among ranks stands as a plain replica on each of them."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from ...errors import ModelError
from ...ranks.ranks import ALONE, Ranks
from ...tensors.fingerprint import fingerprints
from .sharded import (
    found_parameters,
    is_dtensor,
    is_parallel,
    is_sharded,
    local,
    mesh_ranks,
    policies,
    refused,
    registries,
    shards_of,
    strip,
)


class Replica:
    """A sharded model with whole parameters, inside of `standing`; as found, outside of it.

    Parameters and buffers are plain copies in their own dtype, tied where they were. The modules
    have their own classes, and no hook of FSDP2 or of tensor parallelism runs; the user's do. The
    copies are the same objects each time, with the values that the model has then.

    Args:
        model: the user's.
        ranks: that hold it together; all of them make this, and enter.

    Attributes:
        is_parallel: whether layers compute on parts of a sample's numbers: tensor parallel.
    """

    def __init__(self, model: nn.Module, ranks: Ranks) -> None:
        self._model, self._ranks, self._depth = model, ranks, 0
        self.is_parallel = is_parallel(model)
        self._values: Any = None  # of the shards, where the copies were made
        self._whole: dict[int, tuple[Any, Tensor]] = {}  # what was found, and its copy
        self._places: list[tuple[nn.Module, str, Tensor]] = []
        self._swapped = ExitStack()

    @contextmanager
    def standing(self) -> Iterator[None]:
        """The model as a replica; what is done to the copies is dropped on leaving.

        All ranks enter; each may leave alone, as after an error.
        """
        self._depth += 1
        try:
            if self._depth == 1:
                self._refresh()
                self._swapped.enter_context(self._in_place())
            yield
        finally:
            self._depth -= 1
            if not self._depth:
                self._swapped.close()

    def fingerprint(self) -> Any:
        """What changes with the value of any parameter or buffer, on this rank."""
        return fingerprints([local(t.detach()) for t in self._found()])

    @property
    def note(self) -> str:
        """The casts of mixed precision that a replica leaves out."""
        if not policies(self._model):
            return ""
        return (
            "the MixedPrecisionPolicy of fully_shard was left out: measured with the parameters as "
            "they are stored, without its casts"
        )

    def groups(self, optimizer: torch.optim.Optimizer) -> list[dict[str, Any]]:
        """The groups of an optimizer, with whole parameters."""
        return [
            {**group, "params": [self._copy_of(p) for p in group["params"]]}
            for group in optimizer.param_groups
        ]

    def optimizer(self, optimizer: torch.optim.Optimizer) -> torch.optim.Optimizer:
        """The optimizer with whole parameters and state; all ranks call this."""
        own = copy.copy(optimizer)
        own.param_groups = self.groups(optimizer)
        own.state = {  # type: ignore[assignment]
            self._copy_of(p): {
                key: _whole(value) if is_dtensor(value) else value for key, value in state.items()
            }
            for p, state in optimizer.state.items()
        }
        return own

    def _copy_of(self, parameter: Tensor) -> Tensor:
        found, made = self._whole.get(id(parameter), (None, parameter))
        return made if found is parameter else parameter

    def _found(self) -> list[Any]:
        return [*found_parameters(self._model), *self._model.buffers()]

    def _refresh(self) -> None:
        """Give the copies the values of the model."""
        values = self.fingerprint()
        if not any(self._ranks.gathered(values != self._values, "whether parameters changed")):
            return
        modules = list(self._model.modules())
        shards, places = shards_of(modules), []
        with torch.inference_mode(False), torch.no_grad():
            fresh: set[int] = set()
            for module, name, registered in _registered(modules):
                found: Any = shards.get((module, name), registered)
                if id(found) not in fresh:
                    self._copy(found, isinstance(registered, nn.Parameter))
                    fresh.add(id(found))
                places.append((module, name, self._whole[id(found)][1]))
        self._places, self._values = places, values

    def _copy(self, found: Any, is_parameter: bool) -> None:
        values, known = _whole(found), self._whole.get(id(found))
        if known is not None and known[0] is found and known[1].shape == values.shape:
            known[1].copy_(values)
            return
        if is_parameter:
            values = nn.Parameter(values, requires_grad=found.requires_grad)
        self._whole[id(found)] = found, values

    @contextmanager
    def _in_place(self) -> Iterator[None]:
        modules = list(self._model.modules())
        with _restored(modules):
            for module in modules:
                strip(module)
            for module, name, own in self._places:
                _put(module, name, own)
            yield


def replica_of(model: Any, ranks: Ranks) -> Replica | None:
    """The replica of a model that is sharded; None for others.

    Raises:
        ModelError: there can be none; or the other ranks are not told.
    """
    why = refused(model)
    if why:
        raise ModelError(f"{why} Measure a part of it that runs on one rank, or an unsharded copy")
    if not isinstance(model, nn.Module) or not is_sharded(model):
        return None
    if ranks is ALONE:
        raise ModelError(
            "the parameters of the model are divided among ranks (DTensor): pass "
            "`process_group=torch.distributed.group.WORLD`, and call this on all of them"
        )
    apart = mesh_ranks(model) - set(ranks.places)
    if apart:
        raise ModelError(
            f"parameters of the model lie on rank {min(apart)} as well, which is not in "
            f"`process_group`: measure with all ranks that hold parts of the model"
        )
    return Replica(model, ranks)


def _registered(modules: Iterable[nn.Module]) -> Iterator[tuple[nn.Module, str, Tensor]]:
    """Each parameter and buffer at each place where it is registered."""
    for module in modules:
        for name, found in (*module._parameters.items(), *module._buffers.items()):
            if found is not None:
                yield module, name, found


def _whole(tensor: Any) -> Tensor:
    """A whole plain copy, which shares no memory with the tensor."""
    tensor = tensor.detach()
    if not is_dtensor(tensor):
        plain: Tensor = tensor.clone()
        return plain
    if tensor.device.type != tensor.device_mesh.device_type:  # offloaded to the CPU
        tensor = tensor.to(tensor.device_mesh.device_type)
    whole: Tensor = tensor.full_tensor()
    own: bool = whole.untyped_storage().data_ptr() != tensor.to_local().untyped_storage().data_ptr()
    return whole if own else whole.clone()  # nothing had to be gathered


@contextmanager
def _restored(modules: list[nn.Module]) -> Iterator[None]:
    found = [(module, type(module), dict(vars(module))) for module in modules]
    kept = [(item, dict(item)) for module in modules for item in registries(module)]
    registered = list(_registered(modules))
    try:
        yield
    finally:
        for module, kind, own in found:
            module.__class__ = kind
            vars(module).clear()
            vars(module).update(own)
        for registry, content in kept:
            registry.clear()
            registry.update(content)
        for module, name, tensor in registered:
            _put(module, name, tensor)


def _put(module: nn.Module, name: str, tensor: Tensor) -> None:
    """Register a tensor where one of this name is registered already."""
    if type(module).__setattr__ is not nn.Module.__setattr__:
        setattr(module, name, tensor)  # RNNs, for one, keep a list of their parameters
        return
    registry: dict[str, Any] = module._parameters
    (registry if name in registry else module._buffers)[name] = tensor
