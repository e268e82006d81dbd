"""How the learning rate changes within a run."""

from __future__ import annotations

import math
from collections.abc import Callable

from ..errors import ArgumentError, first_line

Schedule = Callable[[float], float]  # the factor of ε by the fraction of the run that is done


def linear(done: float) -> float:
    """From 1 to 0 on a line."""
    return 1 - done


def cosine(done: float) -> float:
    """From 1 to 0 on half a period of the cosine."""
    return (1 + math.cos(math.pi * done)) / 2


NAMED = {"linear": linear, "cosine": cosine}


PLACES = (0.0, 0.25, 0.5, 0.75)  # where a function is tried


def as_schedule(given: str | Schedule | None) -> Schedule | None:
    """The function of a name; what is no name is returned as it is.

    Raises:
        ArgumentError: no such name, or not a function to finite numbers from 0 on, some above 0.
    """
    if given is None:
        return None
    found = NAMED.get(given) if isinstance(given, str) else given
    if not callable(found):
        raise ArgumentError(
            f"`schedule` must be {' or '.join(map(repr, NAMED))}, or a function from the fraction "
            f"of a run that is done to a factor of the learning rate; got {given!r}"
        )
    factors = [_factor(found, place) for place in PLACES]
    if not all(0 <= factor < math.inf for factor in factors) or not any(factors):
        raise ArgumentError(
            f"`schedule` must return factors of the learning rate, finite and not below 0; after "
            f"{', '.join(map(str, PLACES))} of a run it returned "
            f"{', '.join(f'{factor:g}' for factor in factors)}"
        )
    return found


def _factor(schedule: Schedule, done: float) -> float:
    try:
        return float(schedule(done))
    except Exception as error:  # whatever the user's function has to say
        raise ArgumentError(
            f"`schedule` must take the fraction of a run that is done, such as {done:g}, and "
            f"return a number ({first_line(error)}). A scheduler of torch.optim does not"
        ) from error
