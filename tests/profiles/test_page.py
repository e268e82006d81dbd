"""The page, in a real browser: nothing missing, nothing wrong, for everybody, on every screen."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from axe_playwright_python.sync_playwright import Axe
from torch import nn

import gradnoise as gn
from gradnoise.learning_rate.advice import Recommendation
from gradnoise.problem.optimizer_settings import OptimizerSettings
from gradnoise.profiles.charts import charts
from tests.browser import browser, opened
from tests.reports import quadratic_profile, words

NAMES = ("resolved", "bounds_only", "negative", "flat", "deep", "groups", "adam", "tried")
LAYERS = 8


@pytest.fixture(scope="module")
def running() -> Iterator[Any]:
    with browser() as found:
        yield found


@pytest.fixture(scope="module")
def profiles() -> dict[str, gn.Profile]:
    """One of every kind."""
    torch.manual_seed(0)
    resolved = replace(quadratic_profile(1.0, spectra=True), batch_size=16)
    curved = {"noise_scale", "sharpness", "grad_curvature", "trace_hessian_cov"}
    left = {name: e for name, e in resolved.estimates.items() if name not in curved}
    inputs, targets = torch.randn(96, 5), torch.randint(3, (96,))
    model = nn.Sequential(nn.Linear(5, 8), nn.BatchNorm1d(8), nn.Tanh(), nn.Linear(8, 3))
    adam = torch.optim.AdamW(model.parameters(), lr=1e-3)
    criterion = nn.CrossEntropyLoss()
    for _ in range(1001):
        adam.zero_grad()
        criterion(model(inputs), targets).backward()
        adam.step()
    tried = Recommendation(16, 0.25, ("Batch size 16, learning rate 0.250.",), "good")
    return {
        "resolved": resolved,
        "bounds_only": quadratic_profile(0.0, population="distribution"),
        "negative": quadratic_profile(1.0, sign=-1.0),
        "flat": replace(resolved, estimates=left, spectra={}, warnings=("<no> & `derivatives`",)),
        "deep": _deep(),
        "groups": gn.profile(model, criterion, (inputs, targets), batch_size=12),
        "adam": gn.profile(
            model.eval(), criterion, (inputs, targets), optimizer=adam, batch_size=8
        ),
        "tried": resolved.with_advice(tried),
    }


def _deep() -> gn.Profile:
    layers = [module for _ in range(LAYERS) for module in (nn.Linear(3, 3), nn.Tanh())]
    data = (torch.randn(32, 3).double(), torch.zeros(32, 3).double())
    return gn.profile(nn.Sequential(*layers).double(), nn.MSELoss(), data, probes=4)


@pytest.fixture(scope="module")
def pages(profiles: dict[str, gn.Profile], tmp_path_factory: pytest.TempPathFactory) -> Any:
    folder = tmp_path_factory.mktemp("pages")
    found = {}
    for name, profile in profiles.items():
        found[name] = folder / f"{name}.html"
        profile.to_html(found[name])
    return found


@pytest.mark.parametrize("name", NAMES)
def test_it_opens_without_a_network_and_without_a_word_on_the_console(
    running: Any, pages: dict[str, Path], profiles: dict[str, gn.Profile], name: str
) -> None:
    profile = profiles[name]
    drawn = len(charts(profile))
    assert drawn == {"resolved": 4, "tried": 4, "flat": 0, "negative": 0}.get(name, drawn)
    with opened(running, pages[name]) as page:
        assert page.locator(".chart svg").count() == drawn == page.locator(".chart").count()
        for number in range(drawn):
            assert page.locator(".chart svg").nth(number).bounding_box()["width"] > 500
        labels = [chart.get_attribute("aria-label") for chart in page.locator(".chart").all()]
        text = words(page.locator("main").inner_text())
    advice = profile.recommend()
    for sentence in (*advice.reasons, *advice.caveats, *profile.warnings):
        assert words(sentence).replace("`", "") in text
    assert all(label.startswith(("Learning rate", "Samples", "Spectral")) for label in labels)
    assert "How it was measured" in text
    assert not re.search(r"\b(nan|inf|None)\b", text)


@pytest.mark.parametrize("name", NAMES)
def test_it_is_one_file_of_less_than_two_megabytes(pages: dict[str, Path], name: str) -> None:
    assert pages[name].stat().st_size < 2e6
    head = pages[name].read_text("utf-8").split('<script type="application/json"')[0]
    assert not re.search(r"\b(src|href)=\"(?!#)|@import|url\(", head)


@pytest.mark.parametrize("width", [320, 375, 768, 1280])
@pytest.mark.parametrize("name", ["resolved", "deep", "groups"])
def test_it_fits_every_screen(running: Any, pages: Any, name: str, width: int) -> None:
    with opened(running, pages[name], width) as page:
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        for chart in page.locator(".chart svg").all():
            assert chart.bounding_box()["width"] <= width


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("name", NAMES)
def test_it_can_be_used_by_everybody(running: Any, pages: Any, name: str, scheme: str) -> None:
    with opened(running, pages[name], scheme=scheme) as page:
        found = Axe().run(page)
    assert [(v["id"], v["nodes"][0]["html"]) for v in found.response["violations"]] == []


def luminance(colour: str) -> float:
    """Of "rgb(1, 2, 3)", from 0 to 1, as contrast is counted."""
    parts = [int(part) / 255 for part in re.findall(r"\d+", colour)[:3]]
    red, green, blue = (p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_charts_have_the_colours_of_the_page(running: Any, pages: Any, scheme: str) -> None:
    with opened(running, pages["resolved"], scheme=scheme) as page:
        fill = "e => getComputedStyle(e).fill"
        labels = [label.evaluate(fill) for label in page.locator("#regime text").all()]
        paper = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert len(labels) > 10
    for label in labels:
        high, low = sorted((luminance(label), luminance(paper)), reverse=True)
        assert (high + 0.05) / (low + 0.05) > 4.5


def test_print_is_dark_on_white_also_in_the_dark(running: Any, pages: Any) -> None:
    with opened(running, pages["resolved"], scheme="dark") as page:
        paper = "getComputedStyle(document.body).backgroundColor"
        assert luminance(page.evaluate(paper)) < 0.1
        page.emulate_media(media="print", color_scheme="dark")
        assert page.evaluate(paper) == "rgb(255, 255, 255)"
        sheets = page.pdf(format="A4")
    assert sheets.startswith(b"%PDF")
    assert 2 <= len(re.findall(rb"/Type\s*/Page\b", sheets)) <= 8


def column(page: Any, number: int) -> list[str]:
    return page.locator(f"table.sortable tbody tr > :nth-child({number})").all_inner_texts()


def test_layers_are_sorted_by_the_heading_that_is_pressed(
    running: Any, pages: Any, profiles: dict[str, gn.Profile]
) -> None:
    layers = profiles["deep"].layers
    with opened(running, pages["deep"]) as page:
        noisiest = sorted(layers.values(), key=lambda layer: -layer.noise_share)
        assert column(page, 1) == [layer.name for layer in noisiest]
        heading = page.get_by_role("button", name="share of λ")
        heading.focus()
        page.keyboard.press("Enter")  # without a mouse
        sharpest = sorted(layers.values(), key=lambda layer: -float(layer.sharpness_share))
        assert column(page, 1) == [layer.name for layer in sharpest]
        assert heading.locator("..").get_attribute("aria-sort") == "descending"
        heading.click()
        assert column(page, 1) == [layer.name for layer in reversed(sharpest)]
        page.get_by_role("button", name="layer").click()
        assert column(page, 1) == [layer.name for layer in layers.values()]  # from first to last
        assert page.locator("[aria-sort]").count() == 1


def test_a_point_of_the_map_tells_its_numbers(running: Any, pages: Any) -> None:
    with opened(running, pages["tried"]) as page:
        page.locator("#regime path[aria-label*='tried: learning rate']").hover()
        page.wait_for_selector("#vg-tooltip-element.visible")
        said = page.locator("#vg-tooltip-element").inner_text()
        label = page.locator("#regime").get_attribute("aria-label")
    assert "tried: learning rate 0.250 at batch size 16" in said
    assert "At B = " in label  # for those who do not see it


@pytest.mark.parametrize("name", NAMES)
def test_the_profile_is_read_back_from_its_page(
    pages: Any, profiles: dict[str, gn.Profile], name: str
) -> None:
    assert gn.Profile.load(pages[name]).to_dict() == profiles[name].to_dict()


def test_no_text_of_a_model_becomes_a_part_of_the_page(running: Any, tmp_path: Path) -> None:
    bad = '</script><script>document.title = "x"</script><b>'
    profile = quadratic_profile(1.0)
    layer = replace(profile.layers[""], name=bad)
    profile = replace(profile, model=bad, layers={bad: layer}, warnings=(bad,))
    profile.to_html(tmp_path / "p.html")
    with opened(running, tmp_path / "p.html") as page:
        assert page.locator("h1").inner_text() == bad
        assert page.title().endswith("gradnoise report")
        assert page.locator("main b").count() == 0
    assert gn.Profile.load(tmp_path / "p.html") == profile


def test_the_same_numbers_stand_on_the_console_and_on_the_page(
    running: Any, pages: Any, profiles: dict[str, gn.Profile]
) -> None:
    for name in ("resolved", "groups", "adam"):
        with opened(running, pages[name]) as page:
            rows = page.locator("#all tbody tr").all_inner_texts()
        report = words(profiles[name].report(full=True))
        assert len(rows) >= 10
        for row in rows:
            label, value, interval, _ = (words(cell) for cell in row.split("\t"))
            assert f"{label} {value} {interval}" in report


def test_what_is_missing_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "vl_convert", None)
    with pytest.raises(ImportError, match=r"pip install altair vl-convert-python"):
        quadratic_profile(1.0).to_html(tmp_path / "p.html")


def test_a_page_that_cannot_be_written_says_so(tmp_path: Path) -> None:
    with pytest.raises(gn.ProfileFileError, match="cannot write"):
        quadratic_profile(1.0).to_html(tmp_path / "no" / "p.html")


def test_a_page_that_is_cut_off_is_no_profile(pages: Any, tmp_path: Path) -> None:
    text = pages["resolved"].read_text("utf-8")
    (tmp_path / "p.html").write_text(text[: text.index("gradnoise-profile") + 200], "utf-8")
    with pytest.raises(gn.ProfileFileError, match="not a profile"):
        gn.Profile.load(tmp_path / "p.html")


def test_the_data_inside_are_json(pages: Any, profiles: dict[str, gn.Profile]) -> None:
    text = pages["deep"].read_text("utf-8")
    (inside,) = re.findall(r'id="gradnoise-profile">(.*?)</script>', text, re.S)
    assert json.loads(inside) == profiles["deep"].to_dict()


def test_the_setting_in_use_and_the_shares_of_layers_are_where_they_belong(
    running: Any, tmp_path: Path
) -> None:
    settings = OptimizerSettings("SGD", 0.125, 0.5)
    profile = replace(_deep(), optimizer=settings, batch_size=24)
    profile.to_html(tmp_path / "p.html")
    with opened(running, tmp_path / "p.html") as page:
        now = words(page.locator(".pair .now").inner_text()) if profile.recommend().lr else ""
        noise, sharpness = column(page, 3), column(page, 4)
    assert now in ("", "in use now 24 with 0.125")
    ranked = sorted(profile.layers.values(), key=lambda layer: -layer.noise_share)
    assert noise == [f"{layer.noise_share:.0%}" for layer in ranked]
    assert sharpness == [f"{float(layer.sharpness_share):.0%}" for layer in ranked]
    assert noise != sharpness
