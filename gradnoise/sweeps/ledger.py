"""Finished runs in a file, a line of JSON each: nothing is lost when a sweep is stopped."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from ..errors import SweepFileError
from .settings import Record

FORMAT, SCHEMA = "gradnoise-sweep", 1


class Ledger:
    """The file of one sweep; without a path it keeps nothing.

    Args:
        path: of the file; it is made, or continued when it is of the same sweep.
        header: what has to be the same.

    Raises:
        SweepFileError: a file of another sweep, no file of a sweep, or one that cannot be written.
    """

    def __init__(self, path: str | Path | None, header: dict[str, Any]) -> None:
        self.path = None if path is None else Path(path)
        self.records: list[Record] = []
        self.mark = str(header.get("fingerprint"))
        if self.path is None:
            return
        if self.path.exists() and self.path.stat().st_size:
            found, self.records = read(self.path)
            if found != header:
                other = [name for name in header if found.get(name) != header[name]]
                raise SweepFileError(
                    f"{path} is of another sweep: {', '.join(other) or 'its header'} differ. "
                    f"Continue with the same model, data and settings, or give another `path`"
                )
            self._end_line()
        else:
            self._write([{"format": FORMAT, "schema": SCHEMA, **header}])

    def add(self, records: Iterable[Record]) -> None:
        """Write finished runs; they are on the disk when this returns."""
        new = list(records)
        self.records += new
        if self.path is not None:
            self._write([plain(asdict(record)) for record in new])

    def _end_line(self) -> None:
        """A line that a kill cut off would spoil the next one."""
        assert self.path is not None
        with open(self.path, "rb+") as file:
            file.seek(-1, os.SEEK_END)
            if file.read(1) != b"\n":
                file.write(b"\n")

    def _write(self, lines: list[dict[str, Any]]) -> None:
        assert self.path is not None
        try:
            with open(self.path, "a", encoding="utf-8") as file:
                file.writelines(json.dumps(line) + "\n" for line in lines)
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            raise SweepFileError(f"cannot write {self.path}: {error.strerror}") from error


def read(path: str | Path) -> tuple[dict[str, Any], list[Record]]:
    """The header and the finished runs of a file; a line that was cut off is left out.

    Raises:
        SweepFileError: the file cannot be read, or is not of a sweep.
    """
    try:
        lines = Path(path).read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise SweepFileError(f"cannot read {path}: {error}") from error
    parsed = [found for found in map(_parsed, lines) if found is not None]
    header = parsed[0] if parsed else {}
    if header.pop("format", None) != FORMAT or header.pop("schema", None) != SCHEMA:
        raise SweepFileError(
            f"{path} is not a sweep of this version: its first line does not say "
            f"format={FORMAT!r}, schema={SCHEMA}"
        )
    try:
        records = [Record.from_dict(fields) for fields in parsed[1:]]
    except (TypeError, KeyError) as error:
        raise SweepFileError(f"{path} is damaged ({error}); sweep again") from error
    return header, list({record.run.key: record for record in records}.values())


def plain(value: Any) -> Any:
    """With infinities and nan as strings, for which JSON has no numbers."""
    if isinstance(value, dict):
        return {name: plain(item) for name, item in value.items()}
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value


def _parsed(line: str) -> dict[str, Any] | None:
    try:
        found = json.loads(line)
    except ValueError:
        return None
    return found if isinstance(found, dict) else None
