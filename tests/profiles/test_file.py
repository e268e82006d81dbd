"""A profile saved is the profile loaded; any other file is a clear error."""

import functools
import json
import math
import os
import stat
from dataclasses import replace
from pathlib import Path

import jsonschema
import pytest
import torch
from torch import nn

import gradnoise as gn
from gradnoise.learning_rate.advice import Recommendation
from gradnoise.problem.optimizer_settings import OptimizerSettings
from gradnoise.toy.noisy_quadratic import NoisyQuadratic
from tests.reports import quadratic_profile


@functools.cache
def quadratic(offset, sign=1.0, population="dataset"):
    toy = NoisyQuadratic(sign * torch.diag(torch.linspace(1, 2, 30)), torch.full((30,), offset))
    data = toy.sample(48, seed=0)
    return gn.profile(toy.model(), toy.loss_fn, data, population=population, probes=4)


@functools.cache
def classifier():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2)).double()
    data = (torch.randn(40, 3).double(), torch.arange(40) % 2)
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.1)
    return gn.profile(
        model, nn.CrossEntropyLoss(), data, optimizer=optimizer, batch_size=8, probes=4
    )


@functools.cache
def grouped():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Tanh(), nn.Linear(4, 2)).double()
    data = (torch.randn(64, 3).double(), torch.arange(64) % 2)
    return gn.profile(model, nn.CrossEntropyLoss(), data, batch_size=8, probes=4)


@functools.cache
def in_the_metric_of_adam():
    torch.manual_seed(0)
    model = nn.Linear(3, 2).double()
    inputs, targets = torch.randn(40, 3).double(), torch.arange(40) % 2
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.01, betas=(0.9, 0.9))
    for _ in range(12):
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(inputs), targets).backward()
        optimizer.step()
    return gn.profile(
        model, nn.CrossEntropyLoss(), (inputs, targets), optimizer=optimizer, batch_size=8, probes=4
    )


def valid(contents):
    """Raise unless contents are valid by the published schema; json.dumps as it is written."""
    validator = jsonschema.Draft202012Validator(gn.Profile.json_schema())
    validator.validate(json.loads(json.dumps(contents, allow_nan=False)))


ADAM = OptimizerSettings("AdamW", 0.001, 0.9, kind="adam", steps=2000, settled_after=1000)
SETTINGS = (
    {"batch_size": 8, "optimizer": OptimizerSettings("SGD", math.inf)},
    {"batch_size": 8, "optimizer": ADAM, "metric": "optimizer"},
    {"batch_size": 8, "optimizer": replace(ADAM, steps=2), "metric": "optimizer"},
    {"batch_size": 8, "optimizer": OptimizerSettings("LBFGS", None)},
    {"population": math.inf, "labels_per_sample": 3.5, "cost": None, "date": "", "environment": {}},
    {"estimates": {}, "layers": {}, "curvature_spread": None},
)

PROFILES = {
    "resolved": lambda: quadratic(1.0),
    "bounds only": lambda: quadratic(0.0, population="distribution"),
    "negative curvature": lambda: quadratic(1.0, sign=-1.0, population=1000),
    "layers and optimizer": classifier,
}


@pytest.fixture(scope="module", params=PROFILES)
def profile(request):
    return PROFILES[request.param]()


@pytest.fixture(scope="module")
def resolved():
    return PROFILES["resolved"]()


@pytest.fixture
def saved(resolved, tmp_path):
    path = tmp_path / "profile.json"
    resolved.save(path)
    return path


def test_the_profiles_of_this_file_are_what_they_are_called():
    statuses = {name: make().noise_scale.status.name for name, make in PROFILES.items()}

    assert statuses["resolved"] == "RESOLVED"
    assert statuses["bounds only"] == "SIGNAL_BELOW_NOISE"
    assert statuses["negative curvature"] == "NEGATIVE_CURVATURE"


class TestRoundTrip:
    def test_a_profile_comes_back_as_it_was(self, profile, tmp_path):
        profile.save(tmp_path / "profile.json")

        # repr tells tuples from lists and int from float, and lets nan equal nan
        assert gn.Profile.load(tmp_path / "profile.json").to_dict() == profile.to_dict()

    def test_it_prints_the_same_report(self, profile, tmp_path):
        profile.save(tmp_path / "profile.json")

        assert str(gn.Profile.load(tmp_path / "profile.json")) == str(profile)

    def test_saving_the_loaded_one_writes_the_same_file(self, profile, tmp_path):
        first, second = tmp_path / "first.json", tmp_path / "second.json"

        profile.save(first)
        gn.Profile.load(first).save(second)

        assert first.read_bytes() == second.read_bytes()

    def test_paths_may_be_strings(self, resolved, tmp_path):
        path = str(tmp_path / "profile.json")

        resolved.save(path)

        assert gn.Profile.load(path).to_dict() == resolved.to_dict()

    def test_a_layer_may_be_named_like_a_field(self, resolved, tmp_path):
        layer = next(iter(resolved.layers.values()))
        named = {name: replace(layer, name=name) for name in ("value", "level", "population")}
        profile = replace(resolved, layers=named)

        profile.save(tmp_path / "profile.json")

        assert gn.Profile.load(tmp_path / "profile.json").to_dict() == profile.to_dict()

    def test_a_learning_rate_without_end_comes_back_as_a_number(self, resolved, tmp_path):
        settings = OptimizerSettings("SGD", math.inf)
        replace(resolved, optimizer=settings).save(tmp_path / "profile.json")

        assert gn.Profile.load(tmp_path / "profile.json").optimizer.lr == math.inf


class TestFile:
    def test_it_is_json_without_nan_or_infinity(self, profile, tmp_path):
        def refuse(token):
            raise AssertionError(f"not JSON: {token}")

        profile.save(tmp_path / "profile.json")

        contents = json.loads((tmp_path / "profile.json").read_text("utf-8"), parse_constant=refuse)
        assert (contents["format"], contents["schema"]) == ("gradnoise-profile", 2)

    def test_it_holds_what_to_dict_gives(self, profile, tmp_path):
        profile.save(tmp_path / "profile.json")

        assert json.loads((tmp_path / "profile.json").read_text("utf-8")) == profile.to_dict()

    def test_infinity_and_nan_are_written_as_words(self, resolved):
        unknown = gn.Estimate(math.nan, -math.inf, math.inf, 0.95, math.nan, 9, gn.Status.RESOLVED)
        contents = replace(resolved, estimates={"loss": unknown}, population=math.inf).to_dict()

        loss = contents["estimates"]["loss"]
        assert (loss["value"], loss["low"], loss["high"]) == ("nan", "-inf", "inf")
        assert contents["population"] == "inf"

    def test_it_says_which_versions_wrote_it(self, resolved):
        assert resolved.to_dict()["versions"]["torch"] == str(torch.__version__)

    def test_an_older_file_is_replaced(self, resolved, tmp_path):
        path = tmp_path / "profile.json"
        path.write_text("something older and much longer" * 10_000)

        resolved.save(path)

        assert gn.Profile.load(path).to_dict() == resolved.to_dict()

    def test_its_permissions_are_those_of_any_new_file(self, saved, tmp_path):
        other = tmp_path / "other"
        other.touch()

        assert stat.S_IMODE(saved.stat().st_mode) == stat.S_IMODE(other.stat().st_mode)


class TestWriting:
    @pytest.mark.parametrize(
        "error", [OSError(28, "No space left on device"), KeyboardInterrupt()], ids=type
    )
    def test_a_failure_leaves_nothing_behind(self, resolved, tmp_path, monkeypatch, error):
        def fail(*_):
            raise error

        monkeypatch.setattr(os, "replace", fail)

        with pytest.raises((gn.ProfileFileError, KeyboardInterrupt)):
            resolved.save(tmp_path / "profile.json")
        assert list(tmp_path.iterdir()) == []

    def test_a_failure_says_why(self, resolved, tmp_path, monkeypatch):
        def fail(*_):
            raise OSError(28, "No space left on device")

        monkeypatch.setattr(os, "replace", fail)

        with pytest.raises(gn.ProfileFileError, match=r"cannot write .*profile.json: No space"):
            resolved.save(tmp_path / "profile.json")

    def test_a_failure_keeps_the_older_file(self, saved, resolved, monkeypatch):
        def fail(*_):
            raise OSError(28, "No space left on device")

        before = saved.read_bytes()
        monkeypatch.setattr(os, "replace", fail)

        with pytest.raises(gn.ProfileFileError, match="No space left"):
            replace(resolved, seed=7).save(saved)
        assert saved.read_bytes() == before

    def test_a_folder_in_its_place_is_refused(self, resolved, tmp_path):
        (tmp_path / "profile.json").mkdir()

        with pytest.raises(gn.ProfileFileError, match=r"cannot write .*: Is a directory"):
            resolved.save(tmp_path / "profile.json")
        assert [path.name for path in tmp_path.iterdir()] == ["profile.json"]

    def test_a_device_is_refused(self, resolved):
        with pytest.raises(gn.ProfileFileError, match=r"cannot write /dev/null: it is a device"):
            resolved.save("/dev/null")

    def test_a_link_is_kept_and_its_target_written(self, resolved, tmp_path):
        link = tmp_path / "link.json"
        link.symlink_to("profile.json")

        resolved.save(link)

        assert link.is_symlink()
        assert gn.Profile.load(tmp_path / "profile.json").to_dict() == resolved.to_dict()

    def test_a_missing_folder_is_refused(self, resolved, tmp_path):
        with pytest.raises(gn.ProfileFileError, match=r"cannot write .*: No such file or dir"):
            resolved.save(tmp_path / "missing" / "profile.json")


DAMAGES = {
    "no estimates": lambda c: c.pop("estimates"),
    "no layers": lambda c: c.pop("layers"),
    "no optimizer": lambda c: c.pop("optimizer"),
    "no warnings": lambda c: c.pop("warnings"),
    "no samples": lambda c: c.pop("samples"),
    "a list of estimates": lambda c: c.update(estimates=[]),
    "an empty layer": lambda c: c.update(layers={"": {}}),
    "half an optimizer": lambda c: c.update(optimizer={"name": "SGD"}),
    "a population in words": lambda c: c.update(population="many"),
    "an estimate without status": lambda c: c["estimates"]["loss"].pop("status"),
    "an estimate without bound": lambda c: c["estimates"]["loss"].pop("high"),
    "an estimate of unknown status": lambda c: c["estimates"]["loss"].update(status="fine"),
    "an estimate in words": lambda c: c["estimates"]["loss"].update(value="a lot"),
    "an estimate of nothing": lambda c: c["estimates"]["loss"].update(value=None),
    "an estimate with more to it": lambda c: c["estimates"]["loss"].update(colour="blue"),
    "a naked number": lambda c: c["estimates"].update(loss=3.0),
}


class TestLoading:
    def test_a_missing_file_is_named(self, tmp_path):
        with pytest.raises(gn.ProfileFileError, match=r"cannot read .*none.json: No such file"):
            gn.Profile.load(tmp_path / "none.json")

    def test_a_folder_is_no_profile(self, tmp_path):
        with pytest.raises(gn.ProfileFileError, match=r"cannot read .*: Is a directory"):
            gn.Profile.load(tmp_path)

    @pytest.mark.parametrize("contents", [b"", b"loss: 3", b"\x80\x04\x95pickle", b"\xff\xfe"])
    def test_what_is_no_json_is_no_profile(self, tmp_path, contents):
        path = tmp_path / "profile.json"
        path.write_bytes(contents)

        with pytest.raises(gn.ProfileFileError, match="is not a profile: no valid JSON"):
            gn.Profile.load(path)

    def test_a_file_cut_short_is_no_profile(self, saved):
        saved.write_bytes(saved.read_bytes()[:-100])

        with pytest.raises(gn.ProfileFileError, match="is not a profile: no valid JSON"):
            gn.Profile.load(saved)

    @pytest.mark.parametrize("contents", ["[]", "3", "null", '{"loss": 3}', '{"format": "other"}'])
    def test_json_of_something_else_is_no_profile(self, tmp_path, contents):
        path = tmp_path / "profile.json"
        path.write_text(contents)

        with pytest.raises(gn.ProfileFileError, match="does not say format='gradnoise-profile'"):
            gn.Profile.load(path)

    @pytest.mark.parametrize("schema", [0, 3, "1", None])
    def test_another_schema_is_refused_with_what_to_do(self, saved, schema):
        _edit(saved, lambda contents: contents.update(schema=schema))

        with pytest.raises(
            gn.ProfileFileError, match=rf"schema {schema!r} .* reads 1 and 2; use the v"
        ):
            gn.Profile.load(saved)

    @pytest.mark.parametrize("name", DAMAGES)
    def test_a_damaged_profile_is_refused(self, saved, name):
        _edit(saved, DAMAGES[name])

        with pytest.raises(gn.ProfileFileError, match=r"damaged profile .*; measure again"):
            gn.Profile.load(saved)

    def test_a_field_of_a_later_version_is_passed_over(self, saved, resolved):
        _edit(saved, lambda contents: contents.update(weather="fair"))

        assert gn.Profile.load(saved).to_dict() == resolved.to_dict()

    def test_a_profile_from_before_layers_had_shares_still_loads(self, tmp_path):
        path = tmp_path / "profile.json"
        classifier().save(path)

        def older(contents):
            del contents["groups"]
            for layer in contents["layers"].values():
                for name in (*SHARES, "limits_lr", "parameters"):
                    del layer[name]

        _edit(path, older)

        loaded = gn.Profile.load(path)
        assert loaded.groups == {}
        assert loaded.layers["0"].sharpness_share is None
        assert loaded.layers["0"].trace_cov == classifier().layers["0"].trace_cov
        assert "limits the learning rate" not in str(loaded)

    def test_a_file_of_schema_1_still_loads(self, tmp_path):
        old = gn.Profile.load(Path(__file__).parent / "files" / "schema_1.json")

        assert (old.date, old.environment) == ("", {})
        assert (old.model, old.samples, old.population) == ("Sequential", 48, 500)
        assert "B_noise is at least 11.0 samples" in str(old.recommend())
        old.save(tmp_path / "new.json")
        assert gn.Profile.load(tmp_path / "new.json").to_dict() == old.to_dict()

    def test_the_verdict_is_not_read(self, saved, resolved):
        _edit(saved, lambda contents: contents.update(verdict={"lr": "as you like"}))

        assert gn.Profile.load(saved).to_dict() == resolved.to_dict()


LINES = ("grid", "density", "low", "high")


class TestTold:
    """What can be read but not told is damaged as well."""

    @pytest.mark.parametrize(
        "damage",
        [
            lambda c: c["estimates"]["simple_noise_scale"].update(value="inf", high="inf"),
            lambda c: c.update(curvature_spread={"mean": [], "covariance": [], "converged": True}),
            lambda c: c.update(warnings=[1]),
            lambda c: c.update(
                spectra={"H": {"grid": [1.0], "density": [], "low": [], "high": []}}
            ),
        ],
    )
    def test_it_is_refused(self, saved, damage):
        _edit(saved, damage)

        with pytest.raises(gn.ProfileFileError, match=r"damaged profile|cannot be"):
            gn.Profile.load(saved)

    def test_deep_nesting_is_no_profile(self, tmp_path):
        (tmp_path / "p.json").write_text("[" * 200_000)

        with pytest.raises(gn.ProfileFileError, match="not a profile"):
            gn.Profile.load(tmp_path / "p.json")

    def test_infinities_in_lists_are_numbers_again(self, resolved, tmp_path):
        advice = Recommendation(16, 0.25, ("Tried.",), "good", critical=(3.0, math.inf))
        replace(resolved, advised=advice).save(tmp_path / "p.json")

        assert gn.Profile.load(tmp_path / "p.json").advised == advice

    def test_a_page_is_read_whatever_a_browser_made_of_its_first_line(self, resolved, tmp_path):
        resolved.to_html(tmp_path / "p.html")
        text = (tmp_path / "p.html").read_text("utf-8")
        (tmp_path / "q.html").write_text(
            text.replace("<!doctype html>", "<!DOCTYPE html>"), "utf-8"
        )

        assert gn.Profile.load(tmp_path / "q.html").to_dict() == resolved.to_dict()


class TestSchema:
    """The published schema and what is written are held to each other."""

    def test_it_is_a_schema_of_the_draft_that_it_names(self):
        jsonschema.Draft202012Validator.check_schema(gn.Profile.json_schema())

    def test_what_is_written_is_valid(self, profile):
        valid(profile.to_dict())
        valid(replace(profile, batch_size=8, optimizer=None).to_dict())

    @pytest.mark.parametrize("change", SETTINGS, ids=str)
    def test_so_is_every_kind_of_profile(self, resolved, change):
        valid(replace(resolved, **change).to_dict())

    def test_so_is_one_with_advice_and_spectra(self, resolved):
        advice = Recommendation(16, 0.25, ("Tried.",), "good")
        measured = replace(quadratic_profile(1.0, spectra=True), advised=advice)
        contents = measured.to_dict()
        valid(contents)
        contents["spectra"]["H"].pop("width")
        with pytest.raises(jsonschema.ValidationError, match="'width' is a required property"):
            valid(contents)

    def test_so_are_profiles_of_groups_and_of_an_optimizers_metric(self):
        for measured in (grouped(), in_the_metric_of_adam()):
            valid(measured.to_dict())
        assert grouped().unit == "group"
        assert in_the_metric_of_adam().metric == "optimizer"

    @pytest.mark.parametrize("name", [*DAMAGES, "infinity as a number"])
    def test_a_damaged_profile_is_refused(self, resolved, name):
        contents = resolved.to_dict()
        damage = DAMAGES.get(name, lambda c: c["estimates"]["loss"].update(high="Infinity"))
        damage(contents)

        with pytest.raises(jsonschema.ValidationError):
            valid(contents)

    def test_every_field_has_a_title_and_every_number_of_a_quantity_its_unit(self):
        schema = gn.Profile.json_schema()
        assert set(schema["properties"]) == {
            *("format", "schema", "verdict"), *gn.Profile.__dataclass_fields__
        }  # fmt: skip
        kinds = [schema, *schema["$defs"].values()]
        for kind in kinds:
            for name, field in kind.get("properties", {}).items():
                assert field["title"], name
        estimates = schema["properties"]["estimates"]["properties"]
        assert all(field["unit"] for field in estimates.values())
        assert {*estimates} == {*quadratic(1.0).estimates}

    def test_statuses_are_those_that_there_are(self):
        status = gn.Profile.json_schema()["$defs"]["estimate"]["properties"]["status"]
        assert status["enum"] == [status.value for status in gn.Status]


SHARES = ("sharpness_share", "curvature_share", "curvature_noise_share")


def _edit(path, change):
    contents = json.loads(path.read_text("utf-8"))
    change(contents)
    path.write_text(json.dumps(contents), "utf-8")


def test_a_profile_from_before_optimizers_had_steps_still_loads(resolved, tmp_path):
    settings = OptimizerSettings("AdamW", 0.001, 0.9, kind="adam", steps=2, settled_after=1000)
    path = tmp_path / "p.json"
    replace(resolved, optimizer=settings, metric="optimizer").save(path)

    def older(contents):
        for name in ("base", "steps", "settled_after"):
            del contents["optimizer"][name]

    assert gn.Profile.load(path).optimizer == settings
    _edit(path, older)
    assert gn.Profile.load(path).optimizer.is_settled
