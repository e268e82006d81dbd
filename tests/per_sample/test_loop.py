"""One backward pass per sample: the oracle of the other engines."""

from __future__ import annotations

from types import SimpleNamespace

import torch
from torch import nn

import gradnoise as gn
from gradnoise.per_sample.loop import Loop
from gradnoise.problem.objective import Objective
from tests.cases import CASES, labelled, mlp


def test_our_loop_agrees_with_backpack() -> None:
    from backpack import backpack, extend
    from backpack.extensions import BatchGrad

    model, _, (inputs, labels) = CASES[0].build()
    ours = gn.per_sample_gradients(model, nn.CrossEntropyLoss(), (inputs, labels), engine="loop")
    twin, criterion = extend(mlp().double()), extend(nn.CrossEntropyLoss(reduction="sum"))
    twin.load_state_dict(model.state_dict())
    with backpack(BatchGrad()):
        criterion(twin(inputs), labels).backward()
    for name, parameter in twin.named_parameters():
        torch.testing.assert_close(parameter.grad_batch, ours[name], rtol=1e-10, atol=1e-13)


def test_the_loop_needs_no_more_than_one_sample() -> None:
    objective = Objective(nn.Linear(4, 3).double(), nn.CrossEntropyLoss())
    inputs, labels = labelled()
    with objective.guard():
        (chunk,) = Loop(objective).chunks((inputs[:1], labels[:1]))
    assert chunk.losses.shape == (1,)
    assert SimpleNamespace(**chunk.gradients).weight.shape == (1, 3, 4)
