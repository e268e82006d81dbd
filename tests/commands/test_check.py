"""`gradnoise check`: its exit codes and what it prints."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from gradnoise import cli
from tests.checks.profiles import with_scale
from tests.command_line import refused


@pytest.fixture
def saved(tmp_path: Path) -> str:
    path = tmp_path / "p.json"
    with_scale(10.0, 15.0, 20.0).save(path)
    return str(path)


@pytest.mark.parametrize(
    ("rules", "code"),
    [
        (["noise_scale < 21"], 0),
        (["noise_scale < 21", "noise_scale < 9"], 1),
        (["noise_scale < 15"], 1),
    ],
)
def test_the_exit_code_says_whether_all_passed(
    saved: str, rules: list[str], code: int, capsys: pytest.CaptureFixture[str]
) -> None:
    options = [word for rule in rules for word in ("--rule", rule)]
    assert cli.main(["check", saved, *options]) == code
    assert capsys.readouterr().out.startswith("FAILED" if code else "PASSED")


def test_what_cannot_be_told_may_be_allowed(saved: str) -> None:
    assert cli.main(["check", saved, "--rule", "noise_scale < 15", "--allow-unresolved"]) == 0


def test_without_rules_it_is_the_default(saved: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["check", saved]) in (0, 1)
    assert "batch-near-critical" in capsys.readouterr().out


def test_errors_have_a_code_of_their_own(
    saved: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert "'slr' is not known" in refused(capsys, "check", saved, "--rule", "slr < 1")
    assert "No such file" in refused(capsys, "check", tmp_path / "none.json")
    other = tmp_path / "other.json"
    other.write_text("{}")
    assert "is not a profile" in refused(capsys, "check", other)
    assert "there is no folder" in refused(capsys, "check", saved, "--json", "/no/where.json")


def test_the_outcome_is_json_where_it_is_asked_for(
    saved: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["check", saved, "--rule", "noise_scale < 9", "--json", "-"]) == 1
    assert json.loads(capsys.readouterr().out)["passed"] is False
    path = tmp_path / "checked.json"
    assert cli.main(["check", saved, "--rule", "noise_scale < 21", "--json", str(path)]) == 0
    assert json.loads(path.read_text())["passed"] is True
    assert capsys.readouterr().out.endswith(f"written: {path}\n")
