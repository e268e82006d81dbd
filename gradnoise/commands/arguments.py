"""What commands have in common: numbers read, files written, an error in one line."""

from __future__ import annotations

import argparse
import importlib.util
import math
import os
import sys
from pathlib import Path
from typing import Any, TextIO

from ..errors import ArgumentError, GradNoiseError
from ..show.figure import CURE

OUTPUTS = ("json", "out", "plot", "html")
STDOUT = Path("-")  # as a file's name
HTML_NEEDS = ("altair", "vl_convert", "jinja2")
HTML_CURE = "pip install altair vl-convert-python jinja2"
PLOT_FORMATS = (".png", ".pdf", ".svg", ".jpg")


def shows_progress(options: argparse.Namespace) -> bool:
    """Whether there is a terminal to show it on."""
    return not options.quiet and sys.stderr is not None and sys.stderr.isatty()


def tell_written(*paths: Path | None, file: TextIO | None = None) -> int:
    """Print which files were written; the exit code of a command that worked."""
    written = [str(path) for path in paths if path and path != STDOUT]
    if written:
        print(f"\nwritten: {', '.join(written)}", file=file)
    return 0


def chosen(options: argparse.Namespace, *names: str) -> dict[str, Any]:
    """The options of these names that were given, or have a default."""
    return {name: value for name in names if (value := getattr(options, name)) is not None}


def check_targets(options: argparse.Namespace, *read: Path) -> None:
    """Before minutes of measuring, not after: every output can be written, and is no input.

    Args:
        options: of a command.
        read: files that the command reads; the user's own program is one.
    """
    target = getattr(options, "target", "")
    taken = {path.resolve() for path in (*read, Path(target.rpartition(":")[0]))}
    given = {name: getattr(options, name, None) for name in OUTPUTS}
    if given["json"] == STDOUT:
        del given["json"]
    for name, path in given.items():
        if path is None:
            continue
        if path == STDOUT:
            raise ArgumentError(f"--{name} takes the name of a file; only --json - is stdout")
        check_writable(path)
        if path.resolve() in taken:
            raise ArgumentError(f"cannot write {path}: another option or an input has this name")
        taken.add(path.resolve())
    check_plot(given["plot"])
    if given["html"] is not None:
        missing = [name for name in HTML_NEEDS if importlib.util.find_spec(name) is None]
        if missing:
            raise GradNoiseError(f"--html needs {', '.join(missing)}: {HTML_CURE}")


def check_plot(path: Path | None) -> None:
    """Before a picture is drawn: matplotlib is there, and the file can be written."""
    if path is None:
        return
    check_writable(path)
    if importlib.util.find_spec("matplotlib") is None:
        raise GradNoiseError(f"--plot needs matplotlib: {CURE}")
    if path.suffix.lower() not in PLOT_FORMATS:
        raise ArgumentError(f"--plot takes a file that ends in {', '.join(PLOT_FORMATS)}")


def check_writable(path: Path) -> None:
    """Raise ArgumentError where a file cannot be written."""
    if not path.parent.is_dir():
        raise ArgumentError(f"cannot write {path}: there is no folder {path.parent}")
    if path.is_dir():
        raise ArgumentError(f"cannot write {path}: it is a folder")
    if not os.access(path if path.exists() else path.parent, os.W_OK):
        raise ArgumentError(f"cannot write {path}: permission denied")


def whole(least: int) -> Any:
    """What reads a whole number from `least` on, also one like 1e4."""

    def parse(text: str) -> int:
        try:
            found = int(text) if text.isdecimal() else float(text)
        except ValueError:
            found = math.nan
        if not (least <= found < 2**63 and found % 1 == 0):
            raise argparse.ArgumentTypeError(f"must be a whole number from {least} on; got {text}")
        return int(found)

    return parse


def number(accept: Any, expected: str) -> Any:
    """What reads a number that is accepted."""

    def parse(text: str) -> float:
        try:
            found = float(text)
        except ValueError:
            found = math.nan
        if not accept(found):
            raise argparse.ArgumentTypeError(f"must be {expected}; got {text}")
        return found

    return parse


POSITIVE = number(lambda x: 0 < x < math.inf, "a positive number")
MOMENTUM = number(lambda x: 0 <= x < 1, "at least 0 and below 1")


def complain(text: str) -> None:
    """Say it on stderr, where there is one: `print` would take stdout."""
    if sys.stderr is not None:
        print(f"gradnoise: {text}", file=sys.stderr, flush=True)


def one_line(error: Exception) -> str:
    message = str(error).strip()
    if "Traceback" in message:  # a data loader's worker sends its whole story
        message = message.splitlines()[-1]
    text = " ".join(message.split())
    if isinstance(error, GradNoiseError):
        return text
    return f"{type(error).__name__}{': ' if text else ''}{text} (--debug shows where)"
