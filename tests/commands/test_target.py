"""The user's file: which factory is meant, and what is said where it fails."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import gradnoise as gn
from gradnoise.commands.target import factory_of, one_line

TEXT = """
CALLS = []

def make():
    CALLS.append(1)
    return "model", "loss", "data"

def fails():
    return 1 / 0
"""


@pytest.fixture
def path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.setattr(sys, "path", [*sys.path])
    file = tmp_path / "own_problem.py"
    file.write_text(TEXT)
    yield file
    sys.modules.pop("gradnoise_target_own_problem", None)


def test_the_file_is_loaded_once_and_the_factory_called_each_time(path: Path) -> None:
    make = factory_of(f"{path}:make")
    assert make() == make() == ("model", "loss", "data", None)
    assert sys.modules["gradnoise_target_own_problem"].CALLS == [1, 1]


def test_where_it_failed_is_said(path: Path) -> None:
    with pytest.raises(gn.ArgumentError, match=r"failed at own_problem.py, line 9 \(return 1 / 0"):
        factory_of(f"{path}:fails")()


def test_functions_that_there_are_are_named(path: Path) -> None:
    with pytest.raises(gn.ArgumentError, match="no function 'mak'; its functions are make, fails"):
        factory_of(f"{path}:mak")


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (gn.ArgumentError("two\n  lines"), "two lines"),
        (ValueError("a  b"), "ValueError: a b (--debug shows where)"),
        (ValueError(), "ValueError (--debug shows where)"),
        (RuntimeError("Traceback: x\nKeyError: 'y'"), "RuntimeError: KeyError: 'y' (--debug"),
    ],
)
def test_an_error_is_one_line(error: Exception, line: str) -> None:
    assert one_line(error).startswith(line)
