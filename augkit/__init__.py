"""Augmentation policies as documents: run on whole batches, different for every image, learning while the model trains.

`Policy` is what a training loop holds. `Strategy` is the document. `operator` and `hookimpl` are for plugins.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from augkit.engine.output import Output
    from augkit.engine.plan import Plan
    from augkit.errors import AugkitError
    from augkit.hookspecs import hookimpl
    from augkit.operators.base import Kernel, Operator, operator
    from augkit.policy import Policy
    from augkit.strategy.model import Strategy

__version__ = "0.1.0"
__all__ = [
    "AugkitError",
    "Kernel",
    "Operator",
    "Output",
    "Plan",
    "Policy",
    "Strategy",
    "__version__",
    "hookimpl",
    "operator",
]
# imported when they are first asked for, so that `augkit --version` and shell completion need not wait for torch
_WHERE = {
    "AugkitError": "augkit.errors",
    "Kernel": "augkit.operators.base",
    "Operator": "augkit.operators.base",
    "Output": "augkit.engine.output",
    "Plan": "augkit.engine.plan",
    "Policy": "augkit.policy",
    "Strategy": "augkit.strategy.model",
    "hookimpl": "augkit.hookspecs",
    "operator": "augkit.operators.base",
}


def __getattr__(name: str) -> Any:
    if name not in _WHERE:
        raise AttributeError(f'module "augkit" has no "{name}"')
    thing = globals()[name] = getattr(importlib.import_module(_WHERE[name]), name)
    return thing


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
