"""How the learning rate changes within a run."""

from __future__ import annotations

import math
from collections.abc import Callable

from ..errors import ArgumentError

Schedule = Callable[[float], float]  # the factor of ε by the fraction of the run that is done


def linear(done: float) -> float:
    """From 1 to 0 on a line."""
    return 1 - done


def cosine(done: float) -> float:
    """From 1 to 0 on half a period of the cosine."""
    return (1 + math.cos(math.pi * done)) / 2


NAMED = {"linear": linear, "cosine": cosine}


def as_schedule(given: str | Schedule | None) -> Schedule | None:
    """The function of a name; what is none is returned as it is.

    Raises:
        ArgumentError: no such name, or not a function.
    """
    if isinstance(given, str) and given in NAMED:
        return NAMED[given]
    if isinstance(given, str) or not (given is None or callable(given)):
        raise ArgumentError(
            f"`schedule` must be {' or '.join(map(repr, NAMED))}, or a function from the fraction "
            f"of a run that is done to a factor of the learning rate; got {given!r}"
        )
    return given
