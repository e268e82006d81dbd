"""Which engine measures a model, and why."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from ..errors import CoupledSamplesError, EngineError, GradNoiseError
from ..objective import Objective
from ..trees import Batch, sample_count, select, widen
from .contract import Engine
from .functional import Functional
from .loop import Loop

ENGINES: dict[str, type[Engine]] = {engine.name: engine for engine in (Functional, Loop)}
TRIAL_SAMPLES = 4


@dataclass(frozen=True)
class Choice:
    """An engine and the reason for it; `fell_back` when a faster one could not be used."""

    engine: Engine
    reason: str
    fell_back: bool = False


def choose(objective: Objective, batch: Batch, engine: str = "auto") -> Choice:
    """The engine by name, tried on a few samples; "auto" takes the fastest that is right.

    Every engine but the loop must reproduce the plain gradient of the trial samples.

    Raises:
        EngineError: an unknown name, or the named engine cannot handle the model.
    """
    if engine not in (*ENGINES, "auto"):
        raise EngineError(
            f"`engine` must be one of {', '.join(sorted([*ENGINES, 'auto']))}; got {engine!r}"
        )
    if engine == "loop":
        return Choice(Loop(objective), "one backward pass per sample, as asked for")
    candidate = Functional(objective)
    few = select(batch, slice(0, min(TRIAL_SAMPLES, sample_count(batch))))
    failure = _trial(candidate, few)
    if failure is None:
        asked = "as asked for" if engine == "functional" else "fastest engine that is right here"
        return Choice(candidate, f"torch.func traces the model; {asked}")
    if engine == "functional":
        raise EngineError(
            f"engine='functional' cannot measure this model: {failure}. "
            f"Use engine='auto' or engine='loop'."
        )
    wrong = _trial(Loop(objective), few)
    if wrong is not None:
        raise CoupledSamplesError(
            f"the gradients of single samples do not add up to the gradient of their batch: {wrong}"
            f". One sample changes the loss of another; per-sample gradients do not exist."
        )
    reason = f"one backward pass per sample, because torch.func cannot: {failure}"
    return Choice(Loop(objective), reason, fell_back=True)


def _trial(engine: Engine, batch: Batch) -> str | None:
    """Why the engine is wrong for this model, or None."""
    try:
        chunks = list(engine.chunks(batch))
    except GradNoiseError:
        raise
    except Exception as error:  # tracing runs the user's code: anything can come out
        return f"{type(error).__name__}: {_first_line(error)}"
    plain = engine.objective.gradient(batch)
    for (name, parameter), expected in zip(engine.objective.parameters.items(), plain, strict=True):
        summed = sum(widen(chunk.gradients[name]).sum(0) for chunk in chunks)
        spread = sum(widen(chunk.gradients[name]).abs().sum(0) for chunk in chunks)
        tolerance = torch.finfo(parameter.dtype).eps ** 0.5
        if bool(((summed - widen(expected)).abs() > tolerance * _scale(spread)).any()):
            return f"its gradient of parameter {name!r} differs from the plain one"
    return None


def _scale(spread: torch.Tensor | int) -> torch.Tensor:
    magnitudes = torch.as_tensor(spread)
    return magnitudes + magnitudes.mean() + torch.finfo(torch.float32).tiny


def _first_line(error: Exception) -> str:
    text = str(error).strip().split("\n")[0]
    return text if len(text) <= 160 else text[:157] + "..."
