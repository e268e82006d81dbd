"""Finished runs in a file, a line of JSON each: nothing is lost when a sweep is stopped."""

from __future__ import annotations

import glob
import json
import math
import os
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from ..errors import SweepFileError
from ..files.atomic import clear_unfinished, regular
from ..files.json import encode
from .record import Record

FORMAT, SCHEMA = "gradnoise-sweep", 1
CLOSE = 1e-5  # relative, of values at the start: another machine adds in another order
DAMAGED = (TypeError, KeyError, ValueError, AttributeError, OverflowError)


class Ledger:
    """The file of one sweep; without a path it keeps nothing.

    Args:
        path: of the file; it is made, or continued when it is of the same sweep.
        header: what has to be the same; of the values under "start", up to rounding.

    Raises:
        SweepFileError: a file of another sweep, no file of a sweep, or one that cannot be written.
    """

    def __init__(self, path: str | Path | None, header: dict[str, Any]) -> None:
        self.path = None if path is None else Path(path)
        self.records: list[Record] = []
        self.how = 0, ""  # how many runs are one program, and why not
        self.mark = str(header.get("fingerprint"))
        if self.path is None:
            return
        try:
            regular(self.path)
        except OSError as error:
            raise SweepFileError(f"cannot write {path}: {error.strerror}") from error
        if self.path.exists() and self.path.stat().st_size:
            found, self.how, self.records = read(self.path)
            other = _differences(found, header)
            if other:
                raise SweepFileError(
                    f"{path} is of other runs: {', '.join(other)} differ. Continue with the "
                    f"same model, loss, data and settings, or give another `path`"
                )
            self._end_line()
        else:
            for left in self.path.parent.glob(f"{glob.escape(self.path.name)}.{'?' * 12}.part"):
                left.unlink()  # of programs of a file that is gone
                clear_unfinished(left)
            self._write([{"format": FORMAT, "schema": SCHEMA, **encode(header)}])

    def add(self, records: Iterable[Record]) -> None:
        """Write finished runs; they are on the disk when this returns."""
        new = list(records)
        self.records += new
        if self.path is not None:
            self._write([encode(asdict(record)) for record in new])

    def trained(self, at_once: int, reason: str) -> None:
        """Note how many runs are one program, 0 for none, and why not."""
        if self.path is not None and self.how != (at_once, reason):
            self._write([{"vectorised": at_once, "reason": reason}])
        self.how = at_once, reason

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


def read(path: str | Path) -> tuple[dict[str, Any], tuple[int, str], list[Record]]:
    """The header, how runs were trained last, and the finished runs of a file.

    A line that was cut off is left out.

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
    how, records = (0, ""), []
    try:
        header["start"] = {name: float(value) for name, value in header.get("start", {}).items()}
        for fields in parsed[1:]:
            if "vectorised" in fields:
                how = int(fields["vectorised"]), str(fields["reason"])
            else:
                records.append(Record.from_dict(fields))
    except DAMAGED as error:
        raise SweepFileError(f"{path} is damaged ({error!r}); sweep again") from error
    return header, how, list({record.run.key: record for record in records}.values())


def _differences(found: dict[str, Any], header: dict[str, Any]) -> list[str]:
    """What differs between the file and this sweep."""
    other = [name for name in header if name != "start" and found.get(name) != header[name]]
    then = found["start"]
    if not then:
        return [*other, "values at the start (an older file has none: it can be loaded alone)"]
    return other + [
        f"{name} at the start ({then.get(name, math.nan):.7g} in the file, {value:.7g} here)"
        for name, value in header["start"].items()
        if not math.isclose(then.get(name, math.nan), value, rel_tol=CLOSE)
    ]


def _parsed(line: str) -> dict[str, Any] | None:
    try:
        found = json.loads(line)
    except ValueError:
        return None
    return found if isinstance(found, dict) else None
