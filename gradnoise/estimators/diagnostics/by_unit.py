"""Batch sizes from moments of groups: computed in groups, returned in samples."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import replace
from typing import Any, TypeVar

from ...moments.moments import GradientMoments
from ...statistics.transform import in_samples

BatchSize = TypeVar("BatchSize", bound=Callable[..., Any])


def counted_in_samples(function: BatchSize) -> BatchSize:
    """A batch size in samples, of a function of moments that counts their units."""

    @functools.wraps(function)
    def counted(moments: Any, *args: Any, **options: Any) -> Any:
        if not isinstance(moments, GradientMoments) or moments.group_size == 1:
            return function(moments, *args, **options)
        found = function(replace(moments, group_size=1), *args, **options)
        return in_samples(found, moments.group_size)

    return counted  # type: ignore[return-value]
