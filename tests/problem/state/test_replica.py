"""A sharded model is whole while it is measured, and as it was found afterwards."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import nn

from gradnoise.problem.state.replica import replica_of
from gradnoise.ranks.ranks import ALONE
from tests.launching import results_of


def test_training_goes_on_as_if_nothing_had_been_measured(tmp_path: Path) -> None:
    for found in results_of(2, "training", tmp_path):
        for name, (plain, measured) in found.items():
            assert all(map(torch.equal, plain, measured)), name


def test_other_models_have_none() -> None:
    assert replica_of(nn.Linear(1, 1), ALONE) is None
    assert replica_of("no model", ALONE) is None
