"""Limits and regimes against the dynamics that they are about, and against closed forms."""

import itertools
import math

import numpy as np
import pytest
import torch

import gradnoise as gn
from gradnoise.statistics.estimate import Estimate, Status

INF, NAN = math.inf, math.nan


@pytest.mark.parametrize(
    ("momentum", "expected"), [(0.0, 0.1), (0.5, 0.2), (0.75, 0.4), (0.9375, 1.6)]
)
def test_momentum_lengthens_the_learning_rate(momentum, expected):
    assert gn.effective_lr(0.1, momentum) == pytest.approx(expected, rel=1e-15)


class TestTemperature:
    @pytest.mark.parametrize(
        ("arguments", "expected"),
        [
            ((0.5, 32), 0.015625),
            ((0.5, 32, 0.5), 0.03125),
            ((0.5, 32, 0.0, 64), 0.0078125),
            ((0.5, 32, 0.5, 64), 0.015625),
            ((0.5, 32, 0.0, INF), 0.015625),
            ((0.5, 32, 0.0, None), 0.015625),
        ],
    )
    def test_it_is_the_learning_rate_per_sample(self, arguments, expected):
        assert gn.temperature(*arguments) == expected

    def test_the_whole_population_in_a_batch_is_cold(self):
        assert gn.temperature(0.5, 64, population=64) == 0

    def test_it_is_the_variance_of_a_batch_mean_without_replacement(self):
        population = np.array([1.0, 2.0, 4.0, 9.0])
        means = [np.mean(pick) for pick in itertools.combinations(population, 2)]

        share = gn.temperature(1.0, 2, population=4)

        assert np.var(means) == pytest.approx(share * population.var(ddof=1), rel=1e-14)


HEAVY_BALL = lambda lr, m: [[1 - lr, -lr * m], [1, m]]  # noqa: E731  state (w, v), λ = 1
NESTEROV = lambda lr, m: [[1 - lr - lr * m, -lr * m * m], [1, m]]  # noqa: E731
ADAM = lambda lr, m: [[1 - lr * (1 - m), -lr * m], [1 - m, m]]  # noqa: E731


class TestStableLr:
    @pytest.mark.parametrize(
        ("optimizer", "step"), [("sgd", HEAVY_BALL), ("nesterov", NESTEROV), ("adam", ADAM)]
    )
    @pytest.mark.parametrize("momentum", [0.0, 0.5, 0.9])
    def test_descent_starts_to_grow_right_there(self, optimizer, step, momentum):
        limit = gn.stable_lr(1.0, optimizer, momentum)

        def growth(lr):
            return max(abs(np.linalg.eigvals(step(lr, momentum))))

        assert growth(0.999 * limit) < 1 < growth(1.001 * limit)

    @pytest.mark.parametrize("sharpness", [0.5, 4.0, 1e3])
    def test_it_falls_with_the_curvature(self, sharpness):
        assert gn.stable_lr(sharpness) == 2 / sharpness

    @pytest.mark.parametrize("sharpness", [0.0, -1.0])
    def test_without_a_bowl_there_is_no_limit(self, sharpness):
        assert gn.stable_lr(sharpness) == INF


class TestMaxLr:
    @pytest.mark.parametrize(
        ("noise_scale", "batch_size", "expected"),
        [(0, 32, 0.5), (32, 32, 0.25), (96, 32, 0.125), (INF, 32, 0.0)],
    )
    def test_it_is_the_stable_rate_damped_by_noise(self, noise_scale, batch_size, expected):
        assert gn.max_lr(4.0, noise_scale, batch_size) == expected

    def test_it_grows_in_proportion_to_small_batches_and_levels_off_for_large_ones(self):
        assert gn.max_lr(4.0, 1e6, 2) / gn.max_lr(4.0, 1e6, 1) == pytest.approx(2, rel=1e-5)
        assert gn.max_lr(4.0, 1.0, 1e6) == pytest.approx(gn.stable_lr(4.0), rel=1e-5)

    def test_without_a_bowl_there_is_no_limit(self):
        assert gn.max_lr(-1.0, 96, 32) == INF


class TestGreedyLr:
    def test_no_other_step_lowers_the_expected_loss_more(self):
        signal, curvature, trace, batch = 3.0, 5.0, 40.0, 8

        def change(lr):
            return -lr * signal + lr**2 / 2 * (curvature + trace / batch)

        best = gn.greedy_lr(signal, curvature, trace / curvature, batch)

        assert change(best) < min(change(0.99 * best), change(1.01 * best))
        assert change(2 * best) == pytest.approx(0, abs=1e-15)

    def test_infinite_noise_allows_no_step(self):
        assert gn.greedy_lr(1.0, 4.0, INF, 32) == 0


class TestMeanSquareLr:
    CURVATURES = (1.0, 2.0, 3.0, 10.0)

    @pytest.mark.parametrize("batch_size", [1, 2, 3, 4])
    def test_the_second_moment_starts_to_grow_right_there(self, batch_size):
        mean = np.mean(self.CURVATURES)
        noise = np.var(self.CURVATURES, ddof=1) / mean**2
        batches = list(itertools.combinations(self.CURVATURES, batch_size))

        limit = gn.mean_square_lr(mean, noise, batch_size, population=4)
        growth = np.mean([(1 - limit * np.mean(batch)) ** 2 for batch in batches])

        assert growth == pytest.approx(1, rel=1e-13)

    @pytest.mark.parametrize(
        ("noise", "batch_size", "expected"), [(0.0, 1, 0.5), (3.0, 1, 0.125), (3.0, 3, 0.25)]
    )
    def test_of_an_infinite_population_it_is_damped_by_curvature_noise(
        self, noise, batch_size, expected
    ):
        assert gn.mean_square_lr(4.0, noise, batch_size) == expected


@pytest.mark.parametrize(("rule", "expected"), [("linear", 0.4), ("sqrt", 0.2), ("none", 0.1)])
def test_a_learning_rate_moves_to_another_batch_size(rule, expected):
    assert gn.scale_lr(0.1, 32, 128, rule) == pytest.approx(expected, rel=1e-15)


def test_linear_scaling_keeps_the_temperature():
    assert gn.temperature(gn.scale_lr(0.1, 32, 512), 512) == pytest.approx(gn.temperature(0.1, 32))


class TestRegime:
    @pytest.mark.parametrize(
        ("batch_size", "expected"),
        [(32, "noise-dominated"), (300, "unresolved"), (301, "curvature-dominated")],
    )
    def test_a_batch_lies_on_one_side_of_a_number(self, batch_size, expected):
        assert gn.regime(batch_size, 300) == expected

    @pytest.mark.parametrize(
        ("batch_size", "expected"),
        [
            (199, "noise-dominated"),
            (200, "unresolved"),
            (300, "unresolved"),
            (400, "unresolved"),
            (401, "curvature-dominated"),
        ],
    )
    def test_the_whole_interval_has_to_lie_on_one_side(self, batch_size, expected):
        assert gn.regime(batch_size, Estimate(300.0, 200.0, 400.0, 0.95, NAN, 100)) == expected

    @pytest.mark.parametrize(
        ("bounds", "status", "expected"),
        [
            ((100.0, INF), Status.SIGNAL_BELOW_NOISE, "noise-dominated"),
            ((10.0, INF), Status.SIGNAL_BELOW_NOISE, "unresolved"),
            ((0.0, 10.0), Status.NOISE_BELOW_ERROR, "curvature-dominated"),
            ((0.0, INF), Status.SIGNAL_BELOW_NOISE, "unresolved"),
            ((-INF, INF), Status.NEGATIVE_CURVATURE, "unresolved"),
        ],
    )
    def test_a_bound_alone_can_decide(self, bounds, status, expected):
        assert gn.regime(32, Estimate(NAN, *bounds, 0.95, NAN, 100, status)) == expected


POSITIVE = [0.0, -1.0, INF, NAN]
NOT_NEGATIVE = [-1.0, NAN]


@pytest.mark.parametrize(
    ("call", "name", "values"),
    [
        (lambda x: gn.effective_lr(x), "lr", POSITIVE),
        (lambda x: gn.effective_lr(0.1, x), "momentum", [-0.1, 1.0, 1.5, NAN, INF]),
        (lambda x: gn.temperature(x, 32), "lr", POSITIVE),
        (lambda x: gn.temperature(0.1, x), "batch_size", POSITIVE),
        (lambda x: gn.temperature(0.1, 32, x), "momentum", [-0.1, 1.0]),
        (lambda x: gn.temperature(0.1, 32, population=x), "population", [0.0, -1.0, NAN]),
        (lambda x: gn.stable_lr(x), "sharpness", [INF, -INF, NAN]),
        (lambda x: gn.stable_lr(4.0, momentum=x), "momentum", [-0.1, 1.0]),
        (lambda x: gn.max_lr(x, 96, 32), "sharpness", [INF, NAN]),
        (lambda x: gn.max_lr(4.0, x, 32), "noise_scale", NOT_NEGATIVE),
        (lambda x: gn.max_lr(4.0, 96, x), "batch_size", POSITIVE),
        (lambda x: gn.greedy_lr(x, 4.0, 32, 32), "grad_sq_norm", POSITIVE),
        (lambda x: gn.greedy_lr(1.0, x, 32, 32), "grad_curvature", POSITIVE),
        (lambda x: gn.greedy_lr(1.0, 4.0, x, 32), "noise_scale", NOT_NEGATIVE),
        (lambda x: gn.greedy_lr(1.0, 4.0, 32, x), "batch_size", POSITIVE),
        (lambda x: gn.mean_square_lr(x, 3.0, 32), "sharpness", [INF, NAN]),
        (lambda x: gn.mean_square_lr(4.0, x, 32), "curvature_noise_scale", NOT_NEGATIVE),
        (lambda x: gn.mean_square_lr(4.0, 3.0, x), "batch_size", POSITIVE),
        (lambda x: gn.mean_square_lr(4.0, 3.0, 32, x), "population", [0.0, NAN]),
        (lambda x: gn.scale_lr(x, 32, 64), "lr", POSITIVE),
        (lambda x: gn.scale_lr(0.1, x, 64), "batch_size", POSITIVE),
        (lambda x: gn.scale_lr(0.1, 32, x), "new_batch_size", POSITIVE),
        (lambda x: gn.regime(x, 300), "batch_size", POSITIVE),
        (lambda x: gn.regime(32, x), "noise_scale", NOT_NEGATIVE),
    ],
)
def test_an_argument_out_of_range_is_named(call, name, values):
    for value in values:
        with pytest.raises(gn.ArgumentError, match=rf"`{name}` must be .*; got"):
            call(value)


@pytest.mark.parametrize("value", [None, "much", [1.0], 1j, torch.ones(2)])
def test_what_is_no_number_is_refused(value):
    with pytest.raises(gn.ArgumentError, match="`lr` must be a number; got"):
        gn.effective_lr(value)


@pytest.mark.parametrize("value", [torch.tensor(0.5), np.float32(0.5)])
def test_a_scalar_of_another_library_is_a_number(value):
    assert gn.effective_lr(value) == 0.5


@pytest.mark.parametrize("call", [gn.temperature, lambda *_, population: gn.mean_square_lr(
    4.0, 3.0, 32, population)])  # fmt: skip
def test_a_batch_cannot_exceed_its_population(call):
    with pytest.raises(gn.ArgumentError, match=r"`batch_size` = 32 is larger than `population`"):
        call(0.1, 32, population=31)


def test_an_unknown_optimizer_is_refused_with_the_known_ones():
    with pytest.raises(gn.ArgumentError, match="one of sgd, nesterov, adam, nadam; got 'lion'"):
        gn.stable_lr(4.0, "lion")


def test_an_unknown_rule_is_refused_with_the_known_ones():
    with pytest.raises(gn.ArgumentError, match="one of linear, sqrt, none; got 'cubic'"):
        gn.scale_lr(0.1, 32, 64, "cubic")
