"""Which engine measures a model, and why."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch

from ..errors import CoupledSamplesError, EngineError, GradNoiseError
from ..objective import Objective
from ..problem import TRIAL_SAMPLES
from ..trees import Batch, sample_count, select, widen
from .backpack import BackPACK
from .contract import Engine
from .functional import Functional
from .hooks import Hooks
from .loop import Loop

ENGINES: dict[str, type[Engine]] = {
    engine.name: engine for engine in (Hooks, Functional, BackPACK, Loop)
}
PREFERRED = (Hooks, Functional)  # by "auto", the cheaper first; then the loop


@dataclass(frozen=True)
class Choice:
    """An engine and the reason for it; `fell_back` when a faster one could not be used."""

    engine: Engine
    reason: str
    fell_back: bool = False


def choose(objective: Objective, batch: Batch, engine: str = "auto") -> Choice:
    """The engine by name, tried on a few samples; "auto" takes the cheapest that is right.

    Every engine but the loop must reproduce the plain gradient of the trial samples; the hooks
    engine each sample's norm as well.

    Raises:
        EngineError: an unknown name, or the named engine cannot handle the model.
    """
    if engine not in (*ENGINES, "auto"):
        raise EngineError(
            f"`engine` must be one of {', '.join(sorted([*ENGINES, 'auto']))}; got {engine!r}"
        )
    few = select(batch, slice(0, min(TRIAL_SAMPLES, sample_count(batch))))
    if engine == Loop.name:
        return Choice(_checked_loop(objective, few), "one backward pass per sample, as asked for")
    if engine != "auto":
        candidate = ENGINES[engine](objective)
        failure = _trial(candidate, few)
        if failure is None:
            return Choice(candidate, "as asked for")
        way_out = "" if "engine='auto'" in failure else ". Use engine='auto' or engine='loop'."
        raise EngineError(f"engine={engine!r} cannot measure this model: {failure}{way_out}")
    failures: list[str] = []
    for kind in PREFERRED:
        candidate = kind(objective)
        failure = _trial(candidate, few)
        if failure is None:
            reason = "; ".join(["the cheapest that is right here", *failures])
            return Choice(candidate, reason, fell_back=bool(failures))
        failures.append(f"{kind.name} cannot: {failure}")
    reason = "; ".join(["one backward pass per sample", *failures])
    return Choice(_checked_loop(objective, few), reason, fell_back=True)


def _checked_loop(objective: Objective, few: Batch) -> Loop:
    """The loop cannot be wrong, unless there is nothing to be right about."""
    loop = Loop(objective)
    wrong = _trial(loop, few)
    if wrong is not None:
        raise CoupledSamplesError(
            f"the gradients of single samples do not add up to the gradient of their batch: "
            f"{wrong}. Either one sample changes the loss of another, or the gradients are hardly "
            f"more than rounding: measure a float64 copy of the model to tell."
        )
    return loop


def _trial(engine: Engine, few: Batch) -> str | None:
    """Why the engine is wrong for this model, or None."""
    try:
        engine.prepare(few)
        if engine.proves:
            return None
        chunks = list(engine.chunks(few))
    except EngineError as error:
        return str(error)
    except GradNoiseError:
        raise
    except Exception as error:  # tracing runs the user's code: anything can come out
        return f"{type(error).__name__}: {_first_line(error)}"
    names = engine.objective.parameters
    found = {name: widen(torch.cat([c.gradients[name] for c in chunks])) for name in names}
    # a gradient that cancels to zero (the bias of attention keys) is rounding of the largest
    largest = max(float(g.abs().max()) for g in found.values() if g.numel())
    for (name, g), plain in zip(found.items(), engine.objective.gradient(few), strict=True):
        eps, spread = max(torch.finfo(plain.dtype).eps, engine.eps), g.abs().sum(0)
        allowed = math.sqrt(eps) * (spread + spread.mean()) + 64 * eps * largest
        if bool(((g.sum(0) - widen(plain)).abs() > allowed).any()):
            return f"its gradient of parameter {name!r} differs from the plain one"
    return None


def _first_line(error: Exception) -> str:
    text = str(error).strip().split("\n")[0]
    return text if len(text) <= 160 else text[:157] + "..."
