"""Invariance-constrained learning: augmentation as a constraint, sampled by chains and weighed by a dual variable.

Hounie, Chamon and Ribeiro, Automatic data augmentation via invariance-constrained learning, ICML 2023.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional

from augkit.engine.streams import site_constants, uniforms

_ACCEPT = "invariance: accept"


class InvarianceConstrained(nn.Module):
    """Cross-entropy of clean images, bounded on transformed ones (Hounie et al., ICML 2023, algorithm 2).

    The policy's first view is the clean image, the others are independent proposals. The first proposal begins the
    chain; a further one takes its place with probability min(1, its loss / the loss of the chain's state), so that
    transformations are sampled in proportion to their loss (independent Metropolis-Hastings). The loss is that of the
    clean images plus mu times that of the images where their chains end, and after each batch

        mu <- max(0, mu + dual_lr * (mean loss where the chains end - epsilon)).

    So augmentation gets a weight as long as the model is not as invariant as epsilon asks, and loses it again. Of
    several experts the losses are summed in the objective, and their mean is what the constraint bounds.

    As in the authors' code all proposals of a batch are asked about at once, with that batch's own statistics, and
    clean images and ends of chains go through the model apart. There, though, proposals that are not trained on enter
    the running statistics that test images meet; here they do not.

    Args:
        epsilon: bound on the mean loss of transformed images. The authors' 2.1 is for CIFAR-100 with the wide space.
        dual_lr: step of mu for each batch.
    """

    wants_labels = True
    mu: Tensor
    sums: Tensor
    accepted: Tensor

    def __init__(
        self,
        *,
        epsilon: Annotated[float, Field(ge=0)] = 2.1,
        dual_lr: Annotated[float, Field(ge=0)] = 1e-4,
    ) -> None:
        super().__init__()
        self.epsilon, self.dual_lr = epsilon, dual_lr
        self.register_buffer("mu", torch.zeros(()))
        # of the epoch under way: losses of clean and of transformed images; proposals that were accepted
        self.register_buffer("sums", torch.zeros(2), persistent=False)
        self.register_buffer("accepted", torch.zeros(()), persistent=False)
        self.images = self.proposed = 0

    @torch.no_grad()
    def choose(self, ask: Callable[[Tensor], Tensor], inputs: Tensor, targets: Tensor, keys: Tensor) -> Tensor:
        """[2, B] rows: each image's clean view, and the proposal that its chain ends at; waits for no device."""
        size = len(keys)
        state = torch.zeros(size, dtype=torch.int64, device=keys.device)
        number = len(inputs) // size - 1
        if number > 1:  # with a single one there is nothing to decide
            losses = functional.cross_entropy(ask(inputs[size:]), targets[size:], reduction="none").view(number, size)
            drawn = uniforms(keys, site_constants(_ACCEPT, number - 1, keys.device))
            current = losses[0]
            for step in range(1, number):
                moves = drawn[:, step - 1] * current < losses[step]
                state, current = torch.where(moves, step, state), torch.where(moves, losses[step], current)
                self.accepted = self.accepted + moves.sum()
            self.proposed += (number - 1) * size
        images = torch.arange(size, device=keys.device)
        return torch.stack([images, (1 + state) * size + images])

    def forward(self, logits: Tensor, targets: Tensor, *, experts: Tensor) -> Tensor:
        """The loss of a batch, a single number; moves mu, and waits for nothing on a device.

        Args:
            logits: [2 * B, C], the clean images and then the ends of their chains.
            targets: [2 * B] int64.
            experts: [2 * B, experts, C], of one expert the logits.
        """
        number = experts.shape[1]
        each = functional.cross_entropy(experts.flatten(0, 1), targets.repeat_interleave(number), reduction="none")
        losses = each.view(2, -1).mean(1)
        clean, augmented = losses
        total: Tensor = number * (clean + self.mu * augmented)
        with torch.no_grad():
            self.mu = (self.mu + self.dual_lr * (augmented - self.epsilon)).clamp(min=0)
            size = len(targets) // 2
            self.sums = self.sums + size * losses
            self.images += size
        return total

    def passes(self, views: int) -> dict[str, float]:
        """Images through the model for one image: every proposal if there is a choice, and what is trained on."""
        asked = views - 1 if views > 2 else 0
        return {"forward": asked + 2.0, "backward": 2.0}

    def tell(self) -> dict[str, float]:
        """mu as it stands, the epoch's mean losses, by how much the bound was kept, and how often chains moved."""
        clean, augmented = (self.sums / max(1, self.images)).tolist()
        told = {
            "mu": float(self.mu),
            "clean_loss": clean,
            "augmented_loss": augmented,
            "slack": self.epsilon - augmented,
            "accepted": float(self.accepted) / max(1, self.proposed),
        }
        self.sums, self.accepted = torch.zeros_like(self.sums), torch.zeros_like(self.accepted)
        self.images = self.proposed = 0
        return told
