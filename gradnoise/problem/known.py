"""What was found out about a model and its loss, kept for the next call.

Whether samples are independent, which engine measures them, and where they are in each operation is
found by evaluating the model several times. The findings hold for one *signature*: the modules and
parameters, modes and other attributes, the code that runs and the numbers that it reads, the kinds
of the batch's tensors, autocast. They go when the model goes, which they do not keep alive.
"""

from __future__ import annotations

import types
from collections import OrderedDict
from collections.abc import Hashable, Iterable
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

from ..tensors.ragged import is_ragged
from ..tensors.trees import Batch, rest_of, sample_count, sample_leaves
from .objective import Objective
from .state.held import attributes_of, held_by

Findings = dict[str, Any]

PLAN = "plan"  # of the hooks engine
KEPT = 16  # signatures of a model: in training and evaluation, with some kinds of batches
COUNTED = 32  # samples of a batch, beyond which more change nothing in what is found
LARGE = 64  # entries of a container that is told by their number alone
OF_LOSS, OF_MODULE = 4, 1  # how deep objects within objects are looked into
_PLAIN = (bool, int, float, complex, str, bytes, type(None), torch.dtype, torch.device)
_USUAL = frozenset(_PLAIN)  # and not their subclasses: most attributes, told at once
_REGISTRIES = frozenset((dict, OrderedDict))  # of hooks and the like: most are empty
_OWN = __name__.partition(".")[0]
_MODELS: WeakKeyDictionary[nn.Module, OrderedDict[Hashable, Findings]] = WeakKeyDictionary()


def known(objective: Objective, batch: Batch) -> Findings:
    """The findings for this objective and batches of this kind, to be read and added to.

    Nothing is kept where a collate function puts the samples together, or where an object of the
    user's cannot be looked into. Inside the guard.
    """
    if is_ragged(batch):
        return {}
    try:
        signature = _signature(objective, batch)
        kept = _MODELS.setdefault(objective.model, OrderedDict())
        found = kept.setdefault(signature, {})
    except Exception:  # of the user's objects: attributes that raise, names that cannot be hashed
        return {}
    kept.move_to_end(signature)
    if len(kept) > KEPT:
        kept.popitem(last=False)
    return found


def _signature(objective: Objective, batch: Batch) -> Hashable:
    unit, device = objective.unit, objective.device.type
    return (
        _of_modules(objective.model),
        _of(objective.criterion, OF_LOSS),
        type(objective.loss_fn),
        unit.kind,
        unit.size,
        unit.is_replayed,
        _of_batch(batch),
        torch.is_autocast_enabled(device) and torch.get_autocast_dtype(device),
    )


def _of_batch(batch: Batch) -> Hashable:
    """Kinds of tensors; of labels and masks, whether some are below 0, and whether all are equal.

    Losses that divide by the number of labels that count are coupled only where some do not.
    """
    leaves = tuple((leaf.ndim, leaf.dtype, _of_labels(leaf)) for leaf in sample_leaves(batch))
    return leaves, rest_of(batch), min(sample_count(batch), COUNTED)


def _of_labels(leaf: Tensor) -> Hashable:
    if leaf.is_floating_point() or leaf.is_complex() or not leaf.numel():
        return None
    if leaf.element_size() > 1 and not leaf.is_signed():
        leaf = leaf.long()  # torch has no extremes of these
    least, most = (extreme.item() for extreme in leaf.aminmax())
    return least < 0, least == most


def _of_modules(root: nn.Module, depth: int = OF_MODULE) -> Hashable:
    """Of a module and all inside of it, with their parameters."""
    return tuple(_of_module(module, min(depth, OF_MODULE)) for module in root.modules())


def _of_module(module: nn.Module, depth: int) -> Hashable:
    own, kind = vars(module), type(module)
    held = (*own["_parameters"].items(), *own["_buffers"].items())
    tensors = tuple(
        (name, id(t), t.shape, t.dtype, t.requires_grad) for name, t in held if t is not None
    )
    rest = tuple((name, _of(item, depth)) for name, item in attributes_of(module))
    return id(kind), _of(getattr(kind, "forward", None), depth), tensors, rest


def _of(item: Any, depth: int) -> Any:
    """Of an attribute or a function, with what it holds; at the depth of 0 its type."""
    kind = type(item)
    if kind in _USUAL:
        return item
    if kind in _REGISTRIES and not item:
        return ()
    if isinstance(item, _PLAIN):
        return item
    if isinstance(item, (type, types.ModuleType)) or _is_fixed(item):
        return id(item)
    if not depth:
        return id(type(item))
    if isinstance(item, Tensor):
        return item.shape, item.dtype, item.requires_grad
    if isinstance(item, nn.Module):
        return _of_modules(item, depth - 1)
    if isinstance(item, dict):
        return _of_entries(item.items(), len(item), depth)
    if isinstance(item, (list, tuple, set, frozenset)):
        return _of_entries(enumerate(item), len(item), depth)
    held = _of_entries(list(held_by(item)), 0, depth)
    return id(type(item)), getattr(item, "__code__", None) or held or id(item), held


def _is_fixed(item: Any) -> bool:
    """Whether it is a function of torch, which refer to hundreds of others, or one of our own."""
    if not isinstance(item, types.FunctionType):
        return False
    package = str(item.__globals__.get("__name__")).partition(".")[0]
    return package == "torch" or (package == _OWN and item.__closure__ is None)


def _of_entries(entries: Iterable[tuple[Any, Any]], count: int, depth: int) -> Hashable:
    if count > LARGE:
        return count
    return tuple(
        (name if isinstance(name, _PLAIN) else id(name), _of(item, depth - 1))
        for name, item in entries
    )
