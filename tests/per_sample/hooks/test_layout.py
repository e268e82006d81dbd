"""Where the samples are, read off the gradients of single losses."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from gradnoise.per_sample.hooks.layout import (
    Found,
    Layout,
    candidates,
    find_layout,
    touched,
    weighted_layout,
)

COUNT = 3


def cotangents(layout: Layout, *shape: int) -> Tensor:
    """The gradient of loss i is 1 at the entries of sample i."""
    entries = torch.arange(torch.Size(shape).numel()).reshape(shape)
    return torch.stack(
        [
            torch.isin(entries, layout.split(entries, COUNT)[i].contiguous()).double()
            for i in range(COUNT)
        ]
    )


@pytest.mark.parametrize(
    ("layout", "shape"),
    [
        (Layout(0), (3, 4)),
        (Layout(1), (4, 3, 2)),
        (Layout(2), (4, 2, 3)),
        (Layout(0), (3, 3)),
        (Layout(1), (3, 3)),
        (Layout(0), (12, 2)),
        (Layout(0, major=False), (12, 2)),
        (Layout(1, major=False), (2, 6)),
    ],
    ids=str,
)
def test_the_layout_is_found(layout: Layout, shape: tuple[int, ...]) -> None:
    assert find_layout(cotangents(layout, *shape)) == Found(layout, proven=True)


@pytest.mark.parametrize("layout", [Layout(0), Layout(1), Layout(0, major=False)], ids=str)
def test_the_layout_is_found_from_weights(layout: Layout) -> None:
    weights = torch.tensor([1.0, 0.25, 0.5])
    plain = torch.randn(6, 3, dtype=torch.float64)
    scaled = plain.clone()
    for part, weight in zip(layout.split(scaled, COUNT), weights, strict=True):
        part.mul_(weight)
    assert weighted_layout(plain, [scaled], [weights]) == Found(layout, proven=True)
    assert weighted_layout(plain, [scaled.flip(0).flip(1)], [weights]) is None
    nothing = torch.zeros_like(plain)
    assert not weighted_layout(nothing, [nothing], [weights]).proven  # type: ignore[union-attr]


def test_samples_that_share_entries_have_no_layout() -> None:
    assert find_layout(torch.ones(COUNT, 3, 4)) is None
    assert find_layout(torch.ones(COUNT, 4, 5)) is None


def test_without_any_gradient_the_first_axis_is_likely() -> None:
    assert find_layout(torch.zeros(COUNT, 3, 4)) == Found(Layout(0), proven=False)
    assert find_layout(torch.ones(1, 4, 2)) == Found(Layout(0), proven=False)
    assert list(candidates(torch.zeros(4, 3), COUNT)) == [Layout(1)]


def test_what_is_not_finite_tells_nothing() -> None:
    own = cotangents(Layout(0), 3, 4)
    own[0, 1] = torch.nan  # zero times an infinite slope
    assert find_layout(touched(own, own)) == Found(Layout(0), proven=True)


def test_splitting_and_positions() -> None:
    tensor = torch.arange(24).reshape(6, 4)
    major, minor = Layout(0), Layout(0, major=False)
    assert major.split(tensor, 3)[1].tolist() == tensor[2:4].tolist()
    assert minor.split(tensor, 3)[1].tolist() == tensor[[1, 4]].tolist()
    assert minor.positions(tensor, 3).shape == (3, 2, 4)
    assert Layout(1).positions(torch.zeros(5, 3, 2), 3).shape == (3, 5, 2)
    assert not Layout(0).fits(torch.zeros(4, 3), 3)
    assert not Layout(2).fits(torch.zeros(4, 3), 3)
