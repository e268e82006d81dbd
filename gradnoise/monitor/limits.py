"""A line in the log where a limit has been crossed for long."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable

from ..statistics.estimate import Estimate, short

LONG = 10  # measurements in a row
PAUSE = 30 * 60  # seconds between two lines

logger = logging.getLogger("gradnoise")


class Limits:
    """Counts how long limits have been crossed, and logs a line, seldom.

    Args:
        clock: seconds.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock, self._last = clock, -math.inf
        self._counts = {"batch": 0, "rate": 0}

    def turn(
        self,
        scale: Estimate,
        batch_size: float,
        lr: float | None,
        sharpness: float,
        momentum: float,
    ) -> None:
        """After a measurement.

        Args:
            scale: B_simple.
            batch_size: B.
            lr: ε; None where it is not known.
            sharpness: λ, or nan.
            momentum: m of SGD.
        """
        crossed = {
            "batch": batch_size > scale.high,
            "rate": lr is not None and lr * sharpness / 2 > 1 + momentum,
        }
        lines = {
            "batch": lambda: _of_batch(scale, batch_size),
            "rate": lambda: _of_rate(lr or 0.0, sharpness, momentum),
        }
        for name, is_crossed in crossed.items():
            self._counts[name] = self._counts[name] + 1 if is_crossed else 0
        longest = max(self._counts, key=self._counts.__getitem__)
        if self._counts[longest] >= LONG and self._clock() - self._last >= PAUSE:
            logger.warning(lines[longest]())
            self._counts[longest], self._last = 0, self._clock()


def _of_batch(scale: Estimate, batch_size: float) -> str:
    noise = scale.high if math.isnan(scale.value) else scale.value
    gain = 1 / (1 + noise / batch_size)
    return (
        f"gradnoise: B = {short(batch_size)} has been above B_simple = {scale} for {LONG} "
        f"measurements: the noise of a step is shorter than its gradient. In a quadratic model a "
        f"step gains 1/(1 + B_simple/B) = {gain:.0%} of what a step without noise would"
    )


def _of_rate(lr: float, sharpness: float, momentum: float) -> str:
    limit = 2 * (1 + momentum) / sharpness
    formula = "2(1 + m)/λ" if momentum else "2/λ"
    return (
        f"gradnoise: the learning rate {short(lr)} has been above {formula} = {short(limit)} for "
        f"{LONG} measurements: on a quadratic, gradient descent would leave the minimum along the "
        f"sharpest direction. λ = {short(sharpness)}"
    )
