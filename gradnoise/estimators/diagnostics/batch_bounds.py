"""Batch sizes by two rules of thumb: gradient diversity and CABS."""

from __future__ import annotations

import math
from dataclasses import replace

from ...errors import ArgumentError
from ...moments.moments import GradientMoments
from ...statistics.estimate import Estimate
from ...statistics.transform import scaled
from ..quotient import quotient
from .batch_tests import covariance_of
from .by_unit import counted_in_samples


@counted_in_samples
def diversity_bound(moments: GradientMoments) -> Estimate:
    """B_S = N Σ‖g_i‖²/‖Σg_i‖², the batch size up to which gradient diversity allows a speed-up.

    Over the population Σ‖g_i‖²/N = |G|² + (1 - 1/N) trΣ, so B_S = 1 + (1 - 1/N) B_simple: the same
    measurement as the noise scale, from unbiased parts. Yin et al. show that SGD with batches of up
    to δB_S(w) + 1 samples needs about as many samples as with single ones, if this holds for all w
    of the run; a value at one w is no guarantee.

    Args:
        moments: from `gradient_moments` or `noise_scale_from_gradients`.

    Returns:
        Estimate in samples; bias and interval are those of B_simple.

    Raises:
        Nothing.

    Source: Yin et al. 2018 (arXiv:1706.05699), definitions 1 and 2.

    Example:
        >>> import torch
        >>> from gradnoise import noise_scale_from_gradients
        >>> found = noise_scale_from_gradients(torch.eye(3), population="dataset")
        >>> round(float(diversity_bound(found)), 12)  # orthogonal: 3·3/3
        3.0
    """
    return scaled(moments.simple_noise_scale, 1 - 1 / moments.population, 1.0)


def gradient_diversity(moments: GradientMoments) -> Estimate:
    """Δ_S = Σ‖g_i‖²/‖Σg_i‖² = B_S/N over a population of N.

    Args:
        moments: of a finite population.

    Returns:
        Estimate without unit: 1/N if all gradients are equal, 1 if they are orthogonal.

    Raises:
        ArgumentError: the population is a distribution, for which only `diversity_bound` exists.

    Source: Yin et al. 2018 (arXiv:1706.05699), definition 1.

    Example:
        >>> import torch
        >>> from gradnoise import noise_scale_from_gradients
        >>> found = noise_scale_from_gradients(torch.eye(3), population="dataset")
        >>> round(float(gradient_diversity(found)), 12)
        1.0
    """
    if math.isinf(moments.population):
        raise ArgumentError(
            "gradient diversity is defined for a data set of N samples and falls like 1/N; got "
            'moments for `population="distribution"`: take diversity_bound, which is N times as '
            "large"
        )
    return scaled(diversity_bound(replace(moments, group_size=1)), 1 / moments.population)


@counted_in_samples
def cabs_batch_size(moments: GradientMoments, lr: float, *, optimum: float = 0.0) -> Estimate:
    """CABS: B = ε trΣ/(L - L*), a batch size that grows with the learning rate of SGD.

    It maximises a bound on the decrease of the loss per sample when ε is near 1/λ. |G|² is not
    needed, so it is resolved where noise scales are not. It depends on the scale of the loss and on
    L*: with L* = 0 for a loss that cannot reach 0, the batch is too small.

    Args:
        moments: with losses.
        lr: ε in parameter²/loss.
        optimum: L*, a lower bound of the loss; 0 in the paper.

    Returns:
        Estimate in samples, with Fieller's interval where the moments contain slopes.

    Raises:
        ArgumentError: `lr` is not positive, the moments contain no losses, or L is not above
            `optimum`.

    Source: Balles, Romero and Hennig 2017 (arXiv:1612.05086), eq. 22.

    Example:
        >>> import torch
        >>> from gradnoise import noise_scale_from_gradients
        >>> rows, losses = torch.tensor([[1.0], [-1.0]]), torch.tensor([0.5, 1.5])
        >>> found = noise_scale_from_gradients(rows, losses=losses, population="dataset")
        >>> float(cabs_batch_size(found, lr=0.1))  # 0.1·2/1
        0.2
    """
    if not 0 < lr < math.inf:
        raise ArgumentError(f"`lr` must be positive; got {lr}")
    height = float(moments.losses.mean()) - optimum
    if not height > 0:
        raise ArgumentError(
            f"CABS divides by the loss above its `optimum`; got L - L* = {height:g}. Pass the "
            f"losses to the moments, and a lower bound of the loss as `optimum`"
        )
    errors = (0.0, 0.0), 0.0
    if moments.spread_factor:
        errors = (math.nan, math.nan), math.nan
        if moments.slopes is not None and moments.count > 2:
            loss, spread, _ = moments.deviations()
            each = (float(spread.var()) * lr**2, float(loss.var()))
            shared = lr * covariance_of(spread, loss)
            factor = moments.spread_factor
            errors = (factor * each[0], factor * each[1]), factor * shared
    trace = lr * float(moments.trace_cov)
    return quotient(trace, height, moments, variances=errors[0], covariance=errors[1])
