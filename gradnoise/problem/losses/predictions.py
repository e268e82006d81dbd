"""The tensor that a criterion compares, among what a model returns."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from torch import Tensor

from ...errors import LossError
from .loss_fn import listed, what

NAMES = ("logits", "out")


def predictions(outputs: Any) -> Tensor:
    """The tensor to compare, by the rules of `gn.supervised`.

    Raises:
        LossError: there is no tensor, or it cannot be told which of several is meant.
    """
    if isinstance(outputs, Tensor):
        return outputs
    entries = _entries(outputs)
    if entries is not None:
        return _of_entries(outputs, entries)
    if isinstance(outputs, (tuple, list)) and outputs and _first_alone(outputs):
        return outputs[0]  # type: ignore[no-any-return]
    held = f" ({', '.join(map(what, outputs))})" if isinstance(outputs, (tuple, list)) else ""
    raise _ambiguous(outputs, held)


def logits_of(outputs: Any) -> Tensor:
    """The logits of a language model: the tensor that it returns, or the `logits` of its output.

    Raises:
        LossError: there are none.
    """
    found = getattr(outputs, "logits", outputs)
    if isinstance(found, Tensor):
        return found
    raise LossError(
        f"this loss needs a model that returns a tensor; this one returned {what(outputs)}. If "
        f"the model returns its loss itself, use gn.model_loss()."
    )


def _entries(outputs: Any) -> dict[str, Any] | None:
    """What an output holds by name, without entries that are None; None where it has no names."""
    if isinstance(outputs, Mapping):
        named: Any = outputs
    elif isinstance(outputs, tuple) and hasattr(outputs, "_fields"):  # a named tuple
        named = dict(zip(outputs._fields, outputs, strict=True))
    elif dataclasses.is_dataclass(outputs) and not isinstance(outputs, type):
        named = {field.name: getattr(outputs, field.name) for field in dataclasses.fields(outputs)}
    elif hasattr(outputs, "logits"):
        named = {"logits": outputs.logits}
    else:
        return None
    return {str(name): item for name, item in named.items() if item is not None}


def _of_entries(outputs: Any, entries: dict[str, Any]) -> Tensor:
    named = [name for name in NAMES if isinstance(entries.get(name), Tensor)]
    added = [name for name in entries if name.startswith("aux")]  # heads or losses of training
    only = named or (list(entries) if len(entries) == 1 else [])
    if len(only) == 1 and not added and isinstance(entries[only[0]], Tensor):
        return entries[only[0]]  # type: ignore[no-any-return]
    raise _ambiguous(outputs, f" with {listed(entries)}")


def _first_alone(outputs: Any) -> bool:
    """Whether the first entry is a prediction and no other can be one, or a loss to be added."""
    first, *others = outputs
    if not isinstance(first, Tensor) or first.ndim == 0:
        return False
    tensors = [item for item in others if isinstance(item, Tensor)]
    return not any(item.ndim == 0 or len(item) == len(first) for item in tensors)


def _ambiguous(outputs: Any, held: str) -> LossError:
    return LossError(
        f"a criterion needs a model that returns a tensor; this one returned "
        f"{type(outputs).__name__}{held}, and a criterion does not say what is done with it. Write "
        f"a loss_fn(model, batch) that picks what it needs and returns one loss per sample, shape "
        f"(n,); if the model returns its loss itself, use gn.model_loss()."
    )
