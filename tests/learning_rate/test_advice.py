"""Advice from numbers alone: the batch, the learning rate, the reasons and their confidence."""

import pytest

from gradnoise.learning_rate.advice import recommend, samples_needed, without_curvature
from gradnoise.learning_rate.reasons import NO_CURVATURE, WHEN
from gradnoise.learning_rate.setting import Setting
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


def advise(
    noise_scale, sharpness=SHARPNESS, curvature=B_CURV, population=INF, simple=None, **setting
):
    current = Setting(**setting)
    own = {"optimizer": current.optimizer, "momentum": current.momentum}
    found = landscape(noise_scale, sharpness, curvature, population, **own)
    return recommend(found, current, simple)


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
        assert "larger than the whole data set (B_noise 1 000)" in str(advice)

    def test_a_batch_of_one_beyond_the_noise_scale_is_not_said_to_be_near_it(self):
        text = str(advise(estimate(0.01)))

        assert "batch size 1 (B_noise 0.0100): noise is small" in text
        assert "twice the steps" not in text

    def test_a_population_large_enough_is_not_mentioned(self):
        assert "the whole data set" not in str(advise(estimate(100.0), population=1797))

    def test_without_a_rate_in_use_it_is_the_noise_scale_rule(self):
        advice = advise(estimate(128.0), curvature=estimate(0.0))

        assert advice.lr == 0.25  # (2/4)/(1 + 128/128)
        assert "first (SGD): batch size 128, learning rate 0.250 (noise-scale rule" in str(advice)

    def test_half_of_the_mean_square_limit_holds_where_it_is_lower(self):
        advice = advise(estimate(128.0), curvature=estimate(384.0))

        assert advice.lr == 0.0625  # half of (2/4)/(1 + 384/128)
        assert "at most half of the limit 0.125 at this point" in str(advice)

    def test_the_mean_square_limit_knows_the_population(self):
        advice = advise(estimate(128.0), curvature=estimate(384.0), population=256)

        assert advice.lr == 0.25 / (1 + 384 * (1 / 128 - 1 / 256))

    def test_momentum_shortens_the_learning_rate(self):
        advice = advise(estimate(128.0), momentum=0.75)

        assert advice.lr == pytest.approx(3.5 / 4 / (1 + 7))  # 2(1 + m)/λ over 1 + (1 + m)/(1 - m)
        assert "first (SGD with momentum 0.75):" in str(advice)

    @pytest.mark.parametrize(
        ("noise_scale", "sharpness", "confidence"),
        [
            (estimate(100.0), SHARPNESS, "snapshot: rough"),
            (estimate(100.0, 80.0, 161.0), SHARPNESS, "snapshot: rough"),
            (estimate(100.0), estimate(4.0, status=Status.NOT_CONVERGED), "snapshot: rough"),
            (AT_LEAST, SHARPNESS, "none"),
        ],
    )
    def test_one_profile_is_never_called_good(self, noise_scale, sharpness, confidence):
        assert advise(noise_scale, sharpness).confidence == confidence

    def test_when_to_measure_is_said(self):
        assert advise(estimate(128.0)).caveats == (WHEN,)
        assert advise(UNKNOWN).caveats == (WHEN,)
        for word in ("one snapshot", "not the phase of training", "gn.pool", "gn.advise"):
            assert word in WHEN

    @pytest.mark.parametrize("noise_scale", [estimate(96.0), UNKNOWN, AT_LEAST, NEGATIVE])
    @pytest.mark.parametrize("lr", [None, 0.01, 0.4, 3.0])
    def test_there_are_at_most_five_reasons(self, noise_scale, lr):
        for simple in (None, estimate(3.0), UNKNOWN):
            for batch_size in (None, 1, 32, 4096):
                setting = {"batch_size": batch_size, "lr": lr}
                assert len(advise(noise_scale, simple=simple, **setting).reasons) <= 5


class TestTwoNoiseScales:
    def test_the_simple_one_leads_and_both_are_the_range(self):
        advice = advise(estimate(162.0), simple=estimate(189.0))

        assert (advice.batch_size, advice.critical) == (256, (162.0, 189.0))
        assert "about 128 to 256 (B_simple 189, B_noise 162)." in str(advice)
        assert "uncertain" not in str(advice)

    def test_the_simple_one_alone_gives_a_batch(self):
        advice = advise(AT_LEAST, simple=estimate(60.0))

        assert (advice.batch_size, advice.confidence) == (64, "snapshot: rough")
        assert "about 64 or more (B_simple 60.0, B_noise at least 300)" in str(advice)
        assert "differ by a factor 5.00, so this is uncertain" in str(advice)
        below = advise(AT_MOST, simple=estimate(60.0))
        assert "about 8 to 64 (B_simple 60.0, B_noise at most 9.00)" in str(below)
        assert advise(UNKNOWN, simple=estimate(60.0)).critical == (60.0, 60.0)

    def test_the_range_holds_both_intervals(self):
        advice = advise(AT_LEAST, simple=estimate(279.0, 140.0, 3440.0))

        assert advice.critical == (140.0, INF)
        assert "about 128 or more (B_simple 279" in str(advice)
        assert "uncertain" not in str(advice)

    def test_an_unknown_simple_one_leaves_the_other(self):
        assert advise(estimate(128.0), simple=UNKNOWN).batch_size == 128

    def test_a_disagreement_is_said(self):
        text = str(advise(estimate(17.3), simple=estimate(216.0)))

        assert "about 16 to 256" in text
        assert "differ by a factor 12.5, so this is uncertain" in text


class TestTraining:
    """What was advised once and did not come true in training (right values from training)."""

    def test_a_small_noise_scale_is_no_reason_for_a_large_rate(self):
        """Regression: 0.255 at B = 2 diverged; the largest stable rate was 0.13 to 0.18."""
        bowl = estimate(2 / 0.51)
        alone = advise(estimate(2.0), bowl)
        both = advise(estimate(2.0), bowl, simple=estimate(60.0))

        assert (alone.batch_size, both.batch_size) == (2, 64)
        assert alone.lr <= 0.13
        assert "differ by a factor 30" in str(both)
        assert "good" not in (alone.confidence, both.confidence)

    @pytest.mark.parametrize("population", [INF, 1024, 4096])
    def test_no_rate_is_carried_beyond_the_limit(self, population):
        """12.7 at B = 1024 was named beside 2/λ = 0.95; the best rate there was 1.5."""
        advice = advise(
            estimate(1024.0), estimate(2 / 0.95), population=population, batch_size=8, lr=0.1
        )

        assert (advice.batch_size, advice.lr) == (32, 0.4)
        assert "12.7" not in str(advice)

    @pytest.mark.parametrize("lr", [0.05, 0.1, 0.2, 0.4])
    def test_a_working_rate_is_not_to_be_lowered_for_the_rule(self, lr):
        """Of 48 profiles along the best runs 41 said so."""
        advice = advise(estimate(960.0), batch_size=32, lr=lr)  # the rule is 0.0161

        assert advice.lr >= lr
        assert "lower" not in str(advice).lower()
        assert "diverge" not in str(advice)

    def test_on_digits_the_pair_trains_as_the_one_in_use(self):
        """(32, 0.1) ended at loss 0.122 where (128, 0.233) ended at 0.220."""
        advice = advise(
            estimate(162.0), estimate(3.78), estimate(2.2), 1797, estimate(189.0),
            batch_size=32, lr=0.1,
        )  # fmt: skip

        assert (advice.batch_size, advice.lr) == (64, 0.2)
        assert "A larger one may train faster" in str(advice)

    def test_a_rate_beyond_the_limit_is_kept_and_no_other_named(self):
        """Runs at 1.0 on digits, at twice the limit 0.495, were best of the grid."""
        advice = advise(estimate(162.0), estimate(3.78), batch_size=32, lr=1.0)

        assert (advice.batch_size, advice.lr) == (32, None)
        assert "Keep batch size 32 and learning rate 1 while the loss falls" in str(advice)
        assert "Lower the rate only if the loss keeps rising" in str(advice)


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


class TestWithoutARate:
    """Numbers that are not those of the optimizer in use."""

    def test_the_reason_stands_first_and_no_rate_is_named(self):
        advice = advise(estimate(128.0), batch_size=32, no_rate="Not for Lion.")

        assert (advice.batch_size, advice.lr) == (128, None)
        assert advice.reasons[0] == "Not for Lion."
        assert "learning rate 0" not in str(advice)

    @pytest.mark.parametrize("noise_scale", [UNKNOWN, AT_LEAST, NEGATIVE])
    def test_it_stands_first_where_nothing_is_resolved(self, noise_scale):
        advice = advise(noise_scale, no_rate="Not for Lion.")

        assert advice.reasons[0] == "Not for Lion."
        assert (advice.batch_size, advice.lr, advice.confidence) == (None, None, "none")
        assert "2/λ" not in str(advice)


def test_each_reason_is_a_line():
    advice = advise(estimate(96.0), batch_size=32, lr=0.25)

    said = (*advice.reasons, *advice.caveats)
    assert str(advice).split("\n") == [f"- {sentence}" for sentence in said]


def test_what_to_do_comes_first():
    for setting in ({}, {"batch_size": 32, "lr": 0.25}):
        first = advise(estimate(96.0), **setting).reasons[0]
        assert first.startswith(("To try first (SGD): batch size", "Keep batch size 32"))


class TestWithoutCurvature:
    def test_the_simple_noise_scale_gives_a_batch_and_no_rate(self):
        advice = without_curvature(estimate(100.0, 80.0, 120.0), INF)

        assert (advice.batch_size, advice.lr, advice.critical) == (128, None, (80.0, 120.0))
        assert advice.reasons[0].startswith("Critical batch size: about 64 to 128 (B_simple 100).")
        assert advice.reasons[1:] == (NO_CURVATURE,)
        assert advice.confidence == "snapshot: rough"

    @pytest.mark.parametrize("simple", [UNKNOWN, AT_LEAST, AT_MOST])
    def test_an_unresolved_one_gives_nothing_and_says_what_to_do(self, simple):
        advice = without_curvature(simple, INF)

        assert (advice.batch_size, advice.lr, advice.confidence) == (None, None, "none")
        assert simple.status.remedy in advice.reasons[-1]

    def test_no_noise_is_a_batch_of_one(self):
        assert without_curvature(estimate(0.0), INF).batch_size == 1


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
