"""A profile shown: the text, the regime map, and the progress bar."""

import re
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

import gradnoise as gn
from gradnoise.problem.optimizer_settings import OptimizerSettings
from gradnoise.show.progress import progress_bar
from gradnoise.statistics.estimate import short
from gradnoise.toy import NoisyQuadratic

SLOPE = ("loss", "grad_sq_norm", "trace_cov", "simple_noise_scale")


def quadratic(offset, sign=1.0, **options):
    toy = NoisyQuadratic(sign * torch.diag(torch.linspace(1, 2, 30)), torch.full((30,), offset))
    return gn.profile(toy.model(), toy.loss_fn, toy.sample(64, seed=0), probes=4, **options)


@pytest.fixture(scope="module")
def resolved():
    return quadratic(1.0)


@pytest.fixture(scope="module")
def bounds_only():
    return quadratic(0.0, population="distribution")


@pytest.fixture(scope="module")
def negative():
    return quadratic(1.0, sign=-1.0)


@pytest.fixture(scope="module")
def flat(resolved):
    """What is left where second derivatives do not exist."""
    left = {name: e for name, e in resolved.estimates.items() if name in SLOPE}
    note = "curvature was not measured: no second derivatives (of this kernel)"
    return replace(resolved, estimates=left, warnings=(note,))


@pytest.fixture(scope="module")
def deep():
    torch.manual_seed(0)
    layers = [module for _ in range(8) for module in (nn.Linear(3, 3), nn.Tanh())]
    data = (torch.randn(32, 3).double(), torch.zeros(32, 3).double())
    return gn.profile(nn.Sequential(*layers).double(), nn.MSELoss(), data, probes=4)


def words(text):
    """The text without its line breaks and columns."""
    return " ".join(text.split())


def row(profile, label):
    """The cells of one line of the report."""
    line = next(line for line in str(profile).split("\n") if line.startswith(label + "  "))
    return re.split(r"\s{2,}", line)


class TestMeasured:
    @pytest.mark.parametrize(
        ("name", "label", "unit"),
        [
            ("loss", "loss L", ""),
            ("grad_sq_norm", "gradient |G|²", ""),
            ("trace_cov", "gradient noise trΣ", ""),
            ("simple_noise_scale", "trΣ/|G|²", " samples"),
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


class TestLearningRates:
    def test_they_are_those_of_the_profile(self, resolved):
        profile = replace(resolved, batch_size=32)
        heading = row(profile, "learning rate at B =")
        column = heading.index("32")

        for label, limit in (
            ("noise-scale rule", profile.max_lr(32)),
            ("best single step", profile.greedy_lr(32)),
            ("mean-square limit", profile.mean_square_lr(32)),
        ):
            assert row(profile, label)[column] == short(float(limit))
        assert row(profile, "regime")[column] == "curvature"

    def test_the_temperature_is_that_of_the_rate_in_use(self, resolved):
        settings = OptimizerSettings("SGD", 0.1, 0.5)
        profile = replace(resolved, batch_size=32, optimizer=settings)

        column = row(profile, "learning rate at B =").index("32")
        assert row(profile, "temperature ε/(1-m)B")[column] == "0.00313"  # 0.2 (1/32 - 1/64)

    def test_without_a_rate_in_use_there_is_no_temperature(self, resolved):
        assert "temperature" not in str(resolved)

    def test_no_batch_exceeds_the_population(self, resolved):
        batches = row(resolved, "learning rate at B =")[1:-1]

        assert max(map(int, batches)) <= 64


class TestLayers:
    def test_a_long_list_is_cut_and_its_rest_summed(self, deep):
        lines = str(deep).split("\n")
        start = next(i for i, line in enumerate(lines) if line.startswith("layer "))
        rows = [re.split(r"\s{2,}", line) for line in lines[start + 2 : start + 9]]

        assert [cells[0] for cells in rows[-1:]] == ["(2 more)"]
        assert sum(int(cells[1]) for cells in rows) == deep.parameters
        assert sum(int(cells[2].rstrip("%")) for cells in rows) == pytest.approx(100, abs=4)

    def test_the_noisiest_come_first(self, deep):
        noisiest = max(deep.layers.values(), key=lambda layer: layer.noise_share)
        lines = str(deep).split("\n")
        start = next(i for i, line in enumerate(lines) if line.startswith("layer "))

        assert lines[start + 2].startswith(f"{noisiest.name} ")

    def test_a_parameter_of_the_model_itself_is_at_the_root(self, resolved):
        assert row(resolved, "(root)")[1:3] == ["30", "100%"]

    def test_each_has_its_interval_and_its_share_of_the_steepest_direction(self, deep):
        spread = gn.Estimate(12.3, 11.2, 13.4, 0.95, 0.5, 64)
        half = gn.Estimate(0.5, 0.4, 0.6, 0.95, 0.0, 64)
        known = {"simple_noise_scale": spread, "noise_share": 0.99, "sharpness_share": half}
        layer = replace(deep.layers["4"], **known)
        profile = replace(deep, layers={**deep.layers, "4": layer})

        cells = row(profile, "4")
        assert cells[2:] == ["99%", "50%", "12.3 samples", "11.2 to 13.4"]

    def test_without_curvature_the_share_is_a_dash(self, resolved):
        layer = replace(resolved.layers[""], sharpness_share=None)

        assert row(replace(resolved, layers={"": layer}), "(root)")[3] == "–"

    def test_one_layer_alone_is_not_said_to_limit(self, resolved):
        assert "limited by" not in str(resolved)

    def test_the_layer_that_limits_is_said(self, deep):
        (layer,) = [layer for layer in deep.layers.values() if layer.limits_lr]

        assert f"Learning rate: limited by layer {layer.name}, which holds " in words(str(deep))

    def test_groups_are_shown_where_there_are_several(self, deep):
        group = replace(deep.layers["0"], name="group 0")
        one, two = {"group 0": group}, {"group 0": group, "group 1": replace(group, name="group 1")}

        assert "parameter group" not in str(replace(deep, groups=one))
        assert row(replace(deep, groups=two), "group 1")[1] == "12"

    def test_a_long_name_keeps_its_end(self, resolved):
        layer = replace(resolved.layers[""], name="transformer.h.11.attention.output.dense")

        assert "…h.11.attention.output.dense  " in str(replace(resolved, layers={"": layer}))

    def test_a_long_name_does_not_push_the_numbers_out(self, resolved):
        layer = replace(resolved.layers[""], name="transformer.h.11." + "attention.output." * 8)
        profile = replace(resolved, layers={"": layer})

        assert "100%" in str(profile)


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

        assert "Batch size 64, the whole data: B_noise is 1 000" in words(str(profile))
        assert "twice the fewest" not in words(str(profile))

    @pytest.mark.parametrize("name", ["resolved", "bounds_only", "negative", "deep"])
    def test_the_advice_is_the_recommendation(self, name, request):
        profile = request.getfixturevalue(name)

        advice = profile.recommend()
        said = f"What to do (confidence: {advice.confidence}) {words(str(advice))}"
        assert said in words(str(profile))

    @pytest.mark.parametrize("name", ["resolved", "bounds_only", "negative", "flat", "deep"])
    def test_no_line_is_wider_than_a_hundred(self, name, request):
        assert max(map(len, str(request.getfixturevalue(name)).split("\n"))) <= 100


def legend(figure):
    return [text.get_text() for text in figure.axes[0].get_legend().get_texts()]


class TestPlot:
    def test_the_lines_are_named(self, resolved):
        names = " | ".join(legend(resolved.plot()))

        for name in ("2/λ = 1.00", "noise-scale rule", "mean-square limit", "$B_{noise}$ = "):
            assert name in names

    def test_the_stable_rate_is_drawn_at_two_over_the_sharpness(self, resolved):
        lines = resolved.plot().axes[0].get_lines()
        stable = next(line for line in lines if line.get_label().startswith("2/λ"))

        assert list(stable.get_ydata()) == pytest.approx([2 / float(resolved.sharpness)] * 2)

    def test_the_rule_passes_half_the_stable_rate_at_the_noise_scale(self, resolved):
        sixteen = gn.Estimate(16.0, 12.0, 20.0, 0.95, 0.0, 64)
        profile = replace(resolved, estimates={**resolved.estimates, "noise_scale": sixteen})
        lines = profile.plot().axes[0].get_lines()

        knee = next(line for line in lines if line.get_label().startswith("$B_{noise}$"))
        assert list(knee.get_xdata()) == [16.0, 16.0]
        rule = next(line for line in lines if line.get_label().startswith("noise-scale rule"))
        at_knee = np.interp(4, np.log2(rule.get_xdata()), rule.get_ydata())
        assert at_knee == pytest.approx(1 / float(resolved.sharpness), rel=1e-3)

    def test_both_axes_are_logarithmic_and_named(self, resolved):
        axes = resolved.plot().axes[0]

        assert (axes.get_xscale(), axes.get_yscale()) == ("log", "log")
        assert (axes.get_xlabel(), axes.get_ylabel()) == (
            "batch size B (samples)",
            "learning rate ε",
        )

    @pytest.mark.parametrize(
        ("momentum", "label"),
        [(0.0, "learning rate ε"), (0.5, "learning rate ε (momentum 0.5)")],
    )
    def test_the_setting_in_use_is_a_point(self, resolved, momentum, label):
        settings = OptimizerSettings("SGD", 0.1, momentum)
        figure = replace(resolved, optimizer=settings, batch_size=16).plot()

        assert "now: ε = 0.1, B = 16" in legend(figure)
        assert figure.axes[0].get_ylabel() == label

    def test_the_suggestion_is_a_point(self, resolved):
        advice = resolved.recommend()
        points = resolved.plot().axes[0].get_lines()
        star = next(line for line in points if line.get_marker() == "*")

        assert [*star.get_xdata(), *star.get_ydata()] == [advice.batch_size, advice.lr]

    def test_bounds_alone_are_drawn_as_a_band(self, bounds_only):
        names = legend(bounds_only.plot())

        assert any(name.endswith("bounds only") for name in names)
        assert any(name.startswith("$B_{noise}$ at least ") for name in names)
        assert not any(name.startswith("suggested") for name in names)

    def test_a_noise_scale_unknown_still_draws_the_stable_rate(self, resolved):
        unknown = gn.Estimate(
            float("nan"), 0.0, float("inf"), 0.95, 0.0, 64, gn.Status.SIGNAL_BELOW_NOISE
        )
        profile = replace(resolved, estimates={**resolved.estimates, "noise_scale": unknown})

        names = " | ".join(legend(profile.plot()))
        assert "2/λ = 1.00" in names
        assert "noise-scale rule" not in names

    @pytest.mark.parametrize(
        ("suffix", "start"), [("png", b"\x89PNG"), ("pdf", b"%PDF"), ("svg", b"<?xml")]
    )
    @pytest.mark.parametrize("as_path", [str, lambda path: path])
    def test_a_file_is_written_when_asked_for(self, bounds_only, tmp_path, suffix, start, as_path):
        path = tmp_path / f"map.{suffix}"

        bounds_only.plot(as_path(path))

        assert path.read_bytes().startswith(start)

    def test_what_was_not_measured_cannot_be_drawn(self, flat, tmp_path):
        with pytest.raises(gn.NotMeasuredError, match="needs curvature, which was not measured"):
            flat.plot(tmp_path / "map.png")
        assert not (tmp_path / "map.png").exists()

    def test_without_a_bowl_there_is_no_map(self, negative):
        with pytest.raises(gn.NotMeasuredError, match="needs positive curvature"):
            negative.plot()

    def test_without_matplotlib_the_extra_is_named(self, resolved, monkeypatch):
        monkeypatch.setitem(sys.modules, "matplotlib.backends.backend_agg", None)

        with pytest.raises(ImportError, match=r"pip install 'gradnoise\[plot\]'"):
            resolved.plot()


class TestProgressBar:
    def test_it_is_silent_when_off(self, capfd):
        with progress_bar(False) as stage:
            stage("sharpness", None)(1)
            stage("probes", 2)(2)

        assert capfd.readouterr() == ("", "")

    def test_it_names_the_stage_on_stderr_alone_when_on(self, capsys, monkeypatch):
        monkeypatch.setenv("FORCE_COLOR", "1")  # as on a terminal

        with progress_bar(True) as stage:
            stage("sharpness", None)(1)
            stage("probes", 2)(2)

        shown = capsys.readouterr()
        assert shown.out == ""
        assert "sharpness" in shown.err
        assert "probes" in shown.err

    def test_a_profile_is_silent_by_default(self, capfd):
        quadratic(1.0)

        assert capfd.readouterr() == ("", "")
