"""`gradnoise report`: a saved profile as text and as a page."""

from __future__ import annotations

from pathlib import Path

import pytest

import gradnoise as gn
from gradnoise import cli
from tests.command_line import refused
from tests.reports import quadratic_profile


@pytest.fixture
def path(tmp_path: Path) -> Path:
    quadratic_profile(1.0).save(tmp_path / "p.json")
    return tmp_path / "p.json"


def test_it_prints_the_report_and_writes_the_page_beside_the_file(
    path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["report", str(path)]) == 0
    page = path.with_suffix(".html")
    assert capsys.readouterr().out == f"{gn.Profile.load(path)}\n\nwritten: {page}\n"
    assert gn.Profile.load(page) == gn.Profile.load(path)


def test_the_page_can_have_another_name_and_a_picture(path: Path, tmp_path: Path) -> None:
    page, picture = tmp_path / "other.html", tmp_path / "p.png"
    assert cli.main(["report", str(path), "--html", str(page), "--plot", str(picture)]) == 0
    assert page.exists()
    assert picture.exists()
    assert not path.with_suffix(".html").exists()


def test_text_alone_in_full(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["report", str(path), "--text", "--full"]) == 0
    assert capsys.readouterr().out == gn.Profile.load(path).report(full=True) + "\n"
    assert not path.with_suffix(".html").exists()


def test_a_page_is_read_and_not_replaced(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    page = path.with_suffix(".html")
    gn.Profile.load(path).to_html(page)
    before = page.read_bytes()
    assert cli.main(["report", str(page)]) == 0
    assert "written" not in capsys.readouterr().out
    assert page.read_bytes() == before


def test_what_is_no_profile_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "x.json").write_text("{}")
    assert "is not a profile" in refused(capsys, "report", str(tmp_path / "x.json"))
    assert "cannot read" in refused(capsys, "report", str(tmp_path / "none.json"))
    assert not list(tmp_path.glob("*.html"))


def test_a_picture_that_cannot_be_drawn_does_not_take_the_report_with_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    quadratic_profile(1.0, sign=-1.0).save(tmp_path / "p.json")
    picture = tmp_path / "p.png"
    assert cli.main(["report", str(tmp_path / "p.json"), "--plot", str(picture)]) == 2
    shown = capsys.readouterr()
    assert "How it was measured" in shown.out
    assert "the regime map needs positive curvature" in shown.err
    assert gn.Profile.load(tmp_path / "p.html")
