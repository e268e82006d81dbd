"""The noisy quadratic model: exact averages, and the closed forms of its dynamics."""

from __future__ import annotations

import itertools
import math

import pytest
import torch

import gradnoise as gn
from gradnoise.learning_rate.update_rule import Momentum
from tests.formulas import update
from tests.toys import assert_dynamics, assert_truth

TOY = gn.toy.NoisyQuadraticModel(torch.tensor([1.0, -1.0, 2.0]))
# all signs of √h: mean 0, covariance diag(h)
NOISES = torch.tensor(list(itertools.product((1, -1), repeat=3))) * TOY.spectrum.sqrt()


def test_curvatures_are_one_over_their_number() -> None:
    assert TOY.spectrum.tolist() == [1, 1 / 2, 1 / 3]
    given = gn.toy.NoisyQuadraticModel(torch.ones(2), torch.tensor([3.0, 4.0]))
    assert given.truth().sharpness == 4


def test_the_truth_is_the_average_over_noises_with_the_same_moments() -> None:
    assert_truth(TOY, NOISES)


def test_the_noise_of_the_dynamics_is_that_of_the_samples_wherever_it_starts() -> None:
    assert_dynamics(TOY, NOISES, TOY.w)


def test_samples_have_the_variance_of_their_curvature() -> None:
    drawn = TOY.sample(20_000, seed=0)
    error = TOY.spectrum * math.sqrt(2 / 20_000)
    assert bool(((drawn.var(0) - TOY.spectrum).abs() < 4 * error).all())  # of a fixed seed


@pytest.mark.parametrize(("name", "momentum"), [("sgd", 0.0), ("sgd", 0.8), ("nesterov", 0.5)])
def test_torch_trains_as_the_dynamics_say(name: str, momentum: float) -> None:
    """2000 runs of 30 steps by torch's update, within three standard errors in every direction."""
    runs, steps, lr, batch = 2000, 30, 0.2, 4
    rule, h = Momentum.of(name, momentum), TOY.spectrum
    source = torch.Generator().manual_seed(0)
    w, v = TOY.w.expand(runs, 3).clone(), torch.zeros(runs, 3).double()
    for _ in range(steps):
        noise = torch.randn(runs, batch, 3, generator=source, dtype=torch.float64).mean(1)
        w, v = update(rule, lr, h * w + h.sqrt() * noise, w, v)
    expected = TOY.dynamics().trajectory(TOY.w, steps, lr, batch, name, momentum)[-1].diagonal()
    squares = w.square()
    error = squares.std(0) / math.sqrt(runs)
    assert bool(((squares.mean(0) - expected).abs() < 3 * error).all())


def test_heavy_ball_settles_at_its_closed_form() -> None:
    """E w² = εc(1 + m)/(h(1 - m)(2(1 + m) - εh)) with the noise variance c of a batch."""
    toy, lr, m, batch = gn.toy.NoisyQuadraticModel(torch.ones(3)), 0.3, 0.6, 5
    h, c = toy.spectrum, toy.spectrum / batch
    expected = lr * c * (1 + m) / (h * (1 - m) * (2 * (1 + m) - lr * h))
    found = toy.dynamics().stationary(lr, batch, "sgd", m).diagonal()
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=0)


def test_the_noise_floor_is_proportional_to_the_temperature() -> None:
    """Within 2 % of T·trΣ/4 at ελ ≤ 0.05; one direction of ελ = 0.05 is 2.6 % above."""
    toy = gn.toy.NoisyQuadraticModel(torch.ones(8))
    for lr, batch in ((0.05, 1), (0.05, 16), (0.01, 4)):
        law = lr / batch * float(toy.spectrum.sum()) / 4
        assert toy.dynamics().noise_floor(lr, batch) == pytest.approx(law, rel=0.02)
    same = [toy.dynamics().noise_floor(lr, batch) for lr, batch in ((0.01, 2), (0.05, 10))]
    assert same[0] == pytest.approx(same[1], rel=0.02)
    one = gn.toy.NoisyQuadraticModel(torch.ones(1))
    assert one.dynamics().noise_floor(0.05, 1) == pytest.approx(0.05 / 4 / (1 - 0.025))


def test_momentum_is_the_same_temperature_at_the_effective_rate() -> None:
    toy = gn.toy.NoisyQuadraticModel(torch.ones(8))
    plain = toy.dynamics().noise_floor(0.02, 4)
    ball = toy.dynamics().noise_floor(0.002, 4, "sgd", 0.9)
    assert ball == pytest.approx(plain, rel=0.02)


@pytest.mark.parametrize("steps", [2, 8])
def test_small_steps_are_one_large_step_of_a_larger_batch(steps: int) -> None:
    """n steps at (ε, B) and one at (nε, nB): means and covariances agree to the order of nελ."""
    gaps = []
    for lr in (1e-3, 1e-4):
        many = TOY.dynamics().trajectory(TOY.w, steps, lr, 4)[-1]
        once = TOY.dynamics().trajectory(TOY.w, 1, steps * lr, 4 * steps)[-1]
        moved = once - torch.outer(TOY.w, TOY.w)
        gaps.append(float((many - once).norm() / moved.norm()))
    assert gaps[0] < steps * 1e-3
    assert gaps[1] == pytest.approx(gaps[0] / 10, rel=0.05)


@pytest.mark.parametrize("spectrum", [torch.ones(3), torch.tensor([1.0, 0.0])])
def test_a_spectrum_that_does_not_fit_is_refused(spectrum: torch.Tensor) -> None:
    with pytest.raises(gn.ArgumentError, match="`spectrum` must be"):
        gn.toy.NoisyQuadraticModel(torch.ones(2), spectrum)
