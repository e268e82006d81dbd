"""Advice from numbers alone: the batch, the learning rate, the reasons and their confidence."""

import pytest

from gradnoise.learning_rate.advice import Setting, recommend, samples_needed
from gradnoise.statistics.estimate import Status
from tests.landscapes import (
    AT_LEAST,
    AT_MOST,
    B_CURV,
    INF,
    NEGATIVE,
    SHARPNESS,
    UNKNOWN,
    estimate,
    landscape,
)


def advise(noise_scale, sharpness=SHARPNESS, curvature=B_CURV, population=INF, **setting):
    current = Setting(**setting)
    own = {"optimizer": current.optimizer, "momentum": current.momentum}
    return recommend(landscape(noise_scale, sharpness, curvature, population, **own), current)


class TestResolved:
    @pytest.mark.parametrize(
        ("noise_scale", "batch_size"),
        [(0.1, 1), (1.0, 1), (90.0, 64), (91.0, 128), (128.0, 128), (1000.0, 1024)],
    )
    def test_the_batch_is_the_power_of_two_nearest_to_the_noise_scale(
        self, noise_scale, batch_size
    ):
        assert advise(estimate(noise_scale)).batch_size == batch_size

    def test_a_batch_is_never_larger_than_the_population(self):
        advice = advise(estimate(1000.0), population=100)

        assert advice.batch_size == 100
        assert "the whole data set: B_noise is 1 000" in str(advice)

    def test_a_batch_of_one_beyond_the_noise_scale_is_not_said_to_be_near_it(self):
        text = str(advise(estimate(0.01)))

        assert "Batch size 1: B_noise is 0.0100, so noise is small" in text
        assert "twice the steps" not in text

    def test_a_population_large_enough_is_not_mentioned(self):
        assert "the whole data set" not in str(advise(estimate(100.0), population=1797))

    def test_the_learning_rate_is_the_noise_scale_rule_there(self):
        advice = advise(estimate(128.0))

        assert advice.lr == 0.25  # (2/4)/(1 + 128/128)
        assert (
            "Learning rate for SGD at that batch size: up to about 0.250 (noise-scale rule"
            in str(advice)
        )

    def test_the_mean_square_limit_holds_where_it_is_lower(self):
        advice = advise(estimate(128.0), curvature=estimate(384.0))

        assert advice.lr == 0.125  # (2/4)/(1 + 384/128)
        assert "0.125 (mean-square limit: beyond it this point is unstable)" in str(advice)

    def test_the_mean_square_limit_knows_the_population(self):
        advice = advise(estimate(128.0), curvature=estimate(384.0), population=256)

        assert advice.lr == 0.5 / (1 + 384 * (1 / 128 - 1 / 256))

    def test_momentum_shortens_the_learning_rate(self):
        advice = advise(estimate(128.0), momentum=0.75)

        assert advice.lr == pytest.approx(3.5 / 4 / (1 + 7))  # 2(1 + m)/λ over 1 + (1 + m)/(1 - m)
        assert "Learning rate for SGD with momentum 0.75 at" in str(advice)

    @pytest.mark.parametrize(
        ("noise_scale", "sharpness", "confidence"),
        [
            (estimate(100.0, 80.0, 160.0), SHARPNESS, "good"),
            (estimate(100.0, 80.0, 161.0), SHARPNESS, "rough"),
            (estimate(100.0), estimate(4.0, status=Status.NOT_CONVERGED), "rough"),
            (AT_LEAST, SHARPNESS, "none"),
        ],
    )
    def test_confidence_is_a_noise_scale_within_a_factor_of_two(
        self, noise_scale, sharpness, confidence
    ):
        assert advise(noise_scale, sharpness).confidence == confidence


class TestUnresolved:
    @pytest.mark.parametrize("noise_scale", [UNKNOWN, AT_LEAST, AT_MOST])
    def test_no_number_is_invented(self, noise_scale):
        advice = advise(noise_scale)

        assert (advice.batch_size, advice.lr) == (None, None)

    @pytest.mark.parametrize(
        ("noise_scale", "said"),
        [
            (AT_LEAST, "at least 300 samples; up to there, a larger batch"),
            (AT_MOST, "at most 9.00 samples; larger batches save few steps"),
            (UNKNOWN, "unknown"),
        ],
    )
    def test_the_bounds_are_given_with_what_they_allow(self, noise_scale, said):
        assert said in advise(noise_scale).reasons[0]

    @pytest.mark.parametrize("noise_scale", [UNKNOWN, AT_LEAST, AT_MOST])
    def test_the_remedy_and_the_stable_rate_are_given(self, noise_scale):
        text = str(advise(noise_scale))

        assert noise_scale.status.remedy in text
        assert "unstable at this point beyond the learning rate 0.500 (2/λ)" in text

    def test_where_all_was_measured_no_more_samples_are_asked_for(self):
        text = str(advise(UNKNOWN, population=100))

        assert "All 100 samples were measured and GᵀHG is not distinguishable from zero" in text
        assert "max_samples" not in text


class TestWithoutABowl:
    @pytest.mark.parametrize(
        ("noise_scale", "sharpness"),
        [(NEGATIVE, SHARPNESS), (estimate(100.0), estimate(-1.0)), (NEGATIVE, estimate(-1.0))],
    )
    def test_nothing_can_be_told(self, noise_scale, sharpness):
        advice = advise(noise_scale, sharpness, batch_size=32, lr=0.1)

        assert (advice.batch_size, advice.lr, advice.confidence) == (None, None, "none")
        assert "the curvature along the gradient or its noise is negative" in str(advice)

    def test_a_sharpness_lost_in_its_interval_is_no_downward_curve(self):
        lost = estimate(4.0, -1.0, 9.0, Status.SIGNAL_BELOW_NOISE)

        advice = advise(estimate(100.0), lost, batch_size=32)

        assert (advice.lr, advice.confidence) == (None, "none")
        assert lost.status.remedy in str(advice)
        assert "is negative" not in str(advice)
        assert "32 is noise-dominated" in str(advice)


class TestNow:
    @pytest.mark.parametrize(
        ("batch_size", "said"),
        [
            (32, "Your batch size 32 is noise-dominated"),
            (100, "Your batch size 100 is inside the interval of the noise scale"),
            (512, "Your batch size 512 is curvature-dominated"),
        ],
    )
    def test_the_batch_in_use_is_placed(self, batch_size, said):
        assert said in str(advise(estimate(100.0, 80.0, 120.0), batch_size=batch_size))

    def test_the_learning_rate_in_use_is_compared_with_the_rule(self):
        text = str(advise(estimate(96.0), batch_size=32, lr=0.25))

        assert "Your learning rate 0.25 is 2.00 times the noise-scale rule 0.125" in text

    def test_with_momentum_the_rule_is_that_of_momentum(self):
        text = str(advise(estimate(96.0), batch_size=32, lr=0.25, momentum=0.5))

        assert "learning rate 0.25 with momentum 0.5 is 3.33 times the noise-scale rule" in text

    def test_what_the_batch_costs_is_said(self):
        text = str(advise(estimate(96.0), batch_size=32))

        assert "At batch size 32 (0.333 times B_noise) a run takes" in text
        assert "about 4.0 times the steps of very large batches and 1.3 times the samples" in text

    def test_a_cost_has_no_more_digits_than_it_is_worth(self):
        text = str(advise(estimate(96.0), batch_size=1))

        assert "about 97 times the steps of very large batches and 1.0 times the samples" in text

    @pytest.mark.parametrize(
        ("lr", "said"),  # ε_opt = 0.0625 there, and ΔL/ΔL_max 1/4
        [
            (0.0625, "lower the loss by 25% of what the best full-batch step would"),
            (0.03125, "lower the loss by 19% of what the best full-batch step would"),
            (0.0001, "lower the loss by less than 1% of what the best full-batch step would"),
            (0.2, "raise the loss"),
        ],
    )
    def test_the_gain_of_a_step_is_said(self, lr, said):
        text = str(advise(estimate(96.0), batch_size=32, lr=lr))

        assert f"One step at this learning rate is expected to {said}." in text

    @pytest.mark.parametrize(
        ("rescales", "said"),
        [
            (None, "0.400 keeps the noise of your steps (linear"),
            ("Adam", "0.200 keeps the noise of your steps (square-root"),
        ],
    )
    def test_below_the_noise_scale_the_rate_is_carried_to_the_suggested_batch(self, rescales, said):
        setting = {"batch_size": 32, "lr": 0.1, "rescales": rescales}
        assert said in str(advise(estimate(128.0), **setting))
        assert "keeps the noise" not in str(advise(estimate(8.0), **setting))
        assert "keeps the noise" not in str(
            advise(estimate(128.0), **{**setting, "batch_size": 128})
        )
        assert "keeps the noise" not in str(advise(estimate(33.0), **setting))  # 32 is suggested

    def test_a_rate_beyond_the_mean_square_limit_is_called_so(self):
        beyond = str(advise(estimate(96.0), batch_size=32, lr=0.48))

        assert "beyond the mean-square limit 0.471" in beyond  # (2/4)/(1 + 2/32)
        assert "mean-square limit" not in str(advise(estimate(96.0), batch_size=32, lr=0.45))

    @pytest.mark.parametrize(
        ("lr", "said"),  # the rule is 0.125 there
        [
            (0.13, "noise wastes part of each step here"),
            (0.125, "near the rate beyond which noise wastes part of each step"),
            (0.07, "near the rate beyond which noise wastes part of each step"),
            (0.06, "below the rate beyond which noise wastes part of each step"),
        ],
    )
    def test_the_comparison_says_what_it_means(self, lr, said):
        assert said in str(advise(estimate(96.0), batch_size=32, lr=lr))

    def test_a_learning_rate_without_a_batch_size_cannot_be_judged(self):
        said = "To have the learning rate 0.1 judged, give the batch size as well (`batch_size`, "

        assert said in str(advise(estimate(96.0), lr=0.1))
        assert "give the batch size" not in str(advise(estimate(96.0)))

    @pytest.mark.parametrize("setting", [{}, {"lr": 0.1}])
    def test_without_a_batch_size_nothing_is_said(self, setting):
        assert "Your" not in str(advise(estimate(96.0), **setting))

    def test_a_bound_alone_still_places_the_batch(self):
        assert "32 is noise-dominated" in str(advise(AT_LEAST, batch_size=32, lr=0.1))


def test_each_reason_is_a_line():
    advice = advise(estimate(96.0), batch_size=32, lr=0.25)

    assert str(advice).split("\n") == [f"- {reason}" for reason in advice.reasons]


class TestSamplesNeeded:
    """1/n - 1/N has to fall by the factor between the value and the reach of its interval."""

    @pytest.mark.parametrize(
        ("value", "low", "population", "expected"),
        [
            (1.0, -1.0, INF, 200),
            (0.5, -4.5, INF, 1000),
            (1.0, -1.0, 200, 134),
            (1.0, 0.5, INF, None),
        ],
    )
    def test_the_interval_of_a_lost_curvature_would_end_at_zero(
        self, value, low, population, expected
    ):
        lost = estimate(value, low, 9.0, Status.SIGNAL_BELOW_NOISE)
        found = landscape(AT_LEAST, population=population, grad_curvature=lost)
        assert samples_needed(found) == expected

    @pytest.mark.parametrize("value", [0.0, -1.0])
    def test_of_a_curvature_that_is_not_positive_there_is_no_saying(self, value):
        lost = estimate(value, -5.0, 5.0, Status.SIGNAL_BELOW_NOISE)
        assert samples_needed(landscape(AT_LEAST, grad_curvature=lost)) is None

    def test_the_whole_population_has_no_more(self):
        lost = estimate(1.0, -1.0, 5.0, Status.SIGNAL_BELOW_NOISE)
        assert samples_needed(landscape(AT_LEAST, population=100, grad_curvature=lost)) is None

    def test_it_is_part_of_the_advice(self):
        lost = estimate(1.0, -1.0, 5.0, Status.SIGNAL_BELOW_NOISE)
        advice = recommend(landscape(AT_LEAST, grad_curvature=lost), Setting())
        assert advice.samples == 200
        assert "about 200 samples may be enough" in str(advice)
