"""The programs and the commands of README and docs/ run: every block, one after the other."""

from __future__ import annotations

import importlib.util
import re
import shlex
from pathlib import Path

import matplotlib
import numpy as np
import pytest
import torch
from matplotlib.image import imread

from gradnoise import cli
from tests.snippets import PAGES, ROOT, blocks, differs, run

matplotlib.use("agg")

WITH_PROGRAMS = [page for page in PAGES if any(block.kind == "python" for block in blocks(page))]
NOT_RUN: dict[str, int] = {}  # pages with programs that cannot run in a test
PARTS = 0.004  # of the points of a picture may differ


def name_of(page: Path) -> str:
    return str(page.relative_to(ROOT))


@pytest.fixture
def alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder of its own, the environment put back, no state of accelerate or of torch's ranks."""
    from accelerate.state import AcceleratorState, GradientState, PartialState

    for kept in (AcceleratorState, PartialState, GradientState):
        kept._reset_state()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "80")
    for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT"):
        monkeypatch.setenv(name, "")  # so that it is put back
        monkeypatch.delenv(name)


@pytest.mark.parametrize("page", WITH_PROGRAMS, ids=name_of)
@pytest.mark.usefixtures("alone")
def test_the_programs_of_a_page_run(page: Path) -> None:
    torch.manual_seed(0)
    for block, printed in run(page):
        if block.mark == "printed":
            assert block.kind == "text"
            assert differs(block.code, printed) == ""
    for kept in (ROOT / "docs" / "images").glob(f"{page.stem}_*.png"):
        assert parts_apart(imread(kept), imread(kept.name)) < PARTS, kept.name


def parts_apart(kept: np.ndarray, drawn: np.ndarray) -> float:
    """Share of the points of two pictures that differ; numbers differ a little between CPUs."""
    assert kept.shape == drawn.shape
    return float(np.mean(np.abs(kept - drawn).max(axis=-1) > 0.2))


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_every_mark_belongs_to_a_block(page: Path) -> None:
    marks = re.findall(r"^<!-- (?:before|not run|printed)\b", page.read_text("utf-8"), re.M)
    assert len(marks) == sum(block.mark != "" for block in blocks(page))


def test_programs_that_cannot_run_say_why() -> None:
    found: dict[str, int] = {}
    for page in WITH_PROGRAMS:
        for block in blocks(page):
            if block.mark == "not run":
                assert len(block.note.split()) >= 3, f"{name_of(page)}: a reason after 'not run:'"
                found[name_of(page)] = found.get(name_of(page), 0) + 1
    assert found == NOT_RUN


SHELLS = ("bash", "sh", "console")
LINE = re.compile(r"^(?: {4}|\$ )?((?:torchrun|gradnoise|python|make) .*)$", re.M)


def commands(page: Path) -> list[str]:
    """Indented by four spaces, or in a block of a shell."""
    text = page.read_text(encoding="utf-8")
    indented = [line for line in text.split("\n") if line.startswith("    ")]
    fenced = [block.code for block in blocks(page) if block.kind in SHELLS]
    return LINE.findall("\n".join([*indented, *fenced]))


COMMANDS = [
    pytest.param(line, id=f"{page.stem}: {line[:40]}") for page in PAGES for line in commands(page)
]


@pytest.mark.parametrize("line", COMMANDS)
def test_a_command_is_one(line: str) -> None:
    """gradnoise: its parser takes the options; python: the script is there; make: the target is."""
    words = shlex.split(line, comments=True)
    if "gradnoise" in words:
        options = words[words.index("gradnoise") + 1 :]
        cli._parser().parse_args(options)
    elif words[0] == "make":
        makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
        assert f"\n{words[1].partition('=')[0]}:" in makefile
    elif words[1] == "-m":
        assert importlib.util.find_spec(words[2].partition(".")[0])
        own = words[2].replace(".", "/")
        assert not own.startswith("benchmarks") or list(ROOT.glob(f"{own}*"))
    else:
        assert (ROOT / words[1]).exists()


def test_text_that_is_not_printed_is_seen() -> None:
    printed = "a report\nB_noise  155 samples  134 to 176\nthe end\n"
    assert differs("B_noise 150 samples 130 to 180\n...\nthe end", printed) == ""
    assert "not printed" in differs("B_simple 150 samples", printed)
    assert "is shown" in differs("B_noise 1.5 samples 134 to 176", printed)
    assert "not printed" in differs("the end\na report", printed)
