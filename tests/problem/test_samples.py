"""The measured samples: drawn once, from whatever holds data."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.utils.data import (
    DataLoader,
    Dataset,
    IterableDataset,
    SubsetRandomSampler,
    TensorDataset,
    WeightedRandomSampler,
)

from gradnoise import ArgumentError, DataError
from gradnoise.problem.samples import Samples
from gradnoise.ranks.share import Share
from gradnoise.tensors.trees import sample_leaves

X = torch.arange(10.0).reshape(10, 1)
DATA = TensorDataset(X, X[:, 0])


class Stream(IterableDataset):
    def __iter__(self) -> Iterator[Tensor]:
        return iter(X)


class Plain:
    """A data set by its methods alone."""

    def __len__(self) -> int:
        return 10

    def __getitem__(self, index: int) -> Tensor:
        return X[index]


class Again:
    """Anything that can be iterated more than once."""

    def __iter__(self) -> Iterator[Any]:
        return iter([(X[:7], X[:7]), (X[7:], X[7:])])


class Words(Dataset):
    """Items of different lengths, padded by the collate function."""

    def __len__(self) -> int:
        return 10

    def __getitem__(self, index: int) -> list[float]:
        return [float(index)] * (1 + index % 3)


def pad(items: list[list[float]]) -> Tensor:
    width = max(map(len, items))
    return torch.tensor([item + [0.0] * (width - len(item)) for item in items])


KINDS = {
    "list of single samples": [(row, k) for k, row in enumerate(X)],
    "one batch": (X, X),
    "one batch as a list": [X, X[:, 0].long()],
    "dict": {"x": X, "y": X},
    "tensor": X,
    "list of batches": [(X[:4], X[:4]), (X[4:9], X[4:9]), (X[9:], X[9:])],
    "list of tensors of uneven counts": [X[:7], X[7:]],
    "list with an empty batch": [(X, X), (X[:0], X[:0])],
    "data set": DATA,
    "data set by duck": Plain(),
    "loader": DataLoader(DATA, batch_size=3),
    "shuffled loader": DataLoader(DATA, batch_size=3, shuffle=True),
    "loader that drops the last": DataLoader(DATA, batch_size=3, drop_last=True),
    "loader without batching": DataLoader([(X[:5],), (X[5:],)], batch_size=None),
    "padding loader": DataLoader(Words(), batch_size=4, collate_fn=pad),
    "stream": Stream(),
    "stream loader": DataLoader(Stream(), batch_size=4),
    "re-iterable": Again(),
}


def values(samples: Samples) -> list[float]:
    """The first number of every sample."""
    return [row for batch in samples.batches for row in sample_leaves(batch)[0][:, 0].tolist()]


@pytest.mark.parametrize("kind", KINDS)
def test_all_samples_are_taken_once_when_they_fit(kind: str) -> None:
    samples = Samples.draw(KINDS[kind])
    assert sorted(values(samples)) == X[:, 0].tolist()
    assert (samples.count, samples.population) == (10, 10)


@pytest.mark.parametrize("kind", KINDS)
def test_fewer_samples_are_drawn_without_replacement(kind: str) -> None:
    samples = Samples.draw(KINDS[kind], max_samples=6, seed=4)
    drawn = values(samples)
    assert samples.count == 6 == len(set(drawn))
    assert set(drawn) <= set(X[:, 0].tolist())
    known = "stream" not in kind and kind not in ("re-iterable", "loader without batching")
    assert samples.population == (10 if known else math.inf)
    assert bool(samples.notes) == (not known)


@pytest.mark.parametrize("kind", KINDS)
def test_the_same_seed_draws_the_same_samples(kind: str) -> None:
    first, second = (Samples.draw(KINDS[kind], max_samples=5, seed=9) for _ in range(2))
    assert values(first) == values(second)


def test_every_sample_is_drawn_equally_often() -> None:
    counts = torch.zeros(10)
    for seed in range(400):
        counts[torch.tensor(values(Samples.draw(DATA, max_samples=3, seed=seed))).long()] += 1
    expected, variance = 120, 400 * 0.3 * 0.7
    assert ((counts - expected).abs() < 4 * math.sqrt(variance)).all()


def test_micro_batches_bound_what_is_evaluated_at_once() -> None:
    samples = Samples.draw((X, X), micro_batch=4)
    assert samples.counts == (4, 4, 2)
    assert Samples.draw(DataLoader(DATA, batch_size=3), micro_batch=4).counts == (3, 3, 3, 1)


@pytest.mark.parametrize(
    ("population", "expected"),
    [("dataset", 10), ("distribution", math.inf), (500, 500), (np.int64(500), 500)],
)
def test_the_population_is_what_the_person_says(population: Any, expected: float) -> None:
    assert Samples.draw(DATA, max_samples=4, population=population).population == expected


def test_a_sampler_of_the_persons_own_is_followed() -> None:
    own = DataLoader(DATA, batch_size=2, sampler=SubsetRandomSampler([1, 3, 5, 7]))
    samples = Samples.draw(own)
    assert sorted(values(samples)) == [1, 3, 5, 7]
    assert samples.population == 4
    assert samples.notes == (
        "samples were taken as the loader's own SubsetRandomSampler gave them",
    )
    weighted = WeightedRandomSampler([1.0] + [0.0] * 9, num_samples=6)
    assert set(values(Samples.draw(DataLoader(DATA, batch_size=2, sampler=weighted)))) == {0.0}


def test_workers_give_the_same_samples() -> None:
    alone, helped = (
        values(Samples.draw(DataLoader(DATA, batch_size=3, num_workers=workers), max_samples=6))
        for workers in (0, 2)
    )
    assert alone == helped


def test_the_loaders_worker_function_is_kept() -> None:
    class Odd(Words):
        def __getitem__(self, index: int) -> Tensor:
            return X[index] + OFFSET[0]

    def shift(worker: int) -> None:
        OFFSET[0] = 100.0

    loader = DataLoader(Odd(), batch_size=5, num_workers=1, worker_init_fn=shift)
    assert min(values(Samples.draw(loader))) == 100


OFFSET = [0.0]


def test_halves_part_the_samples() -> None:
    samples = Samples.draw([(X[:7], X[:7]), (X[7:], X[7:])])
    first, second = samples.halves(seed=2)
    assert (first.count, second.count) == (5, 5)
    assert sorted(values(first) + values(second)) == X[:, 0].tolist()
    assert values(first) != values(samples)[:5]


REFUSED = {
    "empty batch": (X[:0], DataError, r"got no samples; at least 2 needed"),
    "empty list": ([], DataError, r"got no samples"),
    "empty data set": (TensorDataset(X[:0]), DataError, r"got no samples"),
    "one sample": (
        X[:1],
        DataError,
        r"got 1 sample; at least 2 .* has no variance",
    ),
    "generator": ((X for _ in range(3)), DataError, r"one-shot generator.*DataLoader"),
    "iterator of a loader": (iter(DataLoader(DATA)), DataError, r"one-shot _Single"),
    "counts that differ": ((X, X[:3]), DataError, r"\(10, 1\), \(3, 1\)"),
    "two tensors alike": ([X, X], DataError, r"can be one batch or several"),
    "array": (np.zeros((3, 2)), DataError, r"got ndarray. Convert arrays with torch.as_tensor"),
    "nothing": (None, DataError, r"must be a DataLoader.*got NoneType"),
    "text": ("data", DataError, r"got str"),
    "strings in a list": (["a", "b"], DataError, r"must hold tensors"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_no_data_is_refused(name: str) -> None:
    data, error, message = REFUSED[name]
    with pytest.raises(error, match=message):
        Samples.draw(data)


def test_a_refused_generator_has_not_been_used_up() -> None:
    source = iter([X, X])
    with pytest.raises(DataError, match="one-shot"):
        Samples.draw(source)
    assert next(source) is X


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"max_samples": 1}, r"`max_samples` must be a whole number from 2 on; got 1"),
        ({"micro_batch": 0}, r"`micro_batch` must be a whole number from 1 on; got 0"),
        ({"population": "all"}, r"`population` must be .*got 'all'"),
        ({"population": np.int64(1)}, r"`population` must be .*got np.int64\(1\)"),
        ({"population": np.float64(500.0)}, r"`population` must be .*got np.float64"),
        ({"population": True}, r"`population` must be .*got True"),
        ({"population": 7}, r"`population` = 7 is smaller than the 10 measured"),
    ],
)
def test_arguments_out_of_range_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ArgumentError, match=message):
        Samples.draw(DATA, **options)


X64, Y64 = torch.zeros(64, 2), torch.zeros(64)
ONE_BATCH = "the 64 samples were given as one batch and are taken as the whole population"


@pytest.mark.parametrize(
    "data",
    [X64, (X64, Y64), {"x": X64}, [X64, Y64], [(X64, Y64)]],
    ids=["tensor", "pair", "mapping", "list of tensors", "list of one"],
)
def test_a_small_population_given_as_one_batch_is_said_to_be_one(data):
    note = Samples.draw(data).population_note
    assert note.startswith(ONE_BATCH)
    assert Samples.draw(data, population="distribution").population_note == ""
    assert Samples.draw(data, population=500).population_note == ""


@pytest.mark.parametrize(
    "data",
    [torch.zeros(1024, 2), [(X64, Y64), (X64, Y64)], TensorDataset(X64), DataLoader(X64)],
    ids=["large", "several", "data set", "loader"],
)
def test_other_data_need_no_such_word(data):
    assert Samples.draw(data).population_note == ""


@pytest.mark.parametrize("positions", [[0, 3, 3, 4, 9], [7], [], [*range(10)]])
def test_samples_are_taken_at_positions_that_may_repeat(positions: list[int]) -> None:
    samples = Samples.draw([X[:3], X[3:4], X[4:]], max_samples=None)
    found = samples.taken(torch.tensor(positions, dtype=torch.long), 4)
    assert [len(batch) for batch in found] == _at_most(len(positions), 4)
    assert [float(x) for batch in found for x in batch] == positions


def _at_most(count: int, size: int) -> list[int]:
    return [min(size, count - start) for start in range(0, count, size)]


def test_samples_of_other_shapes_stay_apart() -> None:
    samples = Samples.draw([(torch.ones(3, 2),), (torch.ones(3, 5),)], max_samples=None)
    found = samples.taken(torch.tensor([1, 1, 4, 5]), 100)
    assert [tuple(x.shape) for (x,) in found] == [(2, 2), (2, 5)]


def test_chosen_samples_come_together_where_their_shapes_agree() -> None:
    data = [(torch.arange(3.0)[:, None],), (torch.arange(3.0, 6.0)[:, None],), (torch.ones(2, 5),)]
    samples = Samples.draw(data, max_samples=None, population=20)
    found = samples.together(torch.tensor([0, 2, 4, 7]))
    assert [x.tolist() for (x,) in found.batches] == [[[0.0], [2.0], [4.0]], [[1.0] * 5]]
    assert (found.count, found.population, found.share) == (4, 20, None)
    own = replace(samples, share=Share((2, 8, 1), 1))  # of three ranks
    found = own.together(torch.tensor([0, 2, 3, 7, 10]))
    assert found.share == Share((1, 3, 1), 1)
    assert [x.tolist() for (x,) in found.batches] == [[[0.0], [1.0], [5.0]]]


def test_some_samples_are_drawn_at_random_and_halves_can_be_joined() -> None:
    samples = Samples.draw(X, max_samples=None, population=20)
    assert samples.some(10, 0) is samples
    few = [sample_leaves(samples.some(4, seed).batches[0])[0] for seed in range(2)]
    assert [len(own) for own in few] == [4, 4]
    assert not torch.equal(*few)
    torch.testing.assert_close(few[1], X[samples.some_positions(4, 1)])
    halves, positions = samples.halves(3), samples.half_positions(3)
    for half, own in zip(halves, positions, strict=True):
        torch.testing.assert_close(half.batches[0], X[own])
    both = halves[0].joined(halves[1])
    assert (both.count, both.population) == (10, 20)
    assert sorted(float(x) for batch in both.batches for x in batch) == [*range(10)]
