"""The command line as a whole: arguments, help, mistakes; each command has tests of its name."""

import subprocess
import sys
from types import SimpleNamespace

import pytest

from gradnoise import cli
from gradnoise.commands import profile
from gradnoise.commands.options import COMMANDS
from tests.command_line import FACTORIES, HEAD, QUICK, refused
from tests.run_files import DIGITS


@pytest.fixture
def file(tmp_path, monkeypatch):
    """A user's file of factories."""
    path = tmp_path / "own_problem.py"
    path.write_text(HEAD + FACTORIES)
    monkeypatch.setattr(sys, "path", [*sys.path])
    yield path
    sys.modules.pop("gradnoise_target_own_problem", None)


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
def test_a_wrong_argument_is_named(capsys, arguments, said):
    assert said in refused(capsys, *arguments)


def test_a_closed_stderr_is_no_mistake(file, monkeypatch):
    monkeypatch.setattr(sys, "stderr", None)

    assert cli.main(["profile", f"{file}:three", "--samples", "64", "--probes", "4"]) == 0


def test_debug_shows_where(capsys, file):
    assert cli.main(["profile", f"{file}:broken", "--debug"]) == 2

    shown = capsys.readouterr().err
    assert "Traceback" in shown
    assert 'raise RuntimeError("the disk' in shown


def test_an_interruption_is_no_mistake(capsys, file, monkeypatch):
    def interrupt(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(profile, "profile", interrupt)

    assert cli.main(["profile", f"{file}:three"]) == 130
    assert capsys.readouterr().err == "gradnoise: interrupted\n"


def test_help_is_printed(capsys):
    with pytest.raises(SystemExit, match="0"):
        cli.main(["profile", "--help"])

    shown = capsys.readouterr().out
    assert "path/to/file.py:factory" in shown
    assert (
        "\nexample:\n  gradnoise profile train.py:factory --batch-size 64 --lr 0.1 --plot map.png"
        in shown
    )


def test_the_main_help_has_examples_that_can_be_typed(capsys):
    with pytest.raises(SystemExit, match="0"):
        cli.main(["--help"])

    lines = [line.strip() for line in capsys.readouterr().out.splitlines()]
    examples = [line.split()[1:] for line in lines if line.startswith("gradnoise ")]
    examples = [example for example in examples if "COMMAND" not in example]
    assert len(examples) == 3
    for example in examples:
        assert cli._parser().parse_args(example).command == example[0]


@pytest.mark.parametrize(
    ("name", "code", "lines"), [("three", 0, 0), ("none", 2, 1)], ids=["works", "mistake"]
)
def test_it_runs_as_a_program(file, name, code, lines):
    command = [sys.executable, "-m", "gradnoise.cli", "profile", f"{file}:{name}", *QUICK]

    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)

    assert done.returncode == code, done.stderr
    assert ("noise scale B_noise" in done.stdout) == (code == 0)
    assert len(done.stderr.splitlines()) == lines


@pytest.mark.parametrize(
    "arguments",
    [["--help"], ["profile", "--help"], ["--version"], ["wrong"], ["watch", str(DIGITS)]],
    ids=" ".join,
)
def test_what_needs_no_torch_does_not_import_it(arguments):
    code = (
        "import sys\nfrom gradnoise import cli\n"
        f"try:\n    assert cli.main({arguments}) == 0\nexcept SystemExit:\n    pass\n"
        "sys.exit('torch' in sys.modules)"
    )

    assert subprocess.run([sys.executable, "-c", code], timeout=60, check=False).returncode == 0


@pytest.mark.parametrize("command", [[], *([name] for name in COMMANDS)], ids=" ".join)
def test_help_imports_no_library_that_takes_time(command):
    code = (
        "import sys\nfrom gradnoise import cli\n"
        f"try:\n    cli.main({[*command, '--help']})\nexcept SystemExit:\n    pass\n"
        "slow = {'torch', 'numpy', 'scipy', 'rich', 'matplotlib'} & set(sys.modules)\n"
        "sys.exit(', '.join(sorted(slow)) or 0)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False
    )

    assert done.stderr == ""
    assert done.returncode == 0


@pytest.mark.parametrize("passed", [True, False])
def test_a_reader_that_stops_does_not_change_the_verdict(monkeypatch, passed):
    def run(options):
        options.code = 0 if passed else 1
        raise BrokenPipeError

    stopped = []
    monkeypatch.setattr("gradnoise.cli._module_of", lambda _: SimpleNamespace(run=run))
    monkeypatch.setattr("os.dup2", lambda *ends: stopped.append(ends))
    assert cli.main(["check", "p.json"]) == (0 if passed else 1)
    assert len(stopped) == 1
