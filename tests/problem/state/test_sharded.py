"""What is known of models that are divided among ranks."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import gradnoise as gn
from gradnoise.problem.state.sharded import found_parameters, is_sharded, policies, refused, strip
from tests.launching import Launched


class FullyShardedDataParallel(nn.Module):
    """Known by its name, as that of torch is."""

    def __init__(self) -> None:
        super().__init__()
        self.inside = nn.Linear(1, 1)


def test_plain_models_are_as_they_are() -> None:
    model = nn.Sequential(nn.Linear(1, 2), nn.Linear(2, 1))
    model[1].register_forward_hook(print)
    assert not is_sharded(model)
    assert refused(model) == ""
    assert policies(model) == []
    assert [*map(id, found_parameters(model))] == [*map(id, model.parameters())]
    strip(model)
    strip(model[1])
    assert len(model[1]._forward_hooks) == 1
    assert type(model) is nn.Sequential


def test_flat_parameters_are_refused() -> None:
    with pytest.raises(gn.ModelError, match="keeps its parameters in flat ones"):
        gn.gradient_moments(FullyShardedDataParallel(), nn.MSELoss(), torch.ones(2, 1))


SAID = {
    "cp": "A context-parallel model has only a part of each sequence on each rank",
    "ep": "An expert-parallel model sends each token to the rank that holds its expert",
    "pp": "A pipeline-parallel model has only a part of the layers on each rank",
    "dp": "nothing",
    "by hand": "gathered on one rank, the tensor-parallel model has other losses than in parallel",
    "by the tensor": "nothing",
}


def test_dimensions_of_a_mesh(results_of: Launched) -> None:
    for found in results_of(2, "meshes"):
        assert found.keys() == {*SAID, "casts", "plain"}
        for name, said in SAID.items():
            assert said in found[name], name
        assert "MixedPrecisionPolicy of fully_shard was left out" in found["casts"]
        assert found["plain"] == ""
