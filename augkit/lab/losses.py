"""Losses by name: `function(logits [B, C] float32, targets, *, facts, options) -> a single number`.

Targets are labels [B] int64, or dense [B, C] float32 (mixed images, smoothed labels). Facts, each given to a function
that has a parameter of its name: `class_counts` [C] float32 training images of each class of the stage, on the logits'
device; `epoch` and `epochs`, of the stage, 0-based; `views`, how many results of each image the policy makes (a loss
that asks for it is refused beside a policy without views); `groups` [B] int64 of the batch's images, on the device, and
`group_names`, and `group_counts` [C, G] float32 training images of each class in each group (all three refused where
the data know no groups); `inputs` [B, 3, H, W] that the model was given, normalised; `autocast`, a call of which
gives the context that the model is asked in; `head`, the model's last layer, and `features` [B, D] float32 that this
layer was given, with gradients (both refused for models that have not one last layer). Every other keyword-only
parameter is an option.

On dense targets each loss here is linear in the target, as mixing papers train: the loss of every class weighted by
its share. So one-hot targets give what labels give, to rounding.

A function keeps nothing from call to call. A loss that remembers is a class: each stage makes an instance, with the
options and with those facts that hold for a whole stage (`class_counts`, `group_counts`, `group_names`, `epochs`,
`head`) that
its `__init__` has keyword-only parameters for. The instance is called as a function is, without options, and its
`state_dict()` and `load_state_dict(state)` put what it remembers into checkpoints. If it is a torch module, its weights
learn along with the stage's part, at the stage's rate and weight decay; what it draws depends on the recipe's seed. A
loss with `wants_labels = True` is refused beside a policy that mixes images, whose targets are dense. One with
`wants_views = 3` is refused beside policies with another number of views, and one with a method `choose` looks at all
views before some of them are trained on, see `augkit.lab.view_choice`. One whose instance has
`wants_experts = True` is refused beside a model of a single expert.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Annotated, Any, TypeVar

import torch
from pydantic import Field
from torch import Tensor
from torch.nn import functional

from augkit.lab.group_dro import GroupDRO
from augkit.lab.invariance import InvarianceConstrained

Share = Annotated[float, Field(ge=0, le=1)]
Beta = Annotated[float, Field(ge=0, lt=1)]
Positive = Annotated[float, Field(gt=0)]
NotNegative = Annotated[float, Field(ge=0)]
Function = TypeVar("Function", bound=Callable[..., Any])


def wants_cosines(loss: Function) -> Function:
    """Mark a loss that is made for a last layer of cosines: `models.CosineHead` takes the place of the linear one."""
    loss.wants_cosines = True  # type: ignore[attr-defined]
    return loss


def made_for_cosines(loss: Callable[..., Any], options: Mapping[str, Any]) -> bool:
    """Whether a loss is made for a last layer of cosines; one whose options decide has a `wants_cosines(**options)`."""
    said = getattr(loss, "wants_cosines", False)
    return bool(said(**options) if callable(said) else said)


def effective_weights(class_counts: Tensor, beta: float) -> Tensor:
    """[C] weights (1 - beta) / (1 - beta ** n), scaled to the sum C (Cui et al., CVPR 2019, equation 2).

    A class without an image weighs as one with a single image.
    """
    log_beta = math.log(beta) if beta else -math.inf
    weights = -1 / torch.expm1(class_counts.clamp(min=1) * log_beta)
    return weights * (len(weights) / weights.sum())


def log_prior(class_counts: Tensor) -> Tensor:
    """[C] log share of each class; one image instead of none keeps it finite (such a class is never a target)."""
    counts = class_counts.to(torch.float32).clamp(min=1)
    return torch.log(counts / counts.sum())


def _averaged(by_class: Tensor, targets: Tensor, weights: Tensor | None = None) -> Tensor:
    """The mean over images of [B, C] losses, were each class the answer, weighted as torch's `weight=` does."""
    if targets.dim() == 1:
        losses = by_class.gather(1, targets[:, None])[:, 0]
        shares = None if weights is None else weights[targets]
        return losses.mean() if shares is None else (losses * shares).sum() / shares.sum()
    shares = targets if weights is None else targets * weights
    return (by_class * shares).sum() / (len(targets) if weights is None else shares.sum())


def ce(logits: Tensor, targets: Tensor) -> Tensor:
    """Cross-entropy."""
    return functional.cross_entropy(logits, targets)


def ce_drw(
    logits: Tensor,
    targets: Tensor,
    *,
    class_counts: Tensor,
    epoch: int,
    epochs: int,
    from_: Share = 0.8,
    beta: Beta = 0.9999,
) -> Tensor:
    """Cross-entropy, weighted by effective numbers from a share of the epochs on (Cao et al., NeurIPS 2019)."""
    if not is_late(epoch, epochs, from_):
        return functional.cross_entropy(logits, targets)
    return _averaged(-logits.log_softmax(1), targets, effective_weights(class_counts, beta))


def is_late(epoch: int, epochs: int, start: float) -> bool:
    """Whether deferred weights are on: from epoch 160 of 200, 0-based, with a start of 0.8."""
    return epoch >= round(start * epochs)


def class_balanced(
    logits: Tensor, targets: Tensor, *, class_counts: Tensor, beta: Beta = 0.9999, gamma: NotNegative = 0.0
) -> Tensor:
    """Cross-entropy, or focal loss with a gamma, weighted by effective numbers (Cui et al., CVPR 2019).

    The mean is weighted, as in torch and in the code of Cao et al.; the authors' own divides by the number of images.
    """
    return _averaged(_focal(logits, gamma), targets, effective_weights(class_counts, beta))


def class_balanced_bce(logits: Tensor, targets: Tensor, *, class_counts: Tensor, beta: Beta = 0.9999) -> Tensor:
    """Binary cross-entropy of every class's softmax share, weighted by effective numbers of the image's own class.

    The class-balanced loss of weight balancing's code (Alshammari et al., CVPR 2022), for whose second stage's weight
    decay it matters that the mean is over images and classes: at C classes it is about C times smaller than
    `class_balanced`.
    """
    missed = logits.logsumexp(1, keepdim=True) - _others(logits)  # -log(1 - p)
    each = missed.sum(1, keepdim=True) - missed - logits.log_softmax(1)
    return _averaged(each * effective_weights(class_counts, beta), targets) / logits.shape[1]


def focal(logits: Tensor, targets: Tensor, *, gamma: NotNegative = 1.0) -> Tensor:
    """Focal loss, softmax form: (1 - p) ** gamma times cross-entropy (Lin et al., ICCV 2017)."""
    return _averaged(_focal(logits, gamma), targets)


def _focal(logits: Tensor, gamma: float) -> Tensor:
    """[B, C] focal loss of each class, were it the answer; 1 - p from log p, so that it keeps its digits."""
    log_p = logits.log_softmax(1)
    if not gamma:
        return -log_p
    missing = (-torch.expm1(log_p)).clamp(min=torch.finfo(log_p.dtype).tiny)  # 0 ** 0.5 has an infinite slope
    return -(missing**gamma) * log_p


def balanced_softmax(logits: Tensor, targets: Tensor, *, class_counts: Tensor) -> Tensor:
    """Cross-entropy on logits plus log prior (Ren et al., Balanced Meta-Softmax, NeurIPS 2020)."""
    # The network then learns logits for a uniform prior, so nothing is added when it is asked.
    return functional.cross_entropy(logits + log_prior(class_counts), targets)


def logit_adjustment(logits: Tensor, targets: Tensor, *, class_counts: Tensor, tau: NotNegative = 1.0) -> Tensor:
    """Cross-entropy on logits plus tau times the log prior (Menon et al., ICLR 2021); tau 1 is balanced softmax."""
    return functional.cross_entropy(logits + tau * log_prior(class_counts), targets)


@wants_cosines
def ldam_drw(
    cosines: Tensor,
    targets: Tensor,
    *,
    class_counts: Tensor,
    epoch: int,
    epochs: int,
    max_margin: NotNegative = 0.5,
    scale: Positive = 30.0,
    from_: Share = 0.8,
    beta: Beta = 0.9999,
) -> Tensor:
    """Margins wider for rarer classes, deferred weights, a last layer of cosines (Cao et al., LDAM, NeurIPS 2019)."""
    margins = class_counts.to(cosines.dtype).clamp(min=1) ** -0.25
    margins = margins * (max_margin / margins.max())
    weights = effective_weights(class_counts, beta) if is_late(epoch, epochs, from_) else None
    z = cosines * scale
    # -log(e^(z_c - m_c) / (e^(z_c - m_c) + sum of e^z_j over j != c)) for every class c, were it the answer
    return _averaged(functional.softplus(_others(z) - z + scale * margins), targets, weights)


def _others(z: Tensor) -> Tensor:
    """[B, C] log of the sum of exp(z_j) over j != c, exact where one class has nearly all the mass."""
    largest = z.argmax(1, keepdim=True)
    without = z.scatter(1, largest, float("-inf")).logsumexp(1, keepdim=True)
    p = z.softmax(1).scatter(1, largest, 0)  # no other class has more than a half, so 1 - p keeps its digits
    rest = z.logsumexp(1, keepdim=True) + torch.log1p(-p)
    return rest.scatter(1, largest, without)


def jsd(logits: Tensor, targets: Tensor, *, views: int) -> Tensor:
    """Cross-entropy and Jensen-Shannon divergence between views (AugMix); needs a policy with views, such as augmix."""
    # timm's with the paper's weight of 12 and no smoothing (Hendrycks et al., ICLR 2020)
    from timm.loss.jsd import JsdCrossEntropy

    loss: Tensor = JsdCrossEntropy(num_splits=views, alpha=12, smoothing=0)(logits, targets)
    return loss


LOSSES: dict[str, Callable[..., Any]] = {
    loss.__name__: loss
    for loss in (
        *(ce, ce_drw, class_balanced, class_balanced_bce, focal),
        *(balanced_softmax, logit_adjustment, ldam_drw, jsd),
    )
}
LOSSES["group_dro"] = GroupDRO
LOSSES["invariance"] = InvarianceConstrained
