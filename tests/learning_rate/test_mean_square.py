"""The mean-square limit in a few directions: all batches enumerated."""

import itertools
from dataclasses import astuple

import numpy as np
import pytest

import gradnoise as gn
from gradnoise.learning_rate.mean_square import CurvatureSpread
from gradnoise.learning_rate.update_rule import Momentum
from tests.cases import CORE

SAMPLES, DIRECTIONS = 5, 2


def curvatures(seed: int = 0, samples: int = SAMPLES, size: int = DIRECTIONS) -> np.ndarray:
    """Symmetric, of positive mean, some of them indefinite, shape (samples, size, size)."""
    roots = np.random.default_rng(seed).normal(size=(samples, size, 3))
    return roots @ roots.swapaxes(1, 2) - 0.3 * np.eye(size)


def radius(matrices: np.ndarray, batch: int, rule: Momentum, lr: float) -> float:
    """The spectral radius of the second moments over all batches without replacement."""
    (a, b, c, d), size = astuple(rule), matrices.shape[1]
    w, v = np.split(np.eye(2 * size), 2)  # as they act on the state (w, v)
    total, count = 0, 0
    for chosen in itertools.combinations(matrices, batch):
        gradient = np.mean(chosen, axis=0) @ w
        after = a * v + b * gradient
        step = np.vstack([w - lr * (c * gradient + d * after), after])
        total, count = total + np.kron(step, step), count + 1
    return float(np.abs(np.linalg.eigvals(total / count)).max())


@pytest.mark.parametrize("batch", [1, 2, 4, 5])
@pytest.mark.parametrize(
    ("name", "momentum"),
    [("sgd", 0.0), ("nadam", 0.0), ("sgd", 0.9), ("nesterov", 0.8), ("adam", 0.9), ("nadam", 0.7)],
)
def test_second_moments_over_all_batches_grow_right_beyond_it(name, momentum, batch):
    matrices = curvatures()
    limit = CurvatureSpread.of(matrices).stable_lr(1 / batch - 1 / SAMPLES, name, momentum)
    rule = Momentum.of(name, momentum)
    assert radius(matrices, batch, rule, 0.999 * limit) < 1
    assert radius(matrices, batch, rule, 1.001 * limit) > 1


def test_every_further_direction_lowers_the_limit():
    matrices = curvatures(1, samples=9, size=4)
    spreads = [CurvatureSpread.of(matrices[:, :k, :k]) for k in range(1, 5)]
    limits = [spread.stable_lr(1.0) for spread in spreads]
    assert all(more < less for less, more in itertools.pairwise(limits))
    assert spreads[-1].reduction(1.0) == pytest.approx(limits[-1] / limits[0])
    assert spreads[0].reduction(1.0) == 1


def test_samples_that_agree_leave_the_limit_of_full_batches():
    matrix = np.diag([4.0, 1.0])
    spread = CurvatureSpread.of(np.stack([matrix] * 3))
    assert spread.stable_lr(1.0) == pytest.approx(0.5)
    assert spread.stable_lr(1.0, "sgd", 0.5) == pytest.approx(0.75)


def test_a_profile_keeps_it_through_a_file(tmp_path):
    profile = gn.profile(*CORE[0].build())
    profile.save(tmp_path / "p.json")
    again = gn.Profile.load(tmp_path / "p.json")
    assert again.curvature_spread == profile.curvature_spread is not None
    assert str(again) == str(profile)
