"""`gradnoise watch`: once, as a picture, and again and again until Ctrl-C."""

from __future__ import annotations

import shutil
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from gradnoise import cli
from tests.command_line import refused
from tests.run_files import DIGITS, line, written


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return Path(shutil.copy(DIGITS, tmp_path / "run.jsonl"))


def test_a_run_is_shown_once_where_there_is_no_terminal(
    capsys: pytest.CaptureFixture[str], path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("FORCE_COLOR", raising=False)
    for arguments in ([], ["--once"]):
        assert cli.main(["watch", str(path), *arguments]) == 0
        shown = capsys.readouterr().out
        assert shown.startswith("run.jsonl   step ")
        assert "Over the whole run: B_simple" in shown
        assert all(text == text.rstrip() for text in shown.splitlines())


def test_forced_colours_are_no_terminal_to_follow_a_run_in(
    capsys: pytest.CaptureFixture[str], path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    assert cli.main(["watch", str(path)]) == 0
    assert "Over the whole run" in capsys.readouterr().out


def test_the_picture_is_written_and_said(capsys: pytest.CaptureFixture[str], path: Path) -> None:
    picture = path.with_name("run.png")
    assert cli.main(["watch", str(path), "--plot", str(picture)]) == 0
    assert picture.read_bytes().startswith(b"\x89PNG")
    assert f"written: {picture}" in capsys.readouterr().out


def test_a_short_run_has_no_section_about_the_whole(
    capsys: pytest.CaptureFixture[str], path: Path
) -> None:
    assert cli.main(["watch", str(written(path, line(1), line(2)))]) == 0
    assert "Over the whole run" not in capsys.readouterr().out


def test_an_empty_file_is_no_mistake(capsys: pytest.CaptureFixture[str], path: Path) -> None:
    assert cli.main(["watch", str(written(path, end=""))]) == 0
    assert "no measured step yet" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["watch"], "required: file"),
        (["watch", "{folder}/none.jsonl"], "there is no file"),
        (["watch", "{folder}"], "is a folder: give the file that the monitor writes"),
        (["watch", "{folder}/text"], "is no file of a gn.NoiseMonitor: none of its 1 lines"),
        (["watch", "{folder}/run.jsonl", "--plot", "a.txt"], "--plot takes a file that ends in"),
        (["watch", "{folder}/run.jsonl", "--interval", "0"], "must be a positive number; got 0"),
    ],
)
def test_a_mistake_is_one_line(
    capsys: pytest.CaptureFixture[str], path: Path, arguments: list[str], said: str
) -> None:
    (path.parent / "text").write_text("text\n")
    assert said in refused(capsys, *(each.format(folder=path.parent) for each in arguments))


def live(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], path: Path, *events: Any
) -> tuple[int, str, list[float]]:
    """Follow a file in a terminal of 80 columns; an event for every pause, then Ctrl-C."""
    left, pauses = list(events), []

    def sleep(seconds: float) -> None:
        pauses.append(seconds)
        if not left:
            raise KeyboardInterrupt
        left.pop(0)()

    monkeypatch.setattr(sys.stdout, "isatty", lambda: True, raising=False)
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setenv("LINES", "24")
    monkeypatch.setattr(time, "sleep", sleep)
    code = cli.main(["watch", str(path), "--interval", "0.5"])
    return code, capsys.readouterr().out, pauses


def append(path: Path, text: str) -> Callable[[], None]:
    def act() -> None:
        with path.open("a", encoding="utf-8") as file:
            file.write(text)

    return act


def test_a_file_is_followed_until_it_is_interrupted(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    path = tmp_path / "run.jsonl"
    events = [append(path, ""), append(path, line(7) + "\n"), append(path, line(8, loss=3.5))]
    code, shown, pauses = live(monkeypatch, capsys, path, *events)
    assert code == 0
    assert pauses == [0.5] * 4
    parts = ["waiting for", "no measured step yet", "step 7", "loss 3.50"]
    places = [shown.index(part) for part in parts]
    assert places == sorted(places)
    assert "Over the whole run" not in shown


def test_a_file_of_something_else_ends_it(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    path = tmp_path / "run.jsonl"
    code, _, pauses = live(monkeypatch, capsys, path, append(path, "text\n"))
    assert (code, pauses) == (2, [0.5])
