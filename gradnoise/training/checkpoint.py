"""The state of a program of runs, saved beside the ledger while it trains."""

from __future__ import annotations

import contextlib
import hashlib
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from ..errors import SweepFileError
from ..files.atomic import clear_unfinished, replace_file

EVERY = 30.0  # seconds between two of them


@dataclass
class Checkpoint:
    """The state of one program in a separate file, which is deleted when the program has ended.

    Args:
        ledger: the file of the sweep; None keeps nothing.
        mark: the fingerprint of the sweep.
        keys: the keys of the program's runs.
    """

    ledger: Path | None
    mark: str
    keys: tuple[str, ...]
    last: float = 0.0

    def __post_init__(self) -> None:
        self.last = time.monotonic()

    @property
    def path(self) -> Path | None:
        """The path of the file; None where nothing is kept."""
        if self.ledger is None:
            return None
        name = hashlib.sha256(repr((self.mark, self.keys)).encode()).hexdigest()[:12]
        return self.ledger.with_name(f"{self.ledger.name}.{name}.part")

    @property
    def is_due(self) -> bool:
        """Whether it is time to save."""
        return self.ledger is not None and time.monotonic() - self.last >= EVERY

    def save(self, state: dict[str, Any]) -> None:
        """Write it, whole or not at all.

        Raises:
            SweepFileError: the file cannot be written.
        """
        path = self.path
        assert path is not None
        try:
            replace_file(path, lambda file: torch.save(state, file))
        except OSError as error:
            raise SweepFileError(f"cannot write {path}: {error.strerror}") from error
        self.last = time.monotonic()

    def load(self) -> dict[str, Any] | None:
        """The state that was saved for these runs; None where there is none that can be read."""
        if self.path is None or not self.path.exists():
            return None
        try:
            found: dict[str, Any] = torch.load(self.path, weights_only=True)
        except Exception:  # a damaged file raises whatever its bytes happen to say
            return None
        return found

    def clear(self) -> None:
        """Delete the file: the program has ended, and its runs are written to the ledger."""
        if self.path is not None:
            with contextlib.suppress(FileNotFoundError):
                self.path.unlink()
            clear_unfinished(self.path)
