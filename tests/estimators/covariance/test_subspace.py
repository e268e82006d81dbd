"""Shares of gradient and noise in a subspace, and angles between two."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from scipy import linalg
from torch import Tensor

import gradnoise as gn
from gradnoise.estimators.covariance.subspace import gradient_in, principal_angles, share_of_noise
from tests.clouds import every_sample


def test_a_known_mean_gradient_inside_and_outside_of_the_noise() -> None:
    """c_i along e_1 and e_2 only, G = (3, 0, 4): 9/25 of |G|² in their span."""
    model = gn.toy.NoisyQuadratic(torch.eye(3), torch.tensor([3.0, 0, 4])).model()
    centres = torch.tensor([[2.0, 0, 0], [-2, 0, 0], [0, 1, 0], [0, -1, 0]]).double()

    def loss_fn(model: Any, batch: Tensor) -> Tensor:
        return 0.5 * (model.w - batch).square().sum(1)

    found = gn.covariance(model, loss_fn, centres)
    assert len(found.eigenvalues) == 2
    assert float(found.grad_share) == pytest.approx(9 / 25)
    assert float(found.alignment.grad_share) == pytest.approx(1.0)


def test_the_gradient_in_a_given_subspace_is_unbiased_over_all_samples() -> None:
    rows, v = torch.randn(6, 5, dtype=torch.float64) + 1, torch.eye(5, dtype=torch.float64)[:, :2]
    truth = float((v.T @ rows.mean(0)).square().sum())
    found = []
    for sample in every_sample(rows, 3):
        moments = gn.noise_scale_from_gradients(sample, population=6)
        found.append(gradient_in(sample @ v, moments)[0])
    assert sum(found) / len(found) == pytest.approx(truth, rel=1e-12)


def test_angles_are_those_of_the_textbook() -> None:
    a, b = (torch.linalg.qr(torch.randn(9, k, dtype=torch.float64))[0] for k in (3, 2))
    expected = linalg.subspace_angles(a.numpy(), b.numpy())[::-1].copy()
    torch.testing.assert_close(principal_angles(a, b), torch.from_numpy(expected))
    turned = a @ torch.linalg.qr(torch.randn(3, 3, dtype=torch.float64))[0]
    assert float(principal_angles(a, turned).max()) < 1e-14
    assert principal_angles(a[:, :0], b).shape == (0,)
    whole = torch.linalg.qr(torch.cat([a, torch.randn(9, 6).double()], dim=1))[0]
    right = principal_angles(whole[:, :3], whole[:, 3:])
    torch.testing.assert_close(right, torch.full((3,), math.pi / 2).double())


def test_a_share_is_that_of_the_population_where_it_is_measured() -> None:
    rows = torch.tensor([[1.0, 0], [-1, 0], [0, 2], [0, -2]]).double()
    moments = gn.noise_scale_from_gradients(rows, population="dataset")
    assert float(share_of_noise(rows[:, :1], moments)) == pytest.approx(0.2)
