"""Whether an installed gradnoise works. Run with the Python it is installed for, in any folder.

    python smoke.py                   everything
    python smoke.py --without-torch   what needs no torch: metadata, help, imports

`make package` runs it on a wheel and on a source distribution.
"""

from __future__ import annotations

import argparse
import compileall
import doctest
import importlib
import importlib.util
import pkgutil
import re
import subprocess
import sys
import sysconfig
import tempfile
import warnings
from importlib import metadata
from pathlib import Path

from packaging.requirements import Requirement  # lazy_loader needs it as well

FACTORY = """
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

def factory():
    torch.manual_seed(0)
    inputs = torch.randn(256, 8)
    labels = (inputs[:, 0] + 0.5 * torch.randn(256) > 0).long()
    data = TensorDataset(inputs, labels)
    model = nn.Sequential(nn.Linear(8, 16), nn.Tanh(), nn.Linear(16, 2))
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    for x, y in DataLoader(data, batch_size=32):
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(x), y).backward()
        optimizer.step()
    return model, nn.CrossEntropyLoss(), DataLoader(data, batch_size=32), optimizer
"""


def main() -> None:
    """Run the checks; the first that fails ends with a traceback."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--without-torch", action="store_true")
    without_torch = parser.parse_args().without_torch
    checks = [metadata_is_complete, help_is_printed, import_is_silent, files_compile]
    if not without_torch:
        checks += [requirements_are_met, modules_are_imported, a_profile_is_made]
        checks += [a_file_is_profiled, an_example_runs]
    for check in checks:
        check()
    python = ".".join(map(str, sys.version_info[:3]))
    print(
        f"gradnoise {metadata.version('gradnoise')} on Python {python}: {len(checks)} checks hold"
    )


def package() -> Path:
    """The folder of the package, which has to be the installed one."""
    spec = importlib.util.find_spec("gradnoise")
    assert spec is not None
    assert spec.origin is not None
    folder = Path(spec.origin).parent
    assert folder.parent == Path(sysconfig.get_path("purelib")), (
        f"{folder} is not what pip installed"
    )
    return folder


def printed(*command: str) -> str:
    """What a command prints that works and does not complain."""
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, f"{command}: {done.stdout}{done.stderr}"
    assert not done.stderr, f"{command}: {done.stderr}"
    return done.stdout


def gradnoise(*arguments: str) -> str:
    """What the installed program prints."""
    return printed(str(Path(sysconfig.get_path("scripts"), "gradnoise")), *arguments)


def metadata_is_complete() -> None:
    """Version, licence and stubs are there; no link of the README needs the source tree."""
    found = metadata.metadata("gradnoise")
    assert found["License-Expression"] == "MIT"
    assert {"py.typed", "__init__.pyi"} <= {path.name for path in package().iterdir()}
    names = {path.name for path in metadata.files("gradnoise") or []}
    assert "LICENSE" in names
    links = re.findall(r"\]\(([^)]+)\)", str(found.get_payload()))
    assert links
    assert all("://" in link for link in links), links


def help_is_printed() -> None:
    """The version, by program and module, and the help of every command with an example."""
    version = metadata.version("gradnoise")
    assert gradnoise("--version").strip() == version
    assert printed(sys.executable, "-m", "gradnoise", "--version").strip() == version
    assert "examples:" in gradnoise("--help")
    for command in importlib.import_module("gradnoise.commands.options").COMMANDS:
        shown = " ".join(gradnoise(command, "--help").split())
        assert re.search(rf"examples?: gradnoise {command} ", shown), shown


def import_is_silent() -> None:
    """No warning, and the version is that of the metadata."""
    program = "import gradnoise; print(gradnoise.__version__)"
    shown = printed(sys.executable, "-W", "error", "-c", program)
    assert shown.strip() == metadata.version("gradnoise")


def files_compile() -> None:
    """No file has a syntax that this Python does not know or warns of."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert compileall.compile_dir(package(), quiet=1, force=True)


def core_requirements() -> list[Requirement]:
    """Requirements that are no extras, as in the metadata."""
    found = [Requirement(line) for line in metadata.requires("gradnoise") or []]
    return [requirement for requirement in found if requirement.marker is None]


def requirements_are_met() -> None:
    """Every library that is needed is there, in a version that is allowed."""
    for requirement in core_requirements():
        version = metadata.version(requirement.name)
        assert requirement.specifier.contains(version), f"{requirement}: {version} is installed"


def modules_are_imported() -> None:
    """All of them, but for those of libraries that are extras and not installed."""
    needed = {requirement.name.replace("-", "_") for requirement in core_requirements()}
    for module in pkgutil.walk_packages([str(package())], "gradnoise."):
        if module.name.endswith("__main__"):
            continue
        try:
            importlib.import_module(module.name)
        except ModuleNotFoundError as error:
            missing = (error.name or "").partition(".")[0]
            assert missing not in {"gradnoise", *needed}, module.name


def a_profile_is_made() -> None:
    """A network under AdamW, after steps: measured, saved, loaded and drawn."""
    import gradnoise as gn

    names: dict[str, object] = {}
    exec(FACTORY, names)
    model, loss_fn, data, optimizer = names["factory"]()  # type: ignore[operator]
    profile = gn.profile(model, loss_fn, data, optimizer=optimizer)
    assert profile.metric == "optimizer"
    assert 0 < profile.trace_cov.value < float("inf")
    assert "What to do" in str(profile)
    with tempfile.TemporaryDirectory() as folder:
        profile.save(Path(folder, "profile.json"))
        assert str(gn.Profile.load(Path(folder, "profile.json"))) == str(profile)
        if importlib.util.find_spec("matplotlib") is not None:
            profile.plot(Path(folder, "profile.png"))
            assert Path(folder, "profile.png").stat().st_size > 10_000


def a_file_is_profiled() -> None:
    """By the program, with the file that it writes."""
    with tempfile.TemporaryDirectory() as folder:
        file, saved = Path(folder, "train.py"), Path(folder, "profile.json")
        file.write_text(FACTORY)
        shown = gradnoise("profile", f"{file}:factory", "--json", str(saved))
        assert "trained with AdamW, learning rate 0.01" in shown, shown
        assert saved.exists()


def an_example_runs() -> None:
    """Those of `gn.profile` and of a formula."""
    import gradnoise as gn

    for item in (gn.profile, gn.stable_lr):
        runner = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS)
        for test in doctest.DocTestFinder(recurse=False).find(item, item.__name__):
            runner.run(test)
        assert runner.tries
        assert not runner.failures


if __name__ == "__main__":
    main()
