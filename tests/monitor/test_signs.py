"""Random signs: the same at every look, and products without a dense copy."""

from __future__ import annotations

import torch
from torch import Tensor

from gradnoise.monitor.signs import DIRECTIONS, Signs, along_directions


def parameters() -> dict[str, Tensor]:
    return {"a": torch.zeros(3, 4), "b": torch.zeros(3, 4), "c": torch.zeros(())}


def test_signs_are_the_same_at_every_look_and_differ_between_parameters() -> None:
    signs = Signs(parameters())
    assert torch.equal(signs["a"], signs["a"])
    assert not torch.equal(signs["a"], signs["b"])
    assert signs["a"].abs().unique().tolist() == [1.0]
    assert [tuple(signs[name].shape) for name in signs] == [(2, 3, 4), (2, 3, 4), (2,)]
    assert len(signs) == 3


def test_the_random_numbers_of_the_user_are_left_alone() -> None:
    before = torch.get_rng_state()
    assert Signs(parameters())["a"].numel() == 12 * DIRECTIONS
    assert torch.equal(torch.get_rng_state(), before)


def test_products_are_those_of_the_directions() -> None:
    gradient = torch.randn(3, 4)
    directions = Signs(parameters())["a"]
    expected = (gradient * directions).sum((1, 2)).double()
    torch.testing.assert_close(along_directions(gradient, directions), expected)
    half = along_directions(gradient.bfloat16(), directions)
    torch.testing.assert_close(half, expected, rtol=0.02, atol=0.05)


def test_a_sparse_gradient_is_not_made_dense() -> None:
    ids = torch.tensor([[2, 0, 2]])
    sparse = torch.sparse_coo_tensor(ids, torch.randn(3, 4), (3, 4))
    directions = Signs(parameters())["a"]
    expected = along_directions(sparse.to_dense(), directions)
    torch.testing.assert_close(along_directions(sparse, directions), expected)
