"""Where an expression finds its names and its random numbers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from augkit.engine.program import Bound, Sizes
from augkit.engine.streams import fold, key_of, site_constants, uniforms
from augkit.strategy.evaluate import evaluate


@dataclass
class Bank:
    """All the uniform numbers of one batch at once: the layout of the last batch tells what this one will ask for.

    Numbers depend on (key, site) alone, so a changed layout changes speed, never a number.
    """

    layout: dict[str, int] = field(default_factory=dict)
    constants: Tensor | None = None
    drawn: dict[str, Tensor] = field(default_factory=dict)

    def begin(self, keys: Tensor) -> None:
        """Draw for a batch everything that batches before it asked for."""
        self.drawn = {}
        if not self.layout:
            return
        if self.constants is None or self.constants.device != keys.device:
            parts = [site_constants(site, count, keys.device) for site, count in self.layout.items()]
            self.constants = torch.cat(parts)
        columns = uniforms(keys, self.constants).split(list(self.layout.values()), dim=1)
        self.drawn = dict(zip(self.layout, columns, strict=True))

    def take(self, keys: Tensor, site: str, count: int) -> Tensor:
        """[B] keys to [B, count]."""
        held = self.drawn.get(site)
        if held is None or held.shape[1] < count:
            held = self.drawn[site] = uniforms(keys, site_constants(site, count, keys.device))
            self.layout[site] = max(count, self.layout.get(site, 0))
            self.constants = None
        return held[:, :count]


@dataclass(frozen=True)
class Environment:
    """What `evaluate` asks: values by name, axis lengths, the images' own indices, uniform numbers.

    `keys` [B] are the streams of a batch's images; without a batch there is only `key`, the stream of the state.
    """

    bound: Bound
    values: Mapping[str, Tensor]
    sizes: Sizes
    key: Tensor
    divisions: Tensor
    keys: Tensor | None = None
    bank: Bank | None = None
    indices: Mapping[str, Tensor] = field(default_factory=dict)
    picks: int = 1
    branches: int = 1
    stream: str = ""
    """What keeps a view's numbers apart from those of the others."""

    @property
    def device(self) -> torch.device:
        return self.key.device

    def value(self, name: str) -> Tensor:
        """The tensor of a name, dims in canonical order."""
        return self.values[name]

    def size(self, axis: str) -> int:
        """Length of a named axis."""
        if axis == "batch":
            return 0 if self.keys is None else len(self.keys)
        if axis in ("picks", "branches"):
            return self.picks if axis == "picks" else self.branches
        if axis in ("ops", "levels"):
            return self.bound.ops if axis == "ops" else self.bound.levels
        return int(getattr(self.sizes, axis))

    def index(self, name: str) -> Tensor:
        """`y`, `index`, `group` or `is_synthetic` of each image: [B] int64."""
        return self.indices[name]

    def uniform(self, site: str, axes: tuple[str, ...], count: int) -> Tensor:
        """[*sizes of axes, count] float32 in [0, 1)."""
        place = self.stream + self.bound.path + site
        lengths = [self.size(axis) for axis in axes]
        if axes[:1] == ("batch",) and self.keys is not None:
            each = count
            for length in lengths[1:]:
                each *= length
            numbers = (
                self.bank.take(self.keys, place, each)
                if self.bank
                else uniforms(self.keys, site_constants(place, each, self.device))
            )
            return numbers.reshape(*lengths, count)
        cells = torch.arange(int(torch.tensor(lengths).prod()) if lengths else 1, device=self.device)
        base = fold(self.key, key_of(place))
        return uniforms(fold(base, cells), site_constants("cell", count, self.device)).reshape(*lengths, count)

    def count_division_by_zero(self, where: Tensor) -> None:
        """Remember how often something was divided by zero (the result is 0), on the device."""
        self.divisions.add_(where.sum())

    def for_batch(self, keys: Tensor, bank: Bank, indices: Mapping[str, Tensor]) -> Environment:
        """The same for the images of a batch."""
        return replace(self, keys=keys, bank=bank, indices=indices)

    def with_picks(self, picks: int, branches: int = 1) -> Environment:
        """The same for a step that draws `picks` operators, for each of so many branches."""
        return replace(self, picks=picks, branches=branches)

    def knowing(self, values: Mapping[str, Tensor]) -> Environment:
        """The same with further values by name."""
        return replace(self, values={**self.values, **values})

    def of(self, bound: Bound, values: Mapping[str, Tensor]) -> Environment:
        """The same for a strategy that this one uses."""
        return replace(self, bound=bound, values=values)

    @property
    def batch_keys(self) -> Tensor:
        """[B] streams of the batch's images."""
        assert self.keys is not None
        return self.keys

    def constant(self, path: str) -> float | None:
        """The value of the expression at a path, if it can only have one."""
        return self.bound.strategy.typed[path].constant

    def ask(self, path: str, axes: tuple[str, ...] | None = None) -> Tensor:
        """Evaluate the expression at a path of the document; with `axes`, shaped to broadcast over them."""
        typed = self.bound.strategy.typed[path]
        if axes is not None and typed.constant is not None:  # a spread of 0 takes no random numbers, for one
            return torch.full([1] * len(axes), typed.low, device=self.device)
        result = evaluate(typed, self)
        if axes is None:
            return result
        return result.reshape([self.size(axis) if axis in typed.axes else 1 for axis in axes])

    def ask_each(self, paths: Sequence[str]) -> Tensor:
        """[B, len(paths)]: the expressions at several paths, side by side."""
        batch = len(self.batch_keys)
        return torch.stack([self.ask(path, ("batch",)).expand(batch) for path in paths], dim=1)
