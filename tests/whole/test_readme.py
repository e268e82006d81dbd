"""The README says what is true: its output and pictures are those of now, its links exist."""

from __future__ import annotations

import contextlib
import io
import re
from pathlib import Path

import numpy as np
import pytest
from matplotlib.image import imread

from gradnoise import cli

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "README.md").read_text(encoding="utf-8")


BLOCKS = re.findall(r"```python\n(.*?)```", TEXT, re.S)


def test_the_program_for_the_readers_own_model_is_short() -> None:
    (program,) = (block for block in BLOCKS if "p = gn.profile" in block)
    assert len([line for line in program.splitlines() if line.strip()]) <= 12


def test_the_advice_that_is_shown_is_what_the_command_prints(
    capsys: pytest.CaptureFixture[str],
) -> None:
    (shown,) = re.findall(r"```text\n(What to do \(confidence.*?)```", TEXT, re.S)
    cli.main(["advise", "digits", "--epochs", "40", "--quiet"])
    printed = capsys.readouterr().out
    number = r"\d+(?:\.\d+)?"
    told, now = (re.sub(r"\s+", " ", text).strip() for text in (shown, printed))
    assert re.sub(number, "#", now) == re.sub(number, "#", told)
    for one, other in zip(re.findall(number, now), re.findall(number, told), strict=True):
        assert 1 / 3 <= float(one) / float(other) <= 3  # runs of another rounding end elsewhere


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
    """What the command of `make demo` prints, and the picture that it draws."""
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    (command,) = re.findall(r"/gradnoise (profile digits .*)", makefile)
    folder, shown = tmp_path_factory.mktemp("demo"), io.StringIO()
    (folder / "out").mkdir()
    with contextlib.chdir(folder), contextlib.redirect_stdout(shown):
        assert cli.main(command.replace("$(OUT)", "out").split()) == 0
    return shown.getvalue(), folder / "out" / "digits.png"


def words(text: str) -> str:
    """The text with a sign for every number, without columns and line breaks."""
    return " ".join(re.sub("─+", "─", re.sub(NUMBER, "#", text)).split())


def last_place(number: str) -> float:
    """One unit of the last printed digit."""
    digits, _, exponent = number.partition("e")
    return 10.0 ** (int(exponent or 0) - len(digits.partition(".")[2]))


def test_the_report_is_what_the_demo_prints(demo: tuple[str, Path]) -> None:
    """Words to the letter; numbers to 1 % or their last digit, which may differ between CPUs."""
    (block,) = re.findall(r"```text\n(DigitsNet.*?)```", TEXT, re.S)
    printed, _ = demo
    assert words(block) == words(printed)
    for shown, now in zip(re.findall(NUMBER, block), re.findall(NUMBER, printed), strict=True):
        allowed = max(0.01 * abs(float(shown)), last_place(shown))
        assert abs(float(shown) - float(now)) <= allowed * (1 + 1e-9), (shown, now)


def test_the_picture_is_what_the_demo_draws(demo: tuple[str, Path]) -> None:
    kept, drawn = (imread(path) for path in (ROOT / "docs/images/digits.png", demo[1]))
    assert kept.shape == drawn.shape
    assert np.mean(np.abs(kept - drawn).max(axis=-1) > 0.2) < 0.001  # a label more is 0.0013


def test_a_line_of_the_report_fits_the_page() -> None:
    (block,) = re.findall(r"```text\n(DigitsNet.*?)```", TEXT, re.S)
    assert max(map(len, block.split("\n"))) <= 100


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
