"""gradnoise: how noisy a PyTorch model's gradients are, and how sharp its loss is.

One call measures a model: `print(gradnoise.profile(model, loss_fn, data))`. The public names are
listed in `__init__.pyi`, grouped by the room they come from, and are imported when they are first
used; docs/architecture.md is the map.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
