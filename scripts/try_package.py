"""Install what `python -m build` made into fresh environments, and try it there.

    python scripts/try_package.py dist python3.10 python3.13
    python scripts/try_package.py dist python3.10 python3.13 --with-torch

The wheel is tried with the Python that runs this, whose libraries are lent to it: a torch of its
own would take minutes and gigabytes. Of the source distribution, from which the wheel was made, and
with the other Pythons only that is tried which needs no torch; `--with-torch` installs the wheel
there as a user does.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import Callable
from pathlib import Path

SMOKE = Path(__file__).with_name("smoke.py").resolve()
TYPED = Path(__file__).parents[1].resolve() / "tests" / "typing" / "user_script.py"
WITHOUT_TORCH = ("lazy_loader",)  # what `gradnoise --help` needs


def main() -> None:
    """Try all; the first that fails ends with an error."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("dist", type=Path)
    parser.add_argument("pythons", nargs="*")
    parser.add_argument("--with-torch", action="store_true")
    options = parser.parse_args()
    (wheel,), (sdist,) = options.dist.glob("*.whl"), options.dist.glob("*.tar.gz")
    if not options.with_torch:
        try_with(sys.executable, lent, wheel, typed=True)
        try_with(sys.executable, lent, sdist, "--without-torch")  # the wheel was built from it
    for name in options.pythons:
        python = found(name)
        if python is None:
            print(f"{name}: not found, so not tried")
        elif options.with_torch:
            try_with(python, complete, wheel)
        else:
            try_with(python, without_torch, wheel, "--without-torch")


def try_with(
    python: str,
    fill: Callable[[str, Path], None],
    artifact: Path,
    *options: str,
    typed: bool = False,
) -> None:
    """In a fresh environment of a Python; `typed`: as type checkers see it as well."""
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run([python, "-m", "venv", folder], check=True)
        fill(folder, artifact.resolve())
        run(folder, str(SMOKE), *options)
        if typed:
            script = shutil.copy(TYPED, folder)  # beside the checkout mypy would read its files
            run(folder, "-m", "mypy", "--strict", "--cache-dir", f"{folder}/types", script)


def lent(folder: str, artifact: Path) -> None:
    """With the libraries of the Python that runs this."""
    own = Path(sysconfig.get_path("purelib", vars={"base": folder}))
    (own / "lent.pth").write_text(sysconfig.get_path("purelib"))
    install(folder, "--no-deps", "--ignore-installed", str(artifact))


def without_torch(folder: str, artifact: Path) -> None:
    """With nothing but what the help needs."""
    install(folder, *WITHOUT_TORCH)
    install(folder, "--no-deps", str(artifact))


def complete(folder: str, artifact: Path) -> None:
    """With all that pip installs for it."""
    install(folder, f"{artifact}[plot]")


def install(folder: str, *what: str) -> None:
    """Into the environment in a folder."""
    run(folder, "-m", "pip", "--disable-pip-version-check", "install", "--quiet", *what)


def run(folder: str, *arguments: str) -> None:
    """The Python of an environment, in its folder: what lies in the checkout is not found there."""
    subprocess.run([str(Path(folder, "bin", "python")), *arguments], cwd=folder, check=True)


def found(name: str) -> str | None:
    """A Python that runs: on the path, or one of pyenv, which has a script for each on the path."""
    folders = Path.home().glob(f".pyenv/versions/{name.removeprefix('python')}*/bin")
    for python in (shutil.which(name), *(shutil.which(name, path=str(f)) for f in folders)):
        if python and not subprocess.run([python, "-c", ""], capture_output=True).returncode:
            return python
    return None


if __name__ == "__main__":
    main()
