"""`gradnoise profile`: what it prints and writes, and what it refuses before it measures."""

import re
import sys

import pytest

import gradnoise as gn
from gradnoise import cli
from gradnoise.commands import profile as command
from tests.command_line import QUICK, refused

FEW = ("--samples", "16", "--probes", "2", "--quiet")


def test_it_prints_a_report(capsys):
    assert cli.main(["profile", "digits", *FEW, "--epochs", "1"]) == 0

    shown = capsys.readouterr()
    assert shown.out.startswith("What to do")
    assert "- DigitsNet: 4 810 trainable parameters, float32" in shown.out
    assert "measured on 16 samples out of 1 797" in shown.out
    assert "SGD, learning rate 0.1, batch size 32" in shown.out
    assert shown.err == ""


def test_its_training_can_be_chosen(capsys):
    training = ("--epochs", "0", "--lr", "0.2", "--momentum", "0.5", "--batch-size", "64")

    assert cli.main(["profile", "digits", *FEW, *training]) == 0

    assert "learning rate 0.2, momentum 0.5, batch size 64" in capsys.readouterr().out


def test_without_sklearn_the_extra_is_named(capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "sklearn.datasets", None)

    assert "pip install 'gradnoise[digits]'" in refused(capsys, "profile", "digits", *QUICK)


@pytest.mark.parametrize("name", ["three", "four"])
def test_its_factory_is_measured(capsys, file, name):
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
        ("three", ["--population", "1e3"], "measured on 60 samples out of 1 000"),
        ("three", ["--population", "distribution"], "measured on 60 samples out of ∞"),
    ],
)
def test_an_option_shows_in_the_report(capsys, file, name, options, said):
    assert cli.main(["profile", f"{file}:{name}", *QUICK, *options]) == 0

    assert said in capsys.readouterr().out


@pytest.mark.parametrize(
    ("factory", "said"), [("scalar_loss", "reduction"), ("coupled", "BatchNorm1d")]
)
def test_coupled_losses_are_measured_in_groups(capsys, file, factory, said):
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
def test_an_option_that_does_not_fit_is_explained(capsys, file, options, said):
    assert said in refused(capsys, "profile", f"{file}:three", *QUICK, *options)


@pytest.mark.parametrize("option", ["--json", "--plot"])
def test_a_file_that_cannot_be_written_is_refused_before_the_measurement(
    capsys, file, option, monkeypatch
):
    monkeypatch.setattr(command, "profile", lambda *_, **__: pytest.fail("was measured"))

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
def test_no_output_overwrites_another_or_the_users_file(capsys, file, options, monkeypatch):
    monkeypatch.setattr(command, "profile", lambda *_, **__: pytest.fail("was measured"))
    monkeypatch.chdir(file.parent)
    (file.parent / "elsewhere").mkdir()

    line = refused(capsys, "profile", f"{file}:three", *QUICK, *options)

    assert f"cannot write {options[-1]}: another option or an input has this name" in line


def test_a_folder_that_is_missing_is_refused_before_the_measurement(capsys, file, monkeypatch):
    monkeypatch.setattr(command, "profile", lambda *_, **__: pytest.fail("was measured"))

    line = refused(capsys, "profile", f"{file}:three", *QUICK, "--json", "/nowhere/a.json")

    assert "there is no folder" in line


def test_momentum_without_a_rate_is_refused_before_the_measurement(capsys, file, monkeypatch):
    monkeypatch.setattr(command, "profile", lambda *_, **__: pytest.fail("was measured"))

    assert "--momentum needs --lr" in refused(
        capsys, "profile", f"{file}:three", *QUICK, "--momentum", "0.5"
    )


def test_a_picture_format_that_is_unknown_is_refused_before_the_measurement(
    capsys, file, monkeypatch
):
    monkeypatch.setattr(command, "profile", lambda *_, **__: pytest.fail("was measured"))

    line = refused(capsys, "profile", f"{file}:three", *QUICK, "--plot", "map.xyz")

    assert "--plot takes a file that ends in .png, .pdf, .svg, .jpg" in line


def test_a_map_without_matplotlib_names_the_extra(capsys, file, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)

    line = refused(capsys, "profile", f"{file}:three", *QUICK, "--plot", "map.png")

    assert "--plot needs matplotlib: pip install matplotlib" in line


def test_the_profile_printed_is_saved(capsys, file, tmp_path):
    path = tmp_path / "profile.json"

    assert cli.main(["profile", f"{file}:four", *QUICK, "--json", str(path)]) == 0

    out = capsys.readouterr().out
    assert out == f"{gn.Profile.load(path)}\n\nwritten: {path}\n"


def test_what_the_command_line_says_is_saved_as_well(file, tmp_path):
    path = tmp_path / "profile.json"

    cli.main(["profile", f"{file}:three", *QUICK, "--lr", "0.5", "--json", str(path)])

    assert gn.Profile.load(path).optimizer.lr == 0.5


def test_the_map_is_drawn(capsys, file, tmp_path):
    path = tmp_path / "map.png"

    assert cli.main(["profile", f"{file}:four", *QUICK, "--plot", str(path)]) == 0

    assert path.read_bytes().startswith(b"\x89PNG")
    assert capsys.readouterr().out.endswith(f"written: {path}\n")


def test_both_are_named(capsys, file, tmp_path):
    paths = (str(tmp_path / "profile.json"), str(tmp_path / "map.svg"))

    cli.main(["profile", f"{file}:four", *QUICK, "--json", paths[0], "--plot", paths[1]])

    assert capsys.readouterr().out.endswith(f"written: {paths[0]}, {paths[1]}\n")


def test_the_same_seed_prints_the_same_numbers(capsys, file):
    reports = []
    for _ in range(2):
        cli.main(["profile", f"{file}:three", *QUICK, "--samples", "20", "--seed", "3"])
        reports.append(re.sub(r"cost: \S+ s,", "cost:", capsys.readouterr().out))

    assert reports[0] == reports[1]


def test_with_trials_the_report_names_a_pair_that_was_tried(capsys, tmp_path):
    files = tmp_path / "p.json", tmp_path / "p.html"
    given = ("--json", str(files[0]), "--html", str(files[1]), "--advise", "8")
    assert cli.main(["profile", "digits", *FEW, *given]) == 0

    out = capsys.readouterr().out
    assert out.startswith("What to do (tried by short training: rough)\n- Batch size ")
    assert out.endswith(f"written: {files[0]}, {files[1]}\n")
    saved, page = map(gn.Profile.load, files)
    assert saved.advised == page.advised
    assert f"- Batch size {saved.recommend().batch_size}, learning rate " in out


def test_trials_need_an_optimizer(capsys, file):
    said = refused(capsys, "profile", f"{file}:three", *QUICK, "--advise")

    assert "returned no optimizer, and runs go on from one" in said


def test_all_tables_and_spectra_on_request(capsys, tmp_path):
    page = tmp_path / "p.html"
    more = ("--full", "--spectra", "--html", str(page))
    assert cli.main(["profile", "digits", *FEW, "--epochs", "0", *more]) == 0

    assert "learning rate at B =" in capsys.readouterr().out
    assert set(gn.Profile.load(page).spectra) == {"H", "Σ"}


def test_what_cannot_be_trained_is_measured_all_the_same(capsys, monkeypatch):
    def refuse(*_, **__):
        raise gn.DataError("samples differ in shape")

    monkeypatch.setattr(command, "advise", refuse)
    assert cli.main(["profile", "digits", *FEW, "--epochs", "0", "--advise"]) == 0

    out = " ".join(capsys.readouterr().out.split())
    assert "- there is no advice from short training: samples differ in shape" in out
    assert out.startswith("What to do")
