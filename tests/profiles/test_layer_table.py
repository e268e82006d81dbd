"""Layers and parameter groups in the report."""

import re
from dataclasses import replace

import pytest

import gradnoise as gn
from gradnoise.problem.optimizer_settings import OptimizerSettings
from gradnoise.profiles.layer_table import limiting_layer
from tests.reports import full, row, words


class TestLayers:
    def test_a_long_list_is_cut_and_its_rest_summed(self, deep):
        lines = full(deep).split("\n")
        start = next(i for i, line in enumerate(lines) if line.startswith("layer "))
        rows = [re.split(r"\s{2,}", line) for line in lines[start + 2 : start + 9]]

        assert [cells[0] for cells in rows[-1:]] == ["(2 more)"]
        assert sum(int(cells[1]) for cells in rows) == deep.parameters
        assert sum(int(cells[2].rstrip("%")) for cells in rows) == pytest.approx(100, abs=4)

    def test_the_noisiest_come_first(self, deep):
        noisiest = max(deep.layers.values(), key=lambda layer: layer.noise_share)
        lines = full(deep).split("\n")
        start = next(i for i, line in enumerate(lines) if line.startswith("layer "))

        assert lines[start + 2].startswith(f"{noisiest.name} ")

    def test_a_parameter_of_the_model_itself_is_at_the_root(self, resolved):
        assert row(resolved, "(root)")[1:3] == ["30", "100%"]

    def test_each_has_its_interval_and_its_share_of_the_sharpest_direction(self, deep):
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
        assert "limits the learning rate" not in str(resolved)

    def test_the_layer_that_limits_is_said(self, deep):
        (layer,) = [layer for layer in deep.layers.values() if layer.limits_lr]

        assert f"Layer {layer.name} limits the learning rate: it holds " in words(str(deep))

    def test_where_none_is_sure_to_limit_the_reason_is_given(self, deep):
        layer = max(deep.layers.values(), key=lambda layer: float(layer.sharpness_share))
        crowded = replace(layer.sharpness_share, status=gn.Status.NOT_SEPARATED)
        for share, why in (
            (layer.sharpness_share, "two halves of the samples disagree"),
            (crowded, "another direction is about as sharp"),
        ):
            unsure = replace(layer, limits_lr=False, sharpness_share=share)
            sentence = limiting_layer(replace(deep, layers={**deep.layers, layer.name: unsure}))
            assert sentence.startswith(f"Layer {layer.name} may limit the learning rate: it holds ")
            assert sentence.endswith(f"but {why}.")

    def test_without_shares_no_layer_is_named(self, deep):
        layers = {name: replace(layer, sharpness_share=None) for name, layer in deep.layers.items()}

        assert limiting_layer(replace(deep, layers=layers)) == ""

    def test_where_second_moments_have_not_settled_no_layer_is_named(self, deep):
        settings = OptimizerSettings("AdamW", 0.01, kind="adam", steps=2, settled_after=1000)
        early = replace(deep, optimizer=settings, metric="optimizer")

        assert limiting_layer(deep) != ""
        assert limiting_layer(early) == ""

    def test_groups_are_shown_where_there_are_several(self, deep):
        group = replace(deep.layers["0"], name="group 0")
        one, two = {"group 0": group}, {"group 0": group, "group 1": replace(group, name="group 1")}

        assert "parameter group" not in full(replace(deep, groups=one))
        assert row(replace(deep, groups=two), "group 1")[1] == "12"

    def test_a_long_name_keeps_its_end(self, resolved):
        layer = replace(resolved.layers[""], name="transformer.h.11.attention.output.dense")

        assert "…h.11.attention.output.dense  " in full(replace(resolved, layers={"": layer}))

    def test_on_a_narrow_terminal_less_of_it_is_kept(self, resolved, monkeypatch):
        monkeypatch.setenv("COLUMNS", "80")
        layer = replace(resolved.layers[""], name="transformer.h.11.attention.output.dense")
        lines = full(replace(resolved, layers={"": layer})).split("\n")

        (line,) = [line for line in lines if line.startswith("…tion.output.dense  ")]
        assert line.endswith("exact")
        assert len(line) <= 80

    def test_long_names_with_the_same_end_keep_their_start_too(self, resolved):
        layer = resolved.layers[""]
        names = [f"encoder.blocks.{k}.attention.with_a_very_long_name" for k in range(3)]
        layers = {name: replace(layer, name=name) for name in names}
        lines = full(replace(resolved, layers=layers)).split("\n")

        shown = [line.split()[0] for line in lines if line.startswith("encoder.")]
        assert len(set(shown)) == 3

    @pytest.mark.parametrize("columns", [40, 60, 75])
    def test_a_short_line_has_the_shares_and_the_noise_scale(self, deep, columns, monkeypatch):
        monkeypatch.setenv("COLUMNS", str(columns))
        heading = next(line for line in full(deep).split("\n") if line.startswith("layer "))

        assert re.split(r"\s{2,}", heading) == ["layer", "% of trΣ", "% of λ", "its trΣ/|G|²"]

    def test_a_long_name_does_not_push_the_numbers_out(self, resolved):
        layer = replace(resolved.layers[""], name="transformer.h.11." + "attention.output." * 8)
        profile = replace(resolved, layers={"": layer})

        assert "100%" in full(profile)
