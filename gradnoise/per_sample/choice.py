"""Which engine measures a model, and the reason."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TypeVar

import torch

from ..errors import (
    CoupledSamplesError,
    EngineError,
    GradNoiseError,
    first_line,
    is_out_of_memory,
)
from ..problem.known import known
from ..problem.objective import Objective
from ..problem.problem import TRIAL_SAMPLES
from ..problem.shards import needs_whole
from ..tensors.trees import Batch, sample_count, select, widen
from .backpack import BackPACK
from .contract.engine import Engine, Explained
from .contract.summary import Chunk, Summary, Wanted
from .functional import Functional
from .hooks.engine import Hooks
from .hooks.precision import allowed, largest_of, resolution
from .loop import Loop

EPS = "eps"  # of the coarsest dtype at work
ENGINES: dict[str, type[Engine]] = {
    engine.name: engine for engine in (Hooks, Functional, BackPACK, Loop)
}


Part = TypeVar("Part", Chunk, Summary)


class Auto(Engine):
    """The cheapest engine that is right: hooks, `torch.func`, the loop.

    Where the hooks engine cannot follow a batch, the next engine goes on from there.
    """

    def __init__(self, objective: Objective, batch: Batch, eps: float) -> None:
        super().__init__(objective, eps)
        self.failures: list[str] = []
        whole = objective.unit.is_group  # a backward pass is the gradient of a group
        self._engine = self._cheapest(batch, () if whole else (Hooks, Functional))

    @property
    def reason(self) -> str:
        slow = self.name == Loop.name
        if self.objective.unit.is_group:
            return "one backward pass per group"
        own = "one backward pass per sample" if slow else "the cheapest that is right here"
        return "; ".join([own, *self.failures])

    def _cheapest(self, batch: Batch, kinds: tuple[type[Engine], ...]) -> Engine:
        for kind in kinds:
            candidate = kind(self.objective, self.eps)
            failure = _trial(candidate, batch)
            if failure is None:
                break
            self.failures.append(f"{kind.name} cannot: {failure}")
        else:
            candidate = _checked_loop(self.objective, batch, self.eps)
        self.name = candidate.name
        return candidate

    def chunks(self, batch: Batch) -> Iterator[Chunk]:
        return self._going_on(batch, lambda engine, part: engine.chunks(part))

    def summaries(self, batch: Batch, wanted: Wanted) -> Iterator[Summary]:
        return self._going_on(batch, lambda engine, part: engine.summaries(part, wanted))

    def _going_on(
        self, batch: Batch, parts: Callable[[Engine, Batch], Iterator[Part]]
    ) -> Iterator[Part]:
        done = 0
        try:
            for part in parts(self._engine, batch):
                done += len(part.losses)
                yield part
        except (EngineError, RuntimeError) as error:
            if self._engine.name != Hooks.name or is_out_of_memory(error):
                raise
            self.failures.append(f"hooks cannot: {error}")
            rest = select(batch, slice(done, None))
            self._engine = self._cheapest(rest, (Functional,))
            yield from parts(self._engine, rest)

    def explain(self, batch: Batch) -> list[Explained]:
        return self._engine.explain(batch)


def choose(objective: Objective, batch: Batch, engine: str = "auto") -> Engine:
    """The engine by name, tried on a few samples; "auto" takes the cheapest that is right.

    Every engine must reproduce the batch gradient of the trial samples; the hooks engine each
    sample's norm as well.

    Raises:
        EngineError: an unknown name, or the named engine cannot handle the model.
    """
    if engine not in (*ENGINES, "auto"):
        raise EngineError(
            f"`engine` must be one of {', '.join(sorted([*ENGINES, 'auto']))}; got {engine!r}"
        )
    objective = objective.plain  # coordinates are the pass's: see `Wanted.scale`
    if objective.shards is not None:
        if engine not in ("auto", Hooks.name):
            raise needs_whole(f"engine={engine!r}")
        engine = Hooks.name
    if objective.findings is None:
        objective.findings = known(objective, batch)
    eps = objective.findings.get(EPS) or resolution(objective, _few(batch))
    objective.findings[EPS] = eps
    if engine == "auto":
        return Auto(objective, batch, eps)
    if engine == Loop.name:
        return _checked_loop(objective, batch, eps)
    if objective.unit.is_group:
        raise EngineError(
            f"engine={engine!r} takes samples apart, and units are groups of {objective.unit.size} "
            f"samples here ({objective.unit.reason}): use engine='auto'"
        )
    candidate = ENGINES[engine](objective, eps)
    failure = _trial(candidate, batch)
    if failure is None:
        return candidate
    if objective.shards is not None:
        raise needs_whole(f"{failure.rstrip('.')}. This")
    way_out = "" if "engine='auto'" in failure else ". Use engine='auto' or engine='loop'."
    raise EngineError(f"engine={engine!r} cannot measure this model: {failure}{way_out}")


def _few(batch: Batch) -> Batch:
    return select(batch, slice(0, min(TRIAL_SAMPLES, sample_count(batch))))


def _checked_loop(objective: Objective, batch: Batch, eps: float) -> Loop:
    """The loop is wrong only where the loss of one sample depends on the others."""
    loop = Loop(objective, eps)
    wrong = _trial(loop, batch)
    if wrong is not None:
        if objective.unit.is_group:
            raise CoupledSamplesError(f"with one backward pass per group, {wrong}")
        raise CoupledSamplesError(
            f"with one backward pass per sample, {wrong}. Either one sample changes the loss of "
            f"another, or the gradients are no larger than rounding errors: measure a float64 copy "
            f"of the model to find out which."
        )
    return loop


def _trial(engine: Engine, batch: Batch) -> str | None:
    """The reason why the engine cannot measure this model, or None."""
    try:
        engine.prepare(batch)
        if engine.proves:
            return None
        few = _few(batch)
        chunks = list(engine.chunks(few))
    except EngineError as error:
        return str(error)
    except GradNoiseError:
        raise
    except Exception as error:  # tracing runs the user's code: anything can come out
        if engine.objective.shards is not None:  # and on one rank alone
            raise
        if engine.name == Loop.name or is_out_of_memory(error):  # not for want of another engine
            raise
        return first_line(error)
    names = engine.objective.parameters
    found = {name: widen(torch.cat([c.gradients[name] for c in chunks])) for name in names}
    largest = largest_of(g.abs() for g in found.values())
    for (name, g), plain in zip(found.items(), engine.objective.gradient(few), strict=True):
        eps = max(torch.finfo(plain.dtype).eps, engine.eps)
        gap = (g.sum(0) - widen(plain)).abs()
        if bool((gap > allowed(g.abs().sum(0), largest, eps)).any()):
            return f"the gradients of parameter {name!r} do not add up to the gradient of the batch"
    return None
