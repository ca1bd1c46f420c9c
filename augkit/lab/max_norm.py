"""A last layer whose weight vectors are bound in length: the second stage of weight balancing.

Alshammari, Wang, Ramanan and Kong, Long-tailed recognition via weight balancing, CVPR 2022.
"""

from __future__ import annotations

from typing import Annotated

import torch
from pydantic import Field
from torch import nn

from augkit.lab.heads import last_layer, lengths


class MaxNorm(nn.Module):
    """A layer whose weight vectors are no longer than a radius, which is set by how long they are now.

    Args:
        layer: its weights of two dimensions or more are bound, each with a radius of its own: rows of the first
            dimension are vectors. Biases are free.
        threshold: where the radius lies between the shortest vector, 0, and the longest, 1.
    """

    def __init__(self, layer: nn.Module, threshold: float) -> None:
        super().__init__()
        self.layer = layer
        self.bound = [parameter for parameter in layer.parameters() if parameter.ndim > 1]
        for number, parameter in enumerate(self.bound):
            long = lengths(parameter.detach())
            self.register_buffer(f"radius_{number}", torch.lerp(long.min(), long.max(), threshold))

    def project(self) -> None:
        """Shorten each vector that is longer than the radius to it."""
        for number, parameter in enumerate(self.bound):
            long, radius = lengths(parameter), self.get_buffer(f"radius_{number}")
            parameter.mul_(torch.where(long > radius, radius / long, 1.0).view(-1, *[1] * (parameter.ndim - 1)))


def max_norm_head(model: nn.Module, *, threshold: Annotated[float, Field(ge=0, le=1)] = 0.1) -> nn.Module:
    """Only the last layer learns, and after each step no class's weight vector is longer than a radius.

    The second stage of weight balancing (Alshammari et al., CVPR 2022, MaxNorm by projected gradient descent), whose
    code sets the radius at 0.1 of the way from the shortest to the longest vector that the first stage left, and
    projects after each epoch instead of each step.
    """
    return MaxNorm(last_layer(model), threshold)
