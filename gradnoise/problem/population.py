"""N: how many samples there are of which some are measured."""

from __future__ import annotations

import math
from typing import Any

from torch.utils.data import TensorDataset

from ..errors import ArgumentError
from .state.generators import random_states

STREAM = (
    "the size of the stream is not known, so the population is taken as infinite; pass "
    "`population` as a number of samples if it is finite"
)
AUGMENTED = (
    "the data set draws random numbers (augmentation): each sample was drawn once, and the "
    "population is a distribution, of infinitely many draws"
)


def is_augmented(data: Any) -> bool:
    """Whether a data set draws random numbers for its first sample."""
    if type(data) is TensorDataset or not len(data):
        return False
    before = random_states()
    data[0]
    return random_states() != before


def population_of(
    population: str | int, available: float, count: int, endless: str = STREAM
) -> tuple[float, str]:
    """N, and a note where it is taken as infinite; `endless` says why it is."""
    if population == "distribution":
        return math.inf, ""
    if population == "dataset":
        return available, endless if math.isinf(available) else ""
    if int(population) < count:
        raise ArgumentError(
            f"`population` = {population} is smaller than the {count} measured samples; pass the "
            f'size of the whole population, "dataset" or "distribution"'
        )
    return float(population), ""
