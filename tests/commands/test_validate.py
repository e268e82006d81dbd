"""`gradnoise validate`: it prints every check, and a wrong formula turns it red."""

from __future__ import annotations

import pytest

from gradnoise.cli import main
from gradnoise.validation import report


@pytest.fixture(autouse=True)
def _few(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(report, "GROUPS", {"limits": report.GROUPS["limits"]})


def test_the_command_prints_every_check(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["validate", "--quiet"]) == 0
    printed = capsys.readouterr().out
    assert "15 checks, 0 failed" in printed
    assert "full-batch limit, nesterov 0.9" in printed


def test_a_wrong_formula_fails_it(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("gradnoise.validation.training.stable_lr", lambda *_: 0.5)
    assert main(["validate", "--seed", "3", "--quiet"]) == 1
    printed = capsys.readouterr().out
    assert "4 failed" in printed
    assert "FAILS" in printed
