"""Where the noise of the steps keeps the loss, and the learning rate at which this doubles it."""

from __future__ import annotations

import math

from ..statistics.estimate import short

# the largest rate at which trained runs kept their loss, over `doubling_lr` where they began:
# in 206 of 218 cases of SGD, and in all 16 of Adam and AdamW (docs/advice.md)
SGD, ADAPTIVE = (0.4, 5.0), (0.1, 2.5)
ADAMS = "Adam", "AdamW"  # of which runs were tried


def doubling_lr(limit: float, loss: float, trace_cov: float, share: float, drift: float) -> float:
    """1/(1/ε* + p·trΣ/(4L(1 - m))): the noise of the steps holds the loss at twice its value.

    On a quadratic with the limit ε* steps of size ε keep the loss ε·p·trΣ/(4(1 - m)) / (1 - ε/ε*)
    above its minimum, exactly so where all directions are equally sharp. Here this is L, the
    present loss (docs/theory/stability.md). For losses that are zero at best.

    Args:
        limit: ε*, the mean-square limit in parameter²/loss.
        loss: L, positive.
        trace_cov: trΣ of single samples in loss²/parameter².
        share: p = 1/B - 1/N in 1/samples.
        drift: total step for one gradient in units of ε, 1/(1 - m) for heavy ball.

    Returns:
        The learning rate in parameter²/loss.

    Example:
        >>> doubling_lr(0.5, loss=1.0, trace_cov=8.0, share=0.25, drift=1.0)
        0.4
    """
    if limit == 0:
        return 0.0
    inverse = 1 / limit + share * drift * max(trace_cov, 0.0) / (4 * loss)
    return 1 / inverse if inverse else math.inf


def in_training(rate: float, batch_size: float, rescales: str | None) -> tuple[str, ...]:
    """The largest stable rate of trained runs, in units of `doubling_lr`; empty if it is not known.

    Args:
        rate: `doubling_lr` at the batch size; nan where it is not known.
        batch_size: B.
        rescales: the optimizer in whose metric the rate is, if its metric changes; else None.
    """
    if math.isnan(rate) or rescales not in (None, *ADAMS):
        return ()
    least, most = ADAPTIVE if rescales else SGD
    whose = " and ".join(ADAMS) if rescales else "SGD"
    return (
        f"Most trained runs of {whose} kept their loss up to {least:g} to {most:g} times "
        f"the rate at which noise doubles it: at B = {batch_size:g}, {short(least * rate)} to "
        f"{short(most * rate)}. In the first steps of a run not even this is known.",
    )
