"""Drawing a Plan: every random value of a batch, out of tables, learned state and counter-based streams.

Nothing here looks at a pixel or waits for a device.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import reduce

import torch
from torch import Tensor

from augkit.engine.branching import draw_branches
from augkit.engine.choose import weighted, weighted_without_replacement
from augkit.engine.columns import Columns, gate, join, pad, settle, trim
from augkit.engine.environment import Environment
from augkit.engine.mix_draw import PartnerPool, draw_mixes
from augkit.engine.mix_plan import Mix
from augkit.engine.plan import Branches, ImageSettings, Plan
from augkit.engine.program import Bound, Program
from augkit.strategy.model import BatchStep, BranchesStep, OneOfStep, OperatorStep, PickStep, Step, UseStep

Values = Mapping[str, Mapping[str, Tensor]]


@dataclass
class Drawing:
    """One draw: the program, the names of every bound strategy, where partners may come from, and what was drawn."""

    program: Program
    values: Values
    pool: PartnerPool | None
    mixing: bool
    image: ImageSettings
    mixes: list[Mix] = field(default_factory=list)
    branches: Branches | None = None
    views: list[tuple[str, Plan]] = field(default_factory=list)
    probe: tuple[str, str] | None = None
    """Path of the strategy whose probe is drawn, and the probe's name."""
    levels: dict[str, Tensor] = field(default_factory=dict)
    """Of each image, for every probe that counts training answers, by path and name."""

    def asks(self, bound: Bound) -> bool:
        """Whether the probe that is drawn is one of this strategy or of one that it uses."""
        return self.probe is not None and self.probe[0].startswith(bound.path)


def draw(
    program: Program,
    values: Values,
    environment: Environment,
    pool: PartnerPool | None,
    *,
    mixing: bool = True,
    probe: tuple[str, str] | None = None,
) -> Plan:
    """Draw what happens to each image.

    Args:
        program: the bound strategy.
        values: names (params, signals, state) of each bound strategy, by its path.
        environment: keys, labels and streams of the batch, for the root strategy.
        pool: where `partner: pool` draws; may be None when the document has none.
        mixing: False leaves the batch's mixing steps out.
        probe: path of a strategy and name of one of its probes, whose steps then stand in place of its pipeline, with
            certainty; mixing and views are left out, but for the steps of a view that uses the strategy.
    """
    image = program.root.strategy.image
    settings = ImageSettings(image.resample, image.fill, image.exact)
    drawing = Drawing(program, values, pool, mixing and probe is None, settings, probe=probe)
    return _plan(drawing, program.root, environment, program.root.strategy.pipeline, "pipeline")


def _plan(drawing: Drawing, bound: Bound, env: Environment, steps: tuple[Step, ...], path: str) -> Plan:
    """A list of steps as a plan of its own."""
    columns = _list(drawing, bound, env, steps, path)
    if columns.choice.device.type == "cpu" and len(columns.choice):
        columns = trim(columns)
    return Plan(
        drawing.program.choices,
        *settle(drawing.program, env, columns),
        targets=env.indices["y"],
        mixes=tuple(drawing.mixes),
        image=drawing.image,
        branches=drawing.branches,
        views=tuple(drawing.views),
        levels=dict(drawing.levels),
        keys=env.batch_keys,
    )


def _list(drawing: Drawing, bound: Bound, env: Environment, steps: tuple[Step, ...], path: str) -> Columns:
    """A list of steps; with a pipeline come the strategy's views, and a probe may stand in its place or in a view."""
    whole = path == "pipeline"
    if whole and drawing.probe is not None and drawing.probe[0] == bound.path:
        path = f"probes.{drawing.probe[1]}"
        steps = bound.strategy.lists[path]
    elif whole:
        env = _with_levels(drawing, bound, env)
    columns = _steps(drawing, bound, env, steps, path)
    for name, view in bound.strategy.views.items() if whole else ():
        place = f"views.{name}"
        if drawing.probe is not None:
            if drawing.probe[0].startswith(f"{bound.path}{place}["):
                own = replace(env, stream=f"{name}[0]/")
                return join([columns, _steps(drawing, bound, own, view.steps, place)], env)
            continue
        for number in range(view.times):
            apart = replace(drawing, mixes=[], branches=None, views=[], levels={})
            own = replace(env, stream=f"{name}[{number}]/")
            drawing.views.append((name, _plan(apart, bound, own, view.steps, place)))
    return columns


def _with_levels(drawing: Drawing, bound: Bound, env: Environment) -> Environment:
    """Draw each image's level for the probes that count training answers."""
    for name, probe in bound.strategy.probes.items():
        if probe.level is not None:
            upto = env.ask(f"probes.{name}.upto", ("classes",)).expand(env.size("classes")).floor().clamp(min=0)
            level = env.ask(f"probes.{name}.level", ("batch",)).expand(len(env.batch_keys)).floor().clamp(min=0)
            level = torch.minimum(level, upto[env.index("y")])
            drawing.levels[bound.path + name] = level.long()
            env = env.knowing({f"{name}.level": level})
    return env


def _steps(drawing: Drawing, bound: Bound, env: Environment, steps: tuple[Step, ...], path: str) -> Columns:
    parts = [_step(drawing, bound, env, step, f"{path}[{number}]") for number, step in enumerate(steps)]
    return join([part for part in parts if part is not None], env)


def _step(drawing: Drawing, bound: Bound, env: Environment, step: Step, path: str) -> Columns | None:
    if isinstance(step, PickStep):
        return _pick(drawing.program, bound, env, step, f"{path}.pick")
    if isinstance(step, OperatorStep):
        return _operator(bound, env, step, f"{path}.{step.choice.operator.name}", path)
    if isinstance(step, OneOfStep):
        return _one_of(drawing, bound, env, step, f"{path}.one_of")
    if isinstance(step, UseStep):
        return _use(drawing, bound.children[path], env, path)
    if isinstance(step, BranchesStep):
        path = f"{path}.branches"
        happens = _happens(env, f"{path}.p")
        drawing.branches = draw_branches(drawing.program, bound, env, step, path, happens, drawing.image)
    elif isinstance(step, BatchStep) and drawing.mixing:
        drawing.mixes.extend(draw_mixes(env, step, f"{path}.batch", drawing.pool))
    return None


def _use(drawing: Drawing, child: Bound, env: Environment, path: str) -> Columns:
    before, inside = drawing.branches, env.of(child, drawing.values[child.path])
    columns = _list(drawing, child, inside, child.strategy.pipeline, "pipeline")
    happens = None if drawing.asks(child) else _happens(env, f"{path}.use.p")
    if happens is not None:
        for name, level in drawing.levels.items():
            if name.startswith(child.path):
                drawing.levels[name] = torch.where(happens, level, -1)
    if happens is not None and drawing.branches is not before and drawing.branches is not None:
        drawing.branches = drawing.branches.gated(happens)
    return gate(columns, happens)


def _happens(env: Environment, path: str) -> Tensor | None:
    """[B] bool: whether a step with probability at `path` happens; None when it always does."""
    if env.constant(path) == 1.0:
        return None
    return env.uniform(path + "?", ("batch",), 1)[:, 0] < env.ask(path, ("batch",))


def _operator(bound: Bound, env: Environment, step: OperatorStep, path: str, key: str) -> Columns:
    keys = env.batch_keys
    choice = torch.full((len(keys), 1), bound.single[key], dtype=torch.int64, device=env.device)
    nothing = torch.full((len(keys), 1), float("nan"), device=env.device)

    def column(name: str) -> Tensor:
        return env.ask(f"{path}.{name}", ("batch",)).expand(len(keys))[:, None]

    value = column("value") if step.value is not None else nothing
    strength = column("strength") if step.value is None and step.strength is not None else nothing
    return gate(Columns(choice, strength, value), _happens(env, f"{path}.p"))


def _pick(program: Program, bound: Bound, env: Environment, step: PickStep, path: str) -> Columns:
    slots = bound.slots[path]
    env = env.with_picks(slots)
    batch = len(env.batch_keys)
    choice = _chosen(bound, env, step, path, slots) + bound.offset
    on = []  # masks that empty slots; most picks have few
    if step.weights is not None:
        on.append(choice >= bound.offset)
    if env.constant(f"{path}.count") != slots:
        on.append(torch.arange(slots, device=env.device) + 0.5 < env.ask(f"{path}.count", ("batch",))[:, None])
    if env.constant(f"{path}.each_p") != 1.0:
        on.append(env.uniform(f"{path}.each_p?", ("batch",), slots) < env.ask(f"{path}.each_p", ("batch", "picks")))
    happens = _happens(env, f"{path}.p")
    if happens is not None:
        on.append(happens[:, None])
    if on:
        choice = torch.where(reduce(torch.logical_and, on), choice, -1)
    if step.order == "palette" and slots > 1:
        last = len(program.choices)
        choice = torch.where(choice < 0, last, choice).sort(dim=1).values
        choice = torch.where(choice == last, -1, choice)
    strength = env.ask(f"{path}.strength", ("batch", "picks")).expand(batch, slots)
    return Columns(choice, strength, torch.full_like(strength, float("nan")))


def _chosen(bound: Bound, env: Environment, step: PickStep, path: str, slots: int) -> Tensor:
    """[B, S] int64 positions in the palette, -1 where nothing is left to draw."""
    ops, batch = bound.ops, len(env.batch_keys)
    if step.weights is None:
        if step.replace or slots == 1:
            return (env.uniform(f"{path}.pick", ("batch",), slots) * ops).long()
        return env.uniform(f"{path}.pick", ("batch",), ops).topk(slots, dim=1).indices
    weights = env.ask(f"{path}.weights", ("batch", "ops")).expand(batch, ops)
    if step.replace:
        return weighted(weights, env.uniform(f"{path}.pick", ("batch",), slots))
    return weighted_without_replacement(weights, env.uniform(f"{path}.pick", ("batch",), ops), slots)


def _one_of(drawing: Drawing, bound: Bound, env: Environment, step: OneOfStep, path: str) -> Columns:
    batch, ways = len(env.batch_keys), len(step.alternatives)
    u = env.uniform(path, ("batch",), 1)
    table = bound.tables.get(path)
    if table is not None:
        sub = weighted(table.weight.expand(batch, -1), u)[:, 0]
        row = sub.clamp(min=0)
        happens = env.uniform(f"{path}.p?", ("batch",), table.p.shape[1]) < table.p[row]
        columns = Columns(torch.where(happens, table.choice[row], -1), table.strength[row], table.value[row])
    else:
        weights = env.ask_each([f"{path}[{k}].weight" for k in range(ways)])
        sub = weighted(weights, u)[:, 0]
        parts = [_steps(drawing, bound, env, step.alternatives[k].steps, f"{path}[{k}].steps") for k in range(ways)]
        width = max(part.choice.shape[1] for part in parts)
        row = sub.clamp(min=0)[None, :, None].expand(1, -1, width)
        padded = zip(*(pad(part, width) for part in parts), strict=True)
        columns = Columns(*(torch.stack(tensors).gather(0, row)[0] for tensors in padded))
    return gate(columns, sub >= 0)
