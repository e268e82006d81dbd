"""What a plan is made of."""

from __future__ import annotations

import torch

from gradnoise.per_sample.hooks.layout import Found, Layout
from gradnoise.per_sample.hooks.steps import USE, Step


def test_a_step_takes_the_layout_of_its_output() -> None:
    step = Step(torch.add, USE)
    placed = step.at(Found(Layout(1), proven=True), torch.zeros(5, 6, 2), 3)
    assert (placed.layout, placed.each, placed.ndim, placed.proven) == (Layout(1), 2, 3, True)
    assert step.layout is None
