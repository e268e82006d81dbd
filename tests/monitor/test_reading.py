"""The two moments from squared norms of parts: unbiased, and McCandlish's for equal parts."""

from __future__ import annotations

import pytest
import torch

import gradnoise as gn
from gradnoise.monitor.reading import Reading, equal_shares, refused, refused_sum


def test_equal_parts_are_the_two_batch_sizes_of_mccandlish() -> None:
    small, big = 9.0, 4.0  # at b = 8 and B = 32
    reading = Reading(torch.tensor([small / 4]), torch.tensor([big]), 1 / 4, 1 / 32, 32)
    trace, signal = reading.moments()
    known = gn.simple_noise_scale_from_norms(small, big, 8, 32)
    assert float(trace) == pytest.approx(float(known.trace_cov))
    assert float(signal) == pytest.approx(float(known.grad_sq_norm))


def test_uneven_parts_are_unbiased() -> None:
    """20 000 draws of parts of 2, 3 and 7 samples with shares that are not in proportion."""
    shares, sizes = torch.tensor([0.5, 0.2, 0.3]).double(), torch.tensor([2.0, 3.0, 7.0]).double()
    mean = torch.tensor([1.0, -2.0]).double()
    source = torch.Generator().manual_seed(0)
    noise = torch.randn(20000, 3, 2, generator=source, dtype=torch.float64) * 3
    parts = shares[:, None] * (mean + noise / sizes.sqrt()[:, None])
    reading = Reading(
        parts.square().sum((1, 2)),
        parts.sum(1).square().sum(1),
        float(shares.square().sum()),
        float((shares.square() / sizes).sum()),
        12,
    )
    for found, truth in zip(reading.moments(), (18.0, 5.0), strict=True):
        error = float(found.std()) / len(found) ** 0.5
        assert abs(float(found.mean()) - truth) < 4 * error
        assert error < 0.02 * truth


def test_sizes_and_shares_that_cannot_be_are_refused() -> None:
    assert refused([16, 8], equal_shares([16, 8])) == ""
    assert refused([16, 8], [2 / 3, 1 / 3]) == ""
    assert "no gradient came" in refused([], equal_shares([]))
    assert refused([4], [0.5, 0.5]) == "2 shares for 1 micro-batches"
    assert refused([4, 0], [0.5, 0.5]) == "a micro-batch without samples"
    assert refused([16, 8], [1.5, -0.5]) == "a share below zero"
    assert refused_sum(24.0, 1).endswith("have to add up to 1; got a sum of 24")
    assert refused_sum(1.0004, 1) == refused_sum(1.9996, 2) == ""  # on two ranks, each of half
    assert refused_sum(1.0, 2).endswith("got a sum of 0.5")
