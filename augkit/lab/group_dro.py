"""Group-DRO: a loss that remembers which class of which group it has served worst."""

from __future__ import annotations

from typing import Annotated, Any

import torch
from pydantic import Field
from torch import Tensor
from torch.nn import functional


class GroupDRO:
    """Cross-entropy, weighted towards classes in groups with a high loss (Sagawa et al., ICLR 2020, algorithm 1).

    Each class in each group is a cell g with a weight q_g; weights begin alike and sum to 1. A step takes the mean
    loss l_g of each cell that the batch has images of, multiplies q_g by exp(step_size * (l_g + adjustment /
    sqrt(n_g))), where n_g are its training images, and minimises the sum of q_g * l_g. The paper's batches are drawn
    with the sampler `group_balanced`. Several experts and views each count as images of their own.

    Args:
        group_counts: [C, G] float32 training images of the stage.
        step_size: of the weights; 0 leaves them alike.
        adjustment: the paper's C, for generalisation; it reckons with more in cells that have few images.
    """

    wants_labels = True

    def __init__(
        self,
        *,
        group_counts: Tensor,
        step_size: Annotated[float, Field(ge=0)] = 0.01,
        adjustment: Annotated[float, Field(ge=0)] = 0.0,
    ) -> None:
        self.step_size, self.groups = step_size, group_counts.shape[1]
        self.margin = adjustment * group_counts.clamp(min=1).rsqrt().flatten()
        # logarithms neither vanish nor overflow, however long a cell is served well
        alike = torch.where(group_counts > 0, 0.0, -torch.inf)
        self.log_weights = alike.flatten().log_softmax(0)

    def __call__(self, logits: Tensor, targets: Tensor, *, groups: Tensor) -> Tensor:
        """The weighted loss of a batch, a single number; moves the weights, and waits for nothing on a device."""
        losses = functional.cross_entropy(logits, targets, reduction="none")
        cells = targets * self.groups + groups
        zeros = torch.zeros_like(self.log_weights)
        counts = zeros.index_add(0, cells, torch.ones_like(losses))
        means = zeros.index_add(0, cells, losses) / counts.clamp(min=1)
        with torch.no_grad():
            moved = self.log_weights + self.step_size * (means + self.margin) * (counts > 0)
            self.log_weights = moved.log_softmax(0)
        return (self.log_weights.exp() * means).sum()

    def state_dict(self) -> dict[str, Any]:
        """The weights' logarithms, [C * G] float32 on the CPU."""
        return {"log_weights": self.log_weights.cpu()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from a stored state."""
        self.log_weights = state["log_weights"].to(self.log_weights.device)
