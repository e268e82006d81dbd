"""What a regime map spans: batch sizes and learning rates around all that is drawn on it."""

from __future__ import annotations

import math

import numpy as np

from ..learning_rate.landscape import Landscape
from .results import Results

MOST = 2.0**40  # samples; no one trains with such batches


def batch_grid(profile: Results, points: int) -> np.ndarray:
    """Batch sizes from 1 to well beyond the noise scales, the setting in use and the advice."""
    scales = profile.noise_scale, profile.simple_noise_scale
    known = [float(e) if e.is_resolved else e.low for e in scales]
    known += [profile.setting.batch_size or 0.0, profile.recommend().batch_size or 0.0]
    top = max([64.0, *(8 * size for size in known if math.isfinite(size) and size < MOST)])
    return np.geomspace(1, 2 ** math.ceil(math.log2(top)), points)


def rate_ends(profile: Results, landscape: Landscape) -> tuple[float, float]:
    """The lowest and the highest learning rate: the limits, the setting in use and the advice."""
    top = 4 * float(landscape.stable_lr)
    own = [rate for rate in (profile.setting.lr, profile.recommend().lr) if rate]
    rule = landscape.max_lr(1)
    least = float(rule) if rule.is_resolved else rule.high / 10
    bottom = least if 0 < least < math.inf else top / 1e3
    return min([bottom, top / 1e2, *own]) / 2, max([top, *(2 * rate for rate in own)])
