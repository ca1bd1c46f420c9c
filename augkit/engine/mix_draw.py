"""Drawing the mixing steps of a batch: partners, weights and boxes, for each image its own."""

from __future__ import annotations

from dataclasses import replace
from typing import Protocol

import torch
from torch import Tensor

from augkit.engine.choose import clean, weighted
from augkit.engine.environment import Environment
from augkit.engine.label_rules import label_rule
from augkit.engine.mix_plan import MIX_KINDS, PLACES, Mix
from augkit.strategy.expression import IS_SYNTHETIC
from augkit.strategy.labels import PARTNER
from augkit.strategy.model import BatchStep, MixStep
from augkit.strategy.sampling import sample_beta

SIDES = {"synthetic": IS_SYNTHETIC, "group": "group"}
"""What an image must differ in from its partner, by what `across` says."""


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
        merged = mix.where(way == number, merged)
    return replace(merged, kind=merged.kind.masked_fill(way < 0, 0))


def _mix(env: Environment, step: MixStep, path: str, pool: PartnerPool | None) -> Mix:
    u = env.uniform(f"{path}.partner", ("batch",), 4)
    partner, partner_class, found, more = _partners(env, step, path, u[:, :2], pool)
    env = replace(env, indices={**env.indices, PARTNER: partner_class})
    happens = env.uniform(f"{path}.p?", ("batch",), 1)[:, 0] < env.ask(f"{path}.p", ("batch",))
    lam, centre, drawn = _shares(env, step, path, u[:, 2:])
    kind = torch.where(happens & drawn & found, MIX_KINDS.index(step.kind), 0)
    places = env.uniform(f"{path}.places", ("batch",), PLACES) if step.kind in ("fmix", "mosaic") else None
    rules = () if step.label is None else (label_rule(env, f"{path}.label"),)
    pooled = step.partner == "pool"
    return Mix(kind, partner, lam, centre, partner_class, pooled, (step.kind,), places, more, rules)


def _shares(env: Environment, step: MixStep, path: str, centre: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """How much of each image stays [B], where its partner shows [B, 2], and whether it is to be mixed at all [B]."""
    batch = len(env.batch_keys)
    if step.share is not None:
        lam = env.ask(f"{path}.share", ("batch",)).expand(batch).clamp(0, 1)
        return lam, centre, torch.ones_like(lam, dtype=torch.bool)
    alpha = env.ask(f"{path}.alpha", ("batch",)).expand(batch)
    drawn = alpha > 0  # alpha 0 means: do not mix, as in the reference implementations
    lam = sample_beta(alpha, alpha, lambda count: env.uniform(f"{path}.lam", ("batch",), count))
    if step.kind == "mosaic":
        across = sample_beta(alpha, alpha, lambda count: env.uniform(f"{path}.across", ("batch",), count))
        centre = torch.stack((lam, across), dim=1)
        lam = lam * across
    return torch.where(drawn, lam, 1.0), centre, drawn


def _partners(
    env: Environment, step: MixStep, path: str, u: Tensor, pool: PartnerPool | None
) -> tuple[Tensor, Tensor, Tensor, Tensor | None]:
    """Each image's partner, that one's class, whether there is one, [B] each; and a mosaic's two further ones [B, 2].

    Without weights a mosaic shows an image and the three that follow it in the batch's random cycle; across sides, as
    with weights, each partner is drawn for itself.
    """
    batch, y = len(env.batch_keys), env.indices["y"]
    weights = None
    if step.weights is not None:
        weights = env.ask(f"{path}.weights", ("batch", "classes")).expand(batch, env.size("classes"))
    if step.partner == "pool":
        assert pool is not None  # a policy whose document needs one has one
        by_class = pool.met if weights is None else clean(weights) * pool.met
        partner_class = weighted(by_class.expand(batch, -1), u[:, :1])[:, 0]
        found = partner_class >= 0
        partner_class = partner_class.clamp(min=0)
        return pool.take(partner_class, u[:, 1]), partner_class, found, None
    more, by_image = None, None if weights is None else weights[:, y]
    if step.across is not None:
        side = env.index(SIDES[step.across])
        other = side[:, None] != side[None, :]
        by_image = other.float() if by_image is None else clean(by_image) * other
    partner = _cycle(u[:, 0]) if by_image is None else weighted(by_image, u[:, :1])[:, 0]
    if step.kind == "mosaic":
        if by_image is None:
            second = partner[partner]
            more = torch.stack((second, partner[second]), dim=1)
        else:
            more = weighted(by_image, env.uniform(f"{path}.more", ("batch",), 2)).clamp(min=0)
    found = partner >= 0
    partner = partner.clamp(min=0)
    return partner, y[partner], found, more


def _cycle(u: Tensor) -> Tensor:
    """[B] positions: a random cycle through the batch, so that no image is its own partner."""
    order = u.argsort()
    return torch.empty_like(order).scatter_(0, order, order.roll(-1))
