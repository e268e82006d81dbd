"""trΣ and |G|² of recorded training steps, from the contributions of their samples."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import gradnoise as gn

Numbers = tuple[float, float]  # trΣ, |G|²


def rows_of(model: nn.Module, losses: Sequence[Tensor]) -> Tensor:
    """The gradient of each loss, shape (n, P), in float64."""
    parameters = [p for p in model.parameters() if p.requires_grad]
    rows = []
    for loss in losses:
        found = torch.autograd.grad(loss, parameters, retain_graph=True)
        rows.append(torch.cat([g.flatten().double() for g in found]))
    return torch.stack(rows)


def by_samples(rows: Tensor, sizes: Sequence[int], shares: Sequence[float]) -> Numbers:
    """From what single samples contribute, which divide the shares of their micro-batches."""
    own = [w / size for w, size in zip(shares, sizes, strict=True) for _ in range(size)]
    return by_parts(rows, [1] * len(rows), own)


def by_parts(rows: Tensor, sizes: Sequence[int], shares: Sequence[float]) -> Numbers:
    """From what micro-batches contribute, with their samples and shares of the objective."""
    parts = torch.stack([own.sum(0) for own in rows.split(list(sizes))])
    own, total = float(parts.square().sum()), float(parts.sum(0).square().sum())
    squares = sum(w * w for w in shares)
    signal = (total - own) / (1 - squares)
    return (own - signal * squares) / sum(
        w * w / b for w, b in zip(shares, sizes, strict=True)
    ), signal


def averaged(found: Sequence[Numbers], decay: float = 0.95) -> Numbers:
    """Of several measurements, the last one with weight 1."""
    weights = torch.tensor([decay**k for k in range(len(found))][::-1], dtype=torch.float64)
    mean = weights @ torch.tensor(found, dtype=torch.float64) / weights.sum()
    return float(mean[0]), float(mean[1])


def states_equal(one: dict[str, Any], other: dict[str, Any]) -> bool:
    """Whether two state dicts have the same bits."""
    return list(one) == list(other) and all(torch.equal(one[k], other[k]) for k in one)


def assert_agree(monitor: gn.NoiseMonitor, expected: Numbers, tolerance: float = 1e-6) -> None:
    """The monitor has these numbers, and nothing to note."""
    trace, signal = expected
    assert monitor.notes == []
    assert monitor.trace_cov.value == pytest.approx(trace, rel=tolerance)
    assert monitor.grad_sq_norm.value == pytest.approx(signal, rel=tolerance)
