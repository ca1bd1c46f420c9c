"""Augmentation policies as documents."""

from augkit.errors import AugkitError
from augkit.hookspecs import hookimpl
from augkit.operators.base import Kernel, Operator, operator

__version__ = "0.1.0"
