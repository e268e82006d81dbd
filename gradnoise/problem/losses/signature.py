"""What a criterion takes and what it was told: `reduction`, `ignore_index`, class weights."""

from __future__ import annotations

import functools
import inspect
from typing import Any

from torch import nn

from ...errors import LossError
from .loss_fn import listed


def has_reduction(criterion: Any) -> bool:
    """Whether it can be told not to reduce; functions in C do not tell, and torch's can be."""
    if isinstance(criterion, nn.Module):
        return hasattr(criterion, "reduction")
    parameters = _parameters(criterion)
    return parameters is None or "reduction" in parameters


def reduction_of(criterion: Any) -> str:
    """How a criterion reduces its losses; functions average unless told otherwise."""
    if isinstance(criterion, functools.partial):
        return str(criterion.keywords.get("reduction", "mean"))
    return str(getattr(criterion, "reduction", "mean"))


def ignored_by(criterion: Any) -> int | None:
    """The class index whose entries do not count, if there is one."""
    if isinstance(criterion, nn.Module):
        return getattr(criterion, "ignore_index", None)
    given = (_parameters(criterion) or {}).get("ignore_index")
    return None if given is None else given.default


def refuse_other_arguments(criterion: Any) -> None:
    """Raise LossError for what compares more than two things: GaussianNLLLoss, CTCLoss, ..."""
    parameters, reduces = _parameters(criterion), has_reduction(criterion)
    if parameters is None:
        return
    options = {"reduction": "none"} if "reduction" in parameters else {}
    try:
        inspect.Signature(list(parameters.values())).bind(None, None, **options)
    except TypeError as error:
        name = name_of(criterion)
        head = f"{name} takes" if reduces else f"{name} has no `reduction` and takes"
        raise LossError(
            f"{head} ({listed(parameters)}), where a criterion takes (outputs, targets). Write a "
            f"loss_fn(model, batch) that calls it and returns one loss per sample, shape (n,)."
        ) from error


def _parameters(criterion: Any) -> dict[str, inspect.Parameter] | None:
    """What a criterion takes; None where it does not tell."""
    called = criterion.forward if isinstance(criterion, nn.Module) else criterion
    try:
        return dict(inspect.signature(called).parameters)
    except (TypeError, ValueError):
        return None


def name_of(criterion: Any) -> str:
    """Of a function its own, of a module that of its class."""
    bare = criterion.func if isinstance(criterion, functools.partial) else criterion
    return str(getattr(bare, "__name__", type(bare).__name__))
