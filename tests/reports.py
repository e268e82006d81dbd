"""Profiles to print, draw and save, and what their reports say."""

from __future__ import annotations

import re
from typing import Any

import torch

import gradnoise as gn
from gradnoise.toy.noisy_quadratic import NoisyQuadratic


def quadratic_profile(
    offset: float, sign: float = 1.0, samples: int = 64, **options: Any
) -> gn.Profile:
    """A quadratic bowl of 30 parameters, measured at a distance `offset` from its minimum."""
    toy = NoisyQuadratic(sign * torch.diag(torch.linspace(1, 2, 30)), torch.full((30,), offset))
    data = toy.sample(samples, seed=0)
    return gn.profile(toy.model(), toy.loss_fn, data, probes=4, **options)


TOY = gn.toy.LinearRegression(torch.tensor([3.0, 2.0, 1.0]), torch.ones(3), noise=0.5)


def toy_profile(**options: Any) -> gn.Profile:
    """Linear regression on 200 samples."""
    return gn.profile(TOY.model(), TOY.loss_fn, TOY.sample(200, seed=0), **options)


def words(text: object) -> str:
    """The text without its line breaks and columns."""
    return " ".join(str(text).split())


def full(profile: gn.Profile) -> str:
    """The report with all of its tables."""
    return profile.report(full=True)


def row(profile: gn.Profile, label: str) -> list[str]:
    """The cells of one line of the full report."""
    return cells_of(full(profile), label)


def cells_of(text: str, label: str) -> list[str]:
    """The cells of the line that begins with a label."""
    line = next(line for line in text.split("\n") if line.startswith(label + "  "))
    return re.split(r"\s{2,}", line)
