"""Gradients of a model of `fully_shard`, one layer gathered at a time."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import gradnoise as gn
from gradnoise.problem.shards import as_they_come
from tests.launching import Launched


def test_gradients_are_handed_over_as_they_come() -> None:
    weight, bias = nn.Parameter(torch.ones(2)), nn.Parameter(torch.ones(2))
    found = {}
    with as_they_come({"weight": weight, "bias": bias}, found.__setitem__):
        left = torch.autograd.grad((3 * weight + bias).sum(), [weight, bias])
    assert found["weight"].tolist() == [3.0, 3.0]
    assert found["bias"].tolist() == [1.0, 1.0]
    assert [own.untyped_storage().nbytes() for own in left] == [4, 4]  # zeros without memory
    (again,) = torch.autograd.grad((3 * weight).sum(), weight)
    assert again.tolist() == [3.0, 3.0]


def test_sparse_gradients_are_handed_over_written_out() -> None:
    table, found = nn.Parameter(torch.ones(3, 1)), {}
    rows = nn.functional.embedding(torch.tensor([1, 1]), table, sparse=True)
    with as_they_come({"table": table}, found.__setitem__):
        torch.autograd.grad(rows.sum(), table)
    assert found["table"].tolist() == [[0.0], [2.0], [0.0]]


def test_no_hook_stays_where_a_backward_pass_or_a_parameter_fails() -> None:
    weight, frozen = nn.Parameter(torch.ones(2)), torch.ones(2)

    def interrupted(_name: str, _gradient: torch.Tensor) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt), as_they_come({"weight": weight}, interrupted):
        torch.autograd.grad(weight.sum(), weight)
    assert not weight._backward_hooks
    with pytest.raises(RuntimeError), as_they_come({"a": weight, "b": frozen}, interrupted):
        pass
    assert not weight._backward_hooks


def test_gather_has_three_values() -> None:
    with pytest.raises(gn.ArgumentError, match="gather"):
        gn.gradient_moments(nn.Linear(1, 1), nn.MSELoss(), torch.ones(2, 1), gather="all")


def test_what_layers_are_not_enough_for(results_of: Launched) -> None:
    for found in results_of(2, "sharded"):
        assert found["alike"]  # by layers and by the whole model
        for name, said in SAID.items():
            assert said in found[name].replace("on rank 0: ", ""), name
        assert found["recurrent"][1] == pytest.approx(found["recurrent"][0], rel=1e-9)
        assert found["own loss"][0] == pytest.approx(found["own loss"][1], rel=1e-9)
        assert found["parts"] < 0.6  # of the mean gradient, on each rank


SAID = {
    "dropout": "ShardedError: the loss draws random numbers, which needs whole parameters: measure",
    "weights": "ShardedError: samples weigh differently, which needs whole parameters",
    "decay in the gradients": "ShardedError: weight decay inside gradients needs whole parameters",
    "engine": "ShardedError: engine='loop' needs whole parameters",
    "not of fully_shard": "ShardedError: gather='layers' is for models of fully_shard",
    "outside": "ShardedError: the parameters outside.weight, outside.bias are not sharded",
    "no group": "ModelError: the parameters of the model are divided among ranks (DTensor): pass",
    "not finite": "LossError",
    # sums of the gradients of different parameters would be silently wrong
    "in another order": "ShardedError: the ranks have taken different ways: they are about to "
    "exchange gradients of ",
    "by length": "the operations of the model change from one batch to the next",
    "waiting gradients": "ShardedError: gradients were accumulated without a sum over the ranks",
    "smoothing": "ModelError: 1 of 4 settings of the criterion of rank 1",
    "opaque": "ShardedError: a model whose output FSDP does not look into needs whole parameters",
    "merged": "ArgumentError: moments of which ranks hold parts cannot be merged",
}
