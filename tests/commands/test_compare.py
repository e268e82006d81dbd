"""`gradnoise compare`: files in, words or JSON out."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

import gradnoise as gn
from gradnoise import cli
from tests.checks.profiles import measured
from tests.command_line import refused


@pytest.fixture
def files(tmp_path: Path) -> list[str]:
    paths = [tmp_path / f"{name}.json" for name in ("before", "after", "later")]
    for path, level in zip(paths, (0.95, 0.95, 0.9), strict=True):
        replace(measured(), level=level).save(path)
    return list(map(str, paths))


def test_it_prints_what_changed(files: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["compare", *files[:2]]) == 0
    out = capsys.readouterr().out
    assert out.startswith("before, then after\n\nWhat changed\n- No quantity changed beyond its")


def test_of_more_than_two_each_is_compared_with_the_first(
    files: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["compare", *files]) == 0
    out = capsys.readouterr().out
    assert "before, then after\n" in out
    assert "\n\nbefore, then later\n" in out
    assert "after, then later" not in out


def test_options_are_those_of_the_method(
    files: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["compare", *files[:2], "--level", "0.9", "--independent"]) == 0
    out = capsys.readouterr().out
    assert "90% interval" in out
    assert "independent, as was said" in " ".join(out.split())


def test_json_goes_to_stdout_alone_or_to_a_file(
    files: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["compare", *files, "--json", "-"]) == 0
    contents = json.loads(capsys.readouterr().out)
    assert [one["second"] for one in contents["comparisons"]] == ["after", "later"]
    path = tmp_path / "comparison.json"
    assert cli.main(["compare", *files, "--json", str(path)]) == 0
    assert json.loads(path.read_text()) == contents
    assert capsys.readouterr().out.endswith(f"written: {path}\n")


def test_files_of_one_name_are_told_by_their_folders(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    paths = [Path(name, "p.json") for name in ("one", "two")]
    for path in paths:
        path.parent.mkdir()
        measured().save(path)
    assert cli.main(["compare", *map(str, paths)]) == 0
    assert capsys.readouterr().out.startswith(f"{paths[0]}, then {paths[1]}\n")


def test_what_is_no_pair_of_profiles_is_refused(
    files: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert "give two profiles or more" in refused(capsys, "compare", files[0])
    assert "No such file" in refused(capsys, "compare", files[0], tmp_path / "none.json")
    assert "must be between 0 and 1" in refused(capsys, "compare", *files, "--level", "95")
    assert gn.Profile.load(files[0]).samples == 200
