"""The source that needs no second gradient: squared norms of every sample, from its own pass."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from ..errors import CoupledSamplesError, GradNoiseError, said
from ..per_sample.hooks.live import LivePass, is_planning, live_plan
from ..per_sample.hooks.steps import Step
from ..problem.state.wrappers import is_compiled
from ..tensors.trees import sample_leaves
from .gradients import StepGradient, gathered
from .normalisation import NONE
from .parts import Size
from .ranks import is_alone
from .reading import Own, Reading, combined, equal_shares, refused
from .signs import Signs, along_directions
from .watched import Watched

CURE = (
    "split the step into two micro-batches or more, each loss divided by their number; the monitor "
    "then compares these"
)
TRIES = 3  # of a plan, which costs some passes of few samples each
COMPILED = "hooks cannot follow a compiled model"
COUPLED = "the losses of samples depend on each other (batch normalisation in training mode?)"
NOT_CALLED = "the model was not called: give the monitor the object that is called"
NO_BACKWARD = "no gradient came: put the backward pass inside of the step as well"
AGAIN = 25  # measured steps from one comparison to the next
ONE_SAMPLE = "one sample does not tell where the samples are in the model's operations"
AGREES = 0.02  # relative difference of Σ_i g_i from the gradient; bfloat16 rounds to 0.4 %
SMALL = 0.1  # of the norm of the whole gradient


class SamplePlans:
    """The plan of a model's forward passes, kept over the run.

    Args:
        most: samples of a forward pass that are measured; None for all.

    Attributes:
        steps: of the forward pass; None before there is a plan.
        is_proven: whether a step's sums were those of `.grad`.
        tries, refusal: how often there was none, and why at last.
    """

    def __init__(self, most: int | None = None) -> None:
        self.most, self.is_proven = most, False
        self.forget()

    def forget(self) -> None:
        """Of a model that is another one now."""
        self.steps: list[Step] | None = None
        self.tries, self.refusal = 0, ""

    def turn(self, measured: int) -> None:
        """Now and then the sums are compared again: the loop may have another loss by now."""
        self.is_proven = self.is_proven and measured % AGAIN > 0

    def rows(self, count: int, turn: int) -> slice | None:
        """Which of the samples are measured, other ones at every turn; None for all."""
        if self.most is None or not self.is_proven or count <= self.most:
            return None
        stride = -(-count // self.most)
        return slice(turn % stride, None, stride)


class SampleNorms:
    """Listens to one step: Σ‖c_i‖² over its samples, by parameter.

    Args:
        watched: the model.
        plans: of its passes.
        group: of ranks whose gradients are averaged; None for this process alone.
        turn: how many steps were measured before.
    """

    def __init__(self, watched: Watched, plans: SamplePlans, group: Any, turn: int) -> None:
        self._watched, self._plans, self._group, self._turn = watched, plans, group, turn
        self.reason = "" if watched.names else NONE
        self._norms: dict[str, Tensor] = {}
        # while the plan is not proven: Σ_i c_iᵀu by the samples, and of the gradient itself
        self._along: dict[str, Tensor] = {}
        self._of_gradient: dict[str, Tensor] = {}
        self._sizes: list[int] = []  # of the forward passes that were differentiated
        self._is_called = False
        self._pass: LivePass | None = None
        own = {name: watched.parameters[name] for name in watched.names}
        self._signs = None if plans.is_proven else Signs(own)
        hearing = None if plans.is_proven else self._project
        self.gradient = StepGradient(own, hearing, is_alone(watched.model, group))
        self._handles = [
            watched.model.register_forward_pre_hook(self._before, with_kwargs=True),
            watched.model.register_forward_hook(self._after, with_kwargs=True, always_call=True),
        ]

    def _before(self, module: nn.Module, args: Any, kwargs: Any) -> None:
        plans, watched = self._plans, self._watched
        if module is not watched.model or self.reason or not _is_training():
            return
        if self._pass is not None and self._pass.is_open:
            self.reason = "the model calls itself"
            return
        if self._pass is not None and self._pass.is_untouched:
            self.reason = "the model is called several times for one backward pass"
        self._finish()
        leaves = sample_leaves((args, kwargs))
        if not leaves:
            self.reason = "the model is called without a tensor"
            return
        count = len(leaves[0])
        if not count:
            self.reason = refused([count], [1.0])
            return
        self._is_called = True
        if is_compiled(watched.model) or torch.compiler.is_compiling():
            self.reason = COMPILED
        if plans.steps is None and count == 1:
            self.reason = self.reason or ONE_SAMPLE
        if plans.steps is None and not self.reason:
            self._plan(args, kwargs, count)
        if plans.steps is None:
            return
        self._pass = LivePass(
            watched.parameters,
            count,
            plans.steps,
            only=watched.names,
            rows=plans.rows(count, self._turn),
            directions=self._signs,
        )
        self._pass.begin()

    def _plan(self, args: Any, kwargs: Any, count: int) -> None:
        plans = self._plans
        if plans.tries == TRIES:
            self.reason = plans.refusal
            return
        try:
            plans.steps = live_plan(self._watched.model, args, kwargs, count)
        except CoupledSamplesError:
            self.reason = COUPLED
        except Exception as error:  # runs the user's code, in the middle of training
            known = isinstance(error, GradNoiseError)
            where = "" if known else "the model cannot be run on a few rows: "
            self.reason = f"{where}{said(error)}"
        plans.tries, plans.refusal = plans.tries + bool(self.reason), self.reason

    def _after(self, module: nn.Module, *_: object) -> None:
        if self._pass is not None and module is self._watched.model and not is_planning():
            self._pass.forward_done()

    def _project(self, name: str, gradient: Tensor) -> None:
        assert self._signs is not None
        along = along_directions(gradient, self._signs[name])
        before = self._of_gradient.get(name)
        self._of_gradient[name] = along if before is None else before + along

    def _finish(self) -> None:
        """Take the sums of the last forward pass, if it has been differentiated."""
        last, self._pass = self._pass, None
        if last is None or self.reason or last.is_untouched:
            return
        self._sizes.append(last.count)
        sums = last.sums()
        if sums is None:
            self.reason = last.reason
            return
        for kept, found in zip((self._norms, self._along), sums, strict=True):
            for name, own in found.items():
                kept[name] = kept[name] + own if name in kept else own

    def __deepcopy__(self, _: Any) -> SampleNorms:
        """A model that is copied inside of a step keeps our hooks, and these do nothing there."""
        return self

    def remove(self) -> None:
        """Take the hooks off."""
        for handle in self._handles:
            handle.remove()
        self.gradient.remove()
        if self._pass is not None:
            self._pass.close()  # torch runs no hook after a KeyboardInterrupt
            self._pass.let_go()
        self._pass = None

    def reading(self, batch_size: Size, shares: Sequence[float] | None) -> Reading | None:
        """The norms of the step; None, and a `reason`, where it says nothing about the noise.

        The samples of a micro-batch share its weight in the objective equally. What they weigh
        beyond that, by tokens or classes, belongs to their gradients.

        Args:
            batch_size: B of this rank, or b_j of its micro-batches, to be compared with the rows of
                the inputs; None for no comparison.
            shares: w_j of the micro-batches, Σw_j = 1; None for equal ones.
        """
        group, names = self._group, self._watched.names
        own = Own.of(lambda: self._own(batch_size, shares), len(names))
        found, self.reason = combined(
            own, lambda: gathered(self.gradient.sq_norms(group).items(), names), group, each=True
        )
        return found

    def _own(self, batch_size: Size, shares: Sequence[float] | None) -> Own:
        """What this rank has."""
        self._finish()
        weights = equal_shares(self._sizes) if shares is None else list(shares)
        changed = self.gradient.check()
        cure = f": {CURE}" if self.reason else ""
        self.reason = self.reason or self._refused(batch_size, weights)
        if not self.reason and not changed and not self._plans.is_proven:
            self._prove()
            cure = f": {CURE}"
        reason = changed or (self.reason and f"{self.reason}{cure}")
        norms = gathered(self._norms.items(), self._watched.names)
        return Own(norms, self._sizes, weights, reason)

    def _refused(self, batch_size: Size, weights: list[float]) -> str:
        """Why these forward passes say nothing; empty where they do."""
        if not self._sizes:
            return NO_BACKWARD if self._is_called else NOT_CALLED
        told = sum(batch_size) if isinstance(batch_size, Sequence) else batch_size
        rows = sum(self._sizes)
        if told not in (None, rows):
            return (
                f"the step has {told} samples, and the model's inputs have {rows} rows: one row "
                f"has to be one sample"
            )
        return refused(self._sizes, weights)

    def _prove(self) -> None:
        """Σ_i c_i has to be the gradient that the backward passes gave, along random signs.

        Some gradients are zero up to rounding, as those of biases before a softmax: what is small
        beside the gradient of the whole model is let pass.
        """
        whole = gathered(self._norms.items(), self._watched.names).sum()
        for name, along in self._along.items():
            own = self._of_gradient.get(name, torch.zeros_like(along))
            gap = (along - own).square().mean()  # the squared length of the difference, about
            if not bool(gap.isfinite()):
                return  # the step is skipped, and the next one tells
            size = own.square().mean().maximum(self._norms[name])
            size = size.maximum(SMALL**2 * whole.to(size))
            if not bool(gap <= AGREES**2 * size):
                self.reason = (
                    f"the gradients of the samples do not add up to that of parameter {name!r}: it "
                    f"is used outside of the model's forward pass, or by an operation that the "
                    f"hooks cannot see"
                )
                return
        self._plans.is_proven = True


def _is_training() -> bool:
    return torch.is_grad_enabled() and not is_planning()
