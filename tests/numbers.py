"""Rows of gradients at hand, and when two estimates are the same."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

import gradnoise as gn


def rows(count: int = 40, size: int = 7, signal: float = 1.0) -> Tensor:
    source = torch.Generator().manual_seed(0)
    return signal + torch.randn(count, size, generator=source, dtype=torch.float64)


def same(first: gn.Estimate, second: gn.Estimate, rel: float = 1e-9) -> None:
    for name in ("value", "low", "high", "stderr"):
        expected = getattr(second, name)
        assert getattr(first, name) == pytest.approx(expected, rel=rel, nan_ok=True), name
    assert first.status is second.status
    assert first.samples == second.samples
