"""The context of one optimizer step: nothing of the monitor's is raised into the training."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

from ..errors import said
from .parts import PartNorms, Size
from .reading import Reading
from .samples import SampleNorms

Listener = PartNorms | SampleNorms


class Measures(Protocol):
    """A monitor, as its steps see it."""

    def listener(self) -> Listener:
        """What listens to one step."""

    def record(self, reading: Reading, loss_scale: float, loss: Any) -> None:
        """Average one reading."""

    def skip(self, reason: str) -> None:
        """Count a step that gave nothing."""


class MeasuredStep:
    """The context of a step that is measured.

    Attributes:
        loss: of the step, for the sink, where the loop sets it: a number, or a tensor.
        batch_size, shares, loss_scale: as of `NoiseMonitor.step`, where the loop knows them later.
    """

    def __init__(
        self, monitor: Measures, batch_size: Size, loss_scale: Any, shares: Sequence[float] | None
    ) -> None:
        self.batch_size, self.shares, self.loss = batch_size, shares, None
        self.loss_scale, self._monitor = loss_scale, monitor
        self._listener: Listener | None = None

    def __enter__(self) -> MeasuredStep:
        try:
            self._listener = self._monitor.listener()
        except Exception as error:
            self._monitor.skip(said(error))
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        listener, self._listener = self._listener, None
        if listener is None:
            return
        try:
            reading = None if kind else listener.reading(self.batch_size, self.shares)
        except Exception as error:
            reading, listener.reason = None, said(error)
        finally:
            listener.remove()  # before anything of the user's runs, such as a sink
        if reading is None:
            if not kind:  # an error in the user's passes has a voice of its own
                self._monitor.skip(listener.reason)
            return
        try:
            scale = getattr(self.loss_scale, "get_scale", lambda: self.loss_scale)()
            self._monitor.record(reading, float(scale), self.loss)
        except Exception as error:
            self._monitor.skip(said(error))


class _Idle:
    """The context of a step that is not measured; what is set on it is forgotten."""

    def __enter__(self) -> _Idle:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def __setattr__(self, name: str, value: Any) -> None:
        pass


IDLE = _Idle()
