"""Groups as they come in training."""

from __future__ import annotations

import math
from itertools import chain
from typing import Any

import pytest
import torch
from torch.utils.data import DataLoader, IterableDataset, TensorDataset

import gradnoise as gn
from gradnoise.problem.groups import draw_groups, usual_size
from gradnoise.problem.options import Options
from gradnoise.problem.samples import Samples
from gradnoise.tensors.trees import sample_leaves

NUMBERS = torch.arange(40.0)[:, None]


def drawn(data: Any, size: int, *, is_random: bool = False, **options: Any) -> Samples:
    given = Options(**{"max_samples": None, "micro_batch": 16, **options})
    return draw_groups(data, size, given, is_random=is_random)


def numbers(samples: Samples) -> list[list[float]]:
    """The numbers of every group."""
    return [
        group.flatten().tolist()
        for batch in samples.batches
        for group in sample_leaves(batch.batch)[0]
    ]


class Stream(IterableDataset):  # type: ignore[type-arg]
    def __iter__(self) -> Any:
        return iter(NUMBERS)


class Rows:
    def __len__(self) -> int:
        return len(NUMBERS)

    def __getitem__(self, index: int) -> Any:
        return NUMBERS[index]


RANDOM = {
    "a batch": NUMBERS,
    "a tuple": (NUMBERS, NUMBERS),
    "a data set of tensors": TensorDataset(NUMBERS),
    "a data set": Rows(),
    "a loader": DataLoader(TensorDataset(NUMBERS), batch_size=5),
    "a shuffled loader": DataLoader(TensorDataset(NUMBERS), batch_size=8, shuffle=True),
    "batches of another size": [(NUMBERS[:24],), (NUMBERS[24:],)],
}


@pytest.mark.parametrize("kind", RANDOM)
def test_groups_are_random_and_hold_every_sample_once(kind: str) -> None:
    found = drawn(RANDOM[kind], 8)
    groups = numbers(found)
    assert sorted(chain(*groups)) == NUMBERS.flatten().tolist()
    assert [len(group) for group in groups] == [8] * 5
    assert all(group != sorted(group) for group in groups)
    assert (found.count, found.population, found.data_size) == (5, 5, 40)
    assert found.is_partition
    assert [len(batch.seeds) for batch in found.batches] == [2, 2, 1]
    assert numbers(drawn(RANDOM[kind], 8)) == groups != numbers(drawn(RANDOM[kind], 8, seed=1))


@pytest.mark.parametrize("kind", RANDOM)
def test_a_part_of_the_samples(kind: str) -> None:
    found = drawn(RANDOM[kind], 8, max_samples=20)
    assert (found.count, found.population, found.data_size) == (2, 5, 40)


def test_what_makes_no_whole_group_is_no_part_of_the_population() -> None:
    found = drawn(NUMBERS, 12)
    assert (found.count, found.population, found.sampling_factor) == (3, 3, 0)


def test_batches_of_the_size_that_is_asked_for_stay_together() -> None:
    batches = [(NUMBERS[k : k + 6],) for k in range(0, 40, 6)]  # the last one has 4
    found = drawn(batches, 6)
    assert numbers(found) == [b[0].flatten().tolist() for b in batches[:-1]]
    assert not found.is_partition
    assert found.population == 6
    assert len(numbers(drawn(batches, 6, max_samples=20))) == 3


ORDERED = {
    "a stream": Stream(),
    "a loader of a stream": DataLoader(Stream(), batch_size=8),
    "a sampler of its own": DataLoader(
        TensorDataset(NUMBERS), batch_size=8, sampler=list(range(16))
    ),
    "an iterable": type("Batches", (), {"__iter__": lambda _: iter(NUMBERS.split(8))})(),
}


@pytest.mark.parametrize("kind", ORDERED)
def test_streams_give_their_batches_in_order(kind: str) -> None:
    found = drawn(ORDERED[kind], 8, max_samples=16)
    assert numbers(found)[0] == NUMBERS[:8].flatten().tolist()
    assert not found.is_partition
    assert found.count == 2
    own = "samples were taken as the loader's own list gave them"
    assert (own in found.notes) is (kind == "a sampler of its own")


def test_too_few_groups_are_refused() -> None:
    with pytest.raises(gn.DataError, match=r"got 1 groups of 32 samples.*Lower `group_size`"):
        drawn(NUMBERS, 32)


def test_random_losses_are_of_a_distribution() -> None:
    found = drawn(NUMBERS, 8, is_random=True)
    assert math.isinf(found.population)
    assert math.isinf(found.data_size or 0)


def test_the_usual_size() -> None:
    assert usual_size(DataLoader(TensorDataset(NUMBERS), batch_size=5)) == 5
    assert usual_size([(NUMBERS[:7],), (NUMBERS[7:14],), (NUMBERS[14:17],)]) == 7
    assert usual_size(NUMBERS) == 5  # eight groups
    assert usual_size(TensorDataset(NUMBERS.repeat(100, 1))) == 32
    assert usual_size(Stream()) == 32
