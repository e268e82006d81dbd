"""What would have been right: by plain training at every batch size and rate."""

from __future__ import annotations

from collections.abc import Sequence

from .problems import Problem
from .search import Search
from .store import Store


def find(problem: Problem, seeds: Sequence[int], smallest: int) -> None:
    """Train what is not there yet; from checkpoints, batch sizes from the smallest on."""
    Search(problem, Store(problem), seeds).everything(smallest)


def show(problems: Sequence[Problem], markdown: bool) -> None:
    print(problems, markdown)
