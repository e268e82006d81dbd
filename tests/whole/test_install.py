"""What an install must leave behind."""

from __future__ import annotations

import importlib.util
import re
import runpy
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "scripts" / "mend_torchvision.py"


def test_transformers_can_be_imported_beside_backpack() -> None:
    import backpack  # noqa: F401
    from transformers import GPT2LMHeadModel

    assert GPT2LMHeadModel.__name__ == "GPT2LMHeadModel"


def run_with(monkeypatch: pytest.MonkeyPatch, found: bool, importable: bool) -> list[list[str]]:
    calls: list[list[str]] = []

    def run(command: list[str], **_: object) -> subprocess.CompletedProcess[str]:
        calls.append(command)
        return subprocess.CompletedProcess(command, int(not importable), "", "no operator nms")

    spec = object() if found else None
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: spec)
    monkeypatch.setattr(subprocess, "run", run)
    runpy.run_path(str(SCRIPT), run_name="__main__")
    return calls


def test_a_broken_torchvision_is_removed_and_that_is_said(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    calls = run_with(monkeypatch, found=True, importable=False)
    assert calls[-1][1:5] == ["-m", "pip", "uninstall", "--yes"]
    assert "torchvision cannot be imported here (no operator nms)" in capsys.readouterr().out


@pytest.mark.parametrize("found", [True, False])
def test_a_torchvision_that_works_or_is_absent_stays(
    monkeypatch: pytest.MonkeyPatch, found: bool
) -> None:
    calls = run_with(monkeypatch, found=found, importable=True)
    assert not any("uninstall" in call for call in calls)


def test_no_public_name_loads_anything_optional() -> None:
    code = (
        "import sys; from gradnoise import *; "
        "heavy = {'matplotlib', 'sklearn', 'transformers', 'backpack', 'scipy.stats'}; "
        "print(sorted(heavy & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_the_import_is_silent_and_waits_with_torch() -> None:
    code = "import gradnoise, sys; gradnoise.__version__; sys.exit('torch' in sys.modules)"
    command = [sys.executable, "-W", "error", "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_a_python_that_runs_is_found_by_name() -> None:
    found = runpy.run_path(str(SCRIPT.with_name("try_package.py")))["found"]
    here = found(f"python{sys.version_info.major}.{sys.version_info.minor}")
    told = subprocess.run([here, "-V"], capture_output=True, text=True, check=True).stdout
    assert told.startswith(f"Python {sys.version_info.major}.{sys.version_info.minor}.")
    assert found("python2.0") is None


def test_the_pythons_that_are_tried_are_those_that_are_claimed() -> None:
    root = SCRIPT.parents[1]
    project = (root / "pyproject.toml").read_text()
    claimed = re.findall(r'"Programming Language :: Python :: (3\.\d+)"', project)
    tried = re.findall(r"^PYTHON_\w+ \?= python(\S+)", (root / "Makefile").read_text(), re.M)
    assert tried == [claimed[0], claimed[-1]]
    assert f'requires-python = ">={claimed[0]}"' in project


def test_the_oldest_torch_that_is_allowed_is_tested() -> None:
    root = SCRIPT.parents[1]
    allowed = re.findall(r'"torch>=([^"]+)"', (root / "pyproject.toml").read_text())
    tested = dict(re.findall(r"^TORCH_(\w+) := (\S+)", (root / "Makefile").read_text(), re.M))
    assert allowed == [tested["OLDEST"]]
    install = (root / "README.md").read_text().split("## Install")[1]
    assert f"torch ({tested['OLDEST']} or newer; tested up to {tested['NEWEST']})" in install
