"""The operations that are given parameters, step by step through the forward pass."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from torch import Tensor

from ...errors import EngineError
from .layout import Found, Layout


@dataclass(eq=False)
class Source:
    """A parameter, or a tensor computed from parameters alone.

    Args:
        tensor: itself, with its graph.
        parameters: names of those it comes from.
        derived: whether it was computed.
    """

    tensor: Tensor
    parameters: frozenset[str]
    derived: bool = False


@dataclass(frozen=True)
class Step:
    """One operation that is given parameters, in the order of the forward pass.

    Args:
        func: the operation.
        kind: DERIVE from parameters alone, OPEN because it has no rule as a whole, or USE with
            samples; the fields below are those of USE.
        dependent: which of its tensors depend on the samples.
        layout: where the samples are in its output; None where it has no gradient.
        arguments: names of the sources among its arguments; None without a rule.
        each: entries per sample along the layout's axis, on the samples of the plan.
        ndim: dimensions of its output.
        proven: whether its layout is the only one that the gradients allow.
        places: where tensors are among its arguments, and sources among its tensors.
    """

    func: Any
    kind: str
    dependent: tuple[int, ...] = ()
    layout: Layout | None = None
    arguments: tuple[str, ...] | None = None
    each: int = 1
    ndim: int = 0
    proven: bool = False
    places: tuple[Any, ...] = ()

    def at(self, found: Found, output: Tensor, count: int) -> Step:
        """The step with the layout of its output."""
        each = output.shape[found.layout.axis] // count
        return replace(self, layout=found.layout, each=each, ndim=output.ndim, proven=found.proven)


DERIVE, OPEN, USE = "derive", "open", "use"
Sources = dict[int, Source]


class UnplannedError(EngineError):
    """The operations are not those of the plan."""

    def __init__(self) -> None:
        super().__init__("the operations of the model change from one batch to the next")
