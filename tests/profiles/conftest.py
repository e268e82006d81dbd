"""Profiles that several files of this folder print, draw and save."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import nn

import gradnoise as gn
from tests.reports import quadratic_profile

GRADIENT_PART = ("loss", "grad_sq_norm", "trace_cov", "simple_noise_scale")


@pytest.fixture(scope="session")
def resolved() -> gn.Profile:
    return quadratic_profile(1.0)


@pytest.fixture(scope="session")
def bounds_only() -> gn.Profile:
    return quadratic_profile(0.0, population="distribution")


@pytest.fixture(scope="session")
def negative() -> gn.Profile:
    return quadratic_profile(1.0, sign=-1.0)


@pytest.fixture(scope="session")
def flat(resolved: gn.Profile) -> gn.Profile:
    """What is left where second derivatives do not exist."""
    left = {name: e for name, e in resolved.estimates.items() if name in GRADIENT_PART}
    note = "curvature was not measured: no second derivatives (of this kernel)"
    return replace(resolved, estimates=left, warnings=(note,))


@pytest.fixture(scope="session")
def deep() -> gn.Profile:
    """A network of eight layers."""
    torch.manual_seed(0)
    layers = [module for _ in range(8) for module in (nn.Linear(3, 3), nn.Tanh())]
    data = (torch.randn(32, 3).double(), torch.zeros(32, 3).double())
    return gn.profile(nn.Sequential(*layers).double(), nn.MSELoss(), data, probes=4)
