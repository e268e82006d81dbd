"""The user's file: which factory is meant, and what is said where it fails."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

import gradnoise as gn
from gradnoise import cli
from gradnoise.commands.target import factory_of, threads_of
from tests.command_line import FACTORIES, HEAD, QUICK, refused

TEXT = """
CALLS = []

def make():
    CALLS.append(1)
    return "model", "loss", "data"

def fails():
    return 1 / 0
"""


@pytest.fixture
def path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.setattr(sys, "path", [*sys.path])
    file = tmp_path / "own_problem.py"
    file.write_text(TEXT)
    yield file
    sys.modules.pop("gradnoise_target_own_problem", None)


def test_the_file_is_loaded_once_and_the_factory_called_each_time(path: Path) -> None:
    make = factory_of(f"{path}:make")
    assert make() == make() == ("model", "loss", "data", None)
    assert sys.modules["gradnoise_target_own_problem"].CALLS == [1, 1]


def test_where_it_failed_is_said(path: Path) -> None:
    with pytest.raises(gn.ArgumentError, match=r"failed at own_problem.py, line 9 \(return 1 / 0"):
        factory_of(f"{path}:fails")()


def test_functions_that_there_are_are_named(path: Path) -> None:
    with pytest.raises(gn.ArgumentError, match="no function 'mak'; its functions are make, fails"):
        factory_of(f"{path}:mak")


def test_a_neighbour_of_the_file_can_be_imported(file):
    (file.parent / "neighbour_of_it.py").write_text(HEAD)
    file.write_text("from neighbour_of_it import *\n" + FACTORIES)

    assert cli.main(["profile", f"{file}:three", *QUICK]) == 0


def test_a_file_named_like_a_library_does_not_replace_it(file):
    path = file.rename(file.with_name("json.py"))

    assert cli.main(["profile", f"{path}:three", *QUICK]) == 0

    assert sys.modules["json"] is json


@pytest.mark.parametrize(
    ("factory", "said"),
    [
        ("none", "has no function 'none'; its functions are three, four, two, a_list"),
        ("with_arguments", "needs the arguments path, size, and is called without any"),
        ("patient", "is async; make it an ordinary function"),
        ("incomplete", "incomplete failed at users_own_problem.py, line"),
        ("incomplete", "({}['lr']): KeyError: 'lr'"),
        ("asserts", "(assert not model): AssertionError"),
        ("without_cuda", "(model.to('cuda:99')): "),
        ("not_a_function", "has no function 'not_a_function'"),
        ("two", "must return (model, loss_fn, data) or"),
        ("two", "got 2 things"),
        ("a_list", "got list"),
        ("broken", "RuntimeError: the disk is on fire (--debug shows where)"),
        ("leaves", "called sys.exit(0)"),
        ("without_samples", "got no samples"),
    ],
)
def test_a_factory_that_cannot_be_measured_is_explained(capsys, file, factory, said):
    assert said in refused(capsys, "profile", f"{file}:{factory}", *QUICK)


@pytest.mark.parametrize(
    ("contents", "said"),
    [
        ("def three(:", "SyntaxError"),
        ("import no_such_library_at_all", "No module named 'no_such_library_at_all'"),
        ("1 / 0", "ZeroDivisionError"),
    ],
)
def test_a_file_that_does_not_run_is_explained(capsys, file, contents, said):
    file.write_text(contents)

    assert said in refused(capsys, "profile", f"{file}:three", *QUICK)


def test_without_a_function_those_of_the_file_are_listed(capsys, file):
    line = refused(capsys, "profile", file)

    assert "expected 'digits' or 'path/to/file.py:factory'" in line
    assert "; its functions are three, four, two" in line


def test_a_file_without_functions_says_so(capsys, file):
    file.write_text("x = 3")

    assert "has no function 'three'; it has no functions" in refused(
        capsys, "profile", f"{file}:three"
    )


def test_a_relative_import_names_the_way_out(capsys, file):
    file.write_text("from . import other\n")

    line = refused(capsys, "profile", f"{file}:three")
    assert "line 1 (from . import other): ImportError" in line
    assert "name it as a module, package.file:factory, in the folder that holds" in line


def test_a_missing_package_names_the_way_out(capsys, file):
    file.write_text("import no_such_library_at_all\n")

    line = refused(capsys, "profile", f"{file}:three")
    assert "Install it, or set PYTHONPATH to the folder that holds it" in line


def test_an_error_of_ours_is_shown_as_it_is(capsys, file):
    with file.open("a") as more:
        more.write("\nimport gradnoise\ndef ours():\n    gradnoise.stable_lr('x')\n")

    line = refused(capsys, "profile", f"{file}:ours")
    assert line.startswith("gradnoise: error: `sharpness` must be a number; got")


def test_arguments_with_defaults_are_no_mistake(file):
    assert cli.main(["profile", f"{file}:defaults", *QUICK]) == 0


def test_a_function_written_in_c_is_called(capsys, file):
    with file.open("a") as more:
        more.write("\ndict_items = dict\n")

    assert "must return (model, loss_fn, data)" in refused(capsys, "profile", f"{file}:dict_items")


def test_a_file_of_another_kind_is_refused(capsys, file):
    text = file.rename(file.with_suffix(".txt"))

    assert "is not a Python file" in refused(capsys, "profile", f"{text}:three")


@pytest.mark.parametrize(
    "command", [("advise",), ("branch", "--batch-sizes", "4", "--samples", "32")]
)
def test_an_optimizer_is_needed(
    command: tuple[str, ...], trainable: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    name, *options = command
    line = refused(capsys, name, f"{trainable}:three", *options)
    assert "returned no optimizer, and runs go on from one: return (model, loss_fn, da" in line


@pytest.fixture
def package(file: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A package of the user's in the current folder; its modules import each other."""
    folder = file.parent / "users_package"
    folder.mkdir()
    (folder / "__init__.py").write_text("def outside():\n    return 1 / 0\n")
    (folder / "factories.py").write_text(HEAD + FACTORIES)
    (folder / "relative.py").write_text("from .factories import *\n\ndef own():\n    {}['a']\n")
    (folder / "absolute.py").write_text("from users_package.factories import three\n")
    monkeypatch.chdir(file.parent)
    return folder


@pytest.mark.parametrize(
    "target", ["users_package.relative:three", "users_package/absolute.py:three"]
)
@pytest.mark.usefixtures("package")
def test_a_package_in_the_current_folder_is_found(target: str) -> None:
    model, _, _, optimizer = factory_of(target)()
    assert next(model.parameters()).numel()
    assert optimizer is None


@pytest.mark.parametrize(
    ("target", "said"),
    [
        ("users_package.relative:own", "failed at relative.py, line 4 ({}['a']): KeyError: 'a'"),
        ("users_package:outside", "failed at __init__.py, line 2 (return 1 / 0): ZeroDivision"),
        ("users_package.relative:owm", "users_package.relative has no function 'owm'; its fun"),
        ("users_package.missing:own", "No module named 'users_package.missing'"),
        ("users_package.relative.py:own", "there is no file users_package.relative.py"),
    ],
)
@pytest.mark.usefixtures("package")
def test_mistakes_in_a_package_are_told_with_their_place(
    capsys: pytest.CaptureFixture[str], target: str, said: str
) -> None:
    assert said in refused(capsys, "profile", target)


def test_the_file_finds_no_arguments_of_ours(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file.write_text(
        "import argparse, sys\nparser = argparse.ArgumentParser()\n"
        "parser.add_argument('--width', type=int, default=3)\nwidth = parser.parse_args().width\n"
        "def seen():\n    return width, *sys.argv, None\n"
    )
    ours = ["gradnoise", "profile", f"{file}:seen", "--seed", "1"]
    monkeypatch.setattr(sys, "argv", ours)
    assert factory_of(f"{file}:seen")()[:2] == (3, str(file))
    assert sys.argv is ours


@pytest.mark.parametrize(("target", "count"), [("digits", 1), ("train.py:factory", 3)])
def test_the_small_network_has_one_thread_and_others_have_theirs(target: str, count: int) -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    try:
        with threads_of(target):
            assert torch.get_num_threads() == count
        assert torch.get_num_threads() == 3
    finally:
        torch.set_num_threads(before)
