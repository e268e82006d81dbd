"""Autocast switched off, also where a model or a loss switches it on."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

from ..errors import CurvatureError


class FullPrecisionError(CurvatureError):
    """The model computes in half precision alone, where no derivative of a derivative is right."""


@contextmanager
def full_precision(device: torch.device) -> Iterator[None]:
    """No autocast in this thread: around the call, in the model, or in the loss.

    In half precision no digit of second derivatives is right. accelerate and Fabric put an autocast
    around the forward pass of the model itself.
    """
    with _SWITCH.off(), torch.autocast(device.type, enabled=False):
        yield


class _Switch:
    """Replaces what switches an autocast on, while any thread measures in full precision.

    Threads come and go in any order, so that the one that is last puts it back.
    """

    def __init__(self) -> None:
        self._lock, self._threads = threading.Lock(), Counter[int]()
        self._own: Any = None

    @contextmanager
    def off(self) -> Iterator[None]:
        """An autocast that is entered in this thread has no effect."""
        thread = threading.get_ident()
        with self._lock:
            if not self._threads:
                self._own, torch.autocast.__enter__ = torch.autocast.__enter__, _enter  # type: ignore[method-assign]
            self._threads[thread] += 1
        try:
            yield
        finally:
            with self._lock:
                self._threads[thread] -= 1
                self._threads += Counter()  # without those at zero
                if not self._threads:
                    torch.autocast.__enter__ = self._own  # type: ignore[method-assign]

    def enter(self, autocast: Any) -> Any:
        """Enter an autocast: as it is, or switched off."""
        if threading.get_ident() not in self._threads:
            return self._own(autocast)
        enabled, autocast._enabled = autocast._enabled, False
        try:
            return self._own(autocast)
        finally:
            autocast._enabled = enabled


_SWITCH = _Switch()


def _enter(self: Any) -> Any:
    return _SWITCH.enter(self)
