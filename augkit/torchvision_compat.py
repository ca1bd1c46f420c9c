"""Make torchvision importable where its own library cannot be loaded.

PyPI's torchvision is built for CUDA. Beside a torch without CUDA its library does not load, and then
`import torchvision` ends in "operator torchvision::nms does not exist"; timm and diffusers, which import torchvision,
fail with it. All that the import needs is that the two operators exist, so they are registered here in plain torch.

Importing this module does nothing. Call `ensure_torchvision()` before importing torchvision or timm. Where
torchvision's own library loads, that library is used and nothing is registered. torchvision's image codecs stay absent
where it does not load: read images with Pillow or OpenCV.
"""

from __future__ import annotations

import importlib.util
from importlib.machinery import EXTENSION_SUFFIXES
from pathlib import Path

import torch
from torch import Tensor

_registered: list[torch.library.Library] = []  # a Library takes its operators along when it is collected


def ensure_torchvision() -> None:
    """Load torchvision's operators, or register `nms` and `qnms` for the CPU in their place; call it freely."""
    spec = importlib.util.find_spec("torchvision")  # finds, does not import
    if spec is None or not spec.submodule_search_locations or hasattr(torch.ops.torchvision, "nms"):
        return
    folder = Path(spec.submodule_search_locations[0])
    for library in (folder / f"_C{suffix}" for suffix in EXTENSION_SUFFIXES):
        try:
            if library.exists():
                torch.ops.load_library(str(library))
                return
        except (ImportError, OSError):  # built for another torch, or for a CUDA that is not here
            continue
    operators = torch.library.Library("torchvision", "FRAGMENT")
    for name in ("nms", "qnms"):
        operators.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
        operators.impl(name, nms, "CPU" if name == "nms" else "QuantizedCPU")
    _registered.append(operators)


def nms(boxes: Tensor, scores: Tensor, iou_threshold: float) -> Tensor:
    """Non-maximum suppression: indices [K] int64 of the boxes [N, 4] (x1, y1, x2, y2) to keep, best score first."""
    corners = (boxes.dequantize() if boxes.is_quantized else boxes).float()
    order = (scores.dequantize() if scores.is_quantized else scores).argsort(descending=True, stable=True)
    area = (corners[:, 2] - corners[:, 0]) * (corners[:, 3] - corners[:, 1])
    kept: list[Tensor] = []
    while order.numel():
        best, rest = order[0], order[1:]
        kept.append(best)
        top_left = torch.maximum(corners[best, :2], corners[rest, :2])
        bottom_right = torch.minimum(corners[best, 2:], corners[rest, 2:])
        overlap = (bottom_right - top_left).clamp(min=0).prod(dim=1)
        order = rest[overlap <= iou_threshold * (area[best] + area[rest] - overlap)]
    return torch.stack(kept) if kept else order.new_empty(0)
