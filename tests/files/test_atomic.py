"""Files are replaced whole, through links, and only where a regular file is or may be."""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import BinaryIO

import pytest

from gradnoise.files.atomic import clear_unfinished, regular, replace_file


def new(file: BinaryIO) -> None:
    file.write(b"new")


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_file_is_made_and_replaced(tmp_path: Path) -> None:
    path = tmp_path / "result.json"
    replace_file(path, new)
    replace_file(str(path), lambda file: file.write(b"newer"))
    assert path.read_bytes() == b"newer"
    assert names(tmp_path) == ["result.json"]


def test_a_link_is_kept_and_its_target_replaced(tmp_path: Path) -> None:
    link, folder = tmp_path / "link", tmp_path / "data"
    folder.mkdir()
    (folder / "target").write_bytes(b"old")
    link.symlink_to("data/target")
    replace_file(link, new)
    assert link.is_symlink()
    assert (folder / "target").read_bytes() == b"new"
    assert names(folder) == ["target"]


def test_the_target_of_a_link_is_made(tmp_path: Path) -> None:
    link = tmp_path / "link"
    link.symlink_to("target")
    replace_file(link, new)
    assert link.is_symlink()
    assert (tmp_path / "target").read_bytes() == b"new"


def test_links_in_a_circle_are_refused(tmp_path: Path) -> None:
    (tmp_path / "a").symlink_to("b")
    (tmp_path / "b").symlink_to("a")
    with pytest.raises(OSError, match="symbolic links"):
        replace_file(tmp_path / "a", new)
    assert names(tmp_path) == ["a", "b"]


def test_a_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(IsADirectoryError, match="Is a directory"):
        replace_file(tmp_path, new)
    (tmp_path / "link").symlink_to(tmp_path)
    with pytest.raises(IsADirectoryError, match="Is a directory"):
        replace_file(tmp_path / "link", new)


def test_a_pipe_is_refused_and_left_in_place(tmp_path: Path) -> None:
    path = tmp_path / "pipe"
    os.mkfifo(path)
    with pytest.raises(OSError, match="a device, a pipe or a socket; give the path of a regular"):
        replace_file(path, new)
    assert stat.S_ISFIFO(path.stat().st_mode)


def test_a_device_is_refused_also_behind_a_link(tmp_path: Path) -> None:
    link = tmp_path / "link"
    link.symlink_to(os.devnull)
    for path in (os.devnull, link):
        with pytest.raises(OSError, match="a device, a pipe or a socket; give the path of a reg"):
            regular(path)


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), KeyboardInterrupt()])
def test_a_failure_keeps_the_older_file_and_leaves_nothing(
    tmp_path: Path, error: BaseException
) -> None:
    path = tmp_path / "result.json"
    path.write_bytes(b"old")

    def fail(file: BinaryIO) -> None:
        file.write(b"half")
        raise error

    with pytest.raises(type(error)):
        replace_file(path, fail)
    assert path.read_bytes() == b"old"
    assert names(tmp_path) == ["result.json"]


def test_permissions_are_those_of_a_new_file_or_of_the_older_one(tmp_path: Path) -> None:
    path, other = tmp_path / "result.json", tmp_path / "other"
    other.touch()
    replace_file(path, new)
    assert path.stat().st_mode == other.stat().st_mode
    path.chmod(0o600)
    replace_file(path, new)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_what_a_killed_write_left_is_cleared_and_nothing_else(tmp_path: Path) -> None:
    path, left = tmp_path / "a[1]", tmp_path / "a[1].01234567.new"
    for each in (path, left, tmp_path / "a1.01234567.new", tmp_path / "a[1].new"):
        each.touch()
    clear_unfinished(path)
    assert names(tmp_path) == ["a1.01234567.new", "a[1]", "a[1].new"]
