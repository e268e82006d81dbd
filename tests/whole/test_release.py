"""What a release says of itself: version, citation, changelog, forms for issues."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

import gradnoise as gn

ROOT = Path(__file__).parents[2]
PROJECT = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
(VERSION,) = re.findall(r'^version = "([^"]+)"', PROJECT, re.M)
FORMS = sorted((ROOT / ".github" / "ISSUE_TEMPLATE").glob("*.yml"))


def read(path: Path) -> Any:
    return yaml.safe_load(path.read_text(encoding="utf-8"))


def test_the_citation_is_that_of_this_version() -> None:
    found = read(ROOT / "CITATION.cff")
    assert str(found["version"]) == VERSION
    assert found["license"] in PROJECT
    cited = {reference["url"] for reference in found["references"]}
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    assert cited == set(re.findall(r"https://arxiv.org/abs/[\d.]+", readme))


def test_the_changelog_names_what_there_is() -> None:
    page = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    assert VERSION in page
    assert "## [Unreleased]" in page
    named = set(re.findall(r"`gn\.(\w+)", page))
    assert named
    assert named <= set(gn.__all__)


@pytest.mark.parametrize("path", FORMS, ids=lambda path: path.stem)
def test_a_form_asks_for_what_can_be_answered(path: Path) -> None:
    form = read(path)
    if path.stem == "config":
        assert form == {"blank_issues_enabled": True}
        return
    assert {"name", "description", "body"} <= set(form)
    names = [field["id"] for field in form["body"]]
    assert len(set(names)) == len(names)
    for field in form["body"]:
        assert field["type"] in ("textarea", "input", "checkboxes")
        assert field["attributes"]["label"]
    assert any(field.get("validations", {}).get("required") for field in form["body"])


@pytest.mark.parametrize("name", ["bug", "wrong_number"])
def test_what_is_needed_to_see_it_again_is_asked_for(name: str) -> None:
    text = (ROOT / ".github" / "ISSUE_TEMPLATE" / f"{name}.yml").read_text(encoding="utf-8")
    for wanted in ("gradnoise --version", "print(p)", "JSON", "program"):
        assert wanted in text


def test_a_recipe_has_at_most_ten_steps() -> None:
    page = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    recipes = re.split(r"^### ", page.partition("## Recipes")[2].partition("\n## ")[0], flags=re.M)
    assert len(recipes) == 6
    for recipe in recipes[1:]:
        steps = re.findall(r"^(\d+)\. ", recipe, re.M)
        assert steps == [str(k + 1) for k in range(len(steps))]
        assert 1 < len(steps) <= 10
    for path in re.findall(r"`((?:gradnoise|tests|docs)/[\w/.]+\.\w+)`", page):
        assert (ROOT / path).exists(), path
