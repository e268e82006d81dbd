"""Activation checkpointing, switched off while something is measured."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import torch
from torch.utils import checkpoint


@contextmanager
def checkpoints_passed() -> Iterator[None]:
    """`torch.utils.checkpoint` keeps activations meanwhile, in the whole process.

    What is computed again within a backward pass cannot be followed, and reentrant checkpoints
    cannot be differentiated with respect to chosen inputs.
    """
    with _PASSED.lock:
        if not _PASSED.holders:
            for name in IN_PLACE.keys() & vars(checkpoint).keys():
                _PASSED.found[name] = getattr(checkpoint, name)
                setattr(checkpoint, name, IN_PLACE[name])
        _PASSED.holders += 1
    try:
        yield
    finally:
        with _PASSED.lock:
            _PASSED.holders -= 1
            while not _PASSED.holders and _PASSED.found:
                setattr(checkpoint, *_PASSED.found.popitem())


class _Passed:
    """How many measurements have replaced checkpointing, in all threads, and what was there."""

    def __init__(self) -> None:
        self.lock, self.holders, self.found = threading.Lock(), 0, dict[str, Any]()


_PASSED = _Passed()


class _Direct:
    """In place of the autograd Function of reentrant checkpoints."""

    @staticmethod
    def apply(function: Any, _preserve_rng_state: bool, *args: Any) -> Any:
        # as theirs: a region that is given no gradient to hand on has none
        follows = any(isinstance(item, torch.Tensor) and item.requires_grad for item in args)
        with torch.set_grad_enabled(follows):
            return function(*args)


def _once(
    _function: Any, _preserve: bool = True, context_fn: Any = None, *_args: Any, **_kwargs: Any
) -> Iterator[None]:
    """In place of what surrounds the region of the others, up to torch 2.13."""
    with context_fn()[0] if context_fn else nullcontext():
        yield


def _once_by_name(_function: Any, _args: Any, _kwargs: Any, **options: Any) -> Iterator[None]:
    """The same from torch 2.14 on, which hands the options over by name."""
    yield from _once(_function, context_fn=options.get("context_fn"))


IN_PLACE: dict[str, Any] = {  # private names of torch.utils.checkpoint, those that there are
    "CheckpointFunction": _Direct,
    "_checkpoint_without_reentrant_generator": _once,
    "_checkpoint_without_reentrant_generator_impl": _once_by_name,
}
