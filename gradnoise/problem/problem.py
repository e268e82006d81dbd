"""An objective and the samples it is measured on, read from the user's objects."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from ..errors import ArgumentError, GradNoiseError
from ..ranks.ranks import ranks_of
from ..tensors.random import generator
from ..tensors.trees import (
    Batch,
    joined,
    sample_count,
    sample_leaves,
    select,
    split,
    to_device,
    wide_dtype,
)
from .checks import (
    COUPLED,
    ONE_NUMBER,
    Behaviour,
    agreed,
    check_replayed,
    coupled_error,
    coupling_layers,
    draws,
    examine,
    first_look,
    is_coupled_replayed,
    refuse_hidden_gradients,
)
from .confirmation import are_independent
from .coordinates import PreconditionedObjective
from .dropouts import is_dropout_alone
from .full_precision import full_precision
from .gathering import sharded_parameters
from .groups import draw_groups, usual_size
from .known import known
from .lists import taken_as_batches
from .losses.loss_fn import LossFn
from .objective import Objective
from .options import Options
from .partition import effective_population
from .preconditioner import Preconditioner
from .replicas import require_options, require_same, require_whole, settings_of
from .samples import Samples
from .shards import needs_whole
from .shared_draws import SHARED, shared_error, shares_draws
from .shares import weights_of
from .unit import AS_ASKED, Seeded, Unit

TRIAL_SAMPLES = 4  # for trials of engines and second derivatives
CHECK_SAMPLES = 32  # for checks of the losses: a few show coupling and randomness
CHECK_GROUPS = 2  # for the same, where units are groups
REPLAYED = 64  # samples of a micro-batch with random losses, which no engine can take apart


Slopes = Callable[["Problem", Tensor], Tensor]


@dataclass(frozen=True, eq=False)
class Problem:
    """An objective and its samples, from which every measurement starts.

    Args:
        objective: the per-sample losses as a function of the parameters.
        samples: the fixed samples.
        note: why it is not in the metric of the optimizer, where metric="auto" asked for it.
        slopes: (problem, V) -> g_iᵀv for the columns v of V, shape (n, k): where it has no second
            derivatives, curvatures of single samples are differences of these; otherwise None.
    """

    objective: Objective
    samples: Samples
    note: str = ""
    slopes: Slopes | None = None

    @classmethod
    def open(
        cls,
        model: nn.Module,
        loss_fn: LossFn | nn.Module,
        data: Any,
        options: Options | None = None,
        *,
        least: int = 2,
    ) -> Problem:
        """Read the user's objects and check once that there is something to measure.

        The unit is the sample where its loss depends on no other sample, and else a group of the
        batch size of training; `Options.unit` insists on one of them.

        Errors are those of `Objective`, `examine`, `Samples.draw`, `draw_groups` and
        `Preconditioner.of`.

        Args:
            model, loss_fn, data: the user's.
            options: how it is measured; None for the defaults.
            least: samples that are needed; 2 for a variance of gradients.
        """
        with cls.guarded(model, loss_fn, data, options, least=least) as problem:
            return problem

    @classmethod
    @contextmanager
    def guarded(
        cls,
        model: nn.Module,
        loss_fn: LossFn | nn.Module,
        data: Any,
        options: Options | None = None,
        *,
        least: int = 2,
        trusting: bool = False,
    ) -> Iterator[Problem]:
        """The same for what is measured at once, in one guard; see `open`.

        With `trusting`, that samples are independent may be what an earlier call found, and is left
        to be confirmed (`Objective.is_unconfirmed`); see `in_one_pass`.
        """
        options = options or Options()
        ranks = ranks_of(options.process_group)
        with ranks.together():
            require_options(ranks, options, model)
            shards = sharded_parameters(model, options, ranks)
            ranks.is_patient = shards is None
            objective = Objective(model, loss_fn, ranks=ranks, shards=shards)
            with objective.guard(data):
                problem = cls._opened(objective, data, options, least, trusting)
                few, whole = problem._compared()
                yield problem.in_metric(options)
            if whole is not None:
                require_whole(objective, few, whole)

    def _compared(self) -> tuple[Batch, Tensor | None]:
        """A few samples, the same on all ranks, and their losses; None where they tell nothing.

        Of a tensor-parallel model they have to be those of the model as it is found.
        """
        objective, replica = self.objective, self.objective.replica
        if replica is None or not replica.is_parallel or self.unit.is_seeded:
            return None, None
        few = to_device(self.samples.with_common_example(objective.ranks).example, objective.device)
        return few, objective.losses(few).detach()

    @classmethod
    def _opened(
        cls, objective: Objective, data: Any, options: Options, least: int, trusting: bool
    ) -> Problem:
        """Of single samples, or of groups of them."""
        if options.unit == "group":
            if objective.shards is not None:
                raise needs_whole("a group of samples")
            return cls._grouped(objective, data, options, Behaviour(coupling=AS_ASKED))
        problem, behaviour = cls._of_samples(objective, data, options, least, trusting)
        if behaviour.coupling and options.unit == "sample":
            raise problem._coupled(behaviour)
        if behaviour.coupling:
            return cls._grouped(objective, data, options, behaviour)
        return problem

    @classmethod
    def _of_samples(
        cls, objective: Objective, data: Any, options: Options, least: int, trusting: bool
    ) -> tuple[Problem, Behaviour]:
        """The objective on single samples, and what their losses depend on."""
        with taken_as_batches(data):
            samples = Samples.draw(
                data, max_samples=options.max_samples, population=options.population,
                seed=options.seed, micro_batch=options.micro_batch, least=least,
                ranks=objective.ranks,
            )  # fmt: skip
            if objective.shards is not None:
                samples = samples.with_common_example(objective.ranks)
            problem = cls(objective, samples)._weighted()
            behaviour = problem._found(least, problem._examined, trusting)
            problem._require_layers(behaviour)
        if not behaviour.is_random:
            return problem, behaviour
        replayed = problem._replayed(behaviour, options)
        return replayed, replayed._found(least, lambda: replayed._examined_replayed(least))

    def _require_layers(self, behaviour: Behaviour) -> None:
        """Raise ShardedError where layers are gathered one by one, and that is not enough."""
        if self.objective.shards is None:
            return
        weighted = "samples weigh differently" if self.samples.shares is not None else ""
        random = "the loss draws random numbers" if behaviour.is_random else ""
        why = behaviour.coupling or random or weighted
        if why:
            raise needs_whole(f"{why}, which")

    def _found(
        self, least: int, find: Callable[[], Behaviour], trusting: bool = False
    ) -> Behaviour:
        """What these losses depend on, found now, or in an earlier call if it still holds.

        Only that they are independent is kept: of others it is seen at once, or they are measured
        in groups, which costs more. A few samples confirm it, now or later; see `confirmation`.
        """
        objective, batch = self.objective, self.largest_batch()
        if objective.ranks.are_several:  # which may each have found something else
            objective.findings = {}
            return agreed(objective.ranks.gathered(find(), "what losses depend on"))
        objective.findings = known(objective, batch)
        key = f"of {min(least, 2)} samples or more"
        before: Behaviour | None = objective.findings.get(key)
        if before is not None:
            if trusting or are_independent(objective, batch):
                objective.is_unconfirmed = trusting
                return before
            objective.findings.clear()
        found = find()
        if not found.coupling and found.is_random == self.unit.is_replayed:
            objective.findings[key] = found
        return found

    def _examined_replayed(self, least: int) -> Behaviour:
        """What losses that are random depend on besides their draws."""
        objective, few = self.objective, self._few()
        check_replayed(objective, few)
        refuse_hidden_gradients(objective, few)
        dropout_alone = is_dropout_alone(objective, few)
        if is_coupled_replayed(objective, few, dropout_alone):
            return Behaviour(True, COUPLED, coupling_layers(objective))
        # of one sample there are no independent ones
        if least > 1 and not dropout_alone and shares_draws(objective, few):
            return Behaviour(True, SHARED)
        return Behaviour(True, layers=self.unit.reason)

    def _coupled(self, behaviour: Behaviour) -> GradNoiseError:
        """The error where single samples are asked for, and their losses are coupled."""
        if behaviour.coupling == SHARED:
            return shared_error()
        if behaviour.coupling == ONE_NUMBER:
            self.objective.losses(self._few())  # raises the one that says what to do
        return coupled_error(self.objective)

    def _weighted(self) -> Problem:
        """With the weights of the loss function, where samples differ in them."""
        objective, samples = self.objective, self.samples
        weights = weights_of(
            objective.loss_fn, objective.model, self.batches(), objective.ranks, samples.share
        )
        if weights is None:
            return self
        mean = float(weights.mean())
        unit = replace(objective.unit, mean_weight=mean)
        return Problem(objective.again(unit), replace(samples, shares=weights / mean))

    @classmethod
    def _grouped(
        cls, objective: Objective, data: Any, options: Options, behaviour: Behaviour
    ) -> Problem:
        """The same objective on groups of samples."""
        size = options.group_size or usual_size(data, objective.ranks)
        if size == 1 and options.group_size is None:  # batches of one sample
            raise coupled_error(objective)
        why = f"{behaviour.coupling}: {behaviour.layers}".removesuffix(": ")
        unit = Unit("group", size, behaviour.is_random, why)
        objective = objective.again(unit)
        ranks = objective.ranks
        samples = draw_groups(data, size, options, is_random=unit.is_replayed, ranks=ranks)
        batch = cls(objective, samples)._few()
        losses = first_look(objective, batch)
        check_replayed(objective, batch)
        drew = not unit.is_replayed and draws(objective, batch, losses)
        if any(ranks.gathered(drew, "whether losses are random")):
            unit = replace(unit, is_replayed=True)
            objective = objective.again(unit)
            samples = draw_groups(data, size, options, is_random=True, ranks=ranks)
        refuse_hidden_gradients(objective, batch)
        return cls(objective, samples)

    def _replayed(self, behaviour: Behaviour, options: Options) -> Problem:
        """The same samples with a seed for every micro-batch; their population is a distribution.

        A micro-batch is evaluated whole in every pass. Without an engine for all samples at once
        each takes a backward pass through all of it, so that it is small.
        """
        unit = replace(self.unit, is_replayed=True, reason=behaviour.layers)
        objective = self.objective.again(unit)
        source, few = generator(options.seed), self.samples.example
        parts = [part for batch in self.samples.batches for part in split(batch, REPLAYED)]
        if self.samples.share is not None:  # the seeds before are those of other ranks
            torch.randint(0, 2**31, (self.samples.share.start,), generator=source)
        seeded = tuple(Seeded.of(part, source) for part in parts)
        samples = replace(
            self.samples, batches=seeded, population=math.inf, population_note="",
            example=None if few is None else Seeded.of(few, source),
        )  # fmt: skip
        return Problem(objective, samples)

    def in_metric(self, options: Options) -> Problem:
        """The problem in the coordinates of a metric, with what the optimizer holds now.

        Raises:
            ArgumentError: see `Preconditioner.of`; with metric="auto" it becomes a note.
        """
        return self._in_coordinates(options)._with_partition()

    def _with_partition(self) -> Problem:
        """Random groups of a finite population, with the variance that grouping makes."""
        if not self.samples.is_partition:
            return self
        with self.guard():
            population, of_losses = effective_population(self.objective, self.samples)
        samples = replace(self.samples, population=population, loss_population=of_losses)
        return replace(self, samples=samples)

    def _in_coordinates(self, options: Options) -> Problem:
        optimizer, plain = options.optimizer, self.objective.plain
        if optimizer is None or not options.own_metric:
            return replace(self, objective=plain, note="")
        try:
            preconditioner = Preconditioner.of(plain.optimizer(optimizer), plain.registered)
            if plain.shards is not None and preconditioner.is_coupled:
                raise needs_whole("weight decay inside gradients")
            if self.samples.shares is not None and preconditioner.is_coupled:
                raise ArgumentError(
                    f"the weight decay of {type(optimizer).__name__} is a part of its gradients, "
                    f"and samples weigh differently: measure with metric='euclidean', or with "
                    f"weights='equal' in gn.supervised"
                )
        except ArgumentError as error:
            if options.metric != "auto":
                raise
            note = f"not measured in the metric of {type(optimizer).__name__}: {error}"
            return replace(self, objective=plain, note=note)
        found = PreconditionedObjective(plain, preconditioner)
        state = {"entries of the optimizer's state": preconditioner.root}
        require_same(plain.ranks, settings_of(optimizer) if plain.shards is not None else state)
        return replace(self, objective=found, note="")

    @property
    def metric(self) -> str:
        """The metric that it is in, "euclidean" or "optimizer"."""
        own = isinstance(self.objective, PreconditionedObjective)
        return "optimizer" if own else "euclidean"

    @property
    def unit(self) -> Unit:
        """What is drawn at random in training."""
        return self.objective.unit

    @property
    def is_divisible(self) -> bool:
        """Whether the samples can be put into other micro-batches, and count alike.

        Random draws belong to a micro-batch; weights are centred over all samples.
        """
        return not self.unit.is_replayed and self.samples.shares is None

    def _examined(self) -> Behaviour:
        """What the losses of a part of the largest micro-batch depend on.

        Two micro-batches are joined where each holds one sample. Where these differ in shape, a
        layer of a kind that couples samples decides.
        """
        batch = self._few()
        if sample_count(batch) == 1 and len(self.samples.batches) > 1:
            pair = [to_device(b, self.objective.device) for b in self.samples.batches[:2]]
            columns = zip(*map(sample_leaves, pair), strict=True)
            if all(first.shape == second.shape for first, second in columns):
                batch = joined(pair)
            elif coupling_layers(self.objective):
                return Behaviour(coupling=COUPLED)
        return examine(self.objective, batch)

    def _few(self) -> Batch:
        """A part of the largest micro-batch, for checks of the losses."""
        few = CHECK_GROUPS if self.unit.is_group else CHECK_SAMPLES
        return select(self.largest_batch(), slice(0, few))

    @property
    def plain(self) -> Problem:
        """The problem in the parameters w themselves, without a preconditioner."""
        return replace(self, objective=self.objective.plain)

    @contextmanager
    def guard(self) -> Iterator[None]:
        """Restores the user's objects on leaving."""
        with self.objective.guard():
            yield

    def largest_batch(self) -> Batch:
        """The micro-batch with the most samples, for checks and trials.

        One that is the same on all ranks, where these make every pass together.
        """
        if self.objective.shards is not None and self.samples.example is not None:
            return to_device(self.samples.example, self.objective.device)
        return to_device(self.samples.largest_batch, self.objective.device)

    def rows(self, own: Tensor) -> Tensor:
        """Rows of all n samples (n, ...) from those of the samples here, in their order."""
        return self.objective.ranks.rows(own, self.samples.share)

    def rows_of(self, parts: Sequence[Tensor], *shape: int) -> Tensor:
        """The same from those of each micro-batch here, (n_b, *shape), of which there may be none.

        In float64 where the device has it.
        """
        device = self.objective.device
        none = torch.zeros(0, *shape, dtype=wide_dtype(device), device=device)
        return self.rows(torch.cat([none, *parts]))

    def sum(self, own: Tensor, what: str = "a sum") -> Tensor:
        """The sum over all samples from that over the samples here; in place.

        Of vectors over the parameters: where ranks hold parts of them, gradients are such sums.
        """
        objective = self.objective
        return own if objective.shards is not None else objective.ranks.sum(own, what)

    def batches(self) -> Iterator[Batch]:
        """The micro-batches, each on the device of the model."""
        for batch in self.samples.batches:
            yield to_device(batch, self.objective.device)

    def rounds(self, batches: Sequence[Batch] | None = None) -> Iterator[tuple[Batch, bool]]:
        """The same, or other batches, and whether their samples are borrowed and do not count.

        They are, where other ranks have more batches and all make every pass together.
        """
        own, objective = self.samples.batches if batches is None else batches, self.objective
        for index in range(self._most_batches if batches is None else self._most(batches)):
            idle = index >= len(own)
            batch = select(self.samples.example, slice(0, 1)) if idle else own[index]
            yield to_device(batch, objective.device), idle

    @functools.cached_property
    def _most_batches(self) -> int:
        return self._most(self.samples.batches)

    def _most(self, batches: Sequence[Batch]) -> int:
        """How many batches there are; of ranks that make every pass together, on any."""
        count = len(batches)
        return count if self.objective.shards is None else int(self.objective.ranks.largest(count))

    def batch_gradients(self) -> Iterator[list[Tensor]]:
        """Σ∇ℓ_i of every micro-batch, in full precision; of borrowed samples it is zero."""
        for batch, idle in self.rounds():
            weights = torch.zeros(sample_count(batch)) if idle else None
            with full_precision(self.objective.device):
                gradient = self.objective.gradient(batch, weights)
            yield gradient
