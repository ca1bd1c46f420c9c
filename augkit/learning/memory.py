"""What a policy has learned: the state of every bound strategy, its signals, and the rules that change it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from augkit.engine.environment import Environment
from augkit.engine.program import Bound, Program
from augkit.engine.streams import key_of
from augkit.errors import StateError
from augkit.strategy.evaluate import evaluate
from augkit.strategy.expression import AXES


class Memory:
    """Values by name of a program's strategies: signals (shared) and state (each its own).

    Signals that count answers hold the last finished epoch, so that nothing that is read while images are drawn
    changes within an epoch.

    Args:
        program: the bound strategies.
        seed: of the random numbers in state and rules; every rank uses the same.
        signals: initial value of every shared signal, by name.
        counted: the signals that are counted anew each epoch.
    """

    def __init__(self, program: Program, seed: int, signals: Mapping[str, Tensor], counted: Sequence[str]) -> None:
        self.program, self.seed, self.counted = program, seed, tuple(counted)
        self.divisions = torch.zeros((), dtype=torch.int64)
        self.values: dict[str, dict[str, Tensor]] = {}
        self.results: dict[str, tuple[str, str]] = {}
        """Where the results of each probe are kept, by the probe's path and the result's name."""
        for bound in program.bounds:
            use = torch.zeros(program.sizes.classes, bound.ops)
            self.values[bound.path] = {**signals, "used": use, "strength_used": use.clone()}
            for name in self._results(bound):
                self.results[bound.path + name] = bound.path, name
                self.values[bound.path][name] = torch.zeros(program.sizes.classes, bound.levels)
        for bound in program.bounds:
            for name in bound.strategy.state:
                value = evaluate(bound.strategy.typed[f"state.{name}.init"], self.environment(bound, "init", 0))
                self.values[bound.path][name] = self._settled(bound, name, value, f"state.{name}.init")

    def environment(self, bound: Bound, when: str, epoch: int) -> Environment:
        """Where the expressions of a rule find their names."""
        device = self.divisions.device
        key = torch.full((), key_of(self.seed, epoch, when), dtype=torch.int64, device=device)
        return Environment(bound, self.values[bound.path], self.program.sizes, key, self.divisions)

    def to(self, device: torch.device) -> None:
        """Move every value."""
        self.divisions = self.divisions.to(device)
        self.values = {path: {n: v.to(device) for n, v in values.items()} for path, values in self.values.items()}

    def by_class(self) -> dict[str, Tensor]:
        """A copy of every state that is one number or has one for each class, by path and name, on the CPU."""
        return {
            bound.path + name: self.values[bound.path][name].to("cpu", copy=True)
            for bound in self.program.bounds
            for name, spec in bound.strategy.state.items()
            if set(spec.axes) <= {"classes"}
        }

    def set_signals(self, signals: Mapping[str, Tensor]) -> None:
        """Replace shared signals; `used` and `strength_used` [C, choices] go to each strategy as its own operators, the
        results of a probe to the strategy that has it."""
        for name in signals.keys() & self.results.keys():
            path, own_name = self.results[name]
            self.values[path][own_name] = signals[name]
        for bound in self.program.bounds:
            for name, value in signals.items():
                if name in self.results:
                    continue
                own = name in ("used", "strength_used")
                self.values[bound.path][name] = value[:, bound.offset : bound.offset + bound.ops] if own else value

    def run(self, at: str, epoch: int) -> None:
        """Run the update rules of every strategy for one moment of an epoch."""
        for bound in self.program.bounds:
            for number, rule in enumerate(bound.strategy.update):
                if rule.at == at:
                    self._run_rule(bound, rule, f"update[{number}]", at, epoch)

    def complaint(self, epoch: int) -> str:
        """How often the document divided by zero so far, in words; empty if it did not."""
        count, name = int(self.divisions), self.program.root.strategy.name
        return f'strategy "{name}" divided by zero {count} times (each gave 0) by epoch {epoch}' if count else ""

    def _run_rule(self, bound: Bound, rule: Any, path: str, at: str, epoch: int) -> None:
        typed = bound.strategy.typed
        values = dict(self.values[bound.path])
        environment = self.environment(bound, at, epoch).of(bound, values)
        # rules run between epochs, where waiting for the device costs nothing
        if rule.when is not None and not bool(evaluate(typed[f"{path}.when"], environment)):
            return
        for name in rule.let:
            values[name] = evaluate(typed[f"{path}.let.{name}"], environment)
        new = {name: evaluate(typed[f"{path}.set.{name}"], environment) for name in rule.set}
        settled = {name: self._settled(bound, name, value, f"{path}.set.{name}") for name, value in new.items()}
        self.values[bound.path].update(settled)

    def _settled(self, bound: Bound, name: str, value: Tensor, path: str) -> Tensor:
        """A new value of a state entry in its full shape, clamped, finite."""
        strategy, spec = bound.strategy, bound.strategy.state[name]
        typed = strategy.typed[path]
        environment = self.environment(bound, "clamp", 0)
        axes = [axis for axis in AXES if axis in spec.axes]
        value = value.reshape([environment.size(axis) if axis in typed.axes else 1 for axis in axes])
        value = value.expand([environment.size(axis) for axis in axes]).to(torch.float32)
        if not bool(value.isfinite().all()):
            raise StateError(
                f'strategy "{strategy.name}": {path} gave a value that is not finite for state "{name}";'
                " guard the expression with clip or where",
                file=strategy.file,
            )
        whole = spec.dtype == "int"
        value = value.round() if whole else value.clone()
        for side, limit in zip(("low", "high"), spec.clamp or (None, None), strict=True):
            if limit is not None:
                edge = evaluate(strategy.typed[f"state.{name}.clamp.{side}"], environment)
                if side == "low":
                    value = torch.maximum(value, edge.ceil() if whole else edge)
                else:
                    value = torch.minimum(value, edge.floor() if whole else edge)
        return value

    def _changing(self, bound: Bound) -> list[str]:
        """Names whose values a run changes and its future depends on: state, and what was counted and is read."""
        counted = (name for name in self.counted if name in bound.strategy.reads)
        return [*bound.strategy.state, *counted, *self._results(bound)]

    @staticmethod
    def _results(bound: Bound) -> list[str]:
        return [f"{name}.{result}" for name in bound.strategy.probes for result in ("correct", "drawn")]

    def asked(self) -> dict[str, Tensor]:
        """The results of every probe, [C, levels], by the probe's path and the result's name."""
        return {name: self.values[path][own] for name, (path, own) in self.results.items()}

    def state_dict(self) -> dict[str, Any]:
        """Every value that can change, on the CPU."""
        kept = {
            bound.path: {name: self.values[bound.path][name].to("cpu", copy=True) for name in self._changing(bound)}
            for bound in self.program.bounds
        }
        return {"values": kept, "divisions": self.divisions.to("cpu", copy=True)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take over what `state_dict` gave.

        Raises:
            StateError: a name or a shape does not fit this document and data set.
        """
        device, loaded = self.divisions.device, {}
        for bound in self.program.bounds:
            stored = state["values"].get(bound.path, {})
            for name in self._changing(bound):
                needed = tuple(self.values[bound.path][name].shape)
                if name not in stored or tuple(stored[name].shape) != needed:
                    found = tuple(stored[name].shape) if name in stored else "nothing"
                    raise StateError(f'stored state has {found} for "{bound.path}{name}", this policy needs {needed}')
                loaded[bound.path, name] = stored[name].to(device, copy=True)
        for (path, name), value in loaded.items():
            self.values[path][name] = value
        self.divisions = state["divisions"].to(device, copy=True)
