"""The sentences of a recommendation: what they say about the setting in use."""

import pytest

from gradnoise.learning_rate.advice import recommend
from gradnoise.learning_rate.reasons import about_batch, about_rate, bounds, critical, to_try
from gradnoise.learning_rate.setting import Setting
from gradnoise.learning_rate.suggestion import Suggestion
from tests.landscapes import AT_LEAST, AT_MOST, B_CURV, INF, UNKNOWN, estimate, landscape


def advise(noise_scale, curvature=B_CURV, population=INF, **setting):
    current = Setting(**setting)
    own = {"optimizer": current.optimizer, "momentum": current.momentum}
    found = landscape(noise_scale, curvature=curvature, population=population, **own)
    return recommend(found, current)


class TestBatch:
    @pytest.mark.parametrize(
        ("batch_size", "said"),
        [
            (32, "Your batch size 32 is noise-dominated"),
            (100, "Your batch size 100 is between the noise scales or inside their intervals"),
            (512, "Your batch size 512 is curvature-dominated"),
        ],
    )
    def test_the_batch_in_use_is_placed(self, batch_size, said):
        assert said in str(advise(estimate(100.0, 80.0, 120.0), batch_size=batch_size))

    def test_between_the_two_noise_scales_it_cannot_be_placed(self):
        bowl, current = landscape(estimate(96.0)), Setting(32)
        for simple, said in (
            (estimate(8.0), "between the noise scales"),
            (estimate(64.0), "noise-dominated"),
            (UNKNOWN, "noise-dominated"),
        ):
            (text,) = about_batch(bowl, current, simple)
            assert said in text
            assert ("a run takes" in text.lower()) == (said == "noise-dominated")

    def test_what_the_batch_costs_is_said(self):
        text = str(advise(estimate(96.0), batch_size=32))

        assert "A run takes about 4.0 times the steps of very large batches" in text
        assert "and 1.3 times the samples of very small ones" in text

    def test_a_cost_has_no_more_digits_than_it_is_worth(self):
        text = str(advise(estimate(96.0), batch_size=1))

        assert "about 97 times the steps of very large batches and 1.0 times the samples" in text

    def test_a_learning_rate_without_a_batch_size_cannot_be_judged(self):
        said = "To have the learning rate 0.1 judged, give the batch size as well (`batch_size`, "

        assert said in str(advise(estimate(96.0), lr=0.1))
        assert "give the batch size" not in str(advise(estimate(96.0)))

    @pytest.mark.parametrize("setting", [{}, {"lr": 0.1}])
    def test_without_a_batch_size_nothing_is_said(self, setting):
        assert "Your" not in str(advise(estimate(96.0), **setting))

    def test_a_bound_alone_still_places_the_batch(self):
        assert "32 is noise-dominated" in str(advise(AT_LEAST, batch_size=32, lr=0.1))


class TestRate:
    def test_the_learning_rate_in_use_is_compared_with_the_limit_and_the_rule(self):
        text = str(advise(estimate(96.0), batch_size=32, lr=0.25))

        assert "Your learning rate 0.25 is 0.531 times the limit 0.471 at this point" in text
        assert "2.00 times the noise-scale rule 0.125, beyond which a step gains less" in text

    def test_with_momentum_the_rule_is_that_of_momentum(self):
        text = str(advise(estimate(96.0), batch_size=32, lr=0.25, momentum=0.5))

        assert "learning rate 0.25 with momentum 0.5 is" in text
        assert "3.33 times the noise-scale rule" in text

    def test_without_a_noise_scale_the_limit_alone_is_compared(self):
        (text,) = about_rate(landscape(AT_LEAST), Setting(32, 0.1))

        assert "0.213 times the limit 0.471" in text
        assert "rule" not in text

    @pytest.mark.parametrize(
        ("lr", "said"),  # the limit is 0.4706 there, and the noise-scale rule 0.125
        [
            (0.1, "A larger one may train faster"),
            (0.2, "A larger one may train faster"),
            (0.24, "Runs that train best are often as near to it: keep the rate while the loss"),
            (0.47, "Runs that train best are often as near to it: keep the rate while the loss"),
            (0.48, "Beyond the limit training does not stay in this bowl"),
        ],
    )
    def test_the_comparison_says_what_it_means(self, lr, said):
        assert said in str(advise(estimate(96.0), batch_size=32, lr=lr))

    def test_nothing_is_said_to_diverge(self):
        for lr in (0.01, 0.1, 0.4, 1.0, 30.0):
            assert "diverge" not in str(advise(estimate(96.0), batch_size=32, lr=lr))


class TestToTry:
    @pytest.mark.parametrize(
        ("rescales", "said"),
        [
            (
                None,
                "64, learning rate 0.200. Linear scaling keeps the noise of your steps, with 2",
            ),
            (
                "Adam",
                "64, learning rate 0.141. Square-root scaling keeps the noise of your steps",
            ),
        ],
    )
    def test_below_the_noise_scale_the_rate_is_carried_to_a_larger_batch(self, rescales, said):
        setting = {"batch_size": 32, "lr": 0.1, "rescales": rescales}
        assert said in str(advise(estimate(128.0), **setting))
        for scale, batch_size in ((8.0, 32), (128.0, 128), (33.0, 32)):
            text = str(advise(estimate(scale), **{**setting, "batch_size": batch_size}))
            assert "the noise of your steps" not in text

    def test_near_the_critical_batch_the_batch_is_kept(self):
        said = "Keep batch size 128: it is near the critical one."
        assert said in str(advise(estimate(128.0), batch_size=128, lr=0.1))

    def test_without_room_below_the_limit_the_setting_is_kept(self):
        text = str(advise(estimate(128.0), batch_size=32, lr=0.4))
        assert "Keep batch size 32 and learning rate 0.4 while the loss falls" in text
        assert "the limit 0.471 at this point leaves no room for one" in text
        half = str(advise(estimate(128.0), batch_size=32, lr=0.2))  # 0.4 is too much at 64
        assert "leaves no room for one" in half
        assert "near the critical one" not in half

    def test_noise_that_leaves_no_room_is_named(self):
        noisy = {"loss": estimate(1.0), "trace_cov": estimate(80.0)}
        bowl = landscape(estimate(96.0), curvature=estimate(0.0), **noisy)
        text = to_try(bowl, Setting(4, 0.06), Suggestion(4, 0.06, 0.07, limited=True))
        assert "the rate 0.143 at which the noise of the steps doubles the loss leaves no" in text
        calm = landscape(estimate(96.0), loss=estimate(1.0), trace_cov=estimate(1.0))
        text = to_try(calm, Setting(32, 0.2), Suggestion(32, 0.2, 0.2, limited=True))
        assert "the limit 0.471 at this point leaves no room for one" in text

    def test_from_beyond_it_a_smaller_one_saves_samples(self):
        text = str(advise(estimate(16.0), batch_size=512, lr=0.1))
        assert "To try next (SGD): batch size 16, learning rate 0.0516. It saves" in text

    def test_the_limit_is_that_of_the_batch_that_is_named(self):
        found = Suggestion(8, 0.1, 0.2)
        text = to_try(landscape(estimate(8.0)), Setting(), found)
        assert "half of the limit 0.400 at this point" in text  # (2/4)/(1 + 2/8)


class TestCritical:
    @staticmethod
    def said(simple, noise_scale, low, high):
        scales = {"B_simple": simple, "B_noise": noise_scale}
        known = {name: scale for name, scale in scales.items() if scale is not None}
        return critical(known, INF, low, high)

    def test_a_range_has_two_ends_and_a_point_one(self):
        noise_scale = estimate(100.0)
        assert "about 128 (B_noise 100)" in self.said(None, noise_scale, 100.0, 100.0)
        assert "about 64 to 128" in self.said(estimate(60.0), noise_scale, 60.0, 100.0)

    def test_a_factor_of_two_is_no_disagreement(self):
        noise_scale = estimate(100.0)
        assert "uncertain" not in self.said(estimate(50.0), noise_scale, 50.0, 100.0)
        assert "uncertain" in self.said(estimate(49.0), noise_scale, 49.0, 100.0)
        assert "uncertain" not in self.said(None, noise_scale, 1.0, 100.0)

    @pytest.mark.parametrize(
        ("simple", "noise_scale", "factor"),
        [
            (estimate(60.0), AT_LEAST, "5.00"),  # at least 300
            (estimate(60.0), AT_MOST, "6.67"),  # at most 9
            (AT_LEAST, estimate(60.0), "5.00"),
            (estimate(60.0), UNKNOWN, None),
            (estimate(400.0), AT_LEAST, None),
            (estimate(60.0, 20.0, 500.0), estimate(60.0), None),
        ],
    )
    def test_bounds_disagree_as_values_do(self, simple, noise_scale, factor):
        said = self.said(simple, noise_scale, 60.0, 60.0)
        assert ("differ by a factor" in said) is (factor is not None)
        assert factor is None or f"factor {factor}," in said

    def test_no_noise_at_all_is_a_value(self):
        noise_scale = estimate(0.0)
        assert "Critical batch size 1 (B_noise 0)" in self.said(None, noise_scale, 0.0, 0.0)
        assert "about 1 to 64" in self.said(estimate(60.0), noise_scale, 0.0, 60.0)
        assert "factor ∞, so this is uncertain" in self.said(estimate(60.0), noise_scale, 0.0, 60.0)


@pytest.mark.parametrize("scale", [UNKNOWN, AT_LEAST, AT_MOST])
def test_the_stable_rate_stands_in_for_a_comparison(scale):
    bowl = landscape(scale)
    said = "unstable at this point beyond the learning rate 0.500"
    assert said in " ".join(bounds(bowl, Setting(32), None))
    assert said not in " ".join(bounds(bowl, Setting(32, 0.1), None))
