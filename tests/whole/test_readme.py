"""The README says what is true: its code runs, its links and pictures exist."""

from __future__ import annotations

import contextlib
import io
import re
from pathlib import Path
from typing import Any

import pytest
import torch

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "README.md").read_text(encoding="utf-8")


BLOCKS = re.findall(r"```python\n(.*?)```", TEXT, re.S)


def test_the_programs_run_one_after_the_other() -> None:
    shown, names = io.StringIO(), {}
    torch.manual_seed(0)
    with contextlib.redirect_stdout(shown):
        for block in BLOCKS:
            exec(compile(block, "README.md", "exec"), names)
    assert "trained with SGD, learning rate 0.1, batch size 64" in shown.getvalue()
    assert names["rate"] == 0.125
    value, vector = names["pairs"].values[0], names["pairs"].vectors[:, 0]
    assert (names["image"] - value * vector).norm() < 2e-3 * value


def test_the_program_of_the_page_on_sweeps_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (block,) = re.findall(r"```python\n(.*?)```", (ROOT / "docs/sweep.md").read_text("utf-8"), re.S)
    names: dict[str, Any] = {}
    with contextlib.redirect_stdout(io.StringIO()):
        exec(compile(block, "sweep.md", "exec"), names)
    assert len(names["found"].rows) == 42
    assert (tmp_path / "sweep.jsonl").exists()


def test_the_program_for_the_readers_own_model_is_short() -> None:
    (program,) = (block for block in BLOCKS if "p = gn.profile" in block)
    assert len([line for line in program.splitlines() if line.strip()]) <= 12


def test_links_lead_somewhere() -> None:
    targets = re.findall(r"\]\(([^)#]+)\)", TEXT)
    assert targets
    for target in targets:
        assert target.startswith("https://") or (ROOT / target).exists(), target


def test_the_commands_named_exist() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    for command in re.findall(r"^    make (\w+)", TEXT, re.M):
        assert f"\n{command}:" in makefile
