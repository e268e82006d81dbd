"""What commands have in common: numbers that are read, files that are written, their options."""

from __future__ import annotations

import argparse
import importlib.util
import inspect
import math
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ..errors import ArgumentError, GradNoiseError

Command = Callable[[argparse.Namespace], int]
PLOT_FORMATS = (".png", ".pdf", ".svg", ".jpg")
TARGET = (
    "'digits' (built in), or path/to/file.py:factory, a function without arguments that returns "
    "(model, loss_fn, data) or (model, loss_fn, data, optimizer)"
)

TARGET_TRAINED = (
    "'digits' (built in), or path/to/file.py:factory, a function without arguments that returns "
    "(model, loss_fn, data, optimizer), the optimizer with its state"
)


def shows_progress(options: argparse.Namespace) -> bool:
    """Whether there is a terminal to show it on."""
    return not options.quiet and sys.stderr is not None and sys.stderr.isatty()


def tell_written(*paths: Path | None) -> int:
    """Print which files were written; the exit code of a command that worked."""
    written = [str(path) for path in paths if path]
    if written:
        print(f"\nwritten: {', '.join(written)}")
    return 0


def chosen(options: argparse.Namespace, *names: str) -> dict[str, Any]:
    """The options of these names that were given, or have a default."""
    return {name: value for name in names if (value := getattr(options, name)) is not None}


def check_targets(options: argparse.Namespace) -> None:
    """Before minutes of measuring, not after."""
    taken = {Path(options.target.rpartition(":")[0]).resolve()}  # the user's own file
    for path in filter(None, (getattr(options, name, None) for name in ("json", "out", "plot"))):
        _check_writable(path)
        if path.resolve() in taken:
            raise ArgumentError(f"cannot write {path}: another option or the target has this name")
        taken.add(path.resolve())
    if options.plot is None:
        return
    if importlib.util.find_spec("matplotlib") is None:
        raise GradNoiseError("--plot needs matplotlib: pip install 'gradnoise[plot]'")
    if options.plot.suffix.lower() not in PLOT_FORMATS:
        raise ArgumentError(f"--plot takes a file that ends in {', '.join(PLOT_FORMATS)}")


def _check_writable(path: Path) -> None:
    if not path.parent.is_dir():
        raise ArgumentError(f"cannot write {path}: there is no folder {path.parent}")
    if path.is_dir():
        raise ArgumentError(f"cannot write {path}: it is a folder")
    if not os.access(path if path.exists() else path.parent, os.W_OK):
        raise ArgumentError(f"cannot write {path}: permission denied")


def whole(least: int) -> Any:
    """What reads a whole number from `least` on."""

    def parse(text: str) -> int:
        if not text.isdecimal() or not least <= int(text) < 2**63:
            raise argparse.ArgumentTypeError(f"must be a whole number from {least} on; got {text}")
        return int(text)

    return parse


def number(accept: Any, expected: str) -> Any:
    """What reads a number that is accepted."""

    def parse(text: str) -> float:
        try:
            found = float(text)
        except ValueError:
            found = float("nan")
        if not accept(found):
            raise argparse.ArgumentTypeError(f"must be {expected}; got {text}")
        return found

    return parse


POSITIVE = number(lambda x: 0 < x < math.inf, "a positive number")
MOMENTUM = number(lambda x: 0 <= x < 1, "at least 0 and below 1")


def add_command(commands: Any, run: Command, about: str, epilog: str | None = None) -> Any:
    """Add a command, described by the docstring of what runs it; what adds its options."""
    name, text = run.__name__.strip("_").removesuffix("_command"), inspect.getdoc(run)
    return commands.add_parser(name, help=about, description=text, epilog=epilog).add_argument


def add_common(add: Any) -> None:
    """The options of every command."""
    add("--quiet", action="store_true", help="show no progress bar")
    add("--debug", action="store_true", help="show the traceback of an error")
