"""What the entries of a target weigh in the mean of a criterion."""

from __future__ import annotations

import functools
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from gradnoise.problem.losses.entry_weights import (
    by_sample,
    class_weights,
    entry_weights,
    weights_within,
)

WEIGHT = torch.tensor([0.5, 2.0, 0.0])
LABELS = torch.tensor([[0, 1, 2], [1, -100, -100]])

KNOWN: dict[str, tuple[Any, list[list[float]]]] = {
    "ignored": (nn.CrossEntropyLoss(), [[1, 1, 1], [1, 0, 0]]),
    "another index": (nn.NLLLoss(ignore_index=1), [[1, 0, 1], [0, 1, 1]]),
    "classes": (nn.CrossEntropyLoss(weight=WEIGHT), [[0.5, 2, 0], [2, 0, 0]]),
    "a function": (functools.partial(F.cross_entropy, weight=WEIGHT), [[0.5, 2, 0], [2, 0, 0]]),
    "a bare function": (F.cross_entropy, [[1, 1, 1], [1, 0, 0]]),
}


@pytest.mark.parametrize("name", KNOWN)
def test_entries_weigh_as_in_the_mean_of_torch(name: str) -> None:
    criterion, expected = KNOWN[name]
    found = entry_weights(criterion, LABELS)
    assert found is not None
    assert found.tolist() == expected
    assert by_sample(found).tolist() == [sum(row) for row in expected]
    assert by_sample(found[0]).tolist() == expected[0]


@pytest.mark.parametrize(
    ("criterion", "targets"),
    [
        (nn.CrossEntropyLoss(), torch.rand(2, 3)),
        (nn.CrossEntropyLoss(weight=WEIGHT, reduction="sum"), LABELS),
        (nn.MSELoss(), LABELS),
        (nn.BCEWithLogitsLoss(weight=WEIGHT), LABELS),
        (nn.CrossEntropyLoss(), None),
    ],
)
def test_other_means_have_equal_weights(criterion: Any, targets: Any) -> None:
    assert entry_weights(criterion, targets) is None


@pytest.mark.parametrize("name", KNOWN)
def test_the_only_entry_of_a_sample_needs_a_weight_where_its_class_has_one(name: str) -> None:
    criterion, expected = KNOWN[name]
    several, single = (weights_within(criterion, labels) for labels in (LABELS, LABELS[0]))
    assert several is not None
    assert several.tolist() == expected
    of_classes = class_weights(criterion) is not None
    assert (single is not None) == of_classes
    if single is not None:
        assert single.tolist() == expected[0]


def test_weights_of_classes() -> None:
    assert class_weights(nn.CrossEntropyLoss()) is None
    assert class_weights(nn.NLLLoss(WEIGHT)) is WEIGHT
