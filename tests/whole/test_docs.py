"""Pages link to what exists, and name files that exist."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
AT_THE_ROOT = ("README.md", "CHANGELOG.md", "CONTRIBUTING.md")
PAGES = [*(ROOT / name for name in AT_THE_ROOT), *sorted((ROOT / "docs").rglob("*.md"))]
PACKAGE = ROOT / "gradnoise"
HOMES = (ROOT, PACKAGE, PACKAGE / "per_sample", PACKAGE / "estimators")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#\s]+)", page.read_text(encoding="utf-8")):
        if "://" not in target:
            assert (page.parent / target).exists(), target


@pytest.mark.parametrize("name", ["architecture.md", "hooks.md", "profile.md"])
def test_files_that_are_named_exist(name: str) -> None:
    page = ROOT / "docs" / name
    named = re.findall(r"`([\w./]+/(?:[\w]+(?:\.py)?)?)`", page.read_text(encoding="utf-8"))
    assert named or name == "profile.md"
    for path in named:
        if ".." in path or path.startswith("tests/<"):
            continue
        inside = [home / path for home in HOMES]
        assert any(p.exists() or p.with_suffix(".py").exists() for p in inside), path


def test_the_architecture_is_one_page() -> None:
    page = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    assert len(page.splitlines()) < 75


@pytest.mark.parametrize("script", sorted((ROOT / "benchmarks").glob("*.py")), ids=lambda p: p.stem)
def test_a_benchmark_is_cited_or_imported(script: Path) -> None:
    others = [ROOT / "Makefile", *PAGES, *(p for p in script.parent.glob("*.py") if p != script)]
    texts = [page.read_text(encoding="utf-8") for page in others]
    named = re.compile(rf"benchmarks/{script.name}\b|^(from|import) {script.stem}\b", re.M)
    assert any(named.search(text) for text in texts)
