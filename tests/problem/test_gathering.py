"""What of a sharded model is gathered at a time; sharded ones are in `rank_program.vectors`."""

from __future__ import annotations

from unittest import mock

import pytest
import torch
from torch import nn

import gradnoise as gn
from gradnoise.problem import gathering
from gradnoise.problem.gathering import (
    COPIES,
    by_layers_or_whole,
    memory_of,
    sharded_parameters,
    too_large,
)
from gradnoise.problem.options import Options
from gradnoise.ranks.ranks import ALONE


def test_one_process_alone_has_whole_models() -> None:
    options = Options(gather="layers")
    assert sharded_parameters(nn.Linear(2, 2), options, ALONE) is None


NEEDED = 4 * (40 + COPIES * 60)  # bytes


@pytest.mark.parametrize(("room", "fits"), [(NEEDED, True), (NEEDED - 1, False)])
def test_a_model_fits_with_room_for_copies_of_what_is_trained(room: int, fits: bool) -> None:
    trained, frozen = nn.Parameter(torch.zeros(60)), torch.zeros(40)
    with mock.patch.object(gathering, "memory_of", return_value=float(room)):
        said = too_large([frozen, trained], ALONE)
    assert fits == (not said)
    if not fits:
        assert said.startswith("the whole model would take about 5.5e-06 GiB on each rank")


def test_what_layers_are_not_enough_for_is_measured_whole() -> None:
    seen = []

    def measure(options: Options) -> str:
        seen.append(options.gather)
        if options.gather != "model":
            raise gn.ShardedError
        return "found"

    assert by_layers_or_whole(measure, Options(gather="auto")) == "found"
    assert seen == ["auto", "model"]
    with pytest.raises(gn.ShardedError):
        by_layers_or_whole(measure, Options(gather="layers"))


def test_what_one_process_cannot_measure_is_not_tried_again() -> None:
    seen = []

    def measure(options: Options) -> None:
        seen.append(options.gather)
        raise gn.EngineError

    with pytest.raises(gn.EngineError):
        by_layers_or_whole(measure, Options(gather="auto"))
    assert seen == ["auto"]


def test_ranks_of_one_machine_share_its_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("LOCAL_WORLD_SIZE", raising=False)
    alone = memory_of(torch.device("cpu"))
    assert alone > 2**28
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "4")
    assert memory_of(torch.device("cpu")) == alone / 4


def test_memory_that_is_not_known_is_enough() -> None:
    with mock.patch.object(gathering.os, "sysconf", side_effect=ValueError):
        assert memory_of(torch.device("cpu")) == float("inf")
