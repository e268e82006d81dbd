"""Arrays of every kind: what is read alike, and what is refused by name."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

import gradnoise as gn
from tests.numbers import rows, same


def test_numpy_torch_and_dicts_of_both_are_read_alike() -> None:
    g = rows()
    whole = gn.noise_scale_from_gradients(g).simple_noise_scale
    parts = {"a": g[:, :2].reshape(40, 2, 1), "b": g[:, 2:].numpy()}
    for form in (g.numpy(), g.tolist(), parts, g.requires_grad_()):
        same(gn.noise_scale_from_gradients(form).simple_noise_scale, whole)
    frozen = g.detach().numpy().copy()
    frozen.flags.writeable = False
    same(gn.noise_scale_from_gradients(frozen).simple_noise_scale, whole)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (torch.zeros(5), "one row per sample"),
        (torch.zeros(1, 5), "at least 2 samples"),
        (torch.zeros(4, 0), "one parameter or more"),
        ({}, "one row per sample"),
        ({"a": torch.zeros(3, 2), "b": torch.zeros(4, 2)}, "one row per sample"),
        (torch.tensor([[1.0, math.nan], [1.0, 2.0]]), r"finite; it is not at \[\[0, 1\]\]"),
        (torch.zeros(3, 2, dtype=torch.complex64), "real numbers; got torch.complex64"),
        (np.array([["a", "b"]]), "numbers in a tensor or an array"),
        (object(), "numbers in a tensor or an array"),
    ],
)
def test_what_is_no_row_per_sample_is_refused(wrong: object, message: str) -> None:
    with pytest.raises(gn.ArgumentError, match=message):
        gn.noise_scale_from_gradients(wrong)


@pytest.mark.parametrize("population", ["batch", 39, True, math.nan])
def test_an_impossible_population_is_refused(population: object) -> None:
    with pytest.raises(gn.ArgumentError, match="`population` must be"):
        gn.noise_scale_from_gradients(rows(), population=population)  # type: ignore[arg-type]


def test_any_layout_of_the_numbers_will_do() -> None:
    plain = gn.noise_scale_from_gradients(rows()).simple_noise_scale
    backwards = np.ascontiguousarray(rows().numpy()[::-1])[::-1]
    for other in (backwards, rows().numpy()[:, ::-1], rows().to_sparse()):
        same(gn.noise_scale_from_gradients(other).simple_noise_scale, plain)
    gram = (rows() @ rows().T).to_sparse()
    same(gn.noise_scale_from_gram(gram), plain)
    same(
        gn.noise_scale_from_gradients(rows(), population=np.int64(80)).simple_noise_scale,
        gn.noise_scale_from_gradients(rows(), population=80).simple_noise_scale,
    )


@pytest.mark.parametrize("unit", [1e-200, 1e-60, 1e60, 1e200])
def test_gradients_whose_products_leave_float64_are_refused(unit: float) -> None:
    with pytest.raises(gn.ArgumentError, match="their products leave the range of float64"):
        gn.noise_scale_from_gradients(unit * rows())
