"""Distributions from a fixed number of uniform numbers: what a draw takes never depends on what it finds."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

TRIES = 8
"""Proposals for one gamma number. One is accepted with more than 95 %, so all fail once in 10^10 draws."""
GAMMA = 2 * TRIES + 1
SMALLEST = 1e-3
"""Parameters of beta and dirichlet are at least this: below it nothing but 0 and 1 comes out."""

_TAKES = {"normal": 2, "beta": 2 * GAMMA, "dirichlet": GAMMA}


def take(name: str) -> int:
    """How many uniform numbers one element of a random function takes."""
    return _TAKES.get(name, 1)


def normal_from(u: Tensor) -> Tensor:
    """[..., >= 2] uniform to [...] standard normal (Box and Muller 1958)."""
    return _polar(u[..., 0], u[..., 1], torch.cos)


def _polar(radius: Tensor, angle: Tensor, wave: Callable[[Tensor], Tensor]) -> Tensor:
    return (-2 * torch.log1p(-radius)).sqrt() * wave(2 * math.pi * angle)  # 1 - u is never 0


def log_gamma_from(shape: Tensor, u: Tensor) -> Tensor:
    """The logarithm of gamma numbers (Marsaglia and Tsang 2000), so that small shapes do not underflow.

    Args:
        shape: positive, broadcasts over all but the last dim of u.
        u: [..., GAMMA] uniform.
    """
    shape = shape.clamp(min=SMALLEST)[..., None]
    d = torch.where(shape < 1, shape + 1, shape) - 1 / 3
    half = TRIES // 2
    radius, angle, accept, boost = u.split([half, half, TRIES, 1], dim=-1)
    z = torch.cat([_polar(radius, angle, torch.cos), _polar(radius, angle, torch.sin)], dim=-1)
    v = (1 + z / (9 * d).sqrt()) ** 3
    log_v = torch.where(v > 0, v, 1.0).log()
    good = (v > 0) & (torch.log1p(-accept) < 0.5 * z * z + d - d * v + d * log_v)
    first = good.float().argmax(-1, keepdim=True)  # where none is good: the first, clipped below
    result = d.log() + log_v.gather(-1, first)
    result = torch.where(shape < 1, result + torch.log1p(-boost) / shape, result)
    return result[..., 0]


def beta_from(a: Tensor, b: Tensor, u: Tensor) -> Tensor:
    """Beta numbers from [..., 2 * GAMMA] uniform ones; a and b broadcast over all but the last dim."""
    return torch.sigmoid(log_gamma_from(a, u[..., :GAMMA]) - log_gamma_from(b, u[..., GAMMA:]))


def sample_beta(a: Tensor, b: Tensor, uniform: Callable[[int], Tensor]) -> Tensor:
    """Beta numbers [N] for parameters [N]; `uniform(count)` gives [N, count] uniform numbers."""
    return beta_from(a, b, uniform(2 * GAMMA))


def dirichlet_from(a: Tensor, u: Tensor, dim: int) -> Tensor:
    """Shares along `dim` from [..., GAMMA] uniform numbers."""
    return log_gamma_from(a, u).softmax(dim)


def categorical_from(weight: Tensor, u: Tensor, dim: int) -> Tensor:
    """Positions along `dim` of the weights, in proportion to them; of any, if no weight is positive.

    Args:
        weight: any shape; what is not positive counts as 0.
        u: the shape without `dim`, uniform.
    """
    weight = weight.clamp(min=0).movedim(dim, -1)
    weight = torch.where(weight.sum(-1, keepdim=True) > 0, weight, 1.0)
    edges = weight.cumsum(-1)
    drawn = (edges <= u[..., None] * edges[..., -1:]).sum(-1)
    # the product can round up to the last edge: stay on what has a weight
    places = torch.arange(weight.shape[-1], device=weight.device)
    last = torch.where(weight > 0, places, -1).amax(-1)
    return torch.minimum(drawn, last).float()


def permutation_from(u: Tensor, dim: int) -> Tensor:
    """The positions of `dim` in random order."""
    return u.argsort(dim=dim, stable=True).argsort(dim=dim).float()
