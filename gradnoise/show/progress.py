"""A progress bar on stderr, or no output."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn

StartTask = Callable[[str, "int | None"], Callable[[int], None]]


@contextmanager
def progress_bar(show: bool) -> Iterator[StartTask]:
    """Yields `start(name, total)`, which begins a task and returns its progress callback.

    The callback is called with the number of steps done since the last call. A task whose `total`
    is None has an unknown length and is complete when the next one begins.

    Args:
        show: whether to show a bar; otherwise the callbacks do nothing.
    """
    if not show:
        yield lambda _name, _total: lambda _steps: None
        return
    columns = (TextColumn("{task.description}"), BarColumn(), TaskProgressColumn())
    with Progress(
        *columns, TimeElapsedColumn(), console=Console(stderr=True), transient=True
    ) as bar:

        def start(name: str, total: int | None) -> Callable[[int], None]:
            for task in bar.tasks:
                bar.update(task.id, total=task.completed or 1, completed=task.completed or 1)
            task_id = bar.add_task(name, total=total)
            return lambda steps: bar.advance(task_id, steps)

        yield start
