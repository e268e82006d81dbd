"""Two profiles side by side, as data."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from ..learning_rate.advice import Recommendation
from ..learning_rate.units import OF_LIMITS
from ..moments.layer import Layer
from ..statistics.change import CANNOT_TELL, WITHIN, Change, find_change
from ..statistics.estimate import Estimate
from .alike import (
    QUANTITIES,
    SIGNED,
    Difference,
    assumption,
    comparable,
    differences,
    rounding,
    same_layers,
)
from .results import Results, nothing_follows
from .verdict import limit_at, limits_refused

OF_LAYERS = ("simple_noise_scale", "trace_cov", "grad_sq_norm", "sharpness_share")
MOST = 5  # layers that are named


@dataclass(frozen=True)
class LayerChange:
    """A layer that changed.

    Args:
        name: of the layer.
        changes: those of its quantities that changed beyond their errors, by name.
    """

    name: str
    changes: Mapping[str, Change]

    @property
    def size(self) -> float:
        """That of the largest change."""
        return max(change.size for change in self.changes.values())


@dataclass(frozen=True)
class AtBatch:
    """Both at one batch size.

    Args:
        batch_size: B in samples.
        limits: of the learning rate, by name; empty where one of the two has none.
        regimes: of both.
    """

    batch_size: float
    limits: Mapping[str, Change]
    regimes: tuple[str, str]


@dataclass(frozen=True)
class Compared:
    """Two profiles side by side; see `Comparison`."""

    level: float
    changes: Mapping[str, Change]
    at_batch: tuple[AtBatch, ...]
    layers: tuple[LayerChange, ...]
    differences: tuple[Difference, ...]
    advice: tuple[Recommendation, Recommendation]
    rates: tuple[float | None, float | None]
    refused: tuple[str, str]
    missing: tuple[str, ...]
    assumption: str
    layers_compared: int = 0
    names: tuple[str, str] = field(default=("first", "second"), compare=False)

    @property
    def changed(self) -> tuple[str, ...]:
        """The quantities that rose or fell beyond their errors, the largest change first."""
        found = [name for name, change in self.changes.items() if change.changed]
        return tuple(sorted(found, key=lambda name: -self.changes[name].size))

    @property
    def unchanged(self) -> tuple[str, ...]:
        """The quantities whose change is within its error."""
        return tuple(name for name, one in self.changes.items() if one.verdict == WITHIN)

    @property
    def untold(self) -> tuple[str, ...]:
        """The quantities of which it cannot be told."""
        return tuple(name for name, one in self.changes.items() if one.verdict == CANNOT_TELL)


@dataclass(frozen=True)
class Terms:
    """How errors are treated; what `find_change` is given."""

    level: float
    independent: bool
    rounding: float

    def change(self, name: str, first: Estimate, second: Estimate, share: float = 1.0) -> Change:
        """The change of a quantity, at the level of one of 1/share of them."""
        return find_change(
            first,
            second,
            level=1 - (1 - self.level) * share,
            independent=self.independent,
            signed=name in SIGNED,
            rounding=self.rounding,
        )


def find_compared(first: Results, second: Results, *, level: float, independent: bool) -> Compared:
    """What `Results` say about each other."""
    terms = Terms(level, independent, rounding(first, second))
    judged = [name for name in comparable(first, second) if name in first.estimates]
    shared = [name for name in judged if name in second.estimates]
    alike = same_layers(first, second)
    return Compared(
        level=level,
        changes={n: terms.change(n, first.estimates[n], second.estimates[n]) for n in shared},
        at_batch=_at_batches(first, second, terms),
        layers=_layers(first.layers, second.layers, terms) if alike else (),
        differences=differences(first, second),
        advice=(first.recommend(), second.recommend()),
        rates=(first.setting.lr, second.setting.lr),
        refused=(limits_refused(first), limits_refused(second)),
        missing=tuple(n for n in QUANTITIES if (n in first.estimates) != (n in second.estimates)),
        assumption=assumption(first, second, independent),
        layers_compared=len(first.layers.keys() & second.layers.keys()) if alike else 0,
    )


def _layers(
    first: Mapping[str, Layer], second: Mapping[str, Layer], terms: Terms
) -> tuple[LayerChange, ...]:
    """Layers that changed; each at a level at which all layers together are right."""
    both = [name for name in first if name in second]
    found = []
    for name in both:
        pairs = {n: (getattr(first[name], n), getattr(second[name], n)) for n in OF_LAYERS}
        changes = {
            n: terms.change(n, *pair, share=1 / len(both))
            for n, pair in pairs.items()
            if None not in pair
        }
        changed = {n: change for n, change in changes.items() if change.changed}
        if changed:
            found.append(LayerChange(name, changed))
    return tuple(sorted(found, key=lambda one: -one.size))


def _at_batches(first: Results, second: Results, terms: Terms) -> tuple[AtBatch, ...]:
    """At the batch sizes in use."""
    sizes = {one.setting.batch_size for one in (first, second)} - {None}
    both = (first, second)
    if any("noise_scale" not in one.estimates or nothing_follows(one) for one in both):
        return ()
    if not comparable(first, second):
        return ()
    found = []
    for size in sorted(size for size in sizes if size):
        regimes = (first.regime(size), second.regime(size))
        limits = {}
        if not any(map(limits_refused, both)):
            limits = {
                n: terms.change(n, limit_at(first, n, size), limit_at(second, n, size))
                for n in OF_LIMITS
            }
        found.append(AtBatch(size, limits, regimes))
    return tuple(found)
