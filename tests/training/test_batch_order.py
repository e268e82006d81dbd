"""The samples of every step: a permutation of each epoch, decided by the seed."""

from __future__ import annotations

import torch

from gradnoise.training.batch_order import BatchOrder


def test_every_epoch_sees_every_sample_once_in_another_order() -> None:
    order = BatchOrder(12, 4, seed=0)
    epochs = [torch.cat([order.rows(3 * e + s) for s in range(3)]) for e in range(2)]
    assert all(epoch.sort().values.tolist() == list(range(12)) for epoch in epochs)
    assert epochs[0].tolist() != epochs[1].tolist()


def test_an_incomplete_batch_is_left_out() -> None:
    order = BatchOrder(10, 4, seed=0)
    assert len(torch.cat([order.rows(0), order.rows(1)]).unique()) == 8


def test_the_seed_decides() -> None:
    assert BatchOrder(12, 4, 0).rows(5).tolist() == BatchOrder(12, 4, 0).rows(5).tolist()
    assert BatchOrder(12, 4, 0).rows(5).tolist() != BatchOrder(12, 4, 1).rows(5).tolist()
