"""`gradnoise sweep`."""

import sys

import pytest

import gradnoise as gn
from gradnoise import cli
from gradnoise.commands import sweep as command
from tests.command_line import refused

FACTORY = """
import torch
from torch import nn

def factory():
    source = torch.Generator().manual_seed(0)
    data = torch.randn(32, 4, generator=source), torch.arange(32) % 2
    return nn.Linear(4, 2), nn.CrossEntropyLoss(), data
"""


def test_a_grid_is_trained_kept_and_drawn(tmp_path, capsys):
    file, kept, drawn = (tmp_path / name for name in ("own.py", "s.jsonl", "s.png"))
    file.write_text(FACTORY)
    command = [
        *("sweep", f"{file}:factory", "--batch-sizes", "4", "8", "16", "--lrs", "0.1", "300"),
        *("--epochs", "4", "--seeds", "2", "--out", str(kept), "--plot", str(drawn), "--quiet"),
    ]
    assert cli.main(command) == 0
    printed = capsys.readouterr().out
    assert "12 runs" in printed
    assert f"written: {kept}, {drawn}" in printed
    assert drawn.stat().st_size > 1000
    assert kept.read_text().count('"run"') == 12
    assert cli.main(command) == 0
    assert capsys.readouterr().out.split("trained")[0] == printed.split("trained")[0]


SHORT = ("--batch-sizes", "8", "--lrs", "0.1", "--steps", "3", "--quiet")


def written(tmp_path, optimizer, model="nn.Linear(4, 2)", before=""):
    """The target of a file whose factory returns an optimizer."""
    file = tmp_path / "own.py"
    text = FACTORY.replace("return nn.Linear(4, 2)", f"model = {model}\n    return model")
    file.write_text(before + text.rstrip() + f", torch.optim.{optimizer}\n")
    return f"{file}:factory"


@pytest.mark.parametrize(
    ("optimizer", "options", "expected"),
    [
        ("SGD(model.parameters(), lr=0.3)", (), "sgd"),
        (
            "SGD(model.parameters(), lr=0.3, momentum=0.8, nesterov=True, weight_decay=0.01)",
            (),
            "nesterov, momentum 0.8, weight decay 0.01",
        ),
        ("Adam(model.parameters(), betas=(0.7, 0.999))", (), "adam, momentum 0.7"),
        ("SGD(model.parameters(), momentum=0.8)", ("--momentum", "0.5"), "sgd, momentum 0.5"),
        ("SGD(model.parameters(), momentum=0.8)", ("--momentum", "0"), "sgd"),
    ],
)
def test_it_trains_as_the_optimizer_of_the_factory(tmp_path, capsys, optimizer, options, expected):
    target = written(tmp_path, optimizer)
    assert cli.main(["sweep", target, *SHORT, *options]) == 0
    assert f"\noptimizer {expected}\n" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("optimizer", "said"),
    [
        (
            "Adagrad(model.parameters())",
            "trains with torch's SGD or Adam; the optimizer is Ada",
        ),
        ("SGD(model.parameters(), momentum=0.5, dampening=0.1)", "SGD and dampening = 0.1"),
    ],
)
def test_an_optimizer_that_a_sweep_does_not_know_is_refused(tmp_path, capsys, optimizer, said):
    assert said in refused(capsys, "sweep", written(tmp_path, optimizer), *SHORT)


def test_the_file_is_executed_once(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(sys, "path", [*sys.path])
    before = "from pathlib import Path\nPath(__file__).with_suffix('.log').open('a').write('x')\n"
    target = written(tmp_path, "SGD(model.parameters())", before=before)
    assert cli.main(["sweep", target, *SHORT, "--seeds", "3"]) == 0
    assert (tmp_path / "own.log").read_text() == "x"
    assert sys.path.count(str(tmp_path)) == 1


def test_a_factory_that_returns_one_model_again_and_again_is_refused(capsys, file):
    said = refused(capsys, "sweep", f"{file}:three", *SHORT)
    assert "`make_model` returned the same weights twice" in said


def test_digits_are_built_in(capsys):
    command = [
        *("sweep", "digits", "--batch-sizes", "256", "--lrs", "0.5", "--steps", "2", "--quiet"),
    ]
    assert cli.main(command) == 0
    assert "equal steps, B =" in capsys.readouterr().out


def test_an_optimizer_that_cannot_be_used_is_named(tmp_path, capsys):
    file = tmp_path / "own.py"
    text = FACTORY.replace("return nn.Linear(4, 2),", "model = nn.Linear(4, 2)\n    return model,")
    file.write_text(text.replace(", data\n", ", data, torch.optim.AdamW(model.parameters())\n"))
    command = ["sweep", f"{file}:factory", "--batch-sizes", "8", "--lrs", "0.1"]
    assert cli.main([*command, "--steps", "2", "--quiet"]) == 2
    assert "AdamW" in capsys.readouterr().err


def test_an_interruption_says_how_to_go_on(tmp_path, capsys, monkeypatch):
    def interrupt(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(command, "sweep", interrupt)
    kept = tmp_path / "s.jsonl"
    assert cli.main(["sweep", "digits", "--out", str(kept)]) == 130
    line = f"gradnoise: interrupted; the same command continues from {kept}\n"
    assert capsys.readouterr().err == line


def test_what_cannot_be_is_said_in_a_line(tmp_path, capsys):
    assert cli.main(["sweep", "digits", "--out", str(tmp_path / "no" / "x.jsonl")]) == 2
    assert "there is no folder" in capsys.readouterr().err
    same = str(tmp_path / "s.png")
    assert "has this name" in refused(capsys, "sweep", "digits", "--out", same, "--plot", same)


def test_the_learning_rate_may_fall_within_a_run(tmp_path):
    ends, target = [], written(tmp_path, "SGD(model.parameters())")
    for schedule in ([], ["--schedule", "linear"], ["--schedule", "cosine"]):
        out = tmp_path / f"{len(ends)}.jsonl"
        assert cli.main(["sweep", target, *SHORT, *schedule, "--out", str(out)]) == 0
        ends.append([record.train_loss for record in gn.Sweep.load(out).records])
    assert ends[0] != ends[1] != ends[2] != ends[0]
