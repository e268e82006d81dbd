"""The call of a model with a batch, or a part of it, and what its `forward` takes."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

from torch import nn

from ...errors import LossError
from ..state.wrappers import bare_model
from .loss_fn import listed

CURE = (
    "Let the data give what forward takes, in its order or by its names, or write a "
    "loss_fn(model, batch)."
)


def call(
    model: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any], got: str, cure: str = CURE
) -> Any:
    """`model(*args, **kwargs)`.

    Args:
        model: the user's.
        args, kwargs: what it is given.
        got: what these are, for the message: "got tuple of 3, whose first 2 entries".
        cure: what to do where `forward` does not take them.

    Raises:
        LossError: `forward` does not take these arguments.
    """
    try:
        return model(*args, **kwargs)
    except TypeError as error:
        refusal = _refusal(model, args, kwargs)
        if refusal is None:  # an error inside forward
            raise
        raise LossError(f"{got} cannot be given to {_named(model)}: {refusal}. {cure}") from error


def takes(model: nn.Module, *args: Any, **kwargs: Any) -> bool:
    """Whether `forward` can be called with so many arguments and with these names."""
    return _refusal(model, args, kwargs) is None


def takes_one_thing(model: nn.Module) -> bool:
    """Whether `forward` has a single argument, which can only be the whole batch."""
    signature = _signature(model)
    if signature is None or len(signature.parameters) != 1:
        return False
    (only,) = signature.parameters.values()
    return only.kind in (only.POSITIONAL_ONLY, only.POSITIONAL_OR_KEYWORD)


def _signature(model: nn.Module) -> inspect.Signature | None:
    try:
        return inspect.signature(bare_model(model).forward)
    except (TypeError, ValueError):  # written in C, or scripted
        return None


def _refusal(model: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> str | None:
    """Why `forward` cannot be called in this way; None where it can."""
    signature = _signature(model)
    try:
        if signature is not None:
            signature.bind(*args, **kwargs)
    except TypeError as error:
        return str(error)
    return None


def _named(model: nn.Module) -> str:
    signature = _signature(model)
    names = "..." if signature is None else listed(signature.parameters)
    return f"{type(bare_model(model)).__name__}.forward({names})"
