"""`Profile.compare`: whether anything changed from one profile to another."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any

from ..errors import ArgumentError
from ..files.json import encode
from ..statistics.estimate import check_level
from .compared import Compared, find_compared
from .compared_text import verdict, write
from .results import Results


@dataclass(frozen=True)
class Comparison(Compared):
    """Two profiles side by side: two checkpoints, optimizers or batch sizes; `print` it.

    Quantities are compared by the ratio second/first, those that may be negative by their
    difference. A change is one where the interval of the ratio excludes 1, that of the difference
    0. Errors of profiles of the same samples are correlated to a degree that is not known: the
    margins of both intervals are then added, which is right for any correlation. Those of
    independent samples are added in squares, each on its side (MOVER, Zou and Donner 2008). An
    estimate without a value gives a bound, or nothing can be told. Exact numbers have no sampling
    error: two checkpoints that were measured on all of their data differ where the numbers do.

    Args:
        level: coverage of the intervals, of each by itself; for layers, of all together.
        changes: by name of the quantity, each with `.first`, `.second`, `.change` (an Estimate of
            the ratio or difference), `.is_ratio`, `.verdict` ("rose", "fell", "within error",
            "cannot tell") and `.changed` (None where it cannot be told).
        at_batch: at the batch sizes in use: `.batch_size`, `.limits` of the learning rate as
            changes, in parameter²/loss, and `.regimes` of both.
        layers: those that changed, the most first: `.name` and `.changes`.
        differences: what differs in how they were measured, each with `.sentence`.
        advice: what to do by the first and by the second.
        rates: learning rates in use, where limits are about them.
        refused: why no limit can be given, for each; empty where there is one.
        missing: quantities that only one of them has.
        assumption: what was assumed about the errors.
        layers_compared: how many layers; 0 where layers do not correspond.
        names: what the two are called.

    Example:
        >>> import torch, gradnoise as gn
        >>> def measured(*curvatures):
        ...     toy = gn.toy.NoisyQuadratic(torch.diag(torch.tensor(curvatures)), torch.ones(2))
        ...     return gn.profile(toy.model(), toy.loss_fn, toy.sample(256, seed=0))
        >>> found = measured(4.0, 1.0).compare(measured(2.0, 1.0))
        >>> print(found.changes["sharpness"].verdict)
        fell
    """

    @property
    def verdict(self) -> tuple[str, ...]:
        """What changed and what follows, in sentences."""
        return tuple(verdict(self))

    def to_dict(self) -> dict[str, Any]:
        """Built-in values; infinities and nan as strings."""
        at_batch = [
            {
                "batch_size": at.batch_size,
                "limits": {name: change.to_dict() for name, change in at.limits.items()},
                "regimes": at.regimes,
            }
            for at in self.at_batch
        ]
        layers = {
            layer.name: {name: change.to_dict() for name, change in layer.changes.items()}
            for layer in self.layers
        }
        found: dict[str, Any] = encode(
            {
                "first": self.names[0],
                "second": self.names[1],
                "verdict": self.verdict,
                "changed": self.changed,
                "unchanged": self.unchanged,
                "untold": self.untold,
                "level": self.level,
                "changes": {name: change.to_dict() for name, change in self.changes.items()},
                "at_batch": at_batch,
                "layers": layers,
                "differences": [vars(one) for one in self.differences],
                "missing": self.missing,
                "assumption": self.assumption,
            }
        )
        return found

    def __str__(self) -> str:
        return write(self)


def compare(
    first: Results,
    second: Results,
    *,
    level: float | None = None,
    independent: bool = False,
    names: tuple[str, str] = ("first", "second"),
) -> Comparison:
    """Whether anything changed from the first to the second; see `Comparison`."""
    if not isinstance(second, Results):
        raise ArgumentError(f"`other` must be a Profile; got {type(second).__name__}")
    if level is None:
        level = max(first.level, second.level)
    check_level(level)
    found = find_compared(first, second, level=level, independent=independent)
    own = {f.name: getattr(found, f.name) for f in fields(found)}
    return Comparison(**{**own, "names": names})
