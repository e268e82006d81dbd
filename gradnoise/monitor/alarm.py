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


class Alarm:
    """Counts how long limits have been crossed, and logs a line, seldom.

    Args:
        clock: seconds.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock, self._last = clock, -math.inf
        self._counts = {"batch": 0, "rate": 0}

    def turn(
        self,
        is_above: bool,
        lr: float | None,
        limit: float,
        describe: Callable[[], tuple[Estimate, float]],
    ) -> None:
        """After a measurement.

        Args:
            is_above: whether B is above B_simple, surely.
            lr: ε; None where it is not known.
            limit: largest stable ε on a quadratic with this λ; nan where λ was not measured.
            describe: B_simple and B, for the line.
        """
        crossed = {"batch": is_above}
        if lr is not None and not math.isnan(limit):
            crossed["rate"] = lr > limit
        lines = {
            "batch": lambda: _of_batch(*describe()),
            "rate": lambda: _of_rate(lr or 0.0, limit),
        }
        for name, is_crossed in crossed.items():
            self._counts[name] = self._counts[name] + 1 if is_crossed else 0
        longest = max(crossed, key=self._counts.__getitem__)
        if self._counts[longest] >= LONG and self._clock() - self._last >= PAUSE:
            logger.warning(lines[longest]())
            self._counts[longest], self._last = 0, self._clock()


def _of_batch(scale: Estimate, batch_size: float) -> str:
    noise = scale.high if math.isnan(scale.value) else scale.value
    gain = 1 / (1 + noise / batch_size)
    return (
        f"gradnoise: B = {short(batch_size)} has been above B_simple = {scale} for {LONG} "
        f"measurements: on a quadratic a step gains 1/(1 + B_simple/B) = {gain:.0%} of what a "
        f"step without noise would, so that more samples hardly help, and fewer would do"
    )


def _of_rate(lr: float, limit: float) -> str:
    return (
        f"gradnoise: the learning rate {short(lr)} has been above {short(limit)} for {LONG} "
        f"measurements of λ, the limit of gn.stable_lr: on a quadratic, steps of the whole data "
        f"would leave the minimum along the sharpest direction. A smaller rate is steadier"
    )
