"""`gradnoise advise` and `gradnoise branch`."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import gradnoise as gn
from gradnoise import cli

TEXT = """
import torch
from torch import nn
torch.manual_seed(0)
model = nn.Linear(3, 2).double()
data = (torch.randn(60, 3).double(), torch.arange(60) % 2)
optimizer = torch.optim.SGD(model.parameters(), lr=0.25, momentum=0.5)

def four():
    return model, nn.CrossEntropyLoss(), data, optimizer

def three():
    return four()[:3]

def loader():
    dataset = torch.utils.data.TensorDataset(*data)
    return *four()[:2], torch.utils.data.DataLoader(dataset, batch_size=4), optimizer

def wild():
    fast = torch.optim.SGD(model.parameters(), lr=1e9)
    return *four()[:2], loader()[2], fast

class Stream(torch.utils.data.IterableDataset):
    def __iter__(self):
        return iter([(x, y) for x, y in zip(*data)])

def stream():
    return *four()[:2], torch.utils.data.DataLoader(Stream(), batch_size=4), optimizer
"""
BRANCH = ("--batch-sizes", "4", "16", "--samples", "32", "--seeds", "2")


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.setattr(sys, "path", [*sys.path])
    path = tmp_path / "own_problem.py"
    path.write_text(TEXT)
    yield path
    sys.modules.pop("gradnoise_target_own_problem", None)


def said(capsys: pytest.CaptureFixture[str], *command: object) -> str:
    """What a command prints that works."""
    assert cli.main([str(part) for part in (*command, "--quiet")]) == 0
    shown = capsys.readouterr()
    assert shown.err == ""
    return shown.out


def refused(capsys: pytest.CaptureFixture[str], *command: object) -> str:
    """The one line on stderr of a command that does not."""
    try:
        code = cli.main([str(part) for part in (*command, "--quiet")])
    except SystemExit as leaving:
        code = int(str(leaving.code))
    shown = capsys.readouterr().err
    assert code == 2
    assert len(shown.strip().splitlines()) == 1
    return shown


def test_branches_are_printed_drawn_and_kept(
    tmp_path: Path, file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out, plot = tmp_path / "b.jsonl", tmp_path / "b.png"
    command = ("branch", f"{file}:loader", *BRANCH, "--out", out, "--plot", plot)
    text = said(capsys, *command)
    assert "learning rate 0.250 at batch size 4" in text
    assert f"written: {out}, {plot}" in text
    assert plot.read_bytes().startswith(b"\x89PNG")
    found = gn.Branches.load(out)
    assert (found.batch_sizes, found.samples > 0) == ([4, 16], True)
    kept = out.read_text()
    assert said(capsys, *command) == text
    assert out.read_text() == kept


def test_the_options_of_branches_are_theirs(
    file: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    out = tmp_path / "b.jsonl"
    said(
        capsys, "branch", f"{file}:four", *BRANCH, "--batch-size", 16, "--factors", 1, "--scaling",
        "none", "--max-grad-norm", 0.1, "--out", out,
    )  # fmt: skip
    found = gn.Branches.load(out)
    assert (found.batch_size, found.lr) == (16, 0.25)
    assert 0.25 in [r.run.lr for r in found.records if r.run.batch_size == 4]
    assert {r.run.seed for r in found.records} == {0, 1}


@pytest.mark.parametrize("budget", [("--budget", "2400"), ("--epochs", "40")])
def test_advice_is_printed_within_the_budget(
    budget: tuple[str, str], tmp_path: Path, file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out, plot = tmp_path / "a.jsonl", tmp_path / "a.png"
    command = ("advise", f"{file}:loader", *budget, "--seeds", 2, "--out", out, "--plot", plot)
    text = said(capsys, *command)
    assert "What to do (confidence: " in text
    assert f"written: {out}, {plot}" in text
    assert '"budget": 2400' in out.read_text().splitlines()[0]
    assert said(capsys, *command) == text


def test_without_trials_there_is_no_picture(
    tmp_path: Path, file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    plot = tmp_path / "a.png"
    text = said(capsys, "advise", f"{file}:loader", "--budget", 8, "--plot", plot)
    assert "Nothing was tried" in text
    assert "written" not in text
    assert not plot.exists()


def test_where_no_rate_holds_there_is_no_picture(
    tmp_path: Path, file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    plot = tmp_path / "a.png"
    text = said(capsys, "advise", f"{file}:wild", "--budget", 2400, "--seeds", 1, "--plot", plot)
    assert "No learning rate held" in text
    assert not plot.exists()


@pytest.mark.parametrize("name", ["advise", "branch"])
def test_the_help_asks_for_an_optimizer(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        cli.main([name, "--help"])
    text = " ".join(capsys.readouterr().out.split())
    assert "returns (model, loss_fn, data, optimizer), the optimizer with its state" in text


def test_digits_are_built_in(capsys: pytest.CaptureFixture[str]) -> None:
    text = said(
        capsys, "branch", "digits", "--batch-sizes", 64, "--samples", 64, "--seeds", 1
    )  # fmt: skip
    assert "from a loss of 0.3" in text
    assert "learning rate 0.100 at batch size 32" in text


@pytest.mark.parametrize("command", [("advise",), ("branch", *BRANCH)])
def test_an_optimizer_is_needed(
    command: tuple[str, ...], file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    name, *options = command
    line = refused(capsys, name, f"{file}:three", *options)
    assert "returned no optimizer, and runs go on from one: return (model, loss_fn, da" in line


def test_mistakes_are_one_line(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "`batch_size` is needed" in refused(capsys, "advise", f"{file}:four")
    both = refused(capsys, "advise", "digits", "--epochs", 1, "--budget", 9)
    assert "not allowed with argument" in both
    stream = refused(capsys, "advise", f"{file}:stream", "--epochs", 1)
    assert "--epochs needs data of a known length: give --budget in samples" in stream
    assert "--batch-sizes, --samples" in refused(capsys, "branch", "digits")
