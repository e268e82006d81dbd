"""The report as text: every number with its meaning, the verdict first."""

import io
import re
from dataclasses import replace

import pytest

import gradnoise as gn
from gradnoise.learning_rate.advice import Recommendation
from gradnoise.learning_rate.reasons import WHEN
from gradnoise.problem.optimizer_settings import OptimizerSettings
from gradnoise.statistics.estimate import short
from tests.reports import cells_of, full, row, words


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
        assert "90% interval" in full(replace(resolved, level=0.9))

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


class TestHowMeasured:
    def test_it_says_what_was_measured_and_how(self, resolved):
        assert (
            "How it was measured "
            "- Point: 30 trainable parameters, float64 on cpu, train mode "
            "- measured on 64 samples out of 64, per-sample gradients by 'hooks', seed 0"
        ) in words(resolved)

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

    def test_the_full_report_says_when_and_where(self, resolved):
        made = {"python": "3.11.7", "threads": "2", "platform": "Linux x86_64"}
        versions = {"gradnoise": "0.1.0", "torch": "2.13.0"}
        profile = replace(resolved, date="2026-11-30T14:21:44+00:00", versions=versions)
        profile = replace(profile, environment={**made, "command": "gradnoise x"})
        said = (
            "- measured at 2026-11-30 14:21:44 UTC "
            "- gradnoise 0.1.0, torch 2.13.0, python 3.11.7, threads 2, Linux x86_64 "
            "- by `gradnoise x`"
        )
        assert words(full(profile)).endswith(said)
        assert "14:21" not in str(profile)
        assert "measured at" not in full(replace(profile, date="", environment={}))

    def test_time_and_passes_are_told(self, resolved):
        cost = replace(resolved.cost, seconds=12.3, passes=45.6)

        assert "- cost: 12 s, 45.6 plain passes" in words(replace(resolved, cost=cost))


class TestOrder:
    def test_verdict_numbers_notes_cost(self, resolved):
        for text in (str(resolved), full(resolved)):
            parts = ("What to do", "95% interval", "Please note", "How it was measured", "cost: ")
            places = [text.index(part) for part in parts]
            assert places == sorted(places)
            assert places[0] == 0

    def test_the_first_line_is_what_to_do(self, resolved):
        assert str(resolved).split("\n")[1].startswith("- To try first (SGD): batch size ")

    def test_the_short_report_names_the_numbers_behind_the_verdict(self, resolved):
        text = str(replace(resolved, batch_size=32))
        landscape = resolved.landscape()

        for label, estimate in (
            ("B_simple", resolved.simple_noise_scale),
            ("noise scale B_noise", resolved.noise_scale),
            ("sharpness λ", resolved.sharpness),
            ("stable rate 2/λ", landscape.stable_lr),
            ("limit at B = 32", landscape.mean_square_lr(32)),
            ("rule at B = 32", landscape.max_lr(32)),
        ):
            value = cells_of(text, label)[1].removesuffix(" samples")
            assert value == short(float(estimate))
        assert "tr(HΣ)/GᵀHG" in text
        assert "Σ: covariance of the gradients of single samples" in text

    def test_without_a_batch_size_in_use_limits_are_those_at_the_advised_one(self, resolved):
        assert f"rule at B = {resolved.recommend().batch_size} " in str(resolved)

    def test_the_short_report_says_where_the_rest_is(self, resolved):
        assert "print(p.report(full=True)), --full" in words(resolved)
        assert "p.report(full=True)" not in full(resolved)

    def test_the_short_report_fits_two_screens(self, resolved, bounds_only, deep):
        for profile in (resolved, bounds_only, deep):
            assert len(str(profile).split("\n")) <= 48

    def test_of_another_optimizer_its_first_line_says_whose_rates_these_are(self, resolved):
        adam = replace(resolved, optimizer=OptimizerSettings("AdamW", 0.001, 0.9, kind="adam"))

        assert (
            str(adam)
            .split("\n")[1]
            .startswith("- No learning rate is given: these numbers are for plain SGD, not for")
        )
        assert "All are limits of plain SGD, not of AdamW." in full(adam)

    def test_sgd_is_not_told_so(self, resolved):
        sgd = replace(resolved, optimizer=OptimizerSettings("SGD", 0.1), batch_size=32)

        assert "plain SGD" not in full(sgd)


class TestAdvised:
    """With what short training has tried."""

    @pytest.fixture
    def tried(self, resolved):
        advice = Recommendation(16, 0.25, ("Batch size 16, learning rate 0.250: tried.",), "good")
        return resolved.with_advice(advice)

    def test_it_is_the_verdict(self, tried):
        first, second, *_ = str(tried).split("\n")

        assert first == "What to do (tried by short training: good)"
        assert second == "- Batch size 16, learning rate 0.250: tried."
        assert (tried.recommend().batch_size, tried.recommend().lr) == (16, 0.25)

    def test_no_second_pair_is_named(self, tried, resolved):
        assert resolved.recommend().lr is not None
        assert "To try" not in full(tried)
        assert (
            "What this point of training says (trials count more) - Critical batch size"
            in words(tried)
        )

    def test_what_a_snapshot_leaves_open_is_not_said_of_trials(self, tried, resolved):
        assert WHEN in words(resolved)
        assert WHEN not in words(tried)

    def test_trials_that_found_nothing_are_a_note(self, resolved):
        nothing = Recommendation(None, None, ("Nothing was tried.",), "none")
        told = resolved.with_advice(nothing)

        assert told.recommend() == resolved.recommend()
        assert told.warnings == (*resolved.warnings, "Nothing was tried.")

    def test_an_unresolved_point_keeps_all_that_it_says(self, bounds_only):
        advice = Recommendation(16, 0.25, ("Tried.",), "rough")
        said = words(bounds_only.with_advice(advice))

        assert words(" ".join(f"- {r}" for r in bounds_only.recommend().reasons)) in said


class TestWords:
    def test_units_are_stated(self, resolved):
        text = words(full(resolved))

        for unit in ("learning rates in parameter²/loss", "λ in loss/parameter²"):
            assert unit in text
        assert "parameter means" not in text

    def test_in_the_metric_of_an_optimizer_units_are_those_of_its_coordinates(self, resolved):
        settings = OptimizerSettings("AdamW", 0.001, 0.9, kind="adam")
        adam = replace(resolved, optimizer=settings, metric="optimizer")

        assert "In this metric, parameter means P^½w, with P the preconditioner" in words(
            full(adam)
        )
        assert "with P from its state" in words(full(adam))

    def test_exact_is_explained_where_it_is_said(self, resolved, bounds_only):
        said = "exact: no sampling error, all 64 samples were measured."

        assert said in words(full(resolved))
        assert said not in words(full(bounds_only))

    def test_formulas_are_shown_where_they_hold(self, resolved):
        momentum = replace(resolved, optimizer=OptimizerSettings("SGD", 0.1, 0.9))

        assert "(2/λ)/(1 + B_noise/B); beyond it a step gains less" in words(full(resolved))
        assert "(2/λ)/(1 + B_noise/B)" not in words(full(momentum))
        assert "All are limits of SGD with momentum 0.9" in words(full(momentum))

    def test_limits_are_said_to_hold_at_this_point(self, resolved):
        assert "The limits hold at this point of training." in words(full(resolved))
        assert "diverge" not in full(resolved)

    def test_one_point_is_said_not_to_tell_the_largest_stable_rate(self, resolved):
        batch = row(resolved, "learning rate at B =")[1]
        rate = float(resolved.landscape().doubling_lr(float(batch)))

        assert "one point does not tell the largest stable rate of training" in words(
            full(resolved)
        )
        said = f"at B = {batch}, {short(0.4 * rate)} to {short(5 * rate)}. In the first steps"
        assert said in words(full(resolved))

    def test_for_an_adaptive_optimizer_the_range_is_its_own(self, resolved):
        settings = OptimizerSettings("AdamW", 0.001, 0.9, kind="adam")
        adam = replace(resolved, optimizer=settings, metric="optimizer")

        assert (
            "Most trained runs of Adam and AdamW kept their loss up to 0.1 to 2.5 times"
            in words(full(adam))
        )

    def test_a_loss_below_zero_has_no_rate_that_doubles_it(self, resolved):
        loss = replace(resolved.loss, value=-1.0, low=-1.0, high=-1.0)
        other = replace(resolved, estimates={**resolved.estimates, "loss": loss})

        assert row(resolved, "noise doubles loss")
        assert "doubles" not in words(full(other))

    @pytest.mark.parametrize("name", ["resolved", "bounds_only", "negative", "flat", "deep"])
    @pytest.mark.parametrize("columns", [60, 80, 100])
    @pytest.mark.parametrize("whole", [False, True])
    def test_no_row_of_a_table_breaks(self, name, columns, whole, request, monkeypatch):
        monkeypatch.setenv("COLUMNS", str(columns))
        lines = request.getfixturevalue(name).report(full=whole).split("\n")

        rules = [i for i, line in enumerate(lines) if line.startswith("──")]
        for i in rules:
            end = lines.index("", i) if "" in lines[i:] else len(lines)
            assert lines[i - 2] == ""  # a heading of one line
            broken = any(row.startswith(" ") for row in lines[i + 1 : end])
            assert not broken or (name == "bounds_only" and columns == 60)  # "1.00 to 1.10"
        assert len(rules) == (1 if not whole else 2 if name == "flat" else 3)
        assert max(map(len, lines)) <= columns


class TestFirstSteps:
    """The metric of an optimizer whose second moments have not settled."""

    @pytest.fixture
    def early(self, resolved):
        settings = OptimizerSettings("AdamW", 0.008, 0.9, kind="adam", steps=2, settled_after=1000)
        return replace(resolved, optimizer=settings, metric="optimizer", batch_size=16)

    def test_no_rate_and_no_limit_is_shown(self, early):
        text = words(full(early))

        assert "AdamW has taken 2 steps: its second moments have not settled" in text
        assert not re.search("mean-square limit|stable rate|noise-scale rule|unstable", text)

    def test_the_other_numbers_are(self, early):
        assert row(early, "sharpness λ")
        assert row(early, "noise scale B_noise")

    def test_settled_ones_have_limits(self, early):
        settled = replace(early, optimizer=replace(early.optimizer, steps=1000))

        assert "AdamW is unstable at this point beyond it" in words(full(settled))
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
        assert "temperature" not in full(resolved)

    def test_no_batch_exceeds_the_population(self, resolved):
        large = gn.Estimate(1000.0, 900.0, 1100.0, 0.95, 0.0, 64)
        profile = replace(resolved, estimates={**resolved.estimates, "noise_scale": large})
        cells = row(profile, "learning rate at B =")[1:]

        assert max(int(cell) for cell in cells if cell.isdecimal()) == 64


class TestNotes:
    def test_each_warning_is_listed(self, resolved):
        text = str(replace(resolved, warnings=("the first of them", "the second of them")))

        assert "\n- the first of them\n- the second of them\n\nHow it was measured" in text

    def test_without_caveats_there_are_no_notes(self, resolved):
        plain = Recommendation(None, None, ("Nothing.",), "none")

        assert "Please note" not in str(replace(resolved, warnings=(), advised=plain))

    @pytest.mark.parametrize("warning", ["mask[index] is odd", "no [/close] here", "as :warning:"])
    def test_brackets_and_colons_are_shown_as_they_are(self, resolved, warning):
        assert f"\n- {warning}\n" in str(replace(resolved, warnings=(warning,)))

    def test_a_batch_capped_by_the_data_says_so(self, resolved):
        thousand = gn.Estimate(1000.0, 900.0, 1100.0, 0.95, 0.0, 64)
        profile = replace(resolved, estimates={**resolved.estimates, "noise_scale": thousand})

        profile = replace(profile, estimates={**profile.estimates, "simple_noise_scale": thousand})
        said = "larger than the whole data set (B_simple 1 000, B_noise 1 000)"
        assert said in words(str(profile))
        assert "twice the steps" not in words(str(profile))

    @pytest.mark.parametrize("name", ["resolved", "bounds_only", "negative", "flat", "deep"])
    def test_the_verdict_is_the_recommendation(self, name, request):
        profile = request.getfixturevalue(name)

        advice = profile.recommend()
        sure = "" if advice.confidence == "none" else " (snapshot: rough)"
        said = words(" ".join(f"- {reason}" for reason in advice.reasons))
        assert words(str(profile)).startswith(f"What to do{sure} {said}")

    @pytest.mark.parametrize("name", ["resolved", "bounds_only", "negative", "flat", "deep"])
    @pytest.mark.parametrize("columns", [40, 60, 80, 100])
    def test_no_line_is_wider_than_the_terminal(self, name, columns, request, monkeypatch):
        monkeypatch.setenv("COLUMNS", str(columns))
        profile = request.getfixturevalue(name)

        widest = {60: 60, 80: 80, 100: 100}.get(columns, 62)  # shorter: tables are not squeezed
        for text in (str(profile), full(profile)):
            assert max(map(len, text.split("\n"))) <= widest

    @pytest.mark.parametrize("name", ["resolved", "bounds_only", "negative", "flat", "deep"])
    def test_an_output_without_greek_letters_gets_ascii(self, name, request, monkeypatch):
        with io.TextIOWrapper(io.BytesIO(), encoding="ascii") as stream:
            monkeypatch.setattr("sys.stdout", stream)
            text = full(request.getfixturevalue(name))

        assert text.isascii()
        assert "?" not in text
        assert "gradient noise tr(Sigma)  " in text
        heading, rule, *rows = text[text.index("measured  ") :].split("\n\n")[0].split("\n")
        assert set(rule) == {"-"}
        assert all(len(line) <= len(rule) for line in (heading, *rows))
