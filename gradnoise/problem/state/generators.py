"""The random states that a loss may draw from: global ones, and generators of the user's own."""

from __future__ import annotations

import random
from itertools import chain
from typing import Any

import numpy as np
import torch
from torch import nn

from .guard import seed_everything
from .held import attributes_of, held_by

Generator = torch.Generator
DEPTH = 3  # of lists and dicts that are looked into
_PLAIN = frozenset((bool, int, float, str, type(None)))  # most attributes, told at once


def seed_all(seed: int, own: tuple[Generator, ...]) -> None:
    """Seed the global random states and these generators."""
    seed_everything(seed)
    for position, source in enumerate(own):
        source.manual_seed(seed + position + 1)  # another stream for each


def random_states() -> tuple[Any, ...]:
    """The global random states, to compare: whether something was drawn in between."""
    numpy: Any = np.random.get_state()
    kind, keys, *rest = numpy
    cuda = torch.cuda.is_initialized()  # type: ignore[no-untyped-call]
    states = [torch.get_rng_state(), *(torch.cuda.get_rng_state_all() if cuda else ())]
    return (*(bytes(s.numpy()) for s in states), kind, bytes(keys), *rest, random.getstate())


def own_generators(model: nn.Module, loss_fn: Any) -> tuple[Generator, ...]:
    """The `torch.Generator` objects that a model and a loss hold where they can be seen.

    Attributes of modules and of the loss, what a function closes over, its defaults, the global
    names in it, and the arguments of `functools.partial`; also in lists and dicts there.
    """
    held = chain(*map(attributes_of, model.modules()), held_by(loss_fn))
    found = {id(g): g for _, item in held if type(item) not in _PLAIN for g in _generators(item)}
    return tuple(found.values())


def _generators(item: Any, depth: int = DEPTH) -> list[Generator]:
    """Those among an object, or in it where it is a list, a tuple or a dict."""
    if isinstance(item, dict):
        item = list(item.values())
    if isinstance(item, (list, tuple)) and depth:
        return [g for one in item for g in _generators(one, depth - 1)]
    return [item] if isinstance(item, Generator) else []
