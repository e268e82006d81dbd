"""Numbers that are read, and files that cannot be written (`tests/test_cli.py` has the rest)."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import pytest

import gradnoise as gn
from gradnoise.commands.arguments import (
    MOMENTUM,
    POSITIVE,
    check_plot,
    check_targets,
    chosen,
    complain,
    one_line,
    tell_written,
    whole,
)  # fmt: skip


@pytest.mark.parametrize(
    ("read", "good", "bad"),
    [(whole(2), "2", "1"), (whole(0), "0", "-1"), (POSITIVE, "1e-3", "0"), (MOMENTUM, "0", "1")],
)
def test_a_number_is_in_its_range(read: Any, good: str, bad: str) -> None:
    assert read(good) == float(good)
    for text in (bad, "x", "nan", "inf"):
        with pytest.raises(argparse.ArgumentTypeError, match=f"must be .*; got {text}"):
            read(text)


@pytest.mark.parametrize(
    ("text", "number"), [("1e4", 10_000), ("4096", 4096), ("9007199254740993", 2**53 + 1)]
)
def test_a_whole_number_may_be_written_with_an_exponent(text: str, number: int) -> None:
    found = whole(2)(text)
    assert found == number
    assert isinstance(found, int)


@pytest.mark.parametrize("text", ["1.5", "1e-3", "1e30", "-4", "", "four"])
def test_what_is_no_whole_number_is_refused(text: str) -> None:
    with pytest.raises(argparse.ArgumentTypeError, match="must be a whole number from 0 on"):
        whole(0)(text)


def test_complaints_stay_away_from_the_output(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    complain("error: x")
    assert capsys.readouterr() == ("", "gradnoise: error: x\n")
    with monkeypatch.context() as closed:
        closed.setattr("sys.stderr", None)
        complain("error: x")
    assert capsys.readouterr() == ("", "")


def test_options_that_were_not_given_are_left_out() -> None:
    options = argparse.Namespace(seeds=0, factors=None, samples=3)
    assert chosen(options, "seeds", "factors") == {"seeds": 0}


def test_files_are_checked_before_anything_is_measured(tmp_path: Path) -> None:
    def options(**paths: Path | None) -> argparse.Namespace:
        return argparse.Namespace(target="digits", **{"out": None, "plot": None, **paths})

    check_targets(options(out=tmp_path / "a.jsonl", plot=tmp_path / "b.png"))
    with pytest.raises(gn.ArgumentError, match="there is no folder"):
        check_targets(options(out=tmp_path / "no" / "a.jsonl"))
    with pytest.raises(gn.ArgumentError, match="it is a folder"):
        check_targets(options(out=tmp_path))
    with pytest.raises(gn.ArgumentError, match="only --json - is stdout"):
        check_targets(options(out=Path("-")))
    with pytest.raises(gn.ArgumentError, match=r"--plot takes a file that ends in .png"):
        check_targets(options(plot=tmp_path / "b.txt"))
    with pytest.raises(gn.ArgumentError, match="another option or an input has this name"):
        check_targets(options(out=tmp_path / "b.png", plot=tmp_path / "b.png"))


def test_a_picture_is_checked_before_it_is_drawn(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    check_plot(None)
    check_plot(tmp_path / "b.svg")
    with pytest.raises(gn.ArgumentError, match="there is no folder"):
        check_plot(tmp_path / "no" / "b.png")
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    with pytest.raises(gn.GradNoiseError, match=r"--plot needs matplotlib: pip install"):
        check_plot(tmp_path / "b.svg")


def test_what_was_written_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    assert tell_written(None, Path("a.png"), Path("b.jsonl")) == 0
    assert capsys.readouterr().out == "\nwritten: a.png, b.jsonl\n"
    tell_written(None)
    assert capsys.readouterr().out == ""


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


def test_no_input_is_replaced(tmp_path: Path) -> None:
    for name in ("out", "json", "html"):
        own = argparse.Namespace(**{name: tmp_path / "p.json"})
        check_targets(own, tmp_path / "q.json")
        with pytest.raises(gn.ArgumentError, match="another option or an input has this name"):
            check_targets(own, tmp_path / "q.json", tmp_path / "p.json")


def test_what_a_page_needs_is_looked_for_before_the_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(gn.GradNoiseError, match="--html needs altair, vl_convert, jinja2: pip"):
        check_targets(argparse.Namespace(html=tmp_path / "p.html"))
