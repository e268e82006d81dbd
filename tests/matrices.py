"""Gaussian gradients of a matrix whose mean and variances are known, and noise scales of them."""

from __future__ import annotations

import torch
from torch import Tensor

import gradnoise as gn

ROWS, COLUMNS = 4, 6
SCALE = torch.linspace(0.5, 1.5, ROWS * COLUMNS).double().reshape(ROWS, COLUMNS)
MEAN = torch.zeros(ROWS, COLUMNS).double()
MEAN[0, 0], MEAN[1, 1], MEAN[2, 2] = 1.0, -0.6, 0.1


def draw(count: int, source: torch.Generator, signal: float = 1.0) -> Tensor:
    noise = torch.randn(count, ROWS, COLUMNS, generator=source, dtype=torch.float64)
    return signal * MEAN + SCALE * noise


def rows(count: int = 30) -> Tensor:
    return draw(count, torch.Generator().manual_seed(0))


def truth(kind: str) -> float:
    """For independent entries C is diagonal: sums of variances over the other side."""
    if kind == "sign":
        return float(SCALE.sum() / MEAN.abs().sum()) ** 2
    noise = SCALE.square().sum(1 if kind == "rows" else 0).sqrt().sum()
    return float(noise / torch.linalg.svdvals(MEAN).sum()) ** 2


def measure(kind: str, gradients: Tensor, **options: object) -> gn.Estimate:
    if kind == "sign":
        return gn.sign_noise_scale(gradients, **options)
    return gn.spectral_noise_scale(gradients, side=kind, **options)


KINDS = ("sign", "rows", "columns")
