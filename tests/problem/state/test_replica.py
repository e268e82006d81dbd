"""A sharded model is whole while it is measured, and as it was found afterwards."""

from __future__ import annotations

import pytest
import torch
from torch import distributed as dist
from torch import nn
from torch.distributed import fsdp

import gradnoise as gn
from gradnoise.problem.state.replica import replica_of
from gradnoise.ranks.ranks import ALONE
from tests.launching import Launched
from tests.rank_models import held, losses, model_of, samples_of


@pytest.mark.parametrize("size", [2, 4])
def test_training_goes_on_as_if_nothing_had_been_measured(size: int, results_of: Launched) -> None:
    for found in results_of(size, "training"):
        for name, (plain, measured) in found.items():
            assert all(map(torch.equal, plain, measured)), name


def test_other_models_have_none() -> None:
    assert replica_of(nn.Linear(1, 1), ALONE) is None
    assert replica_of("no model", ALONE) is None


@pytest.mark.skipif(not hasattr(fsdp, "fully_shard"), reason="torch 2.6 and newer")
@pytest.mark.parametrize("gather", ["layers", "model"])
def test_a_sharded_model_is_refused_alone_and_the_cure_works(gather: str) -> None:
    samples, alone = samples_of("mlp"), held(model_of("mlp"), "plain", 1)
    expected = gn.gradient_moments(alone, losses, samples)
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    try:
        model = held(model_of("mlp"), "blocks and root", 1)
        with pytest.raises(gn.ModelError, match="`process_group=torch"):
            gn.gradient_moments(model, losses, samples)
        own = {"process_group": dist.group.WORLD, "gather": gather}
        found = gn.gradient_moments(model, losses, samples, **own)
    finally:
        dist.destroy_process_group()
    assert str(found) == str(expected)
