"""The exact answers and their quotients."""

from __future__ import annotations

import math

import torch

import gradnoise as gn
from gradnoise.toy.truth import Point


def truth(**parts: float) -> gn.toy.Truth:
    given = {"grad_sq_norm": 2.0, "trace_cov": 8.0, "grad_curvature": 4.0, **parts}
    return gn.toy.Truth(
        loss=1.0, sharpness=3.0, trace_hessian_cov=12.0, curvature_noise_scale=0.0, **given
    )


def test_noise_scales_are_quotients_of_the_parts() -> None:
    assert truth().simple_noise_scale == 4
    assert truth().noise_scale == 3


def test_where_the_gradient_vanishes_the_noise_scales_are_infinite() -> None:
    flat = truth(grad_sq_norm=0.0, grad_curvature=0.0)
    assert flat.noise_scale == flat.simple_noise_scale == math.inf
    quadratic = gn.toy.NoisyQuadratic(torch.eye(2), torch.zeros(2)).truth()
    assert quadratic.noise_scale == quadratic.simple_noise_scale == math.inf


def test_a_point_is_a_copy_of_its_parameter() -> None:
    w = torch.tensor([1.0, 2.0])
    point = Point(w)
    w += 1
    assert [parameter.tolist() for parameter in point.parameters()] == [[1.0, 2.0]]
    assert point.w.requires_grad
