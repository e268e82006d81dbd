"""Every estimator held to every analytic problem that determines it."""

from .check import Check
from .report import table, validate

__all__ = ["Check", "table", "validate"]
