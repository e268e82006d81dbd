"""A progress bar on stderr, or silence."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn

Stage = Callable[[str, "int | None"], Callable[[int], None]]


@contextmanager
def progress_bar(show: bool) -> Iterator[Stage]:
    """Gives `stage(name, total)`, which starts a stage and returns what to call with steps done."""
    if not show:
        yield lambda _name, _total: lambda _steps: None
        return
    columns = (TextColumn("{task.description}"), BarColumn(), TaskProgressColumn())
    with Progress(
        *columns, TimeElapsedColumn(), console=Console(stderr=True), transient=True
    ) as bar:

        def stage(name: str, total: int | None) -> Callable[[int], None]:
            for task in bar.tasks:  # an open-ended stage ends when the next begins
                bar.update(task.id, total=task.completed or 1, completed=task.completed or 1)
            task_id = bar.add_task(name, total=total)
            return lambda steps: bar.advance(task_id, steps)

        yield stage
