"""What all groups of checks have to show."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from gradnoise.validation.check import Check

Group = Callable[[int], Iterator[Check]]


def assert_all_hold(group: Group, least: int) -> None:
    """All checks of a group, so many at least, hold with a seed that the command does not take."""
    checks = list(group(11))
    assert len(checks) >= least
    assert [check for check in checks if not check.holds] == []
