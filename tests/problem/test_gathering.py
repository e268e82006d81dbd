"""What of a sharded model is gathered at a time; sharded ones are in `rank_program.vectors`."""

from __future__ import annotations

from unittest import mock

import pytest
import torch
from torch import nn

from gradnoise.problem import gathering
from gradnoise.problem.gathering import COPIES, memory_of, shards_of, too_large
from gradnoise.problem.options import Options
from gradnoise.ranks.ranks import ALONE


def test_one_process_alone_has_whole_models() -> None:
    options = Options(gather="layers", by_layers=True)
    assert shards_of(nn.Linear(2, 2), options, ALONE) is None


@pytest.mark.parametrize(
    ("room", "fits"), [(COPIES * 100 * 4, True), (COPIES * 100 * 4 - 1, False)]
)
def test_a_model_fits_with_room_for_its_copies(room: int, fits: bool) -> None:
    with mock.patch.object(gathering, "memory_of", return_value=float(room)):
        said = too_large([torch.zeros(60), torch.zeros(40)], ALONE)
    assert fits == (not said)
    if not fits:
        assert said.startswith("the whole model would take about 8.9e-06 GiB on each rank")


def test_ranks_of_one_machine_share_its_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("LOCAL_WORLD_SIZE", raising=False)
    alone = memory_of(torch.device("cpu"))
    assert alone > 2**28
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "4")
    assert memory_of(torch.device("cpu")) == alone / 4


def test_memory_that_is_not_known_is_enough() -> None:
    with mock.patch.object(gathering.os, "sysconf", side_effect=ValueError):
        assert memory_of(torch.device("cpu")) == float("inf")
