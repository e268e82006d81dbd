"""The interface of all per-sample gradient engines."""

from __future__ import annotations

import abc
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from ...problem.objective import Objective
from ...tensors.trees import Batch, split
from .summary import Chunk, Summary, Wanted

MEMORY_BUDGET = 256 * 2**20  # bytes for the per-sample gradients of one chunk
COPIES = 4  # per-sample gradients, their activations, and one float64 copy while summing


@dataclass(frozen=True)
class Explained:
    """How the norms of one parameter are computed.

    Args:
        parameter: its name.
        operations: the torch functions that use it.
        rule, reason: the method, and why it was chosen.
        extra: operations per sample beyond those of the batch gradient; an estimate.
        plain: operations per sample of the batch gradient with respect to the parameter.
    """

    parameter: str
    operations: str
    rule: str
    reason: str
    extra: float
    plain: float


class Engine(abc.ABC):
    """Per-sample gradients g_i = ∇ℓ_i of one objective.

    Use inside `objective.guard()`.

    Args:
        objective: what to differentiate.
        eps: relative rounding error of the coarsest dtype that the model computes in (autocast).
    """

    name: str
    proves: bool = False  # whether `prepare` holds it to single samples
    failures: Sequence[str] = ()  # of cheaper engines

    def __init__(self, objective: Objective, eps: float = 0.0) -> None:
        self.objective, self.eps = objective, eps

    @property
    def reason(self) -> str:
        """Why this engine was chosen, and why cheaper ones were not."""
        return "as asked for"

    @abc.abstractmethod
    def chunks(self, batch: Batch) -> Iterator[Chunk]:
        """The samples of a batch in order, as many at a time as memory allows."""

    def summaries(self, batch: Batch, wanted: Wanted) -> Iterator[Summary]:
        """Sums over the same samples; engines that need no n×P numbers for them override this."""
        return self.centred_summaries(batch, wanted)

    def centred_summaries(self, batch: Batch, wanted: Wanted) -> Iterator[Summary]:
        """The same sums from materialised gradients, for signals far above the noise."""
        for chunk in self.chunks(batch):
            yield Summary.of(chunk, wanted)

    def parts(self, batch: Batch, size: int) -> Iterator[Batch]:
        """The batch in parts of at most `size` samples; whole where its losses are random."""
        yield from [batch] if self.objective.unit.is_replayed else split(batch, size)

    def prepare(self, _batch: Batch) -> None:  # noqa: B027
        """Look at a few samples before the first pass.

        Raises:
            EngineError: the engine cannot handle the model.
        """

    def explain(self, _batch: Batch) -> list[Explained]:
        """Parameter by parameter; empty where the engine treats the model as a whole."""
        return []
