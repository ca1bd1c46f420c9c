"""Everything that plugins brought, by name. Frozen data: `plugins.py` fills it, everyone else reads it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from augkit.operators.base import Operator


@dataclass(frozen=True)
class Registry:
    """Names to things; `origins[kind, name]` says which distribution (and version) brought it."""

    operators: Mapping[str, Operator] = field(default_factory=dict)
    palettes: Mapping[str, tuple[Any, ...]] = field(default_factory=dict)
    """Each entry as a document would write it: `"vflip"` or `{"rotate": {"low": 0, "high": 30}}`."""
    strategies: Mapping[str, Path] = field(default_factory=dict)
    recipes: Mapping[str, Path] = field(default_factory=dict)
    losses: Mapping[str, Callable[..., Any]] = field(default_factory=dict)
    samplers: Mapping[str, Callable[..., Any]] = field(default_factory=dict)
    subsets: Mapping[str, Callable[..., Any]] = field(default_factory=dict)
    """Choosers of images, see `augkit/lab/coresets.py`."""
    stages: Mapping[str, Callable[..., Any]] = field(default_factory=dict)
    """What losses, samplers and stages are called with stands in `augkit/lab/losses.py`, `samplers.py`, `stages.py`."""
    answers: Mapping[str, Callable[..., Any]] = field(default_factory=dict)
    """What a model's right answers are to a policy that asks it, see `augkit/answers.py`."""
    signals: Mapping[str, Callable[..., Any]] = field(default_factory=dict)
    """`function(logits [B, C], targets [B]) -> [B]`: a number for each image, summed by class over an epoch."""
    sources: Mapping[str, Callable[..., Any]] = field(default_factory=dict)
    """Sources of synthetic images: functions that open one; augkit-diffusion asks them, see its `sources.py`."""
    origins: Mapping[tuple[str, str], str] = field(default_factory=dict)
    broken: tuple[str, ...] = ()
    """One sentence for each plugin that failed to load, naming its distribution."""
