"""The command line: what it prints and writes, and one clear line for every mistake."""

import json
import subprocess
import sys

import pytest

import gradnoise as gn
from gradnoise import cli

QUICK = ("--samples", "64", "--probes", "4", "--quiet")
FEW = ("--samples", "16", "--probes", "2", "--quiet")

HEAD = """
import torch
from torch import nn
torch.manual_seed(0)
model = nn.Sequential(nn.Linear(3, 8), nn.Tanh(), nn.Linear(8, 2)).double()
data = (torch.randn(60, 3).double(), torch.arange(60) % 2)
optimizer = torch.optim.SGD(model.parameters(), lr=0.25, momentum=0.5)
"""

FACTORIES = """
def three():
    return model, nn.CrossEntropyLoss(), data

def four():
    return model, nn.CrossEntropyLoss(), data, optimizer

def two():
    return model, data

def a_list():
    return [model, nn.CrossEntropyLoss(), data]

def broken():
    raise RuntimeError("the disk\\nis on fire")

def leaves():
    raise SystemExit(0)

def without_samples():
    return model, nn.CrossEntropyLoss(), []

def with_arguments(path, size, *, fast=True, **more):
    return three()

async def patient():
    return three()

def incomplete():
    {}['lr']

def asserts():
    assert not model

def without_cuda():
    model.to('cuda:99')

def defaults(size=3, *more, **others):
    return three()

def scalar_loss():
    return model, lambda model, batch: model(batch[0]).mean(), data

def coupled():
    return nn.Sequential(nn.BatchNorm1d(3), model[0]).double(), nn.CrossEntropyLoss(), data

not_a_function = 3
"""


@pytest.fixture
def file(tmp_path, monkeypatch):
    """A user's file of factories; its module and folder are forgotten afterwards."""
    path = tmp_path / "users_own_problem.py"
    path.write_text(HEAD + FACTORIES)
    monkeypatch.setattr(sys, "path", [*sys.path])
    before = dict(sys.modules)
    yield path
    for name in [name for name, module in sys.modules.items() if _lies_in(module, tmp_path)]:
        del sys.modules[name]
    sys.modules.update({name: before[name] for name in before.keys() - sys.modules.keys()})


def _lies_in(module, folder):
    return (getattr(module, "__file__", None) or "").startswith(str(folder))


def refused(capsys, *arguments):
    """The one line on stderr of a command that has to fail with exit code 2."""
    try:
        code = cli.main([str(argument) for argument in arguments])
    except SystemExit as leaving:  # argparse leaves by itself
        code = leaving.code
    shown = capsys.readouterr()
    assert code == 2, shown
    assert "Traceback" not in shown.err
    assert len(shown.err.strip().split("\n")) == 1, shown.err
    assert shown.err.startswith("gradnoise: error: ")
    return shown.err


class TestDigits:
    def test_it_prints_a_report(self, capsys):
        assert cli.main(["profile", "digits", *FEW, "--epochs", "1"]) == 0

        shown = capsys.readouterr()
        assert ": 4 810 trainable parameters, float32" in shown.out.split("\n")[0]
        assert "measured on 16 samples out of 1 797" in shown.out
        assert "SGD, learning rate 0.1, batch size 32" in shown.out
        assert "What to do" in shown.out
        assert shown.err == ""

    def test_its_training_can_be_chosen(self, capsys):
        training = ("--epochs", "0", "--lr", "0.2", "--momentum", "0.5", "--batch-size", "64")

        assert cli.main(["profile", "digits", *FEW, *training]) == 0

        assert "learning rate 0.2, momentum 0.5, batch size 64" in capsys.readouterr().out

    def test_without_sklearn_the_extra_is_named(self, capsys, monkeypatch):
        monkeypatch.setitem(sys.modules, "sklearn.datasets", None)

        assert "pip install 'gradnoise[digits]'" in refused(capsys, "profile", "digits", *QUICK)


class TestOwnFile:
    @pytest.mark.parametrize("name", ["three", "four"])
    def test_its_factory_is_measured(self, capsys, file, name):
        assert cli.main(["profile", f"{file}:{name}", *QUICK]) == 0

        shown = capsys.readouterr()
        assert "50 trainable parameters" in shown.out
        assert "measured on 60 samples out of 60" in shown.out
        trained = "trained with SGD, learning rate 0.25, momentum 0.5"
        assert (trained in shown.out) == (name == "four")
        assert shown.err == ""

    @pytest.mark.parametrize(
        ("name", "options", "said"),
        [
            ("three", ["--lr", "0.5"], "SGD, learning rate 0.5\n"),
            ("three", ["--batch-size", "8"], "trained with batch size 8\n"),
            ("four", ["--batch-size", "100"], "batch size 100 is larger than the data"),
            (
                "three",
                ["--lr", "0.5", "--momentum", "0.75", "--batch-size", "8"],
                "SGD, learning rate 0.5, momentum 0.75, batch size 8\n",
            ),
            ("four", ["--lr", "0.125"], "SGD, learning rate 0.125, momentum 0.5\n"),
            ("four", ["--momentum", "0"], "SGD, learning rate 0.25\n"),
            ("three", ["--engine", "loop"], "per-sample gradients by 'loop'"),
            ("three", ["--seed", "3"], "seed 3\n"),
            ("three", ["--samples", "20"], "measured on 20 samples out of 60"),
            ("three", ["--population", "1000"], "measured on 60 samples out of 1 000"),
            ("three", ["--population", "distribution"], "measured on 60 samples out of ∞"),
        ],
    )
    def test_an_option_shows_in_the_report(self, capsys, file, name, options, said):
        assert cli.main(["profile", f"{file}:{name}", *QUICK, *options]) == 0

        assert said in capsys.readouterr().out

    def test_a_neighbour_of_the_file_can_be_imported(self, file):
        (file.parent / "neighbour_of_it.py").write_text(HEAD)
        file.write_text("from neighbour_of_it import *\n" + FACTORIES)

        assert cli.main(["profile", f"{file}:three", *QUICK]) == 0

    def test_a_file_named_like_a_library_does_not_replace_it(self, file):
        path = file.rename(file.with_name("json.py"))

        assert cli.main(["profile", f"{path}:three", *QUICK]) == 0

        assert sys.modules["json"] is json


class TestOutputs:
    def test_the_profile_printed_is_saved(self, capsys, file, tmp_path):
        path = tmp_path / "profile.json"

        assert cli.main(["profile", f"{file}:four", *QUICK, "--json", str(path)]) == 0

        out = capsys.readouterr().out
        assert out == f"{gn.Profile.load(path)}\n\nwritten: {path}\n"

    def test_what_the_command_line_says_is_saved_as_well(self, file, tmp_path):
        path = tmp_path / "profile.json"

        cli.main(["profile", f"{file}:three", *QUICK, "--lr", "0.5", "--json", str(path)])

        assert gn.Profile.load(path).optimizer.lr == 0.5

    def test_the_map_is_drawn(self, capsys, file, tmp_path):
        path = tmp_path / "map.png"

        assert cli.main(["profile", f"{file}:four", *QUICK, "--plot", str(path)]) == 0

        assert path.read_bytes().startswith(b"\x89PNG")
        assert capsys.readouterr().out.endswith(f"written: {path}\n")

    def test_both_are_named(self, capsys, file, tmp_path):
        paths = (str(tmp_path / "profile.json"), str(tmp_path / "map.svg"))

        cli.main(["profile", f"{file}:four", *QUICK, "--json", paths[0], "--plot", paths[1]])

        assert capsys.readouterr().out.endswith(f"written: {paths[0]}, {paths[1]}\n")

    def test_the_same_seed_prints_the_same_numbers(self, capsys, file):
        reports = []
        for _ in range(2):
            cli.main(["profile", f"{file}:three", *QUICK, "--samples", "20", "--seed", "3"])
            reports.append(capsys.readouterr().out)

        assert reports[0] == reports[1]


class TestMistakes:
    @pytest.mark.parametrize(
        ("arguments", "said"),
        [
            ([], "required: COMMAND"),
            (["measure"], "invalid choice: 'measure'"),
            (["profle", "digits"], "did you mean profile?"),
            (["train.py:factory"], "the command comes first: gradnoise profile train.py:factory"),
            (["digits"], "the command comes first: gradnoise profile digits"),
            (["profile"], "required: target"),
            (["profile", "digits", "--wings"], "unrecognized arguments: --wings"),
            (["profile", "nonsense"], "expected 'digits' or 'path/to/file.py:factory'"),
            (["profile", ":factory"], "expected 'digits' or 'path/to/file.py:factory'"),
            (["profile", "missing.py:factory"], "there is no file missing.py"),
            (["profile", "digits", "--samples", "1"], "must be a whole number from 2 on; got 1"),
            (["profile", "digits", "--samples", "few"], "a whole number from 2 on; got few"),
            (["profile", "digits", "--probes", "1"], "must be a whole number from 2 on; got 1"),
            (["profile", "digits", "--batch-size", "0"], "a whole number from 1 on; got 0"),
            (["profile", "digits", "--epochs", "-1"], "from 0 on; got -1"),
            (["profile", "digits", "--seed", "1.5"], "a whole number from 0 on; got 1.5"),
            (["profile", "digits", "--lr", "0"], "must be a positive number; got 0"),
            (["profile", "digits", "--lr", "nan"], "must be a positive number; got nan"),
            (["profile", "digits", "--lr", "inf"], "must be a positive number; got inf"),
            (["profile", "digits", "--lr", "slow"], "must be a positive number; got slow"),
            (["profile", "digits", "--momentum", "1"], "at least 0 and below 1; got 1"),
            (["profile", "digits", "--json"], "expected one argument"),
        ],
    )
    def test_a_wrong_argument_is_named(self, capsys, arguments, said):
        assert said in refused(capsys, *arguments)

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
    def test_a_factory_that_cannot_be_measured_is_explained(self, capsys, file, factory, said):
        assert said in refused(capsys, "profile", f"{file}:{factory}", *QUICK)

    @pytest.mark.parametrize(
        ("factory", "said"), [("scalar_loss", "reduction"), ("coupled", "BatchNorm1d")]
    )
    def test_coupled_losses_are_measured_in_groups(self, capsys, file, factory, said):
        target = f"{file}:{factory}"
        assert said in refused(capsys, "profile", target, *QUICK, "--unit", "sample")
        assert cli.main(["profile", target, *QUICK, "--group-size", "6"]) == 0
        assert "in groups of 6" in capsys.readouterr().out

    @pytest.mark.parametrize(
        ("options", "said"),
        [
            (["--population", "many"], "`population` must be"),
            (["--unit", "batch"], "`unit` must be one of auto, sample, group"),
            (["--population", "20"], "`population` = 20 is smaller than the 60"),
            (["--engine", "warp"], "`engine` must be one of"),
            (["--epochs", "3"], "--epochs is for digits"),
            (["--momentum", "0.5"], "--momentum needs --lr"),
            (["--json", "/nowhere/at/all.json"], "there is no folder /nowhere/at"),
            (["--plot", "/nowhere/at/all.png"], "there is no folder /nowhere/at"),
        ],
    )
    def test_an_option_that_does_not_fit_is_explained(self, capsys, file, options, said):
        assert said in refused(capsys, "profile", f"{file}:three", *QUICK, *options)

    @pytest.mark.parametrize("option", ["--json", "--plot"])
    def test_a_file_that_cannot_be_written_is_refused_before_the_measurement(
        self, capsys, file, option, monkeypatch
    ):
        monkeypatch.setattr(cli, "profile", lambda *_, **__: pytest.fail("was measured"))

        line = refused(capsys, "profile", f"{file}:three", *QUICK, option, file.parent)

        assert str(file.parent) in line
        assert "measured" not in line

    @pytest.mark.parametrize(
        "options",
        [
            ("--json", "users_own_problem.py"),
            ("--plot", "elsewhere/../users_own_problem.py"),
            ("--json", "one.png", "--plot", "elsewhere/../one.png"),
        ],
    )
    def test_no_output_overwrites_another_or_the_users_file(
        self, capsys, file, options, monkeypatch
    ):
        monkeypatch.setattr(cli, "profile", lambda *_, **__: pytest.fail("was measured"))
        monkeypatch.chdir(file.parent)
        (file.parent / "elsewhere").mkdir()

        line = refused(capsys, "profile", f"{file}:three", *QUICK, *options)

        assert f"cannot write {options[-1]}: another option or the target has this name" in line

    def test_a_folder_that_is_missing_is_refused_before_the_measurement(
        self, capsys, file, monkeypatch
    ):
        monkeypatch.setattr(cli, "profile", lambda *_, **__: pytest.fail("was measured"))

        line = refused(capsys, "profile", f"{file}:three", *QUICK, "--json", "/nowhere/a.json")

        assert "there is no folder" in line

    def test_momentum_without_a_rate_is_refused_before_the_measurement(
        self, capsys, file, monkeypatch
    ):
        monkeypatch.setattr(cli, "profile", lambda *_, **__: pytest.fail("was measured"))

        assert "--momentum needs --lr" in refused(
            capsys, "profile", f"{file}:three", *QUICK, "--momentum", "0.5"
        )

    def test_a_picture_format_that_is_unknown_is_refused_before_the_measurement(
        self, capsys, file, monkeypatch
    ):
        monkeypatch.setattr(cli, "profile", lambda *_, **__: pytest.fail("was measured"))

        line = refused(capsys, "profile", f"{file}:three", *QUICK, "--plot", "map.xyz")

        assert "--plot takes a file that ends in .png, .pdf, .svg, .jpg" in line

    @pytest.mark.parametrize(
        ("contents", "said"),
        [
            ("def three(:", "SyntaxError"),
            ("import no_such_library_at_all", "No module named 'no_such_library_at_all'"),
            ("1 / 0", "ZeroDivisionError"),
        ],
    )
    def test_a_file_that_does_not_run_is_explained(self, capsys, file, contents, said):
        file.write_text(contents)

        assert said in refused(capsys, "profile", f"{file}:three", *QUICK)

    def test_without_a_function_those_of_the_file_are_listed(self, capsys, file):
        line = refused(capsys, "profile", file)

        assert "expected 'digits' or 'path/to/file.py:factory'" in line
        assert "; its functions are three, four, two" in line

    def test_a_file_without_functions_says_so(self, capsys, file):
        file.write_text("x = 3")

        assert "has no function 'three'; it has no functions" in refused(
            capsys, "profile", f"{file}:three"
        )

    def test_a_relative_import_names_the_way_out(self, capsys, file):
        file.write_text("from . import other\n")

        line = refused(capsys, "profile", f"{file}:three")
        assert "line 1 (from . import other): ImportError" in line
        assert "The file is loaded by itself: import its package by name" in line

    def test_a_missing_package_names_the_way_out(self, capsys, file):
        file.write_text("import no_such_library_at_all\n")

        line = refused(capsys, "profile", f"{file}:three")
        assert "Install it, or set PYTHONPATH to the folder that holds it" in line

    def test_an_error_of_ours_is_shown_as_it_is(self, capsys, file):
        with file.open("a") as more:
            more.write("\nimport gradnoise\ndef ours():\n    gradnoise.stable_lr('x')\n")

        line = refused(capsys, "profile", f"{file}:ours")
        assert line.startswith("gradnoise: error: `sharpness` must be a number; got")

    def test_arguments_with_defaults_are_no_mistake(self, file):
        assert cli.main(["profile", f"{file}:defaults", *QUICK]) == 0

    def test_a_function_written_in_c_is_called(self, capsys, file):
        with file.open("a") as more:
            more.write("\ndict_items = dict\n")

        assert "must return (model, loss_fn, data)" in refused(
            capsys, "profile", f"{file}:dict_items"
        )

    def test_a_closed_stderr_is_no_mistake(self, file, monkeypatch):
        monkeypatch.setattr(sys, "stderr", None)

        assert cli.main(["profile", f"{file}:three", "--samples", "64", "--probes", "4"]) == 0

    def test_a_file_of_another_kind_is_refused(self, capsys, file):
        text = file.rename(file.with_suffix(".txt"))

        assert "is not a Python file" in refused(capsys, "profile", f"{text}:three")

    def test_a_map_without_matplotlib_names_the_extra(self, capsys, file, monkeypatch):
        monkeypatch.setitem(sys.modules, "matplotlib", None)

        line = refused(capsys, "profile", f"{file}:three", *QUICK, "--plot", "map.png")

        assert "--plot needs matplotlib: pip install 'gradnoise[plot]'" in line

    def test_debug_shows_where(self, capsys, file):
        assert cli.main(["profile", f"{file}:broken", "--debug"]) == 2

        shown = capsys.readouterr().err
        assert "Traceback" in shown
        assert 'raise RuntimeError("the disk' in shown

    def test_an_interruption_is_no_mistake(self, capsys, file, monkeypatch):
        def interrupt(*_, **__):
            raise KeyboardInterrupt

        monkeypatch.setattr(cli, "profile", interrupt)

        assert cli.main(["profile", f"{file}:three"]) == 130
        assert capsys.readouterr().err == "gradnoise: interrupted\n"


def test_help_is_printed(capsys):
    with pytest.raises(SystemExit, match="0"):
        cli.main(["profile", "--help"])

    shown = capsys.readouterr().out
    assert "path/to/file.py:factory" in shown
    assert "example: gradnoise profile train.py:factory --batch-size 64" in shown


@pytest.mark.parametrize(
    ("name", "code", "lines"), [("three", 0, 0), ("none", 2, 1)], ids=["works", "mistake"]
)
def test_it_runs_as_a_program(file, name, code, lines):
    command = [sys.executable, "-m", "gradnoise.cli", "profile", f"{file}:{name}", *QUICK]

    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)

    assert done.returncode == code, done.stderr
    assert ("noise scale B_noise" in done.stdout) == (code == 0)
    assert len(done.stderr.splitlines()) == lines


class TestSweep:
    FACTORY = """
import torch
from torch import nn

def factory():
    source = torch.Generator().manual_seed(0)
    data = torch.randn(32, 4, generator=source), torch.arange(32) % 2
    return nn.Linear(4, 2), nn.CrossEntropyLoss(), data
"""

    def test_a_grid_is_trained_kept_and_drawn(self, tmp_path, capsys):
        file, kept, drawn = (tmp_path / name for name in ("own.py", "s.jsonl", "s.png"))
        file.write_text(self.FACTORY)
        command = [
            *("sweep", f"{file}:factory", "--batch-sizes", "4", "8", "16", "--lrs", "0.1", "300"),
            *("--epochs", "4", "--seeds", "2", "--out", str(kept), "--plot", str(drawn), "--quiet"),
        ]
        assert cli.main(command) == 0
        printed = capsys.readouterr().out
        assert "12 runs" in printed
        assert f"written: {kept}, {drawn}" in printed
        assert drawn.stat().st_size > 1000
        assert kept.read_text().count('"run"') == 12
        assert cli.main(command) == 0
        assert capsys.readouterr().out.split("trained")[0] == printed.split("trained")[0]

    SHORT = ("--batch-sizes", "8", "--lrs", "0.1", "--steps", "3", "--quiet")

    def written(self, tmp_path, optimizer, model="nn.Linear(4, 2)", before=""):
        """The target of a file whose factory returns an optimizer."""
        file = tmp_path / "own.py"
        text = self.FACTORY.replace("return nn.Linear(4, 2)", f"model = {model}\n    return model")
        file.write_text(before + text.rstrip() + f", torch.optim.{optimizer}\n")
        return f"{file}:factory"

    @pytest.mark.parametrize(
        ("optimizer", "options", "expected"),
        [
            ("SGD(model.parameters(), lr=0.3)", (), "sgd"),
            (
                "SGD(model.parameters(), lr=0.3, momentum=0.8, nesterov=True, weight_decay=0.01)",
                (),
                "nesterov, momentum 0.8, weight decay 0.01",
            ),
            ("Adam(model.parameters(), betas=(0.7, 0.999))", (), "adam, momentum 0.7"),
            ("SGD(model.parameters(), momentum=0.8)", ("--momentum", "0.5"), "sgd, momentum 0.5"),
            ("SGD(model.parameters(), momentum=0.8)", ("--momentum", "0"), "sgd"),
        ],
    )
    def test_it_trains_as_the_optimizer_of_the_factory(
        self, tmp_path, capsys, optimizer, options, expected
    ):
        target = self.written(tmp_path, optimizer)
        assert cli.main(["sweep", target, *self.SHORT, *options]) == 0
        assert f"\noptimizer {expected}\n" in capsys.readouterr().out

    @pytest.mark.parametrize(
        ("optimizer", "said"),
        [
            (
                "Adagrad(model.parameters())",
                "trains with torch's SGD or Adam; the optimizer is Ada",
            ),
            ("SGD(model.parameters(), momentum=0.5, dampening=0.1)", "SGD and dampening = 0.1"),
        ],
    )
    def test_an_optimizer_that_a_sweep_does_not_know_is_refused(
        self, tmp_path, capsys, optimizer, said
    ):
        assert said in refused(capsys, "sweep", self.written(tmp_path, optimizer), *self.SHORT)

    def test_the_file_is_executed_once(self, tmp_path, capsys, monkeypatch):
        monkeypatch.setattr(sys, "path", [*sys.path])
        before = (
            "from pathlib import Path\nPath(__file__).with_suffix('.log').open('a').write('x')\n"
        )
        target = self.written(tmp_path, "SGD(model.parameters())", before=before)
        assert cli.main(["sweep", target, *self.SHORT, "--seeds", "3"]) == 0
        assert (tmp_path / "own.log").read_text() == "x"
        assert sys.path.count(str(tmp_path)) == 1

    def test_a_factory_that_returns_one_model_again_and_again_is_refused(self, capsys, file):
        said = refused(capsys, "sweep", f"{file}:three", *self.SHORT)
        assert "`make_model` returned the same weights twice" in said

    def test_digits_are_built_in(self, capsys):
        command = [
            *("sweep", "digits", "--batch-sizes", "256", "--lrs", "0.5", "--steps", "2", "--quiet"),
        ]
        assert cli.main(command) == 0
        assert "equal steps, B =" in capsys.readouterr().out

    def test_an_optimizer_that_cannot_be_used_is_named(self, tmp_path, capsys):
        file = tmp_path / "own.py"
        text = self.FACTORY.replace(
            "return nn.Linear(4, 2),", "model = nn.Linear(4, 2)\n    return model,"
        )
        file.write_text(text.replace(", data\n", ", data, torch.optim.AdamW(model.parameters())\n"))
        command = ["sweep", f"{file}:factory", "--batch-sizes", "8", "--lrs", "0.1"]
        assert cli.main([*command, "--steps", "2", "--quiet"]) == 2
        assert "AdamW" in capsys.readouterr().err

    def test_an_interruption_says_how_to_go_on(self, tmp_path, capsys, monkeypatch):
        def interrupt(*_, **__):
            raise KeyboardInterrupt

        monkeypatch.setattr(cli, "sweep", interrupt)
        kept = tmp_path / "s.jsonl"
        assert cli.main(["sweep", "digits", "--out", str(kept)]) == 130
        line = f"gradnoise: interrupted; the same command continues from {kept}\n"
        assert capsys.readouterr().err == line

    def test_what_cannot_be_is_said_in_a_line(self, tmp_path, capsys):
        assert cli.main(["sweep", "digits", "--out", str(tmp_path / "no" / "x.jsonl")]) == 2
        assert "there is no folder" in capsys.readouterr().err
        same = str(tmp_path / "s.png")
        assert "has this name" in refused(capsys, "sweep", "digits", "--out", same, "--plot", same)
