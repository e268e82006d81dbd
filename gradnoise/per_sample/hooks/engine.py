"""One forward and one backward pass: the mean gradient and every sample's norm with it.

Operations that use a parameter are run on it detached, with a backward hook on their output, which
receives the gradient of the output. There a rule makes the per-sample gradients in factors and
takes their sums and norms. A gradient that reaches a parameter by autograd comes from an operation
that was not seen.

Where the samples are in each operation's output is found once, on a few samples, by differentiating
their losses one by one; the same losses are the oracle that the first pass is held to, in sums,
norms and products with a random direction.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field, replace

import torch

from ...errors import EngineError, LossError
from ...problem.confirmation import confirm
from ...problem.known import PLAN
from ...problem.objective import Objective
from ...tensors.ragged import is_ragged
from ...tensors.trees import Batch, sample_count, select
from ..contract.engine import MEMORY_BUDGET, Engine, Explained
from ..contract.summary import Chunk, Summary, Wanted
from .backward import BackwardPass
from .plan import Planner, prove
from .steps import Step, UnplannedError
from .transforms import transforms_of

PLAN_SAMPLES = 5  # a number that few dimensions of a model have
PROOF_SAMPLES = 7  # another number than the plan's, few enough to hold their gradients at once


@dataclass
class Plan:
    """How the passes over a model are made; it holds no tensors.

    Args:
        steps: the operations that are given parameters.
        count: samples that it was made on.
        doubtful: whether the layouts of one batch say nothing about another.
        connect_all: as for `BackwardPass`.
        operations: a hash of all operations of the forward pass, in their order.
        mend: whether norms in which parts cancel have been met, and are looked for.
    """

    steps: list[Step] = field(default_factory=list)
    count: int = 0
    doubtful: bool = False
    connect_all: bool = False
    operations: int = 0
    mend: bool = False


class Hooks(Engine):
    """Per-sample norms, sums and products from the factors of each operation."""

    name = "hooks"
    proves = True

    def __init__(
        self, objective: Objective, eps: float = 0.0, *, memory_budget: int = MEMORY_BUDGET
    ) -> None:
        super().__init__(objective, eps)
        # ranks that make every pass together do not repeat one alone
        self._plan = Plan(mend=objective.shards is not None)
        self._is_inherited = False  # from an earlier call
        self._findings = {} if objective.findings is None else objective.findings
        self.chunk_size = max(1, memory_budget // (2 * objective.sample_bytes))

    def chunks(self, batch: Batch) -> Iterator[Chunk]:
        for part in self.parts(batch, self.chunk_size):
            run = self._run(part, keep=True)
            parameters = self.objective.parameters
            yield Chunk(
                run.losses,
                {name: run.written_out(name).to(p.dtype) for name, p in parameters.items()},
            )

    def summaries(self, batch: Batch, wanted: Wanted) -> Iterator[Summary]:
        run = self._run(batch, wanted)
        confirm(self.objective, batch, run.losses)
        try:
            summary = run.summary()
        except LossError:  # of norms that lost their digits, which are nan without `mend`
            if self._plan.mend:
                raise
            self._plan.mend = True
            summary = self._run(batch, wanted).summary()
        yield summary

    def prepare(self, batch: Batch) -> None:
        """Make the plan, and check it against single samples; or take that of an earlier call."""
        before: Plan | None = self._findings.get(PLAN)
        if before is not None:
            self._plan, self._is_inherited = before, True
            return
        try:
            self._make_plan(batch)
        except (EngineError, RuntimeError) as error:
            transforms = transforms_of(self.objective, _spread(batch, PLAN_SAMPLES))
            if transforms:
                raise EngineError(
                    f"loss_fn calls {transforms} through the model, which the hooks do not support"
                ) from error
            raise

    def explain(self, batch: Batch) -> list[Explained]:
        run = self._run(_spread(batch, PLAN_SAMPLES), keep=True)
        return [run.explained(name) for name in self.objective.parameters]

    def _run(self, batch: Batch, wanted: Wanted | None = None, keep: bool = False) -> BackwardPass:
        """A pass by the current plan; by a new one where the operations have changed."""
        wanted = wanted or Wanted()
        if self.objective.shards is not None:  # no rank makes another plan alone
            return self._by_plan(batch, wanted, keep)
        if self._plan.count < PLAN_SAMPLES and self._plan.count < sample_count(batch):
            self._make_plan(batch)
        with suppress(UnplannedError):
            run = self._by_plan(batch, wanted, keep)
            if run.operations == self._plan.operations:
                self._findings[PLAN] = self._plan
                return run
            if not self._is_inherited:  # nor is it for the next call: operations depend on data
                self._findings.pop(PLAN, None)
                return run
        self._findings.pop(PLAN, None)
        self._make_plan(batch)
        with suppress(UnplannedError):
            return self._by_plan(batch, wanted, keep)
        raise EngineError(_CHANGING)

    def _by_plan(self, batch: Batch, wanted: Wanted, keep: bool) -> BackwardPass:
        steps = self._plan.steps
        if self._plan.doubtful:
            steps = prove(self.objective, batch, steps)
        return self._passed(batch, steps, wanted, keep, self._plan.mend)

    def _passed(
        self, batch: Batch, plan: list[Step], wanted: Wanted, keep: bool, mend: bool
    ) -> BackwardPass:
        run = BackwardPass(
            self.objective,
            batch,
            plan,
            wanted,
            keep=keep,
            connect_all=self._plan.connect_all,
            mend=mend,
        )
        if not run.lost:
            run.backward()
        # a graph of the model's own (inputs or a frozen layer's output that require gradients), or
        # an output that is a view and is changed in place
        if self._is_incomplete(run) and not self._plan.connect_all:
            self._plan.connect_all = True
            return self._passed(batch, plan, wanted, keep, mend)
        return run

    def _is_incomplete(self, run: BackwardPass) -> bool:
        """Whether gradients have not come; of ranks that make every pass together, on any."""
        own = bool(run.lost or run.waiting)
        if self.objective.shards is None:
            return own
        return any(self.objective.ranks.gathered(own, "whether gradients have come"))

    def _make_plan(self, batch: Batch) -> None:
        few = _spread(batch, PLAN_SAMPLES)
        planner = Planner(self.objective, few)
        plan = planner.steps
        try:
            if sample_count(batch) > PLAN_SAMPLES:
                plan = prove(self.objective, _spread(batch, PROOF_SAMPLES), plan)
            trial = self._passed(few, plan, Wanted(planner.direction), False, True)
        except UnplannedError:
            raise EngineError(_CHANGING) from None
        planner.compare(trial.measured, self.eps)
        # without a gradient to tell by, or with samples picked by what they hold, the layouts of
        # one batch say nothing about another: each is looked at
        operations = [step for step in plan if step.layout is not None]
        changing = planner.reorders or is_ragged(batch)  # samples of other lengths in the next one
        doubtful = changing or not all(step.proven for step in operations)
        self._plan = replace(
            self._plan,
            steps=plan,
            count=sample_count(few),
            doubtful=doubtful,
            operations=trial.operations,
        )
        self._is_inherited = False
        if doubtful and self.objective.shards is not None:
            raise EngineError("each batch has to be looked at by itself")


_CHANGING = "the operations of the model change from one evaluation to the next"


def _spread(batch: Batch, count: int) -> Batch:
    """Samples from all over the batch, in order."""
    size = sample_count(batch)
    return select(batch, torch.linspace(0, size - 1, min(count, size)).long())
