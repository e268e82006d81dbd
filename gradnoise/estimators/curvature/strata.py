"""Samples that make a step, and others that judge it."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ...errors import ArgumentError
from ...problem.samples import Samples
from ...statistics.skew import Skew
from ...tensors.random import generator


@dataclass(frozen=True, eq=False)
class Strata:
    """Samples that make the step, and others that judge it.

    Those that make it are b of the N in the population, with the share b/N in its mean; the others
    were drawn from the rest and stand for it.

    Args:
        made: whether a sample makes the step, shape (n,).
        population: N.
    """

    made: Tensor
    population: float

    @classmethod
    def of(cls, samples: Samples, size: int | None, seed: int) -> Strata:
        """Draw the `size` samples that make the step; None is all, or half where n < N.

        Raises:
            ArgumentError: more than there are, or fewer than 2 others where these are needed.
        """
        n, whole = samples.count, samples.count == samples.population
        size = size or (n if whole else n // 2)
        most = n if whole else n - 2
        if size > most:
            why = "" if whole else ", and at least 2 others have to judge the step"
            raise ArgumentError(
                f"`batch_size` = {size} is more than {most}: {n} samples are measured{why}. Give "
                f"more `data`, raise `max_samples`, or lower `batch_size`"
            )
        made = torch.zeros(n, dtype=torch.bool)
        made[torch.randperm(n, generator=generator(seed))[:size]] = True
        return cls(made, samples.population)

    @property
    def counts(self) -> tuple[int, int]:
        """How many make the step, and how many are others."""
        size = int(self.made.sum())
        return size, len(self.made) - size

    @property
    def is_exact(self) -> bool:
        """Whether the others are all of the rest, so that the mean has no sampling error."""
        return len(self.made) == self.population

    @property
    def weights(self) -> Tensor:
        """Of every sample in the mean over the population, shape (n,), float64."""
        size, others = self.counts
        rest = (1 - size / self.population) / max(others, 1)
        made = self.made.double()
        return made / self.population + (1 - made) * rest

    @property
    def rows(self) -> Tensor:
        """Weights of the mean that makes the step, and of that over the population, (1 or 2, n)."""
        size, others = self.counts
        makes = self.made.double() / size
        return torch.stack([makes, self.weights]) if others else makes[None]

    def moments(self, *columns: Tensor) -> tuple[list[float], Tensor, Skew]:
        """Means over the population, their covariance, and their skewness."""
        (size, others), rows = self.counts, torch.stack(columns)
        share, rest = 1 - size / self.population, rows[:, ~self.made]
        means = (rows @ self.weights).tolist()
        if self.is_exact:
            return means, torch.zeros(len(rows), len(rows)), Skew.of(rows[:, :1])
        remaining = self.population - size
        cov = torch.cov(rest).reshape(len(rows), -1) * (1 / others - 1 / remaining)
        return means, share**2 * cov, Skew.of(share * rest, remaining)
