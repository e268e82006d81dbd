"""A small sweep; one program counts as faster."""

from tests.small_runs import found, one_program_is_faster

__all__ = ["found", "one_program_is_faster"]
