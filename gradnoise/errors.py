"""Every error the library raises on purpose: what was got, what was expected, what to do."""

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from numbers import Integral
from typing import Any


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


class BatchLossError(LossError):
    """`loss_fn` returns one number for a batch, where one loss per sample is needed."""


class RandomLossError(LossError):
    """Two evaluations at the same parameters, samples and random states differ."""


class CoupledSamplesError(LossError):
    """One sample changes the loss of another, so per-sample gradients do not exist."""


class CurvatureError(GradNoiseError):
    """A second derivative of the model does not exist or is not implemented."""


class EngineError(GradNoiseError):
    """A per-sample gradient engine is unknown or cannot handle the model."""


class OperatorError(GradNoiseError):
    """A linear operator is empty, not square, not finite, or of another size than the vector."""


class NotMeasuredError(GradNoiseError, AttributeError):
    """The profile does not contain the number that was asked for."""


class ProfileFileError(GradNoiseError):
    """A file is not a profile saved by this library, or is damaged."""


class RanksError(GradNoiseError):
    """Another rank has failed, does not answer, or measures something else."""


class ShardedError(ModelError):
    """A sharded model cannot be measured with one layer gathered at a time."""


class SweepFileError(GradNoiseError):
    """A file belongs to another sweep, or to no sweep."""


def check_whole(name: str, value: Any, least: int) -> None:
    """Raise ArgumentError unless an argument is a whole number that is at least `least`."""
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
    result = number(name, value)
    if not math.isfinite(result):
        raise ArgumentError(f"`{name}` must be a finite number; got {value!r}")
    return result


def positive(name: str, value: Any, finite: bool = True) -> float:
    """The value as a float; raise ArgumentError unless it is positive, and finite if `finite`."""
    result = number(name, value)
    if not result > 0 or (finite and math.isinf(result)):
        raise ArgumentError(f"`{name}` must be a positive number; got {value!r}")
    return result


def not_negative(name: str, value: Any) -> float:
    """The value as a float; raise ArgumentError unless it is zero or positive."""
    result = number(name, value)
    if not result >= 0:
        raise ArgumentError(f"`{name}` must be a number that is not negative; got {value!r}")
    return result


@contextmanager
def explained(
    kind: type[Exception], text: str, explanation: Callable[[], GradNoiseError]
) -> Iterator[None]:
    """Raise the explanation in place of an error of this kind whose message contains the text."""
    try:
        yield
    except kind as error:
        if text not in str(error):
            raise
        raise explanation() from error


def is_out_of_memory(error: BaseException) -> bool:
    """Whether memory ran out, on any device; only some of them raise torch.OutOfMemoryError."""
    text = str(error)
    named = "out of memory" in text or "DefaultCPUAllocator" in text
    # by its name: this file is read by `gradnoise --help`, which does not import torch
    return named or any(kind.__name__ == "OutOfMemoryError" for kind in type(error).__mro__)


def said(error: BaseException) -> str:
    """An error in a sentence: our own as it is, one of another library by its first line."""
    return str(error) if isinstance(error, GradNoiseError) else first_line(error)


def first_line(error: BaseException) -> str:
    """Type and first line of an error from another library, cut to 160 characters."""
    text = str(error).strip().split("\n")[0]
    return f"{type(error).__name__}: {text if len(text) <= 160 else text[:157] + '...'}"
