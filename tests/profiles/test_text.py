"""The report as text: every number with its meaning, the verdict first."""

import re
from dataclasses import replace

import pytest

import gradnoise as gn
from gradnoise.problem.optimizer_settings import OptimizerSettings
from gradnoise.statistics.estimate import short
from tests.reports import row, words


class TestMeasured:
    @pytest.mark.parametrize(
        ("name", "label", "unit"),
        [
            ("loss", "loss L", ""),
            ("grad_sq_norm", "gradient |G|²", ""),
            ("trace_cov", "gradient noise trΣ", ""),
            ("simple_noise_scale", "B_simple", " samples"),
            ("noise_scale", "noise scale B_noise", " samples"),
            ("sharpness", "sharpness λ", ""),
            ("grad_curvature", "curvature GᵀHG", ""),
            ("trace_hessian_cov", "tr(HΣ)", ""),
            ("curvature_noise_scale", "B_curv", " samples"),
        ],
    )
    def test_every_quantity_is_shown_with_interval_and_meaning(self, resolved, name, label, unit):
        exact = gn.Estimate(12.3, 12.3, 12.3, 0.95, 0.0, 64)
        spread = gn.Estimate(12.3, 11.2, 13.4, 0.95, 0.5, 64)

        for shown, interval in ((exact, "exact"), (spread, "11.2 to 13.4")):
            profile = replace(resolved, estimates={**resolved.estimates, name: shown})
            cells = row(profile, label)
            assert cells[1:3] == [f"12.3{unit}", interval]
            assert cells[3]

    def test_the_table_of_quantities_leaves_none_out(self, resolved):
        assert len(resolved.estimates) == 9  # as many as the test above has lines

    def test_the_stable_rate_is_two_over_the_sharpness(self, resolved):
        four = gn.Estimate(4.0, 2.0, 8.0, 0.95, 0.5, 64)
        profile = replace(resolved, estimates={**resolved.estimates, "sharpness": four})

        assert row(profile, "stable rate 2/λ")[1:3] == ["0.500", "0.250 to 1.00"]

    def test_an_interval_is_headed_by_its_level(self, resolved):
        assert "90% interval" in str(replace(resolved, level=0.9))

    @pytest.mark.parametrize(
        ("status", "flag"),
        [
            (gn.Status.NOT_CONVERGED, "not converged"),
            (gn.Status.NO_INTERVAL, "interval not measured"),
        ],
    )
    def test_a_reservation_is_shown_beside_the_value(self, resolved, status, flag):
        shown = gn.Estimate(12.3, 11.2, 13.4, 0.95, 0.5, 64, status)
        profile = replace(resolved, estimates={**resolved.estimates, "sharpness": shown})

        cells = row(profile, "sharpness λ")
        assert cells[1] == "12.3"
        assert flag in cells[2]

    def test_what_was_not_measured_is_left_out_and_the_reason_given(self, flat):
        text = str(flat)

        assert "gradient |G|²" in text
        assert not re.search("B_noise|B_curv|sharpness λ|learning rate at", text)
        assert "curvature was not measured: no second derivatives" in words(text)


class TestUnresolved:
    def test_bounds_stand_in_for_the_value(self, bounds_only):
        bound = short(bounds_only.noise_scale.low)

        assert row(bounds_only, "noise scale B_noise")[1:3] == [f"≥ {bound}", "signal below noise"]

    def test_negative_curvature_is_undefined(self, negative):
        cells = row(negative, "noise scale B_noise")

        assert cells[1:3] == ["undefined", "negative curvature"]

    def test_negative_curvature_limits_no_full_batch(self, negative):
        assert row(negative, "stable rate 2/λ")[1:3] == ["∞", "exact"]

    def test_negative_curvature_gives_no_best_step(self, negative):
        assert set(row(negative, "best single step")[1:-1]) == {"undefined"}

    @pytest.mark.parametrize("name", ["resolved", "bounds_only", "negative", "flat", "deep"])
    def test_nan_and_inf_are_never_shown(self, name, request):
        text = str(request.getfixturevalue(name))

        assert not re.search(r"\b(nan|inf|None)\b", text)
        assert "≥ ∞" not in text


class TestHeader:
    def test_it_says_what_was_measured_and_how(self, resolved):
        assert words(str(resolved)).startswith(
            "Point: 30 trainable parameters, float64 on cpu, train mode "
            "measured on 64 samples out of 64, per-sample gradients by 'hooks', seed 0"
        )

    @pytest.mark.parametrize(
        ("population", "shown"), [(float("inf"), "out of ∞"), (60_000, "out of 60 000")]
    )
    def test_the_population_is_named(self, resolved, population, shown):
        assert shown in str(replace(resolved, population=population))

    @pytest.mark.parametrize(
        ("optimizer", "batch_size", "shown"),
        [
            (OptimizerSettings("SGD", 0.1), None, "trained with SGD, learning rate 0.1\n"),
            (
                OptimizerSettings("SGD", 0.1, 0.9),
                32,
                "trained with SGD, learning rate 0.1, momentum 0.9, batch size 32\n",
            ),
            (None, 32, "trained with batch size 32\n"),
        ],
    )
    def test_the_setting_in_use_is_named(self, resolved, optimizer, batch_size, shown):
        assert shown in str(replace(resolved, optimizer=optimizer, batch_size=batch_size))

    def test_an_unknown_setting_is_not_mentioned(self, resolved):
        assert "trained with" not in str(resolved)


class TestOrder:
    def test_the_verdict_stands_between_the_header_and_the_numbers(self, resolved):
        text = str(resolved)

        assert text.index("seed 0") < text.index("What to do") < text.index("measured  ")

    def test_of_another_optimizer_its_first_line_says_whose_rates_these_are(self, resolved):
        adam = replace(resolved, optimizer=OptimizerSettings("AdamW", 0.001, 0.9, kind="adam"))
        lines = str(adam).split("\n")
        start = next(i for i, line in enumerate(lines) if line.startswith("What to do"))

        assert lines[start + 1].startswith(
            "- No learning rate is given: these numbers are for plain SGD, not for AdamW"
        )
        assert "All are limits of plain SGD, not of AdamW." in str(adam)

    def test_sgd_is_not_told_so(self, resolved):
        sgd = replace(resolved, optimizer=OptimizerSettings("SGD", 0.1), batch_size=32)

        assert "plain SGD" not in str(sgd)


class TestWords:
    def test_units_are_stated(self, resolved):
        text = words(resolved)

        for unit in ("learning rates in parameter²/loss", "λ in loss/parameter²"):
            assert unit in text
        assert "parameter means" not in text

    def test_in_the_metric_of_an_optimizer_units_are_those_of_its_coordinates(self, resolved):
        settings = OptimizerSettings("AdamW", 0.001, 0.9, kind="adam")
        adam = replace(resolved, optimizer=settings, metric="optimizer")

        assert "In this metric, parameter means P^½w." in words(adam)
        assert "with P from its state" in words(adam)

    def test_exact_is_explained_where_it_is_said(self, resolved, bounds_only):
        said = "exact: no sampling error, all 64 samples were measured."

        assert said in words(resolved)
        assert said not in words(bounds_only)

    def test_formulas_are_shown_where_they_hold(self, resolved):
        momentum = replace(resolved, optimizer=OptimizerSettings("SGD", 0.1, 0.9))

        assert "(2/λ)/(1 + B_noise/B); beyond it a step gains less" in words(resolved)
        assert "(2/λ)/(1 + B_noise/B)" not in words(momentum)
        assert "All are limits of SGD with momentum 0.9" in words(momentum)

    def test_limits_are_said_to_hold_at_this_point(self, resolved):
        assert "The limits hold at this point of training." in words(resolved)
        assert "diverge" not in str(resolved)

    def test_one_point_is_said_not_to_tell_the_largest_stable_rate(self, resolved):
        batch = row(resolved, "learning rate at B =")[1]
        rate = float(resolved.landscape().doubling_lr(float(batch)))

        assert "one point does not tell the largest stable rate of training" in words(resolved)
        said = f"at B = {batch}, {short(0.4 * rate)} to {short(5 * rate)}. In the first steps"
        assert said in words(resolved)

    def test_for_an_adaptive_optimizer_the_range_is_its_own(self, resolved):
        settings = OptimizerSettings("AdamW", 0.001, 0.9, kind="adam")
        adam = replace(resolved, optimizer=settings, metric="optimizer")

        assert (
            "Most trained runs of Adam and AdamW kept their loss up to 0.1 to 2.5 times"
            in words(adam)
        )

    def test_a_loss_below_zero_has_no_rate_that_doubles_it(self, resolved):
        loss = replace(resolved.loss, value=-1.0, low=-1.0, high=-1.0)
        other = replace(resolved, estimates={**resolved.estimates, "loss": loss})

        assert row(resolved, "noise doubles loss")
        assert "doubles" not in words(other)

    @pytest.mark.parametrize("name", ["resolved", "bounds_only", "negative", "flat", "deep"])
    @pytest.mark.parametrize("columns", [80, 100])
    def test_no_row_of_a_table_breaks(self, name, columns, request, monkeypatch):
        monkeypatch.setattr("gradnoise.show.table.width", lambda: columns)
        lines = str(request.getfixturevalue(name)).split("\n")

        rules = [i for i, line in enumerate(lines) if line.startswith("──")]
        for i in rules:
            end = lines.index("", i) if "" in lines[i:] else len(lines)
            assert lines[i - 2] == ""  # a heading of one line
            assert not any(row.startswith(" ") for row in lines[i + 1 : end])
        assert len(rules) == (2 if name == "flat" else 3)
        assert max(map(len, lines)) <= columns


class TestFirstSteps:
    """The metric of an optimizer whose second moments have not settled."""

    @pytest.fixture
    def early(self, resolved):
        settings = OptimizerSettings("AdamW", 0.008, 0.9, kind="adam", steps=2, settled_after=1000)
        return replace(resolved, optimizer=settings, metric="optimizer", batch_size=16)

    def test_no_rate_and_no_limit_is_shown(self, early):
        text = words(early)

        assert "AdamW has taken 2 steps: its second moments have not settled" in text
        assert not re.search("mean-square limit|stable rate|noise-scale rule|unstable", text)

    def test_the_other_numbers_are(self, early):
        assert row(early, "sharpness λ")
        assert row(early, "noise scale B_noise")

    def test_settled_ones_have_limits(self, early):
        settled = replace(early, optimizer=replace(early.optimizer, steps=1000))

        assert "AdamW is unstable at this point beyond it" in words(settled)
        assert row(settled, "stable rate 38/λ")


class TestLearningRates:
    def test_they_are_those_of_the_profile(self, resolved):
        profile = replace(resolved, batch_size=32)
        heading = row(profile, "learning rate at B =")
        column = heading.index("32")

        for label, limit in (
            ("noise-scale rule", profile.max_lr(32)),
            ("best single step", profile.greedy_lr(32)),
            ("mean-square limit", profile.mean_square_lr(32)),
            ("noise doubles loss", profile.landscape().doubling_lr(32)),
        ):
            assert row(profile, label)[column] == short(float(limit))
        assert row(profile, "regime")[column] == "curvature"

    def test_the_temperature_is_that_of_the_rate_in_use(self, resolved):
        settings = OptimizerSettings("SGD", 0.1, 0.5)
        profile = replace(resolved, batch_size=32, optimizer=settings)

        column = row(profile, "learning rate at B =").index("32")
        assert row(profile, "temperature ε/((1-m)B)")[column] == "0.00313"  # 0.2 (1/32 - 1/64)

    def test_without_a_rate_in_use_there_is_no_temperature(self, resolved):
        assert "temperature" not in str(resolved)

    def test_no_batch_exceeds_the_population(self, resolved):
        batches = row(resolved, "learning rate at B =")[1:-1]

        assert max(map(int, batches)) <= 64


class TestNotes:
    def test_each_warning_is_listed(self, resolved):
        text = str(replace(resolved, warnings=("the first of them", "the second of them")))

        assert text.endswith("Please note\n- the first of them\n- the second of them")

    def test_without_warnings_there_are_no_notes(self, resolved):
        assert "Please note" not in str(replace(resolved, warnings=()))

    @pytest.mark.parametrize("warning", ["mask[index] is odd", "no [/close] here", "as :warning:"])
    def test_brackets_and_colons_are_shown_as_they_are(self, resolved, warning):
        assert str(replace(resolved, warnings=(warning,))).endswith(f"\n- {warning}")

    def test_a_batch_capped_by_the_data_says_so(self, resolved):
        thousand = gn.Estimate(1000.0, 900.0, 1100.0, 0.95, 0.0, 64)
        profile = replace(resolved, estimates={**resolved.estimates, "noise_scale": thousand})

        profile = replace(profile, estimates={**profile.estimates, "simple_noise_scale": thousand})
        said = "larger than the whole data set (B_simple 1 000, B_noise 1 000)"
        assert said in words(str(profile))
        assert "twice the steps" not in words(str(profile))

    @pytest.mark.parametrize("name", ["resolved", "bounds_only", "negative", "deep"])
    def test_the_advice_is_the_recommendation(self, name, request):
        profile = request.getfixturevalue(name)

        advice = profile.recommend()
        sure = "" if advice.confidence == "none" else " (snapshot: rough)"
        assert f"What to do{sure} {words(advice)}" in words(str(profile))

    @pytest.mark.parametrize("name", ["resolved", "bounds_only", "negative", "flat", "deep"])
    def test_no_line_is_wider_than_a_hundred(self, name, request):
        assert max(map(len, str(request.getfixturevalue(name)).split("\n"))) <= 100
