"""Drawing the mixing steps of a batch: partners, weights and boxes, for each image its own."""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor

from augkit.engine.environment import Environment
from augkit.engine.plan import MIX_KINDS, Mix
from augkit.strategy.evaluate import sample_beta
from augkit.strategy.model import BatchStep, MixStep


class PartnerPool(Protocol):
    """Where partners outside the batch come from; see `augkit.learning.pool.Pool`."""

    @property
    def filled(self) -> Tensor:
        """[C] int64 images held of each class."""

    def take(self, targets: Tensor, u: Tensor) -> Tensor:
        """[B] classes and [B] uniform numbers to [B] flat slots."""


def draw_mixes(env: Environment, step: BatchStep, path: str, pool: PartnerPool | None) -> list[Mix]:
    """Draw each mixing step of a `batch:` list, in order."""
    mixes = []
    for number, item in enumerate(step.mixes):
        place = f"{path}[{number}]"
        if isinstance(item, MixStep):
            mixes.append(_mix(env, item, f"{place}.{item.kind}", pool))
            continue
        weight = torch.stack(
            [
                env.ask(f"{place}.one_of[{k}].weight", ("batch",)).expand(len(env.batch_keys))
                for k in range(len(item.alternatives))
            ],
            dim=1,
        ).clamp(min=0)
        total = weight.cumsum(1)
        reach = env.uniform(f"{place}.one_of", ("batch",), 1) * total[:, -1:]
        sub = torch.searchsorted(total, reach, right=True)[:, 0]
        for k, alternative in enumerate(item.alternatives):
            mix = _mix(env, alternative.mix, f"{place}.one_of[{k}].{alternative.mix.kind}", pool)
            off = sub != k
            mixes.append(
                Mix(mix.kind.masked_fill(off, 0), mix.partner, mix.lam, mix.centre, mix.partner_class, mix.pooled)
            )
    return mixes


def _mix(env: Environment, step: MixStep, path: str, pool: PartnerPool | None) -> Mix:
    batch = len(env.batch_keys)
    happens = env.uniform(f"{path}.p?", ("batch",), 1)[:, 0] < env.ask(f"{path}.p", ("batch",))
    alpha = env.ask(f"{path}.alpha", ("batch",)).expand(batch)
    # alpha 0 means: do not mix, as in the reference implementations
    lam = torch.where(
        alpha > 0, sample_beta(alpha, alpha, lambda count: env.uniform(f"{path}.lam", ("batch",), count)), 1.0
    )
    kind = torch.where(happens & (alpha > 0), MIX_KINDS.index(step.kind), 0)
    weights = env.ask(f"{path}.weights", ("batch", "classes")) if step.weights is not None else None
    u = env.uniform(f"{path}.partner", ("batch",), 4)
    y = env.indices["y"]
    if step.partner == "pool":
        assert pool is not None
        partner, partner_class = _from_pool(pool, weights, u, batch)
    else:
        partner = _from_batch(weights, u, y)
        partner_class = y[partner]
    return Mix(kind, partner, lam, u[:, 2:4], partner_class, step.partner == "pool")


def _from_batch(weights: Tensor | None, u: Tensor, y: Tensor) -> Tensor:
    """[B] positions: a random cycle through the batch, so that nobody is his own partner, or drawn by class weight."""
    if weights is None:
        order = u[:, 0].argsort()
        return torch.empty_like(order).scatter_(0, order, order.roll(-1))
    each = weights.clamp(min=0).expand(len(y), -1)[:, y]
    return _categorical(each, u[:, 0])


def _from_pool(pool: PartnerPool, weights: Tensor | None, u: Tensor, batch: int) -> tuple[Tensor, Tensor]:
    held = pool.filled
    by_class = held.float() if weights is None else weights.clamp(min=0) * (held > 0)
    partner_class = _categorical(by_class.reshape(-1, len(held)).expand(batch, -1), u[:, 0])
    return pool.take(partner_class, u[:, 1]), partner_class


def _categorical(weights: Tensor, u: Tensor) -> Tensor:
    total = weights.cumsum(1).contiguous()
    drawn = torch.searchsorted(total, u[:, None] * total[:, -1:], right=True)[:, 0]
    return drawn.clamp(max=weights.shape[1] - 1)
