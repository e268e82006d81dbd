"""JSON for another program: a file, or stdout with nothing else on it."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from gradnoise import cli
from gradnoise.commands.json_output import beside, write_json
from tests.command_line import QUICK, refused


def test_it_is_written_to_a_file_to_stdout_or_not_at_all(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_json({"a": 1}, tmp_path / "a.json")
    assert json.loads((tmp_path / "a.json").read_text()) == {"a": 1}
    write_json({"a": 1}, None)
    assert capsys.readouterr().out == ""
    write_json({"a": 1}, Path("-"))
    assert json.loads(capsys.readouterr().out) == {"a": 1}


def test_the_report_goes_where_the_json_does_not() -> None:
    assert beside(Path("-")) is sys.stderr
    assert beside(Path("a.json")) is sys.stdout
    assert beside(None) is sys.stdout


def test_a_dash_is_stdout_and_no_file(
    file: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(file.parent)
    assert cli.main(["profile", f"{file}:four", *QUICK, "--json", "-"]) == 0
    shown = capsys.readouterr()
    assert json.loads(shown.out)["format"] == "gradnoise-profile"
    assert shown.err.startswith("What to do")
    assert "written" not in shown.err
    assert not (file.parent / "-").exists()


@pytest.mark.parametrize("command", [["profile", "--plot"], ["branch", "--out"]])
def test_other_outputs_are_files(
    command: list[str], trainable: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    name, option = command
    more = ["--batch-sizes", "4", "--samples", "20"] if name == "branch" else []
    line = refused(capsys, name, f"{trainable}:four", *more, option, "-")
    assert f"{option} takes the name of a file; only --json - is stdout" in line
