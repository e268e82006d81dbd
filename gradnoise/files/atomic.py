"""Files that are replaced whole: a reader sees the old contents or the new, never a part."""

from __future__ import annotations

import contextlib
import errno
import glob
import os
import stat
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

SUFFIX = ".new"  # of the file that is being written


def regular(path: str | Path) -> Path:
    """Where a write to `path` has to go: the path itself, or the target of a symbolic link.

    Raises:
        OSError: something other than a regular file is there: a folder, a device, a pipe, or links
            that go round in a circle.
    """
    target = Path(os.path.realpath(path))
    try:
        mode = os.stat(target).st_mode
    except FileNotFoundError:
        return target
    if stat.S_ISDIR(mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    if not stat.S_ISREG(mode):
        raise OSError(
            errno.EINVAL,
            "it is a device, a pipe or a socket; give the path of a regular file",
            str(path),
        )
    return target


def replace_file(path: str | Path, write: Callable[[BinaryIO], object]) -> None:
    """Write a file whole or not at all: to a neighbour first, which is then moved into place.

    A symbolic link is kept and its target is replaced. A new file gets the permissions of any new
    file, one that exists keeps its own.

    Args:
        path: of the file.
        write: called with the open binary file.

    Raises:
        OSError: the file cannot be written, or `path` is no regular file; nothing has changed.
    """
    target = regular(path)
    neighbour = target.with_name(f"{target.name}.{uuid.uuid4().hex[:8]}{SUFFIX}")
    try:
        with open(neighbour, "xb") as file:
            write(file)
        with contextlib.suppress(FileNotFoundError):
            os.chmod(neighbour, stat.S_IMODE(os.stat(target).st_mode))
        os.replace(neighbour, target)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(neighbour)
        raise


def clear_unfinished(path: str | Path) -> None:
    """Delete what writes of `path` left behind when they were killed."""
    target = Path(os.path.realpath(path))
    for left in target.parent.glob(f"{glob.escape(target.name)}.{'?' * 8}{SUFFIX}"):
        with contextlib.suppress(FileNotFoundError):
            left.unlink()
