"""Which rows are a rank's own."""

from __future__ import annotations

import torch

from gradnoise.ranks.share import Share

SHARE = Share((2, 0, 3), rank=2)


def test_rows() -> None:
    rows = torch.arange(10).reshape(5, 2)
    assert (SHARE.count, SHARE.start) == (5, 2)
    assert SHARE.of(rows).tolist() == [[4, 5], [6, 7], [8, 9]]
    assert SHARE.of(rows.T, dim=1).tolist() == [[4, 6, 8], [5, 7, 9]]
    assert not len(Share((2, 0, 3), rank=1).of(rows))


def test_some_of_them() -> None:
    mask = torch.tensor([True, False, False, True, True])
    assert SHARE.chosen(mask) == Share((1, 0, 2), 2)
    assert SHARE.at(torch.tensor([0, 1, 1, 4])) == Share((3, 0, 1), 2)
    assert SHARE.joined(Share((1, 1, 1), 2)) == Share((3, 1, 4), 2)
