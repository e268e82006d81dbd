"""Where the values of measured steps go: a file of JSON lines, TensorBoard, a function."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ..errors import ArgumentError
from ..files.atomic import regular
from ..files.json import encode
from ..history.run_file import PREFIX

Values = dict[str, Any]
Sink = Callable[[Values], object]


def as_sink(sink: Any) -> Sink:
    """A function of a dict of values.

    Args:
        sink: the path of a JSON-lines file; an object with `add_scalar(key, value, step)`, as
            TensorBoard's SummaryWriter; or a function of a dict.

    Raises:
        ArgumentError: none of these.
        OSError: the file cannot be written.
    """
    if isinstance(sink, (str, Path)):
        return JsonLines(sink)
    if hasattr(sink, "add_scalar"):
        return _scalars(sink)
    if callable(sink):
        return sink  # type: ignore[no-any-return]
    raise ArgumentError(
        f"`sink` must be a path, a SummaryWriter, or a function of a dict; got "
        f"{type(sink).__name__}"
    )


class JsonLines:
    """Appends one line per dict, whole: a reader or a kill never sees a part of one.

    Args:
        path: of the file; lines that are in it stay.

    Raises:
        OSError: it cannot be written.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = regular(path)
        with open(self.path, "ab") as file:
            self._mend(file.tell())

    def _mend(self, size: int) -> None:
        """End a line that a crash of the machine has cut: the next one must not continue it."""
        with open(self.path, "rb") as file:
            file.seek(max(size - 1, 0))
            whole = file.read(1) in (b"", b"\n")
        if not whole:
            self._append(b"\n")

    def __call__(self, values: Values) -> None:
        self._append((json.dumps(encode(values), ensure_ascii=False) + "\n").encode())

    def _append(self, line: bytes) -> None:
        place = os.open(self.path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o666)
        try:
            os.write(place, line)  # at once, at the end: what appends elsewhere is not overwritten
        finally:
            os.close(place)


def _scalars(writer: Any) -> Sink:
    def write(values: Values) -> None:
        for key, value in values.items():
            if key.startswith(PREFIX):
                writer.add_scalar(key, value, values["step"])

    return write
