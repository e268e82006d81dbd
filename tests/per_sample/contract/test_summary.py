"""Sums over the gradients of a chunk, and gradients that are not finite."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

import gradnoise as gn
from gradnoise.per_sample.choice import ENGINES
from gradnoise.per_sample.contract.summary import Chunk, Summary, Wanted, check_norms
from tests.cases import features


@pytest.mark.parametrize("engine", ENGINES)
def test_a_gradient_that_is_not_finite_is_named(engine: str) -> None:
    model = nn.Linear(4, 1, bias=False).double()
    batch = features()
    batch[2] = 0.0  # sqrt at zero: the loss is finite, its slope is not

    def loss(model: nn.Module, batch: Tensor) -> Tensor:
        return model(batch).square().sum(1).sqrt()

    with pytest.raises(gn.LossError, match=r"'weight' is not finite for 1 of .*\(positions \[\d\]"):
        gn.per_sample_sq_norms(model, loss, batch, engine=engine)


def test_sums_of_a_chunk_are_those_of_its_rows() -> None:
    g = {"w": torch.randn(5, 2, 3), "b": torch.randn(5)}
    kept = {name: own.clone() for name, own in g.items()}
    along = {name: torch.randn(2, *own.shape[1:]) for name, own in g.items()}
    centre = {name: torch.randn(own.shape[1:]) for name, own in g.items()}
    scale = {name: torch.rand(own.shape[1:]) for name, own in g.items()}
    found = Summary.of(Chunk(torch.zeros(5), g), Wanted(along, True, scale, centre))
    assert found.dots is not None
    assert found.squares is not None
    assert found.centred_sq is not None
    assert found.gap_sq_norms is not None
    for name, own in g.items():
        rows = (own.double() * scale[name].double()).reshape(5, -1)
        flat = along[name].double().reshape(2, -1)
        deviations = rows - rows.mean(0)
        gaps = rows - centre[name].double().reshape(-1)
        torch.testing.assert_close(found.total[name].reshape(-1), rows.sum(0))
        torch.testing.assert_close(found.sq_norms[name], rows.square().sum(1))
        torch.testing.assert_close(found.dots[name], rows @ flat.T)
        torch.testing.assert_close(found.squares[name].reshape(-1), deviations.square().sum(0))
        torch.testing.assert_close(found.gap_sq_norms[name], gaps.square().sum(1))
        assert found.centred_sq[name] == pytest.approx(float(deviations.square().sum()))
        assert torch.equal(own, kept[name])


def test_what_is_not_wanted_is_none() -> None:
    g = {"w": torch.randn(5, 2).double()}
    kept = g["w"].clone()
    found = Summary.of(Chunk(torch.zeros(5), g))
    assert found.dots is found.squares is found.gap_sq_norms is None
    assert torch.equal(g["w"], kept)  # float64 is summed where it lies, and left as it is


def test_norms_that_are_not_finite_name_the_parameter_and_the_samples() -> None:
    norms = {"a": torch.ones(3), "b": torch.tensor([1.0, torch.nan, torch.inf])}
    assert check_norms({"a": norms["a"]}) == {"a": norms["a"]}
    with pytest.raises(gn.LossError, match=r"'b' is not finite for 2 of 3 .*positions \[1, 2\]"):
        check_norms(norms)
    with pytest.raises(gn.LossError, match=r"the sum of \|g\|² overflows: multiply the loss"):
        check_norms({"a": torch.full((3,), 1e308, dtype=torch.float64)})
