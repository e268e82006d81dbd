"""One program counts as faster than many."""

from tests.small_runs import one_program_is_faster

__all__ = ["one_program_is_faster"]
