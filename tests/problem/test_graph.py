"""The graph of an output."""

import torch

from gradnoise.problem.graph import nodes_of


def test_every_node_is_walked_once() -> None:
    w = torch.ones(2, requires_grad=True)
    twice = w * 2
    names = [type(node).__name__ for node in nodes_of((twice * twice).sum())]
    assert sorted(names) == ["AccumulateGrad", "MulBackward0", "MulBackward0", "SumBackward0"]
