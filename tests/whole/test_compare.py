"""The page on comparisons and rules says what is true."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from gradnoise.checks.rule import parse
from gradnoise.checks.vocabulary import READY, WRITTEN_OUT
from gradnoise.history.run_file import PREFIX
from gradnoise.profiles.flat import KEYS

PAGE = (Path(__file__).parents[2] / "docs" / "compare.md").read_text("utf-8")


def test_its_program_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (block,) = re.findall(r"```python\n(.*?)```", PAGE, re.S)
    exec(compile(block, "compare.md", "exec"), {})
    assert (tmp_path / "profile.csv").read_text("utf-8").startswith("model,date,scope,name,")


def test_its_rules_can_be_read() -> None:
    rules = re.findall(r'--rule (?:"([^"]+)"|([a-z][\w=-]*))', PAGE)
    assert len(rules) == 3
    for quoted, bare in rules:
        parse(quoted or bare)


def test_it_names_every_ready_made_rule() -> None:
    for rule in (*READY, *WRITTEN_OUT):
        assert f"`{rule}`" in PAGE, rule


def test_its_keys_are_those_of_the_logger() -> None:
    for key in KEYS.values():
        assert f"`{PREFIX}{key}`" in PAGE
