"""`gradnoise branch`."""

from __future__ import annotations

from pathlib import Path

import pytest

import gradnoise as gn
from tests.command_line import refused, said

BRANCH = ("--batch-sizes", "4", "16", "--samples", "32", "--seeds", "2")


def test_branches_are_printed_drawn_and_kept(
    tmp_path: Path, trainable: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out, plot = tmp_path / "b.jsonl", tmp_path / "b.png"
    command = ("branch", f"{trainable}:loader", *BRANCH, "--out", out, "--plot", plot)
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
    trainable: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    out = tmp_path / "b.jsonl"
    said(
        capsys, "branch", f"{trainable}:four", *BRANCH, "--batch-size", 16, "--factors", 1,
        "--scaling", "none", "--max-grad-norm", 0.1, "--schedule", "linear", "--stability", "--out",
        out,
    )  # fmt: skip
    found = gn.Branches.load(out)
    assert (found.batch_size, found.lr, found.schedule) == (16, 0.25, "linear")
    assert 0.25 in [r.run.lr for r in found.records if r.run.batch_size == 4]
    assert {r.run.seed for r in found.records} == {0, 1}
    assert all(limit.is_resolved for limit in found.stability_limit().values())


def test_digits_are_built_in(capsys: pytest.CaptureFixture[str]) -> None:
    text = said(
        capsys, "branch", "digits", "--batch-sizes", 64, "--samples", 64, "--seeds", 1
    )  # fmt: skip
    assert "from a loss of 0.3" in text
    assert "learning rate 0.100 at batch size 32" in text


def test_batch_sizes_and_samples_are_needed(capsys: pytest.CaptureFixture[str]) -> None:
    assert "--batch-sizes, --samples" in refused(capsys, "branch", "digits")
