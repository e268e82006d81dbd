"""`torchrun -m gradnoise profile`: the first rank prints, all end alike."""

from __future__ import annotations

from pathlib import Path

import pytest

from gradnoise.cli import main
from gradnoise.commands.launched import is_first, launched
from tests.launching import torchrun

FACTORY = """
import torch
from torch import distributed as dist, nn
from torch.utils.data import DataLoader, TensorDataset
from torch.utils.data.distributed import DistributedSampler

def data():
    source = torch.Generator().manual_seed(0)
    return TensorDataset(torch.randn(60, 4, generator=source), torch.arange(60) % 3)

def factory():
    torch.manual_seed(0)
    model = nn.Linear(4, 3)
    if not dist.is_initialized():
        return model, nn.CrossEntropyLoss(), DataLoader(data(), 8, shuffle=True)
    model = nn.parallel.DistributedDataParallel(model)
    loader = DataLoader(data(), 4, sampler=DistributedSampler(data()))
    return model, nn.CrossEntropyLoss(), loader

def broken():
    if dist.get_rank() == 1:
        raise ValueError("there is no such file")
    return nn.Linear(4, 3), nn.CrossEntropyLoss(), data()
"""


@pytest.fixture
def target(tmp_path: Path) -> Path:
    path = tmp_path / "train.py"
    path.write_text(FACTORY)
    return path


def test_alone_there_is_no_group() -> None:
    with launched() as group:
        assert group is None
        assert is_first(group)


def test_the_report_is_that_of_one_process(target: Path, capsys: pytest.CaptureFixture) -> None:
    code, out, _ = torchrun(2, "-m", "gradnoise", "profile", f"{target}:factory")
    assert code == 0
    assert main(["profile", f"{target}:factory"]) == 0
    alone = capsys.readouterr().out
    # batches of 4 on two ranks are those of 8; the work of checks is that of both
    assert without_cost(out) == without_cost(alone)
    assert "trained with batch size 8" in out


def without_cost(report: str) -> list[str]:
    lines = report.splitlines()
    start = next(k for k, line in enumerate(lines) if line.startswith("- cost: "))
    end = next(k for k, line in enumerate(lines[start:], start) if not line)
    return lines[:start] + lines[end:]


def test_a_rank_that_fails_is_told_once(target: Path) -> None:
    code, out, err = torchrun(2, "-m", "gradnoise", "profile", f"{target}:broken")
    assert code != 0
    assert out == ""
    told = [line for line in err.splitlines() if line.startswith("gradnoise: error:")]
    assert len(told) == 1
    assert "on rank 1: " in told[0]
    assert "ValueError: there is no such file" in told[0]
