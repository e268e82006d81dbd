"""What ranks exchange, and how they end together."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

import gradnoise as gn
from gradnoise.ranks.ranks import ALONE, LostError, _kind_of, _text_of, is_told, ranks_of
from tests.launching import Launched, torchrun
from tests.rank_models import losses, model_of, samples_of
from tests.rank_program import profiled


def test_one_process_alone_exchanges_nothing() -> None:
    own = torch.ones(3)
    assert ranks_of(None) is ALONE
    assert not ALONE.are_several
    assert ALONE.sum(own) is own
    assert ALONE.rows(own, None) is own
    assert ALONE.gathered("x", "words") == ["x"]
    assert ALONE.largest(2.5) == 2.5
    with pytest.raises(KeyError), ALONE.together(always=True):
        raise KeyError


def test_a_group_needs_torchrun() -> None:
    with pytest.raises(gn.ArgumentError, match="start the program with torchrun"):
        ranks_of("world")


def test_a_lost_rank_cannot_be_told() -> None:
    assert is_told(LostError())
    assert not is_told(KeyError())


def test_the_last_line_of_an_error_of_a_worker_is_told() -> None:
    error = RuntimeError("Caught ValueError in DataLoader worker process 0.\nTrace\nValueError: 3")
    assert _text_of(error).endswith("in DataLoader worker process 0. ... ValueError: 3")
    assert _text_of(gn.DataError("one\ntwo")) == "one\ntwo"
    assert (_kind_of(KeyError()), _kind_of(gn.DataError())) == ("RanksError", "DataError")


def test_a_rank_that_nobody_hears_ends_with_its_own_error(tmp_path: Path) -> None:
    start = time.monotonic()
    code, _, err = torchrun(2, "-m", "tests.rank_program", str(tmp_path), "alone")
    assert code != 0
    assert "KeyError: 'a label'" in err  # and no bytes of weights taken for a message
    assert "rank1" in err
    assert time.monotonic() - start < 30


WITHOUT = """
import torch.distributed as dist
for name in ("ReduceOp", "all_reduce", "all_gather_object", "group", "GroupMember"):
    delattr(dist, name)
dist.is_available = lambda: False
import torch, gradnoise as gn
data = torch.ones(4, 1), torch.tensor([[0.0], [2.0], [0.0], [2.0]])
print(float(gn.gradient_moments(torch.nn.Linear(1, 1, bias=False), torch.nn.MSELoss(), data).count))
"""


def test_torch_need_not_have_ranks() -> None:
    run = subprocess.run(
        [sys.executable, "-c", WITHOUT], capture_output=True, text=True, check=False
    )
    assert run.stdout.strip() == "4.0", run.stderr


def test_errors_at_many_places(results_of: Launched) -> None:
    first, second = results_of(2, "stops")
    for after in (1, 5, 12):
        # both fail at once, each in its own way: the first one's error is that of both
        assert first[f"both at {after}"] == "CurvatureError: no"
        assert second[f"both at {after}"] == "CurvatureError: on rank 0: no"
        # of a kind that is not public the public one is told
        assert first[f"of a kind of ours at {after}"] == "CurvatureError: on rank 1: no"
        assert second[f"of a kind of ours at {after}"] == "FullPrecisionError: no"
    for after in (30, 55):  # where a profile goes on without curvature
        for found in (first, second):
            assert found[f"both at {after}"] == "nothing"
            assert found[f"of a kind of ours at {after}"] == "nothing"
    assert first["interrupted"] == "RanksError"
    assert second["interrupted"] == "KeyboardInterrupt"
    expected = profiled(model_of("mlp"), losses, samples_of("mlp"))["trace_cov"][0]
    for found in (first, second):
        assert found["the group is as it was"] == [2.0, 2.0, 2.0]
        assert found["once"] == "kept"  # second derivatives by differences, of one rank's operation
        assert found["after"] == pytest.approx(expected, rel=1e-9)


SAID = {
    "data of a wrong shape": "mat1 and mat2 shapes",
    "not finite": "the loss is not finite for",
    "out of memory": "out of memory",
    "raised in a pass": "KeyError: 'x'",
    "unreadable": "the disk is gone",
    "other options": "`level` is 0.95 on rank 0 and 0.9 on rank 1: give all ranks the same options",
    "other parameters": "parameters of rank 1 are not those of rank 0, the first of them 'blocks.1",
    "other calls": "the ranks have taken different ways",
}


def test_a_rank_that_fails_ends_all_with_its_error(results_of: Launched) -> None:
    first, second = results_of(2, "failures")
    expected = profiled(model_of("mlp"), losses, samples_of("mlp"))["trace_cov"][0]
    assert len(first) == 2 * len(SAID)
    for name, (text, after) in first.items():
        said, (other, after_other) = SAID[name.partition(": ")[2]], second[name]
        assert said in text, name
        assert said in other, name
        assert not text.startswith("late")
        assert not other.startswith("late")
        # the group and the model can be used as before
        assert after == after_other == pytest.approx(expected, rel=1e-9)
    told = {name.partition(": ")[2]: text.partition(":") for name, (text, _) in first.items()}
    assert told["not finite"][0] == "LossError"  # of the same kind on all ranks
    assert told["raised in a pass"][0] == "RanksError"  # where it is one of ours
    assert told["raised in a pass"][2].startswith(" on rank 1: KeyError")
