"""One forward and one backward pass: the mean gradient and every sample's norm with it.

Operations that use a parameter are run on it detached and followed by a *tap*, an identity whose
backward is handed the gradient of the operation's output. There a rule makes the per-sample
gradients in factors, takes their norms, and returns their sum as the parameter's gradient: what
autograd adds up over all taps must be what the taps recorded, or the parameter was used unseen.

Where the samples are in each operation's output is found once, on a few samples, by differentiating
their losses one by one; the same losses are the oracle that the first pass is held to.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar

from ..errors import EngineError
from ..objective import Objective
from ..trees import Batch, sample_count, select
from .contract import Chunk, Engine, Explained, Summary, Wanted
from .functional import MEMORY_BUDGET
from .plan import Planner
from .tapped import Pass
from .trace import Step

PLAN_SAMPLES = 5  # a number that few dimensions of a model have


class Hooks(Engine):
    """Per-sample norms, sums and products from the factors of each operation."""

    name: ClassVar[str] = "hooks"
    centres: ClassVar[bool] = False
    proves: ClassVar[bool] = True

    def __init__(self, objective: Objective, memory_budget: int = MEMORY_BUDGET) -> None:
        super().__init__(objective)
        self._plan: list[Step] = []
        sample_bytes = sum(p.numel() * p.element_size() for p in objective.parameters.values())
        self.chunk_size = max(1, memory_budget // (2 * sample_bytes))

    def chunks(self, batch: Batch) -> Iterator[Chunk]:
        for start in range(0, sample_count(batch), self.chunk_size):
            part = select(batch, slice(start, start + self.chunk_size))
            run = self._run(part, keep=True)
            parameters = self.objective.parameters
            yield Chunk(
                run.losses,
                {name: run.written_out(name).to(p.dtype) for name, p in parameters.items()},
            )

    def summaries(self, batch: Batch, wanted: Wanted) -> Iterator[Summary]:
        yield self._run(batch, wanted).summary()

    def prepare(self, batch: Batch) -> None:
        """Find the plan, and hold it to single samples."""
        self._make_plan(batch)

    def explain(self, batch: Batch) -> list[Explained]:
        few = select(batch, slice(0, min(PLAN_SAMPLES, sample_count(batch))))
        run = self._run(few, keep=True)
        return [run.explained(name) for name in self.objective.parameters]

    def _run(self, batch: Batch, wanted: Wanted | None = None, keep: bool = False) -> Pass:
        """A pass by the plan at hand; by a new one where the operations are others."""
        for attempt in (0, 1):
            if attempt or not self._plan:
                self._make_plan(batch)
            run = Pass(self.objective, batch, self._plan, wanted or Wanted(), keep)
            if run.forward():
                run.backward()
                return run
        raise EngineError("the operations of the model change from one evaluation to the next")

    def _make_plan(self, batch: Batch) -> None:
        few = select(batch, slice(0, min(PLAN_SAMPLES, sample_count(batch))))
        planner = Planner(self.objective, few)
        self._plan = planner.plan()
        trial = Pass(self.objective, few, self._plan, Wanted(), keep=False)
        if not trial.forward():
            raise EngineError("the operations of the model change from one evaluation to the next")
        trial.backward()
        self.eps = trial.eps
        planner.compare(trial.measured, trial.eps)
