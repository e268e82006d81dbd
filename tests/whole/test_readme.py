"""The README says what is true: its output and pictures are those of now, its links exist."""

from __future__ import annotations

import contextlib
import io
import re
from pathlib import Path

import numpy as np
import pytest
from matplotlib.image import imread

import gradnoise as gn
from gradnoise import cli

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "README.md").read_text(encoding="utf-8")


BLOCKS = re.findall(r"```python\n(.*?)```", TEXT, re.S)


def test_it_is_short() -> None:
    assert len(TEXT.splitlines()) < 150


def test_the_program_for_the_readers_own_model_is_short() -> None:
    (program,) = (block for block in BLOCKS if "p = gn.profile" in block)
    (own,) = re.findall(r"\np = gn.profile.*", program, re.S)
    assert len([line for line in own.splitlines() if line.strip()]) <= 5


def test_links_lead_somewhere() -> None:
    targets = re.findall(r"\]\(([^)#]+)\)", TEXT)
    assert targets
    for target in targets:
        assert target.startswith("https://") or (ROOT / target).exists(), target


def test_the_commands_named_exist() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    for command in re.findall(r"^    make (\w+)", TEXT, re.M):
        assert f"\n{command}:" in makefile


NUMBER = r"\d+(?:\.\d+)?(?:e[-+]\d+)?"


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Path]:
    """What the command of `make demo` prints in 80 columns, and where its files are."""
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8").replace("\\\n", " ")
    (command,) = re.findall(r"/gradnoise (profile digits .*)", makefile)
    folder, shown = tmp_path_factory.mktemp("demo"), io.StringIO()
    (folder / "out").mkdir()
    with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(shown):
        patch.chdir(folder)
        patch.setenv("COLUMNS", "80")
        assert cli.main(command.replace("$(OUT)", "out").split()) == 0
    return shown.getvalue(), folder / "out"


def words(text: str) -> str:
    """The text with a sign for every number, without columns and line breaks."""
    return " ".join(re.sub("─+", "─", re.sub(NUMBER, "#", text)).split())


def last_place(number: str) -> float:
    """One unit of the last printed digit."""
    digits, _, exponent = number.partition("e")
    return 10.0 ** (int(exponent or 0) - len(digits.partition(".")[2]))


def near(shown: str, now: str, factor: float) -> bool:
    """Equal words; numbers that are as near as said, or differ in their last digit."""
    pairs = list(zip(re.findall(NUMBER, shown), re.findall(NUMBER, now), strict=False))
    return words(shown) == words(now) and all(
        float(one) / factor <= float(two) <= float(one) * factor
        or abs(float(one) - float(two)) <= last_place(one) * (1 + 1e-9)
        for one, two in pairs
    )


SHOWN = re.findall(r"```text\n(What to do.*?)\n```", TEXT, re.S)


def test_the_advice_that_is_shown_is_what_the_demo_prints(demo: tuple[str, Path]) -> None:
    """Of the trials the words are held, and numbers to a factor 3: other rounding, other runs."""
    (block,) = SHOWN
    advice, printed = block.split("\n\n")[0], demo[0].split("\n\n")[0]
    assert near(advice, printed, 3)


def test_the_numbers_that_are_shown_are_what_the_demo_prints(demo: tuple[str, Path]) -> None:
    """To 1 % or their last digit, which may differ between processors."""
    (block,) = SHOWN
    table = block.split("\n\n")[-1].removesuffix("\n...")
    (printed,) = (part for part in demo[0].split("\n\n") if part.startswith("numbers behind it"))
    assert near(table, printed, 1.01)
    assert len(table.splitlines()) == 8


def test_the_picture_is_what_the_demo_draws(demo: tuple[str, Path]) -> None:
    kept, drawn = (imread(p) for p in (ROOT / "docs/images/digits.png", demo[1] / "digits.png"))
    assert kept.shape == drawn.shape
    assert np.mean(np.abs(kept - drawn).max(axis=-1) > 0.2) < 0.005  # the pair that was tried moves


def test_the_files_of_the_demo_are_one_profile(demo: tuple[str, Path]) -> None:
    _, folder = demo
    page, saved = (gn.Profile.load(folder / f"digits.{kind}") for kind in ("html", "json"))
    assert page == saved
    assert page.advised is not None
    assert "written: out/digits.json, out/digits.html, out/digits.png" in demo[0]


def test_a_line_of_the_report_fits_the_page() -> None:
    (block,) = SHOWN
    assert max(map(len, block.split("\n"))) <= 80


def test_the_glossary_has_at_most_forty_terms_each_with_all_its_columns() -> None:
    page = (ROOT / "docs/glossary.md").read_text(encoding="utf-8")
    heading, _, *rows = (
        [cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]]
        for line in page.split("\n")
        if line.startswith("|")
    )
    assert heading == ["term", "symbol", "definition", "unit", "literature"]
    assert len(rows) <= 40
    assert all(len(row) == 5 and row[0] and row[2] for row in rows)
    terms = [row[0] for row in rows]
    assert len(set(terms)) == len(terms)


@pytest.mark.parametrize("page", ["README.md", "docs/api.md"])
def test_the_glossary_is_linked(page: str) -> None:
    assert "glossary.md)" in (ROOT / page).read_text(encoding="utf-8")


def test_links_of_the_pages_lead_somewhere() -> None:
    for name in ("api.md", "glossary.md"):
        page = (ROOT / "docs" / name).read_text(encoding="utf-8")
        for target in re.findall(r"\]\(([^)#]+)\)", page):
            assert target.startswith("https://") or (ROOT / "docs" / target).exists(), target
