"""What functions and modules hold, by name."""

from __future__ import annotations

import functools
import types
from collections.abc import Iterator
from typing import Any

from torch import nn

_OF_TORCH = frozenset(vars(nn.Module())) - {"_forward_hooks", "_forward_pre_hooks", "training"}


def attributes_of(module: nn.Module) -> list[tuple[str, Any]]:
    """What a module holds besides parameters, buffers and modules: attributes, forward hooks."""
    return [(name, item) for name, item in vars(module).items() if name not in _OF_TORCH]


def held_by(function: Any) -> Iterator[tuple[str, Any]]:
    """Bound arguments, attributes of it and of its object, closure, globals and defaults."""
    if isinstance(function, functools.partial):
        yield from function.keywords.items()
        yield from ((f"argument {i}", item) for i, item in enumerate(function.args))
        function = function.func
    for owner in (getattr(function, "__self__", None), function):
        if not isinstance(owner, types.ModuleType):  # which holds a built-in function
            yield from (getattr(owner, "__dict__", None) or {}).items()
    code = getattr(function, "__code__", None)
    if code is None:
        return
    for name, cell in zip(code.co_freevars, function.__closure__ or (), strict=True):
        try:
            yield name, cell.cell_contents
        except ValueError:  # not assigned yet
            continue
    defaults, names = function.__defaults__ or (), code.co_varnames[: code.co_argcount]
    yield from zip(names[len(names) - len(defaults) :], defaults, strict=True)
    yield from (function.__kwdefaults__ or {}).items()
    known = function.__globals__
    yield from ((name, known[name]) for name in code.co_names if name in known)
