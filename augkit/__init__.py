"""Augmentation policies as documents: run on whole batches, different for every image, learning while the model trains.

`Policy` is what a training loop holds. `Strategy` is the document. `operator` and `hookimpl` are for plugins.
"""

from __future__ import annotations

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
