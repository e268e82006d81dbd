"""Samples that weigh differently: L = Σw_iℓ_i/Σw_i.

With a_i = w_i/w̄ the gradient of the mean of a_iℓ_i is that of L. A batch of B samples divides by
its own weights: its gradient is G + Σ a_i(g_i - G)/B to first order, so that the noise of a sample
is Cov(a_i(g_i - G)), and not Cov(a_ig_i). It is the covariance of a_ig_i - (a_i - 1)G, whose mean
is G as well: these stand for the samples' gradients. The same goes for their losses, slopes and
Hessians, which are all linear in them. w̄ is the mean of the measured samples: an error of O(1/n).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn

from ..errors import DataError
from ..ranks.ranks import ALONE, Ranks
from ..ranks.share import Share
from ..tensors.trees import Batch, sample_count


class WeightedLosses:
    """a_iℓ_i, with a_i = w_i/w̄ from the weights of the loss function."""

    def __init__(self, loss_fn: Any, mean: float) -> None:
        self._loss_fn, self._mean = loss_fn, mean

    def __call__(self, model: nn.Module, batch: Batch) -> Tensor:
        products: Tensor = self._loss_fn.weighted(model, batch)[0]
        return products / self._mean


def batch_weights(loss_fn: Any, model: nn.Module, batch: Batch) -> Tensor | None:
    """w of the samples of a batch, shape (n,); None where the loss function tells none."""
    weigh: Callable[..., Tensor | None] | None = getattr(loss_fn, "weights", None)
    return weigh(model, batch) if callable(weigh) else None


def mean_of_batch(loss_fn: Any, model: nn.Module, batch: Batch) -> Any:
    """What a step minimises: Σw_iℓ_i/Σw_i, or else what `loss_fn` returns.

    Raises:
        DataError: no sample has a weight.
    """
    weigh = getattr(loss_fn, "weighted", None)
    found = weigh(model, batch) if callable(weigh) else None
    if found is None:
        return loss_fn(model, batch)
    products, weights = found
    if not float(weights.sum()) > 0:
        raise DataError(
            f"no label of a group of {len(weights)} samples counts, so that its loss is nan, in "
            f"training as well. Raise `group_size`, or leave out samples without labels"
        )
    mean: Tensor = products.sum() / weights.sum().to(products)
    return mean


def in_batch(loss_fn: Any, model: nn.Module, batch: Batch) -> Tensor:
    """Losses (n,) whose plain mean is that of `loss_fn` over this batch, as it weighs its samples.

    One number for the batch stands for each of them.
    """
    weigh = getattr(loss_fn, "weighted", None)
    found = weigh(model, batch) if callable(weigh) else None
    if found is not None:
        products, mean = found[0], found[1].mean()
        scaled: Tensor = products / mean.to(products)
        return scaled
    losses: Tensor = loss_fn(model, batch)
    if isinstance(losses, Tensor) and losses.ndim == 0:
        return losses.expand(sample_count(batch))
    return losses


def weights_of(
    loss_fn: Any,
    model: nn.Module,
    batches: Iterable[Batch],
    ranks: Ranks = ALONE,
    share: Share | None = None,
) -> Tensor | None:
    """w of all samples, shape (n,), float64; None where they are equal.

    Args:
        loss_fn: which may tell weights.
        model: the user's.
        batches: the samples here.
        ranks, share: those that measure together, and which samples are here.

    Raises:
        DataError: no sample has a weight.
    """
    found: list[Tensor] = []
    for batch in batches:
        own = batch_weights(loss_fn, model, batch)
        if own is None:
            break
        found.append(own.detach())
    here = {(float(least), float(most)) for least, most in map(torch.aminmax, found)}
    extremes = set().union(*ranks.gathered(here, "weights"))
    if all(least == most > 0 for least, most in extremes) and len(extremes) < 2:  # most often
        return None
    own_weights = [own.double().cpu() for own in found]
    weights = ranks.rows(torch.cat([torch.zeros(0).double(), *own_weights]), share)
    if not float(weights.sum()) > 0:
        raise DataError(
            f"no label of the {len(weights)} samples counts: all are ignored (ignore_index), or "
            f"of a class of weight 0"
        )
    return None if bool((weights == weights[0]).all()) else weights


def centred_by_share(values: Tensor, shares: Tensor | None) -> Tensor:
    """x_i - (a_i - 1)x̄ from x_i = a_iy_i, for numbers of every sample (n, ...)."""
    if shares is None:
        return values
    gaps = (shares - 1).to(values).reshape(-1, *(1 for _ in values.shape[1:]))
    return values - gaps * values.mean(0)


def adjoint_of_centring(rows: Tensor, shares: Tensor | None) -> Tensor:
    """Weights v for which Σ v_ix_i is Σ u_i(x_i - (a_i - 1)x̄), for rows u (K, n)."""
    if shares is None:
        return rows
    return rows - (rows @ (shares - 1).to(rows))[:, None] / rows.shape[1]


def ratio_influence(value: float, along: Tensor, shares: Tensor) -> Tensor:
    """What a sample does to tr(AΣ) through w̄ and G: -2(a_i - 1)tr(AΣ) - 2E[aψ]ᵀAψ_i, shape (n,).

    With ψ_i = a_i(g_i - G) this comes in addition to ψ_iᵀAψ_i - tr(AΣ). The mean of a_iψ_i is not
    zero, as that of ψ_i is.

    Args:
        value: tr(AΣ).
        along: E[aψ]ᵀAψ_i, up to a constant.
        shares: a_i.
    """
    return -2 * (shares - 1).to(along) * value - 2 * (along - along.mean())
