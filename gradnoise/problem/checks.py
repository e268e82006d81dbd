"""Whether a batch has losses that can be measured: independent, reproducible, differentiable."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from ..errors import (
    BatchLossError,
    CoupledSamplesError,
    LossError,
    ModelError,
    RandomLossError,
    explained,
)
from ..ranks.ranks import is_untold
from ..tensors.ragged import is_ragged
from ..tensors.trees import Batch, sample_count, select, widen
from .dropouts import WithoutDropout
from .objective import Objective
from .other_model import refuse_other_model
from .state.generators import random_states, seed_all
from .unit import Seeded

_COUPLING = (nn.modules.batchnorm._BatchNorm,)
DRAWS = 16  # of the losses, for a test of their mean
LOOKED_AT = 64  # samples whose draws are looked at, those of several evaluations together
TRIES = 64  # evaluations of few samples, for draws that a whole batch shares and that seldom matter
SIGNIFICANT = 6.0  # standard errors
_RANDOM = (nn.modules.dropout._DropoutNd, nn.RReLU, nn.MultiheadAttention, nn.RNNBase)


@dataclass(frozen=True)
class Behaviour:
    """What the losses of a batch depend on beside their own samples and the parameters.

    Args:
        is_random: whether they draw random numbers.
        coupling: why a loss of single samples does not exist; empty where it does.
        layers: of the kinds that draw or couple, by name.
    """

    is_random: bool = False
    coupling: str = ""
    layers: str = ""


def agreed(found: Sequence[Behaviour]) -> Behaviour:
    """What the losses of several ranks depend on: what those of any of them do."""
    coupled = [own for own in found if own.coupling]
    random = [own for own in found if own.is_random]
    told = next(iter([*coupled, *random]), Behaviour())
    return replace(told, is_random=bool(random))


def examine(objective: Objective, batch: Batch) -> Behaviour:
    """Whether the losses of a batch are random or coupled.

    Raises:
        LossError: see `losses`; also when no parameter takes part in the loss, or only those of
            another model (`refuse_other_model`).
        ModelError: gradients reach parameters by a backward pass of the model's own.
    """
    states = random_states()
    try:
        whole = first_look(objective, batch)
    except BatchLossError:
        return Behaviour(coupling=ONE_NUMBER)
    except CoupledSamplesError:
        return Behaviour(coupling=COUPLED, layers=coupling_layers(objective))
    drew = random_states() != states
    whole = whole.detach()  # and with it the graph, before there is another
    again, tolerance = objective.losses(batch), tolerance_of(objective, whole)
    layers = _random_layers(objective)  # which seldom show where they drop little
    shows = differs(whole, again, tolerance)
    if shows or (drew and (layers or _is_random_at_times(objective, batch))):
        return Behaviour(is_random=True, layers=layers)
    del again
    refuse_hidden_gradients(objective, batch)
    if _is_coupled(objective, batch, whole):
        return Behaviour(coupling=COUPLED, layers=coupling_layers(objective))
    return Behaviour()


ONE_NUMBER = "loss_fn returns one number for a batch"
COUPLED = "one sample changes the loss of another"


def _is_random_at_times(objective: Objective, batch: Batch) -> bool:
    """Whether gradients or losses differ from one evaluation to another.

    A layer that starts at zero hides draws from the loss. Few samples are looked at several times:
    stochastic depth seldom drops any of them, and LayerDrop seldom drops a layer of a whole batch.
    """
    first = _gradient(objective, batch)
    tolerance = tolerance_of(objective, first)
    more = max(1, LOOKED_AT // sample_count(batch))
    if any(differs(first, _gradient(objective, batch), tolerance) for _ in range(more)):
        return True
    return _differ_at_times(objective, [select(batch, slice(0, 2))] * TRIES)


def _differ_at_times(objective: Objective, batches: list[Batch]) -> bool:
    """Whether the losses of any of these batches differ from those of the first."""
    first = objective.losses(batches[0]).detach()
    tolerance = tolerance_of(objective, first)
    return any(differs(first, objective.losses(batch), tolerance) for batch in batches[1:])


def _is_coupled(objective: Objective, batch: Batch, whole: Tensor) -> bool:
    """Whether losses of a part of the batch differ from those within the whole."""
    count, tolerance = sample_count(batch), tolerance_of(objective, whole)
    if count < 2:
        return False
    for half in (slice(0, count // 2), slice(count // 2, None)):
        try:
            part = _losses(objective, select(batch, half))
        except CoupledSamplesError:
            return True
        if differs(whole[half], part, tolerance):
            return True
    for index in (0, count - 1):
        alone = _alone(objective, select(batch, slice(index, index + 1)))
        replaced = whole.clone()
        replaced[index] = replaced[index] if alone is None else alone.detach()[0]
        if differs(whole, replaced, tolerance):
            return True
    return _hides_coupling(objective, batch)


def _hides_coupling(objective: Objective, batch: Batch) -> bool:
    """Whether layers that couple samples change gradients, and not losses: a last layer at zero."""
    if not coupling_layers(objective):
        return False
    count = sample_count(batch)
    halves = [select(batch, part) for part in (slice(0, count // 2), slice(count // 2, None))]
    first, second = (_gradient(objective, half) for half in halves)
    whole = _gradient(objective, batch)
    return differs(whole, first + second, tolerance_of(objective, whole))


def _gradient(objective: Objective, batch: Batch) -> Tensor:
    """The sum of the losses' gradients as one vector."""
    return torch.cat([g.reshape(-1) for g in objective.gradient(batch)])


def draws(objective: Objective, batch: Seeded, losses: Tensor) -> bool:
    """Whether losses of groups from other seeds differ, or their gradient does."""
    other = Seeded(batch.batch, batch.seeds + 1)
    if differs(losses.detach(), objective.losses(other).detach(), tolerance_of(objective, losses)):
        return True
    drew = _draws_anything(objective, batch)
    if drew and _random_layers(objective):
        return True
    first = _gradient(objective, batch)
    tolerance = tolerance_of(objective, first)
    samples = sample_count(batch) * objective.unit.size
    more = max(1, LOOKED_AT // samples) if drew else 1
    if any(
        differs(first, _gradient(objective, Seeded(batch.batch, batch.seeds + k)), tolerance)
        for k in range(1, more + 1)
    ):
        return True
    one = select(batch, slice(0, 1))
    tries = [Seeded(one.batch, one.seeds + k) for k in range(TRIES)]
    return drew and _differ_at_times(objective, tries)


def _draws_anything(objective: Objective, batch: Seeded) -> bool:
    """Whether a global random state is another after the losses than where its seed puts it."""
    seed_all(int(batch.seeds[-1]), ())
    before = random_states()
    objective.losses(batch)
    return random_states() != before


def is_coupled_replayed(objective: Objective, batch: Seeded, dropout_alone: bool = False) -> bool:
    """Whether one sample changes the random loss of another, under the same draws.

    Draws belong to a place in the batch, so that other samples are put into the other places: the
    second half replaced by the first, and the first by the second. A loss that is divided by a
    count of the batch shows in the mean of many draws. Where samples differ in size, others move
    the draws to other places, so that only layers of a kind that couples and the mean can tell.
    Where dropout alone is drawn, the losses without it are compared instead of a mean.
    """
    if is_ragged(batch):
        half = sample_count(batch) // 2
        return bool(coupling_layers(objective)) or (
            half > 0 and _is_divided(objective, batch, half)
        )
    half = sample_count(batch) // 2
    if not half or depend_on_others(objective, batch):
        return half > 0
    if not dropout_alone:
        return _is_divided(objective, batch, half)
    try:
        with WithoutDropout():
            whole = objective.losses(batch).detach()
            part = objective.losses(select(batch, slice(0, half))).detach()
    except Exception:  # the user's: a loss that compares two draws, which are then equal
        return _is_divided(objective, batch, half)
    return differs(whole[:half], part, tolerance_of(objective, whole))


def depend_on_others(objective: Objective, batch: Seeded) -> bool:
    """Whether losses change when other samples are in the other half of the places."""
    whole = objective.losses(batch).detach()
    half = len(whole) // 2
    places = torch.arange(len(whole))
    tolerance = tolerance_of(objective, whole)
    for kept in (places < half, places >= half):
        others = torch.where(kept, places, (places + half) % len(whole))
        mixed = objective.losses(Seeded(select(batch.batch, others), batch.seeds)).detach()
        if differs(whole[kept], mixed[kept], tolerance):
            return True
    return False


def _is_divided(objective: Objective, batch: Seeded, half: int) -> bool:
    """Whether the mean loss of half of the samples is another than within the whole."""
    gaps = []
    for draw in range(DRAWS):
        seeds = batch.seeds + draw
        whole = objective.losses(Seeded(batch.batch, seeds)).detach()
        part = objective.losses(Seeded(select(batch.batch, slice(0, half)), seeds[:half])).detach()
        gaps.append(widen(part).mean() - widen(whole[:half]).mean())
    found = torch.stack(gaps)
    error = float(found.std()) / math.sqrt(DRAWS)
    size = abs(float(widen(whole).mean()))
    return abs(float(found.mean())) > max(
        SIGNIFICANT * error, tolerance_of(objective, whole) * size
    )


def check_replayed(objective: Objective, batch: Seeded) -> None:
    """Raise RandomLossError unless two evaluations from the same random state agree."""
    first, second = objective.losses(batch).detach(), objective.losses(batch).detach()
    if differs(first, second, tolerance_of(objective, first)):
        raise RandomLossError(
            "two evaluations of the same samples from the same random state gave different "
            "losses: random numbers come from an object that cannot be found and set back (such "
            "as numpy.random.default_rng()), or the forward pass changes a state that it uses "
            "(an average). Draw from torch, numpy.random or random, or keep a torch.Generator "
            "as an attribute of the model; or call model.eval() before measuring."
        )


def refuse_hidden_gradients(objective: Objective, batch: Batch) -> None:
    """Raise where gradients reach other weights than autograd tells; errors as of `examine`."""
    # `.grad` is None inside the guard; only a backward pass of the model's own fills it
    objective.gradient(select(batch, slice(0, 2)))
    hidden = [name for name, p in objective.parameters.items() if p.grad is not None]
    if hidden:
        raise ModelError(
            f"the backward pass of some operation fills .grad of {', '.join(hidden[:3])} by a "
            f"backward pass of its own (reversible layers, checkpoints of another library), which "
            f"cannot be followed: turn it off for the measurement"
        )
    refuse_other_model(objective, batch)


def _alone(objective: Objective, sample: Batch) -> Tensor | None:
    """The loss of a single sample; None for a model that cannot take one."""
    try:
        return objective.losses(sample)
    except Exception as error:  # the user's code: it need not take batches of one
        if is_untold(error):  # other ranks wait in an exchange of the model's
            raise
        return None


def first_look(objective: Objective, batch: Batch) -> Tensor:
    """The losses, which have to depend on the parameters; most often the signature is wrong."""
    try:
        losses = _losses(objective, batch)
    except TypeError as error:
        raise LossError(
            f"loss_fn(model, batch) failed with TypeError: {error}. It is called with the "
            f"model and a batch as the data give it; for a criterion(outputs, targets) pass "
            f"gn.supervised(criterion)."
        ) from error
    if not losses.requires_grad:
        raise LossError(
            "the loss does not depend on any trainable parameter of `model`. Does loss_fn "
            "use the model it is given, without detach() or torch.no_grad()?"
        )
    return losses


def _losses(objective: Objective, batch: Batch) -> Tensor:
    """The losses; where batch normalisation refuses a single sample, our error."""
    refused = "Expected more than 1 value per channel"
    with explained(ValueError, refused, partial(coupled_error, objective)):
        return objective.losses(batch)


def resolution(objective: Objective, losses: Tensor) -> float:
    """eps of the coarsest dtype that is used."""
    dtypes = {p.dtype for p in objective.model.parameters() if p.is_floating_point()}
    if torch.is_autocast_enabled(losses.device.type):
        dtypes.add(torch.get_autocast_dtype(losses.device.type))
    return max(torch.finfo(dtype).eps for dtype in dtypes | {losses.dtype})


def tolerance_of(objective: Objective, losses: Tensor) -> float:
    """√eps, since kernels differ with the batch size."""
    return math.sqrt(resolution(objective, losses))


def coupled_error(objective: Objective) -> CoupledSamplesError:
    """The error for coupled samples that are to be measured one by one."""
    names = coupling_layers(objective, 5)
    where = f" Batch normalisation in training mode: {names}." if names else ""
    return CoupledSamplesError(
        f"the losses of part of a batch differ from the same samples' losses within the whole "
        f"batch, so one sample changes the loss of another and per-sample gradients do not "
        f"exist.{where} Call model.eval(), use a norm that does not couple samples (GroupNorm, "
        f"LayerNorm), and do not divide by the batch size inside loss_fn. Or measure groups of "
        f"samples, with unit='group' and the batch size of training as group_size."
    )


def coupling_layers(objective: Objective, shown: int = 1) -> str:
    """Names of layers in training mode that couple samples whatever the data."""
    return _named(objective.model, _COUPLING, lambda _: True, shown)


def _named(
    model: nn.Module,
    kinds: tuple[type[nn.Module], ...],
    active: Callable[[nn.Module], Any],
    shown: int = 5,
) -> str:
    found = [
        f"{name or 'model'} ({type(module).__name__})"
        for name, module in model.named_modules()
        if isinstance(module, kinds) and module.training and active(module)
    ]
    more = f" and {len(found) - shown} more" if len(found) > shown else ""
    return ", ".join(found[:shown]) + more


def differs(first: Tensor, second: Tensor, tolerance: float) -> bool:
    """Whether any loss differs by more than this, in units of their mean size."""
    first, second = widen(first.detach()), widen(second.detach())
    scale = first.abs().mean().clamp(min=torch.finfo(first.dtype).tiny)
    return bool((first - second).abs().max() > tolerance * scale)


def _random_layers(objective: Objective) -> str:
    """Names of layers in training mode that draw random numbers."""
    return _named(objective.model, _RANDOM, _is_random, 1)


def _is_random(module: nn.Module) -> bool:
    rates = getattr(module, "p", 0), getattr(module, "dropout", 0)  # dropout layers; attention, RNN
    return isinstance(module, nn.RReLU) or any(rates)
