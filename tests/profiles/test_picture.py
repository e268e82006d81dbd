"""The regime map: its lines, points and words, and when there is none."""

import sys
from dataclasses import replace

import numpy as np
import pytest

import gradnoise as gn
from gradnoise.problem.optimizer_settings import OptimizerSettings


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

    def test_the_simple_noise_scale_stands_beside_the_other(self, resolved):
        forty = gn.Estimate(40.0, 30.0, 50.0, 0.95, 0.0, 64)
        profile = replace(resolved, estimates={**resolved.estimates, "simple_noise_scale": forty})
        lines = profile.plot().axes[0].get_lines()

        line = next(line for line in lines if line.get_label().startswith("$B_{simple}$ = 40.0"))
        assert list(line.get_xdata()) == [40.0, 40.0]

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

    def test_the_regions_are_named_in_the_plane(self, resolved, bounds_only):
        sixteen = gn.Estimate(16.0, 12.0, 20.0, 0.95, 0.0, 64)
        profile = replace(resolved, estimates={**resolved.estimates, "noise_scale": sixteen})
        said = {text.get_text(): text.get_position() for text in profile.plot().axes[0].texts}

        batch, rate = said["a step gains less"]
        assert float(profile.max_lr(batch)) < rate < float(profile.mean_square_lr(batch))
        assert said["unstable at this point"][1] > float(profile.stable_lr())
        unknown = {text.get_text() for text in bounds_only.plot().axes[0].texts}
        assert "a step gains less" not in unknown

    def test_of_another_optimizer_it_says_whose_rates_it_shows(self, resolved):
        adam = replace(resolved, optimizer=OptimizerSettings("AdamW", 0.001, 0.9, kind="adam"))

        label = "learning rate ε of plain SGD, not AdamW"
        assert adam.plot().axes[0].get_ylabel() == label
        own = replace(adam, metric="optimizer").plot()
        assert own.axes[0].get_ylabel() == "learning rate ε of AdamW (momentum 0.9)"
        first = replace(adam.optimizer, steps=2, settled_after=1000)
        early = replace(adam, metric="optimizer", optimizer=first).plot()
        assert early.axes[0].get_ylabel().endswith("(momentum 0.9), not settled")
        assert not any(name.startswith("to try") for name in legend(early))

    @pytest.mark.parametrize(("momentum", "formula"), [(0.0, "T = ε/B"), (0.5, "T = ε/((1 - m)B)")])
    def test_the_dotted_lines_are_of_equal_temperature(self, resolved, momentum, formula):
        settings = OptimizerSettings("SGD", 0.1, momentum)

        names = legend(replace(resolved, optimizer=settings).plot())
        assert f"equal temperature {formula}" in names

    def test_the_legend_covers_nothing(self, resolved):
        axes = resolved.plot().axes[0]
        renderer = axes.figure.canvas.get_renderer()

        assert axes.get_legend().get_window_extent(renderer).y1 < axes.bbox.y0

    def test_the_suggestion_is_a_point(self, resolved):
        advice = resolved.recommend()
        points = resolved.plot().axes[0].get_lines()
        star = next(line for line in points if line.get_marker() == "*")

        assert [*star.get_xdata(), *star.get_ydata()] == [advice.batch_size, advice.lr]

    def test_bounds_alone_are_drawn_as_a_band(self, bounds_only):
        names = legend(bounds_only.plot())

        assert any(name.endswith("bounds only") for name in names)
        assert any(name.startswith("$B_{noise}$ at least ") for name in names)
        assert not any(name.startswith("to try") for name in names)

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

        with pytest.raises(ImportError, match="pip install matplotlib"):
            resolved.plot()
