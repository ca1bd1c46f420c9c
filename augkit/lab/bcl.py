"""Balanced contrastive learning: a loss with projections of its own, over three views of each image.

Zhu, Wang, Chen, Chen and Jiang, Balanced contrastive learning for long-tailed visual recognition, CVPR 2022.
"""

from __future__ import annotations

from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional

from augkit.errors import DocumentError
from augkit.lab.losses import log_prior

NotNegative = Annotated[float, Field(ge=0)]
Width = Annotated[int, Field(ge=1)]


class BCL(nn.Module):
    """Logit-adjusted cross-entropy on the first view, balanced contrast of the other two (Zhu et al., CVPR 2022).

    Features of all views go through one projection, the rows of the last layer's weight, one for each class, through
    another; what comes out is put on the sphere, and a class's row becomes its prototype. Each image of the second and
    third view is drawn to all others of its class and to its prototype, against every class, see `contrast`. The
    projections learn along with the model and are no part of it.

    Args:
        class_counts: [C] float32 training images of the stage.
        head: the model's last layer, with a weight [C, D].
        classify: weight of the cross-entropy, the paper's lambda.
        contrast: weight of the contrast, the paper's mu.
        temperature: of the contrast.
        tau: times the log prior that is added to logits.
        hidden: width of the projections' hidden layer.
        dimensions: of the sphere.

    Raises:
        DocumentError: the last layer has no weight vector for each class.
    """

    wants_labels = True
    wants_views = 3
    first_view = "classify"
    prior: Tensor

    def __init__(
        self,
        *,
        class_counts: Tensor,
        head: nn.Module,
        classify: NotNegative = 2.0,
        contrast: NotNegative = 0.6,
        temperature: Annotated[float, Field(gt=0)] = 0.1,
        tau: NotNegative = 1.0,
        hidden: Width = 512,
        dimensions: Width = 128,
    ) -> None:
        super().__init__()
        weight = getattr(head, "weight", None)
        if not isinstance(weight, Tensor) or weight.ndim != 2 or len(weight) != len(class_counts):
            raise DocumentError(
                f'"bcl" makes prototypes of the last layer\'s weight vectors, one for each class, and a'
                f" {type(head).__name__} has none: take another model or loss",
                path="loss",
            )
        self.weights, self.temperature = (classify, contrast), temperature
        self.register_buffer("prior", tau * log_prior(class_counts), persistent=False)
        width = weight.shape[1]
        self.of_features, self.of_prototypes = (projection(width, hidden, dimensions) for _ in range(2))

    def forward(self, logits: Tensor, targets: Tensor, *, features: Tensor, head: nn.Module, views: int) -> Tensor:
        """The loss of a batch, a single number.

        Args:
            logits: [3 B, C] float32, view after view.
            targets: [3 B] int64.
            features: [3 B, D] float32 that the last layer was given.
            head: the last layer, with a weight [C, D].
            views: 3.
        """
        size = len(logits) // views
        first = functional.cross_entropy(logits[:size] + self.prior, targets[:size])
        seen = functional.normalize(self.of_features(features))[size:]
        prototypes = functional.normalize(self.of_prototypes(head.weight))
        classify, balance = self.weights
        return classify * first + balance * contrast(seen, targets[size:], prototypes, self.temperature)


def projection(width: int, hidden: int, dimensions: int) -> nn.Sequential:
    """Two linear layers, and batch normalisation and ReLU between them; He initialisation, as in CUDA's code."""
    layers = nn.Linear(width, hidden), nn.Linear(hidden, dimensions)
    for layer in layers:
        nn.init.kaiming_normal_(layer.weight)
    return nn.Sequential(layers[0], nn.BatchNorm1d(hidden), nn.ReLU(inplace=True), layers[1])


def contrast(features: Tensor, targets: Tensor, prototypes: Tensor, temperature: float) -> Tensor:
    """Balanced supervised contrastive loss, mean over images, a single number (BCL, CVPR 2022, as in its code).

    Of image i the mean, over the other images of its class and its prototype, of -log of the share that exp(similarity
    / temperature) has of its sum over classes. Each class counts there by the mean over its images and its prototype,
    its own class without i (class-averaging), and is there by its prototype if by no image (class-complement).

    Args:
        features: [N, K] float32 of length 1.
        targets: [N] int64.
        prototypes: [C, K] float32 of length 1.
    """
    number, classes = len(features), len(prototypes)
    labels = torch.cat([targets, torch.arange(classes, device=targets.device)])
    itself = torch.eye(number, number + classes, dtype=torch.bool, device=targets.device)
    same = (targets[:, None] == labels) & ~itself
    counts = torch.zeros(classes, device=targets.device).index_add(
        0, labels, torch.ones_like(labels, dtype=torch.float)
    )
    logits = features @ torch.cat([features, prototypes]).T / temperature
    averaged = (logits - (counts[labels] - same.to(counts)).log()).masked_fill(itself, -torch.inf)
    positive = torch.where(same, logits, 0.0).sum(1) / same.sum(1)
    return (averaged.logsumexp(1) - positive).mean()
