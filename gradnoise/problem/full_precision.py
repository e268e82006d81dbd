"""Autocast switched off, also where a model or a loss switches it on."""

from __future__ import annotations

import threading
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
    own, thread = torch.autocast.__enter__, threading.get_ident()

    def enter(self: Any) -> Any:
        if threading.get_ident() != thread:
            return own(self)  # type: ignore[no-untyped-call]
        enabled, self._enabled = self._enabled, False
        try:
            return own(self)  # type: ignore[no-untyped-call]
        finally:
            self._enabled = enabled

    torch.autocast.__enter__ = enter  # type: ignore[method-assign]
    try:
        with torch.autocast(device.type, enabled=False):
            yield
    finally:
        torch.autocast.__enter__ = own  # type: ignore[method-assign]
