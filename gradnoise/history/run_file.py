"""The file of a monitor, read: what a run wrote, step by step, also while it is being written."""

from __future__ import annotations

import json
import math
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import DataError
from ..files.json import SPECIAL

PREFIX, NOISE_SCALE = "gradnoise/", "gradnoise/noise_scale"
Line = dict[str, Any]


@dataclass(frozen=True, eq=False)
class Run:
    """The measured steps of one run, in the order of their steps.

    Where a run went back to an earlier step, as after a resumption, the later lines are kept and
    those that they repeat are dropped.

    Args:
        columns: "step", "time" and the keys of docs/monitor.md without their prefix, such as
            "noise_scale"; shape (lines,), float64, nan where a line has no such number.
        sources: where the numbers of each line come from.
        notes: why steps were not measured, and what is doubtful, as the monitor said it.
        unreadable: how many lines of the file were no line of a monitor.
        restarts: how often the steps went back.
    """

    columns: dict[str, np.ndarray] = field(repr=False)
    sources: tuple[str, ...] = field(repr=False)
    notes: tuple[str, ...] = ()
    unreadable: int = 0
    restarts: int = 0

    @classmethod
    def load(cls, path: str | Path) -> Run:
        """The run of a file, which may still be written; an empty one where nothing is in it yet.

        Raises:
            DataError: there are lines, and none is a monitor's.
            OSError: the file cannot be read.
        """
        return RunFile(path).read()

    def __len__(self) -> int:
        return len(self.sources)

    @property
    def level(self) -> float:
        """Coverage of the intervals, as the monitor had it; 0.95 where the file does not say it."""
        level = self.last("level")
        return level if math.isfinite(level) else 0.95

    @property
    def batch_sizes(self) -> np.ndarray:
        """B of each measured step, or the average where a line has no other."""
        own = self.column("batch_size_now")
        return np.where(np.isfinite(own), own, self.column("batch_size"))

    def moments(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """The lines that have trΣ and |G|² of their step, and these."""
        trace, signal = self.column("trace_cov_now"), self.column("grad_sq_norm_now")
        lines = np.flatnonzero(np.isfinite(trace + signal))
        return lines, trace[lines], signal[lines]

    def column(self, name: str) -> np.ndarray:
        """One column; nan everywhere where no line has it."""
        return self.columns.get(name, np.full(len(self), math.nan))

    def last(self, name: str) -> float:
        """The number of the last line; nan where it has none."""
        return float(self.column(name)[-1]) if len(self) else math.nan

    def last_of(self, *names: str) -> tuple[float, ...]:
        """The numbers of the last line that has all of these; nan where none has."""
        columns = np.stack([self.column(name) for name in names])
        found = np.flatnonzero(np.isfinite(columns).all(0))
        return tuple(columns[:, found[-1]].tolist()) if len(found) else (math.nan,) * len(names)


class RunFile:
    """Reads a file again and again, each time only what was appended.

    Args:
        path: of the file that was the `sink` of a `gn.NoiseMonitor`.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self._forget()

    def _forget(self) -> None:
        self._place, self._rest = 0, b""
        self._lines: list[Line] = []
        self._notes: list[str] = []
        self._unreadable = self._restarts = 0

    def read(self) -> Run:
        """The run as far as it is written.

        Raises:
            DataError: there are lines, and none is a monitor's.
            OSError: the file cannot be read.
        """
        with open(self.path, "rb") as file:
            if os.fstat(file.fileno()).st_size < self._place:  # written anew
                self._forget()
            file.seek(self._place)
            added = file.read()
        self._place += len(added)
        *whole, self._rest = (self._rest + added).split(b"\n")
        for text in whole:
            self._take(text)
        cut = _line(_object(self._rest))  # of a copy without its last line end it is whole
        if not (self._lines or self._notes) and cut is None and self._unreadable:
            raise DataError(
                f"{self.path} is no file of a gn.NoiseMonitor: none of its {self._unreadable} "
                f"lines has a step and {NOISE_SCALE!r}; give the path that was the monitor's `sink`"
            )
        lines = self._lines
        if cut is not None:
            lines = [*(line for line in lines if line["step"] < cut["step"]), cut]
        return _run(lines, tuple(self._notes), self._unreadable, self._restarts)

    def _take(self, text: bytes) -> None:
        found = _object(text)
        note = _note(found)
        if note:
            self._notes += [note] if note not in self._notes else []
            return
        line = _line(found)
        if line is None:
            self._unreadable += bool(text.strip())
            return
        if self._lines and line["step"] < self._lines[-1]["step"]:
            self._restarts += 1
        while self._lines and line["step"] <= self._lines[-1]["step"]:
            self._lines.pop()
        self._lines.append(line)


def _object(text: bytes) -> dict[str, Any]:
    """The JSON object of a line; an empty one where it is none."""
    try:
        found = json.loads(text)
    except ValueError:  # also of bytes that are no text
        return {}
    return found if isinstance(found, dict) else {}


def _note(found: dict[str, Any]) -> str:
    """What a line says in words; empty where it is one of numbers."""
    return str(found.get("note", "")) if "step" in found and NOISE_SCALE not in found else ""


def _line(found: dict[str, Any]) -> Line | None:
    """The numbers of a line by column, and its source; None where it is no line of a monitor."""
    if NOISE_SCALE not in found:
        return None
    line = {name.removeprefix(PREFIX): _number(value) for name, value in found.items()}
    if not math.isfinite(line.get("step", math.nan)):
        return None
    return {**line, "source": str(found.get("source", ""))}


def _number(value: Any) -> float:
    if isinstance(value, str):
        return SPECIAL.get(value, math.nan)
    return float(value) if isinstance(value, (int, float)) else math.nan


def _run(lines: list[Line], notes: tuple[str, ...], unreadable: int, restarts: int) -> Run:
    names = dict.fromkeys(name for line in lines for name in line if name != "source")
    columns = {
        name: np.array([line.get(name, math.nan) for line in lines], np.float64) for name in names
    }
    sources = tuple(line["source"] for line in lines)
    return Run(columns, sources, notes, unreadable, restarts)
