"""Per-sample gradient norms in the user's own forward and backward passes.

Nothing of these passes changes: the operations are the user's, on the parameters themselves, and a
hook on each output takes the squared norms as the gradient comes by. Where the samples are in every
output is found beforehand, on a few samples of the model's inputs: with a random linear function of
the model's outputs in place of the loss.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from contextlib import AbstractContextManager, ExitStack, nullcontext
from contextvars import ContextVar
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_flatten, tree_unflatten

from ...errors import EngineError, said
from ...problem.options import Options
from ...problem.problem import Problem
from ...problem.state.wrappers import eager
from ...tensors.trees import TensorDict, sample_leaves, select
from ..contract.summary import Wanted
from .arrivals import Arrivals, OperationHook
from .call import Call, carry_out, is_in_place, results_of
from .composite import UNFUSED
from .plan import Planner, prove
from .steps import OPEN, Sources, Step, UnplannedError
from .tracing import Replay

_PLANNING: ContextVar[bool] = ContextVar("_PLANNING", default=False)
PLAN, PROOF = 5, 7  # samples that the plan is made on, and proven on


def is_planning() -> bool:
    """Whether models are called to make a plan: what listens to their passes is not meant."""
    return _PLANNING.get()


def live_plan(model: nn.Module, args: Any, kwargs: Any, count: int) -> list[Step]:
    """The steps of a forward pass of a model, with the samples' place in the output of each.

    Args:
        model: the object that is called.
        args, kwargs: what it is called with; tensors with `count` entries hold samples.
        count: n.

    Raises:
        GradNoiseError: no output has an entry for each sample, the samples depend on each other, or
            see `Planner`.
    """
    leaves, form = tree_flatten((args, kwargs))
    holds = [isinstance(x, Tensor) and x.ndim > 0 and len(x) == count for x in leaves]

    def losses(bare: nn.Module, batch: tuple[Tensor, ...]) -> Tensor:
        own = iter(batch)
        filled = [next(own) if held else leaf for held, leaf in zip(holds, leaves, strict=True)]
        args, kwargs = tree_unflatten(filled, form)
        return _outputs_weighed(bare(*args, **kwargs), len(batch[0]))

    few = tuple(leaf.detach()[:PROOF] for held, leaf in zip(holds, leaves, strict=True) if held)
    outside = _PLANNING.set(True)
    try:
        with packed_by_nobody(), Problem.guarded(model, losses, few, Options(unit="sample")) as own:
            batch = own.largest_batch()
            planner = Planner(own.objective, select(batch, slice(0, PLAN)), compares=False)
            steps = prove(own.objective, batch, planner.steps)
    finally:
        _PLANNING.reset(outside)
    if planner.reorders:
        raise EngineError(
            "data choose which samples an operation is given, others in every batch, as experts do"
        )
    if not all(step.proven for step in steps if step.layout is not None):
        raise EngineError("some gradients are zero, so that the samples' place cannot be told")
    for step in steps:
        if step.kind == OPEN and step.func in UNFUSED:
            raise EngineError(
                f"{step.func.__name__} is one fused operation: following what is inside of it "
                f"would change the rounding of the training"
            )
    return steps


def _outputs_weighed(output: Any, count: int) -> Tensor:
    """One number per sample: all outputs with an entry for each, times fixed random weights."""
    found = [
        leaf
        for leaf in sample_leaves(output)
        if len(leaf) == count and leaf.is_floating_point() and leaf.requires_grad
    ]
    if not found:
        raise EngineError(
            "the model gives no tensor with one entry per sample in its first dimension (alone, or "
            "in a tuple, list, dict or output object)"
        )
    source = torch.Generator().manual_seed(0)
    total = torch.zeros(count, dtype=torch.float64, device=found[0].device)
    for leaf in found:
        weights = torch.randn(leaf[0].shape, generator=source, device="cpu").to(leaf)
        own = (leaf * weights).reshape(count, -1)
        total = total.to(own.dtype) + own.sum(1) / own.shape[1] ** 0.5
    return total


def packed_by_nobody() -> AbstractContextManager[Any]:
    """What is saved for our own graphs is not the user's: checkpoints count what they are given.

    Detached: an operation that saves its own output would hold itself for ever.
    """
    return torch.autograd.graph.saved_tensors_hooks(Tensor.detach, lambda t: t)


class LivePass(Arrivals):
    """One forward pass of the user's with its backward pass: squared norms by parameter.

    The operations between `begin` and `forward_done` are followed. Whatever goes wrong becomes a
    `reason`; nothing is raised into the user's passes.

    Args:
        parameters: trainable ones by name.
        count: samples n.
        plan: steps of the forward pass.
        only: names of the parameters whose norms are wanted; None for all.
        rows: samples whose norms are wanted; None for all.
        directions: by name k directions u, shape (k, *shape), for Σ_i g_iᵀu; None for none.
    """

    def __init__(
        self,
        parameters: TensorDict,
        count: int,
        plan: list[Step],
        *,
        only: Collection[str] | None = None,
        rows: slice | None = None,
        directions: Mapping[str, Tensor] | None = None,
    ) -> None:
        super().__init__(parameters, count, Wanted(directions), total=False)
        self.reason, self.arrived, self.rows = "", 0, rows
        self.differentiates = True  # whenever the user does
        self.is_open = False  # whether the forward pass is under way
        self._context = ExitStack()
        self._only = frozenset(parameters if only is None else only)
        self._trace = _LiveReplay(parameters, self._run, plan, self.fail)

    @property
    def is_untouched(self) -> bool:
        """Whether there are hooks, and no gradient has come to any."""
        return self.waiting > 0 and not self.arrived

    def fail(self, reason: str) -> None:
        """Keep the first reason why there is no result, and let go of what was collected."""
        self.reason = self.reason or reason
        self.let_go()

    def let_go(self) -> None:
        """Of tensors: objects that refer to each other keep theirs until Python looks for such."""
        self._pending.clear()
        self._measured.clear()
        if not self.is_open:
            self._functions.clear()
            self._trace.let_go()

    def _run(self, call: Call, sources: Sources, step: Step) -> Any:
        wanted = any(source.parameters & self._only for source in sources.values())
        if step.layout is None or not wanted or self.reason:
            return call.run(call.tensors)
        return carry_out(call, lambda output: self._hooked(call, sources, step, output))

    def _hooked(self, call: Call, sources: Sources, step: Step, output: Tensor) -> Tensor:
        try:
            self.check_layout(step, output)
        except UnplannedError:
            self.fail(_CHANGING)
            return output
        if output.grad_fn is None:
            return output
        self.watch(output)
        return self.hook(call, sources, step, output)

    def origin(self, name: str) -> Tensor:
        return self._trace.twin(self.parameters[name])

    def hook_of(self, call: Call, sources: Sources, step: Step, output: Tensor) -> OperationHook:
        return LiveHook(self, call, step, sources, output.output_nr)

    def begin(self) -> None:
        """Before the forward pass."""
        self.is_open = True
        # compiled functions inside run their original code: tracing them would trace the hooks
        self._context.enter_context(eager())
        self._context.enter_context(self._trace)

    def forward_done(self) -> None:
        """After the forward pass, also where it has failed."""
        self.close()
        if self.has_lost_views():
            self.fail("an operation's output is a view, and is changed in place")
        elif not self._trace.is_complete:
            self.fail(_CHANGING)
        self._single = self.used_once()

    def close(self) -> None:
        """Follow operations no longer; once is enough."""
        self.is_open = False
        self._context.close()

    def sums(self) -> tuple[dict[str, Tensor], dict[str, Tensor]] | None:
        """Σ_i ‖g_i‖² and Σ_i g_iᵀu by parameter, after the backward pass; None with a reason.

        Of some rows the sum of squares is scaled to all samples.
        """
        if not self.reason and self.waiting:
            self.fail("a part of the forward pass was not differentiated")
        if self.reason:
            self.let_go()
            return None
        with self._own_draws():
            found = self._guarded(lambda: {n: self.measured(n) for n in sorted(self._only)})
        self.let_go()
        if found is None:
            return None
        along = {name: own.dots.sum(0) for name, own in found.items() if own.dots is not None}
        return {n: own.sq_norms.mean() * self.count for n, own in found.items()}, along

    def _own_draws(self) -> AbstractContextManager[Any]:
        """Random numbers that are drawn inside leave those of the training as they are."""
        own = self.device  # not those of other ranks: torch would warn of them
        return torch.random.fork_rng([own] if own.type == "cuda" else [])

    def _guarded(self, compute: Callable[[], Any]) -> Any:
        """What is computed; None, and a reason, where it cannot be."""
        try:
            return compute()
        except Exception as error:  # in the user's backward pass: nothing may be raised there
            self.fail(said(error))
            return None

    def take(self, act: Callable[[], None], step: Step) -> None:
        """Let a hook act."""
        self.arrived += 1
        if self.reason:
            return
        # without a rule the operation is run again, and may draw random numbers
        with self._own_draws() if step.arguments is None else nullcontext():
            self._guarded(act)


class LiveHook(OperationHook):
    """A hook in the user's backward pass: it raises nothing."""

    run: LivePass

    def __call__(self, deltas: tuple[Tensor | None, ...]) -> None:
        if not self.call.tensors:
            self.run.fail("the model's output is differentiated twice")
        with torch.no_grad():
            self.run.take(lambda: super(LiveHook, self).__call__(deltas), self.step)
        self.call.tensors = []


class _LiveReplay(Replay):
    """Takes the steps of a plan; operations that are not planned run as they are."""

    def __init__(
        self,
        parameters: TensorDict,
        on_operation: Callable[[Call, Sources, Step], Any],
        plan: list[Step],
        fail: Callable[[str], None],
    ) -> None:
        super().__init__(parameters, on_operation, plan)
        self._fail, self._lost = fail, False
        self._twins: dict[int, Tensor] = {}  # by the id of the tensor, which is kept
        self._kept: list[Tensor] = []

    def let_go(self) -> None:
        """Of all tensors."""
        self.sources.clear()
        self._twins.clear()
        self._kept.clear()

    @property
    def is_complete(self) -> bool:
        """Whether all steps were taken."""
        return self._taken == len(self._plan)

    def given_sources(self, func: Any, args: Any, kwargs: Any) -> Any:
        if self._lost:
            return func(*args, **kwargs)
        try:
            return super().given_sources(func, args, kwargs)
        except UnplannedError:
            self._lost = True
            self._fail(_CHANGING)
            return func(*args, **kwargs)

    def twin(self, tensor: Tensor) -> Tensor:
        """The same numbers with a graph of our own, back to twins of parameters.

        The user's backward pass frees the user's graph.
        """
        if id(tensor) not in self._twins:
            self._twins[id(tensor)] = tensor.detach().requires_grad_()
        return self._twins[id(tensor)]

    def _derive(self, func: Any, args: Any, kwargs: Any) -> Any:
        result = super()._derive(func, args, kwargs)
        made = [t for t in results_of(func, args, result) if id(t) in self.sources]
        if not made or self._lost:
            return result
        if is_in_place(func) or any(word in func.__name__ for word in _RANDOM):
            self._lost = True
            self._fail(f"{func.__name__} of a parameter, before it meets the samples")
            return result
        call = Call(func, args, kwargs)
        try:
            own = [self.twin(t) if id(t) in self.sources else t for t in call.tensors]
            with packed_by_nobody():
                twins = results_of(func, (), call.run(own))
        except Exception as error:  # of memory: in the user's forward pass nothing may be raised
            self._lost = True
            self._fail(said(error))
            return result
        for tensor, twin in zip(results_of(func, (), result), twins, strict=True):
            if id(tensor) in self.sources:
                self._kept.append(tensor)
                self._twins[id(tensor)] = twin
                self.sources[id(tensor)].tensor = twin
        return result


_RANDOM = ("dropout", "bernoulli", "rand", "normal", "multinomial")
_CHANGING = (
    "the operations of the model are not those of the steps before (activation checkpointing needs "
    "use_reentrant=False)"
)
