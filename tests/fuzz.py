"""How many examples a randomised test is tried on."""

from __future__ import annotations

from hypothesis import settings


def examples(count: int) -> settings:
    """This many of the profile "ci", in proportion more of "fuzz" (both in conftest.py)."""
    share = settings.default.max_examples / settings.get_profile("ci").max_examples
    return settings(max_examples=max(1, round(count * share)))
