"""How samples are drawn out of the data of several ranks."""

from __future__ import annotations

import math

import pytest
import torch

import gradnoise as gn
from gradnoise.problem.drawing import SHARED, Parts
from gradnoise.tensors.random import generator
from tests.launching import Launched
from tests.rank_models import losses, model_of, samples_of


def test_equal_entries_are_one_set() -> None:
    parts = Parts.of([(5, "a", False), (0, None, False), (5, "a", False), (4, "b", True)])
    assert parts.totals == (5, 0, 4)
    assert parts.sharers == ((0, 2), (1,), (3,))
    assert (parts.sets, parts.are_shared, parts.is_augmented) == (2, True, True)
    assert not Parts.of([(0, None, False), (0, None, False)]).are_shared  # nothing is nobody's


@pytest.mark.parametrize("limit", [100, 9, 6, 1])
@pytest.mark.parametrize("in_order", [True, False])
def test_all_ranks_together_choose_what_one_process_does(limit: int, in_order: bool) -> None:
    parts = Parts.of([(5, "a", False), (4, "b", False), (0, None, False), (5, "a", False)])
    found = []
    for rank, start in ((0, 0), (3, 0), (1, 5), (2, 9)):
        own = parts.chosen(limit, 7, rank, in_order=in_order)
        if own is None:
            own = torch.arange(int(parts.totals[parts.set_of(rank)]))
        found += (own + start).tolist()
    expected = torch.randperm(9, generator=generator(7))[:limit].tolist()
    assert sorted(found) == sorted(expected if limit < 9 else range(9))


def test_a_limit_is_divided_in_proportion() -> None:
    parts = Parts.of([(30, "a", False), (10, "b", False)])
    assert [parts.limit_of(rank, 20) for rank in (0, 1)] == [15, 5]
    assert parts.limit_of(0, 40) == 40  # all are taken
    endless = Parts.of([(math.inf, "a", False), (math.inf, "b", False), (0, None, False)])
    assert [endless.limit_of(rank, 21) for rank in (0, 1, 2)] == [11, 11, 11]
    assert parts.limit_of(0, math.inf) == math.inf


def test_ranks_with_the_same_entries_divide_them() -> None:
    parts = Parts.of([(7, "a", False), (7, "a", False), (3, "b", False)])
    assert [parts.divided(range(7), rank) for rank in (0, 1)] == [[0, 1, 2, 3], [4, 5, 6]]
    assert parts.divided(range(3), 2) == [0, 1, 2]


MEASURED = {  # samples, N, B
    "loader and nothing": (20, 20, 4),
    "loader and batch": (41, 41, 10),
    "list and data set": (41, 41, None),
    "batch sizes": (41, 41, 9),  # of loaders with 4 and with 5
    "stream on all": (31, math.inf, None),
    "streams": (30, math.inf, None),
    "nearly the same": (40, 40, None),
    "the same": (31, 41, None),
    "groups of the same": (32, 41, None),
    "groups of uneven parts": (16, 41, None),  # 4 groups out of 33 samples, none out of 8
    "one group on a rank": (40, 40, None),
    "nothing on a rank": (40, 41, None),
    "few": (2, 41, None),
}


COMMON = {"stream on all", "the same", "groups of the same"}


def test_data_of_all_kinds(results_of: Launched) -> None:
    first, second = results_of(2, "drawn")
    assert first == second
    found = {name: (count, total, size) for name, (count, total, _, size, _) in first.items()}
    assert found == MEASURED
    told = {name: SHARED in notes for name, (*_, (_, notes)) in first.items()}
    assert {name for name, is_told in told.items() if is_told} == COMMON
    samples = samples_of("mlp")
    start = gn.gradient_moments(model_of("mlp"), losses, tuple(rows[:31] for rows in samples))
    assert first["stream on all"][2] == pytest.approx(float(start.loss), rel=1e-9)
    some = gn.gradient_moments(model_of("mlp"), losses, samples, max_samples=31)
    assert first["the same"][2] == pytest.approx(float(some.loss), rel=1e-9)
