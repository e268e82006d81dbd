"""The samples of every step: a permutation of each epoch, decided by the seed."""

from __future__ import annotations

import torch

from gradnoise.tensors.random import generator
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


def test_an_epoch_of_one_seed_is_none_of_another() -> None:
    assert BatchOrder(12, 4, 0).rows(3).tolist() != BatchOrder(12, 4, 1).rows(0).tolist()


def test_steps_may_be_asked_for_in_any_order() -> None:
    order = BatchOrder(12, 4, 0)
    order.rows(5)
    assert order.rows(0).tolist() == BatchOrder(12, 4, 0).rows(0).tolist()


def test_no_epoch_begins_with_the_samples_that_a_measurement_draws() -> None:
    """A short run would be judged on the very samples that it saw, or measured on them."""
    drawn = [set(torch.randperm(1024, generator=generator(k))[:256].tolist()) for k in range(16)]
    for seed, epoch in ((0, 0), (0, 1), (1, 0), (2, 0), (3, 2)):
        order = BatchOrder(1024, 64, seed)
        seen = {row for step in range(4) for row in order.rows(16 * epoch + step).tolist()}
        assert max(len(seen & each) for each in drawn) < 100  # 64 ± 6 of 256 by chance
