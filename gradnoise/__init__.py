"""gradnoise: how noisy a PyTorch model's gradients are, and how sharp its loss is.

One call measures a model: `print(gradnoise.profile(model, loss_fn, data))`. The public names are
listed in `__init__.pyi`, grouped by the room they come from, and are imported when they are first
used; docs/architecture.md is the map.
"""

from typing import Any

import lazy_loader

_named, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)


def __getattr__(name: str) -> Any:
    if name == "__version__":
        from .files.version import version

        return version()
    return _named(name)
