"""JSON that a command writes: to a file, or to stdout for another program."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any, TextIO

from ..profiles.file import json_text, save
from .arguments import STDOUT


def write_json(contents: dict[str, Any], path: Path | None) -> None:
    """To a file, to stdout where it is "-", or not at all."""
    if path == STDOUT:
        sys.stdout.write(json_text(contents))
    elif path is not None:
        save(contents, path)


def beside(path: Path | None) -> TextIO:
    """Where the report goes: to stderr where stdout takes the JSON, else to stdout."""
    return sys.stderr if path == STDOUT else sys.stdout
