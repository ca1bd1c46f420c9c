"""Drawing the mixing steps of a batch: partners, weights and boxes, for each image its own."""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor

from augkit.engine.choose import clean, weighted
from augkit.engine.environment import Environment
from augkit.engine.plan import MIX_KINDS, Mix
from augkit.strategy.model import BatchStep, MixStep
from augkit.strategy.sampling import sample_beta


class PartnerPool(Protocol):
    """Where partners outside the batch come from; see `augkit.learning.pool.Pool`."""

    met: Tensor
    """[C] int64 images of each class that came by."""

    def take(self, targets: Tensor, u: Tensor) -> Tensor:
        """[B] classes and [B] uniform numbers to [B] flat slots."""


def draw_mixes(env: Environment, step: BatchStep, path: str, pool: PartnerPool | None) -> list[Mix]:
    """Draw each mixing step of a `batch:` list, in order; a `one_of` is one step, with a kind for each image."""
    mixes = []
    for number, item in enumerate(step.mixes):
        place = f"{path}[{number}]"
        if isinstance(item, MixStep):
            mixes.append(_mix(env, item, f"{place}.{item.kind}", pool))
            continue
        ways = range(len(item.alternatives))
        weights = env.ask_each([f"{place}.one_of[{k}].weight" for k in ways])
        way = weighted(weights, env.uniform(f"{place}.one_of", ("batch",), 1))[:, 0]
        parts = [way_.mix for way_ in item.alternatives]
        drawn = [_mix(env, parts[k], f"{place}.one_of[{k}].{parts[k].kind}", pool) for k in ways]
        mixes.append(_merged(drawn, way))
    return mixes


def _merged(mixes: list[Mix], way: Tensor) -> Mix:
    """One mix that takes each image's numbers from the alternative `way` [B] drew; -1 leaves the image alone."""
    merged = mixes[0]
    for number, mix in enumerate(mixes[1:], start=1):
        here = way == number
        merged = Mix(
            torch.where(here, mix.kind, merged.kind),
            torch.where(here, mix.partner, merged.partner),
            torch.where(here, mix.lam, merged.lam),
            torch.where(here[:, None], mix.centre, merged.centre),
            torch.where(here, mix.partner_class, merged.partner_class),
            merged.pooled,
        )
    none = way < 0
    return Mix(
        merged.kind.masked_fill(none, 0), merged.partner, merged.lam, merged.centre, merged.partner_class, merged.pooled
    )


def _mix(env: Environment, step: MixStep, path: str, pool: PartnerPool | None) -> Mix:
    batch, y = len(env.batch_keys), env.indices["y"]
    happens = env.uniform(f"{path}.p?", ("batch",), 1)[:, 0] < env.ask(f"{path}.p", ("batch",))
    alpha = env.ask(f"{path}.alpha", ("batch",)).expand(batch)
    # alpha 0 means: do not mix, as in the reference implementations
    lam = sample_beta(alpha, alpha, lambda count: env.uniform(f"{path}.lam", ("batch",), count))
    weights = None
    if step.weights is not None:
        weights = env.ask(f"{path}.weights", ("batch", "classes")).expand(batch, env.size("classes"))
    u = env.uniform(f"{path}.partner", ("batch",), 4)
    if step.partner == "pool":
        assert pool is not None  # a policy whose document needs one has one
        by_class = pool.met if weights is None else clean(weights) * pool.met
        partner_class = weighted(by_class.expand(batch, -1), u[:, :1])[:, 0]
        found = partner_class >= 0
        partner_class = partner_class.clamp(min=0)
        partner = pool.take(partner_class, u[:, 1])
    else:
        partner = _cycle(u[:, 0]) if weights is None else weighted(weights[:, y], u[:, :1])[:, 0]
        found = partner >= 0
        partner = partner.clamp(min=0)
        partner_class = y[partner]
    kind = torch.where(happens & (alpha > 0) & found, MIX_KINDS.index(step.kind), 0)
    return Mix(kind, partner, torch.where(alpha > 0, lam, 1.0), u[:, 2:4], partner_class, step.partner == "pool")


def _cycle(u: Tensor) -> Tensor:
    """[B] positions: a random cycle through the batch, so that no image is its own partner."""
    order = u.argsort()
    return torch.empty_like(order).scatter_(0, order, order.roll(-1))
