"""Gradients as they arrive (whole passes: test_backward.py, test_live.py)."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from gradnoise.per_sample.contract.summary import Wanted
from gradnoise.per_sample.hooks.arrivals import Arrivals
from gradnoise.per_sample.hooks.layout import Layout
from gradnoise.per_sample.hooks.steps import USE, Step, UnplannedError

STEP = Step(nn.functional.linear, USE, layout=Layout(0), each=1, ndim=2)


def arrivals() -> Arrivals:
    return Arrivals({"w": nn.Parameter(torch.randn(3, 4))}, 5, Wanted())


def test_outputs_have_to_be_as_planned() -> None:
    arrivals().check_layout(STEP, torch.zeros(5, 2))
    for shape in ((5, 2, 1), (4, 2), (10, 2)):  # other dimensions, too few, of unknown order
        with pytest.raises(UnplannedError):
            arrivals().check_layout(STEP, torch.zeros(shape))


def test_views_that_are_changed_in_place_are_noticed_and_let_go() -> None:
    own, tensor = arrivals(), torch.zeros(4, 4)
    own.watch(tensor[:2])
    own.watch(torch.zeros(3).clone())  # no view
    assert not own.has_lost_views()
    view = tensor[:2]
    own.watch(view)
    view.add_(1)
    assert own.has_lost_views()
    assert not own.has_lost_views()


@pytest.mark.parametrize(("rows", "count"), [(None, 5), (slice(0, None, 2), 3)])
def test_a_parameter_without_operations_has_zeros(rows: slice | None, count: int) -> None:
    own = arrivals()
    own.rows = rows
    found = own.measured("w")
    assert found.sq_norms.tolist() == [0.0] * count
    assert found.total is not None
    assert found.total.shape == (3, 4)


def test_sums_can_be_left_out() -> None:
    own = Arrivals({"w": nn.Parameter(torch.randn(3, 4))}, 5, Wanted(), total=False)
    assert own.measured("w").total is None
