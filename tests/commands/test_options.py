"""Options of every command: what their help says is so."""

from __future__ import annotations

import re
from importlib import import_module

import pytest

from gradnoise import cli
from gradnoise.commands.options import COMMANDS
from gradnoise.estimators.noise.noise_scale import ACCURACY, PROBES
from gradnoise.trials.branch import GROWTH


def shown(capsys: pytest.CaptureFixture[str], name: str) -> str:
    with pytest.raises(SystemExit, match="0"):
        cli.main([name, "--help"])
    return " ".join(capsys.readouterr().out.split())


@pytest.mark.parametrize("name", COMMANDS)
def test_a_command_is_run_by_the_module_of_its_name(name: str) -> None:
    assert callable(import_module(f"gradnoise.commands.{name}").run)


def test_defaults_that_the_help_names_are_those_of_the_library(
    capsys: pytest.CaptureFixture[str],
) -> None:
    text = shown(capsys, "profile")
    assert f"fewer than 512 samples (default {PROBES})" in text
    assert f"relative, that is enough (default {ACCURACY})" in text


def test_every_scaling_of_the_library_can_be_chosen(capsys: pytest.CaptureFixture[str]) -> None:
    assert f"--scaling {{{','.join(sorted(GROWTH))}}}" in shown(capsys, "branch")


@pytest.mark.parametrize("name", ["advise", "branch"])
def test_the_help_asks_for_an_optimizer(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    needed = "returns (model, loss_fn, data, optimizer), the optimizer with its state"
    assert needed in shown(capsys, name)


@pytest.mark.parametrize("name", COMMANDS)
def test_the_help_of_a_command_ends_with_an_example(
    name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert re.search(rf"examples?: gradnoise {name} ", shown(capsys, name))
