"""Inner products and random vectors of an operator's space."""

from __future__ import annotations

import math

import pytest
import torch

import gradnoise as gn
from gradnoise.linalg.convert import as_operator
from gradnoise.tensors.random import generator
from gradnoise.tensors.space import Space, require_whole_vectors

SHAPES = {"a": torch.Size([2, 3]), "b": torch.Size([4])}


def space() -> Space:
    return Space(10, torch.device("cpu"), SHAPES)


def test_vectors_and_their_parts_by_parameter() -> None:
    vector = torch.arange(10.0)
    parts = space().named(vector)
    assert {name: part.shape for name, part in parts.items()} == SHAPES
    assert torch.equal(space().flat(parts), vector)
    assert space().sizes == [6, 4]
    assert Space(10, torch.device("cpu")).sizes == [10]


def test_inner_products() -> None:
    u, v, w = torch.randn(3, 10, dtype=torch.float64)
    assert space().inner(u, v) == pytest.approx(float(u @ v))
    assert space().norm(u) == pytest.approx(float(u.norm()))
    rows = torch.stack([u, v])
    torch.testing.assert_close(space().overlaps(rows, w), rows @ w)
    expected = torch.stack([u[:6] @ v[:6], u[6:] @ v[6:]])
    torch.testing.assert_close(space().by_parameter(u, v), expected)
    expected = torch.stack([rows[:, :6] @ w[:6], rows[:, 6:] @ w[6:]], dim=1)
    torch.testing.assert_close(space().overlaps_by_parameter(rows, w), expected)
    assert float(space().largest(torch.tensor([1.0, -3.0]))) == 3.0
    assert float(space().largest(torch.zeros(0))) == 0.0  # a rank may have no entries
    assert space().is_finite(u)
    assert not space().is_finite(torch.tensor([1.0, math.nan]))


def test_random_vectors_have_length_one() -> None:
    vector = space().random(generator(0))
    assert float(vector.norm()) == pytest.approx(1.0)
    assert torch.equal(vector, space().random(generator(0)))


def test_dependent_vectors_are_left_out() -> None:
    u, v = torch.randn(2, 10, dtype=torch.float64)
    rows = space().orthonormal([u, 2 * u, v, u - v, torch.zeros(10)])
    assert rows.shape == (2, 10)
    torch.testing.assert_close(rows @ rows.T, torch.eye(2).double(), rtol=0, atol=1e-12)
    torch.testing.assert_close(rows[0], u / u.norm())
    torch.testing.assert_close(rows.T @ (rows @ v), v)  # they span both


class Divided(Space):
    is_sharded = True


def test_parts_are_refused_where_whole_vectors_are_needed() -> None:
    require_whole_vectors(space(), "SciPy")
    with pytest.raises(gn.OperatorError, match="SciPy needs whole vectors, and ranks hold parts"):
        require_whole_vectors(Divided(10, torch.device("cpu")), "SciPy")


def test_a_sum_has_the_parameters_of_the_term_that_knows_them() -> None:
    model = torch.nn.Linear(2, 1, bias=False)
    hessian = gn.Hessian(model, torch.nn.MSELoss(), (torch.eye(2), torch.zeros(2, 1)))
    both = as_operator(torch.eye(2)) + hessian
    assert (both @ {"weight": torch.ones(1, 2)})["weight"].tolist() == [[2.0, 2.0]]
    assert both.space.shapes == {"weight": torch.Size([1, 2])}
