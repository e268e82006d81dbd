"""Every example runs, prints the monitor, and leaves a file of its values."""

from __future__ import annotations

import json
import runpy
import sys
from pathlib import Path

import pytest
from accelerate.state import AcceleratorState, GradientState, PartialState

EXAMPLES = sorted((Path(__file__).parents[2] / "examples").glob("*.py"))


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_an_example_measures_its_run(
    path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for kept in (AcceleratorState, PartialState, GradientState):
        kept._reset_state()
    monkeypatch.setattr(sys, "argv", [str(path), str(tmp_path)])
    runpy.run_path(str(path), run_name="__main__")
    assert "B_simple = " in capsys.readouterr().out
    lines = [json.loads(line) for line in (tmp_path / "run.jsonl").read_text().splitlines()]
    assert len(lines) >= 10
    assert [line["gradnoise/measured"] for line in lines] == list(range(1, len(lines) + 1))
    assert lines[-1]["gradnoise/loss"] < lines[0]["gradnoise/loss"]
    assert lines[-1]["gradnoise/skipped"] == 0
    assert lines[-1]["gradnoise/lr"] >= 0
    assert lines[-1]["gradnoise/noise_scale_low"] > 0
