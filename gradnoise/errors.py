"""Every error the library raises on purpose: what was got, what was expected, what to do."""

import math
from numbers import Integral
from typing import Any

import torch

__all__ = [
    "ArgumentError",
    "CoupledSamplesError",
    "CurvatureError",
    "DataError",
    "EngineError",
    "GradNoiseError",
    "LossError",
    "ModelError",
    "NotMeasuredError",
    "OperatorError",
    "ProfileFileError",
    "RandomLossError",
    "SweepFileError",
    "check_whole",
    "first_line",
    "is_out_of_memory",
]


class GradNoiseError(Exception):
    """Base of all errors raised by gradnoise."""


class ArgumentError(GradNoiseError, ValueError):
    """An argument is outside the range in which the formula means anything."""


class ModelError(GradNoiseError):
    """The model has nothing to differentiate, or parameters that cannot be handled."""


class DataError(GradNoiseError):
    """The data cannot be read as batches of samples."""


class LossError(GradNoiseError):
    """`loss_fn` does not return one finite loss per sample."""


class RandomLossError(LossError):
    """Two evaluations at the same parameters and samples differ."""


class CoupledSamplesError(LossError):
    """One sample changes the loss of another, so per-sample gradients do not exist."""


class CurvatureError(GradNoiseError):
    """Second derivatives of the model are cut off somewhere."""


class EngineError(GradNoiseError):
    """A per-sample gradient engine is unknown or cannot handle the model."""


class OperatorError(GradNoiseError):
    """A linear map is empty, not square, not finite, or does not fit the vector."""


class NotMeasuredError(GradNoiseError, AttributeError):
    """The profile does not hold the number that was asked for."""


class ProfileFileError(GradNoiseError):
    """A file is not a profile saved by this library, or it is damaged."""


class SweepFileError(GradNoiseError):
    """A file is not of this sweep, or not of a sweep at all."""


def check_whole(name: str, value: Any, least: int) -> None:
    """Raise ArgumentError unless an argument is a whole number from `least` on."""
    if isinstance(value, bool) or not isinstance(value, Integral) or value < least:
        raise ArgumentError(f"`{name}` must be a whole number from {least} on; got {value!r}")


def number(name: str, value: Any) -> float:
    """The value as a float; raise ArgumentError unless it is a number."""
    try:
        if not isinstance(value, str):
            return float(value)
    except (TypeError, ValueError):
        pass
    raise ArgumentError(f"`{name}` must be a number; got {value!r}")


def finite(name: str, value: Any) -> float:
    """The value as a float; raise ArgumentError unless it is finite."""
    found = number(name, value)
    if not math.isfinite(found):
        raise ArgumentError(f"`{name}` must be a finite number; got {value!r}")
    return found


def positive(name: str, value: Any, finite: bool = True) -> float:
    """The value as a float; raise ArgumentError unless it is positive."""
    found = number(name, value)
    if not found > 0 or (finite and math.isinf(found)):
        raise ArgumentError(f"`{name}` must be a positive number; got {value!r}")
    return found


def not_negative(name: str, value: Any) -> float:
    """The value as a float; raise ArgumentError unless it is zero or positive."""
    found = number(name, value)
    if not found >= 0:
        raise ArgumentError(f"`{name}` must be a number that is not negative; got {value!r}")
    return found


def is_out_of_memory(error: BaseException) -> bool:
    """Whether memory was short, on any device: only some of them raise torch's own type."""
    text = str(error)
    known = "out of memory" in text or "DefaultCPUAllocator" in text
    return known or isinstance(error, torch.OutOfMemoryError)


def first_line(error: Exception) -> str:
    """Kind and first line of an error of others, short enough to be quoted."""
    text = str(error).strip().split("\n")[0]
    return f"{type(error).__name__}: {text if len(text) <= 160 else text[:157] + '...'}"
