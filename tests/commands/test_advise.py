"""`gradnoise advise`."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.command_line import refused, said


@pytest.mark.parametrize("budget", [("--budget", "2400"), ("--epochs", "40")])
def test_advice_is_printed_within_the_budget(
    budget: tuple[str, str], tmp_path: Path, trainable: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out, plot = tmp_path / "a.jsonl", tmp_path / "a.png"
    command = ("advise", f"{trainable}:loader", *budget, "--seeds", 2, "--out", out, "--plot", plot)
    text = said(capsys, *command)
    assert "What to do (confidence: " in text
    assert f"written: {out}, {plot}" in text
    assert '"budget": 2400' in out.read_text().splitlines()[0]
    assert said(capsys, *command) == text


def test_the_training_ahead_is_given_in_samples(
    tmp_path: Path, trainable: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "a.jsonl"
    given = ("--budget", 2400, "--samples", 64, "--out", out)
    text = " ".join(said(capsys, "advise", f"{trainable}:loader", *given).split())
    assert "steps from here, as long as the training ahead, on 2 seeds" in text
    assert '"samples of the training ahead": 64' in out.read_text().splitlines()[0]


def test_without_trials_there_is_no_picture(
    tmp_path: Path, trainable: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    plot = tmp_path / "a.png"
    text = said(capsys, "advise", f"{trainable}:loader", "--budget", 8, "--plot", plot)
    assert "Nothing was tried" in text
    assert "written" not in text
    assert not plot.exists()


def test_where_no_rate_holds_there_is_no_picture(
    tmp_path: Path, trainable: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    plot = tmp_path / "a.png"
    text = said(
        capsys, "advise", f"{trainable}:wild", "--budget", 2400, "--seeds", 1, "--plot", plot
    )
    assert "No learning rate held" in text
    assert not plot.exists()


def test_mistakes_are_one_line(trainable: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "`batch_size` is needed" in refused(capsys, "advise", f"{trainable}:four")
    both = refused(capsys, "advise", "digits", "--epochs", 1, "--budget", 9)
    assert "not allowed with argument" in both
    stream = refused(capsys, "advise", f"{trainable}:stream", "--epochs", 1)
    assert (
        "--epochs needs data of a known length; gradnoise advise takes --budget in samples"
        in stream
    )


@pytest.mark.parametrize("name", ["linear", "cosine"])
def test_the_learning_rate_falls_as_is_said(
    name: str, tmp_path: Path, trainable: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "a.jsonl"
    given = ("--budget", 2400, "--samples", 64, "--schedule", name, "--out", out)
    text = " ".join(said(capsys, "advise", f"{trainable}:loader", *given).split())
    assert f"changed by the schedule ({name}): tried" in text
    assert f'"schedule": "{name}"' in out.read_text().splitlines()[0]
