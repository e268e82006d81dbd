"""`gradnoise watch`: a run in the terminal while it trains. No torch is imported here."""

from __future__ import annotations

import argparse
import contextlib
import sys
import time
from pathlib import Path

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.text import Text

from ..errors import ArgumentError
from ..history.picture import draw
from ..history.pool import RunPool
from ..history.run_file import Run, RunFile
from ..history.summary import summary
from ..history.view import WIDTH, nothing_yet, view, whole_run
from .arguments import check_plot, tell_written


def run(options: argparse.Namespace) -> int:
    """Show a run once, or until the user leaves."""
    check_plot(options.plot)
    if options.file.is_dir():
        raise ArgumentError(f"{options.file} is a folder: give the file that the monitor writes")
    console = Console(emoji=False, markup=False, highlight=False)
    terminal = sys.stdout is not None and sys.stdout.isatty()  # rich also believes FORCE_COLOR
    if options.once or options.plot or not terminal:
        return _once(console, options.file, options.plot)
    with contextlib.suppress(KeyboardInterrupt):  # the way to leave
        _follow(console, options.file, options.interval)
    return 0


def _once(console: Console, path: Path, plot: Path | None) -> int:
    if not path.exists():
        raise ArgumentError(f"there is no file {path}: give the path that is the monitor's `sink`")
    console.width = min(console.width, WIDTH)
    found = Run.load(path)
    if not len(found):
        print(nothing_yet(found, path.name))
        return 0
    parts: list[RenderableType] = [view(found, path, console, time.time())]
    whole = summary(found)
    if whole is not None:
        parts += [Text(), whole_run(whole, RunPool(found, found.level))]
    _print(console, Group(*parts))
    if plot:
        draw(found, plot, path.name)
    return tell_written(plot)


def _print(console: Console, shown: RenderableType) -> None:
    """As it is in a terminal, else without the spaces that fill lines."""
    if console.is_terminal:
        console.print(shown)
        return
    with console.capture() as captured:
        console.print(shown)
    print("\n".join(line.rstrip() for line in captured.get().splitlines()))


def _follow(console: Console, path: Path, interval: float) -> None:
    """Show what is written, again and again, until it is interrupted."""
    file = RunFile(path)
    with Live(console=console, auto_refresh=False, vertical_overflow="crop") as live:
        while True:
            live.update(_now(console, file), refresh=True)
            time.sleep(interval)


def _now(console: Console, file: RunFile) -> RenderableType:
    try:
        found = file.read()
    except FileNotFoundError:
        return Text(f"waiting for {file.path}; Ctrl-C leaves")
    if not len(found):
        return Text(f"{nothing_yet(found, file.path.name)}\nCtrl-C leaves")
    return view(found, file.path, console, time.time(), console.height - 1)
