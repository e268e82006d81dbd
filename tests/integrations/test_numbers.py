"""Numbers of batches and of monitors."""

from __future__ import annotations

import math

import torch

from gradnoise.integrations.numbers import finite, size_of


def test_the_size_of_a_batch_is_that_of_its_first_tensor() -> None:
    assert size_of({"number": torch.ones(()), "input_ids": torch.ones(3, 7)}) == 3
    assert size_of((torch.ones(2, 5), torch.ones(9))) == 2
    assert size_of("no tensor") is None


def test_what_is_not_finite_is_left_out() -> None:
    assert finite({"a": 1.0, "b": math.nan, "c": math.inf}) == {"a": 1.0}
