"""Passes over pixels other than warps: colour, tables, histograms, kernels, boxes. All on [N, C, H, W] uint8."""

from __future__ import annotations

import torch
from torch import Tensor

from augkit.engine.rows import to_bytes
from augkit.operators.base import Kernel


def histograms(images: Tensor) -> Tensor:
    """[N, C, H, W] to counts of each value [N, C, 256] float32."""
    values = images.flatten(2).long()
    result = torch.zeros(*images.shape[:2], 256, dtype=torch.int32, device=images.device)
    one = torch.ones((), dtype=torch.int32, device=images.device)
    return result.scatter_add_(2, values, one.expand_as(values)).float()


def statistic(name: str, images: Tensor) -> Tensor:
    """`histogram` [N, C, 256] float32, `means` [N, C] float64 or `extremes` [N, C, 2] float32 of [N, C, H, W]."""
    if name == "histogram":
        return histograms(images)
    flat = images.flatten(2)
    if name == "means":
        most = torch.int32 if flat.shape[2] < 1 << 23 else torch.int64  # half the time, for what cannot overflow it
        return wide(flat.sum(2, dtype=most)) / max(1, flat.shape[2])
    return torch.stack((flat.amin(2), flat.amax(2)), 2).float()  # `aminmax` takes ten times as long


def statistic_of(name: str, histogram: Tensor) -> Tensor:
    """The same out of a histogram [N, C, 256]."""
    if name == "histogram":
        return histogram
    value = torch.arange(256.0, device=histogram.device)
    if name == "means":
        return (wide(histogram) @ wide(value)) / histogram.sum(2).clamp(min=1)
    present = histogram > 0
    return torch.stack((255 - (present * (255 - value)).amax(2), (present * value).amax(2)), 2)


def wide(tensor: Tensor) -> Tensor:
    """float64, where the device has it."""
    return tensor.float() if tensor.device.type == "mps" else tensor.double()


def push(histogram: Tensor, tables: Tensor) -> Tensor:
    """The histogram after a table: [N, C, 256] float32 counts and [N, C, 256] uint8 tables."""
    return torch.zeros_like(histogram).scatter_add_(2, tables.long(), histogram)


def compose(first: Tensor, then: Tensor) -> Tensor:
    """The table that does both: [N, C, 256] each, where one channel stands for all."""
    channels = max(first.shape[1], then.shape[1])
    return then.expand(-1, channels, -1).gather(2, first.expand(-1, channels, -1).long())


def look_up(images: Tensor, tables: Tensor) -> Tensor:
    """Map each value through its image's and channel's table [N, C or 1, 256]; the result has the tables' dtype."""
    values = images.flatten(2).long()
    return tables.expand(*images.shape[:2], 256).gather(2, values).view(images.shape)


def colour(images: Tensor, matrices: Tensor) -> Tensor:
    """Mix channels by [N, 3, 4] matrices, clip and truncate."""
    mixed = torch.baddbmm(matrices[:, :, 3:], matrices[:, :, :3], images.flatten(2).float())
    return to_bytes(mixed.clamp_(0, 255)).view_as(images)


def erase(images: Tensor, boxes: Tensor) -> Tensor:
    """Paint boxes [N, L, 4] black. How many boxes hold a pixel is a product of matrices, whatever L is."""
    height, width = images.shape[2:]
    y = torch.arange(height, device=images.device).view(1, height)
    x = torch.arange(width, device=images.device).view(1, width)
    top, left, bottom, right = boxes[..., None].unbind(2)
    rows, columns = (y >= top) & (y < bottom), (x >= left) & (x < right)
    kept = rows.float().transpose(1, 2) @ columns.float() == 0
    return images * kept[:, None].byte()


def filtered(images: Tensor, kernel: Kernel) -> Tensor:
    """Run a small filter over each image; see `Kernel`. Its result is rounded and the blend truncated, as in Pillow."""
    height, width = images.shape[2:]
    size = kernel.weights.shape[-1]
    reach = size // 2
    if kernel.border == "copy" and min(height, width) < size:
        return images
    values = images.float()
    extend = reach if kernel.border == "replicate" else 0
    if kernel.weights.dim() == 2:
        total = _taps(_extended(values, 0, extend), kernel.weights, 2, reach)
        total = _taps(_extended(total, extend, 0), kernel.weights, 3, reach)
    else:
        source, box = _extended(values, extend, extend), _as_box(kernel.weights)
        total = _square(source, kernel.weights) if box is None else _box(source, *box, reach)
    total = total.add_(0.5).clamp_(0, 255).floor_()
    inner = (slice(None), slice(None), slice(reach, height - reach), slice(reach, width - reach))
    kept = values if kernel.border == "replicate" else values[inner]
    total = total.add_((kept - total).mul_(kernel.blend.view(-1, 1, 1, 1))).clamp_(0, 255)
    if kernel.border == "replicate":
        return to_bytes(total)
    result = images.clone()
    result[inner] = to_bytes(total)
    return result


def _extended(values: Tensor, across: int, down: int) -> Tensor:
    """The edge continued by so many pixels to the left and right, and above and below."""
    if not across and not down:
        return values
    return torch.nn.functional.pad(values, (across, across, down, down), mode="replicate")


def _taps(values: Tensor, weights: Tensor, dim: int, reach: int) -> Tensor:
    """One direction of a separable filter: [N, C, H, W] and [N, k]; `dim` shrinks by 2 * reach."""
    length = values.shape[dim] - 2 * reach
    total = values.narrow(dim, 0, length) * weights[:, 0].view(-1, 1, 1, 1)
    for i in range(1, weights.shape[1]):
        total.addcmul_(values.narrow(dim, i, length), weights[:, i].view(-1, 1, 1, 1))
    return total


def _square(values: Tensor, weights: Tensor) -> Tensor:
    """A k x k filter without borders: [N, C, H, W] and [N, k, k] to [N, C, H - k + 1, W - k + 1]."""
    size = weights.shape[-1]
    height, width = values.shape[2] - size + 1, values.shape[3] - size + 1
    if size > 3 and values.numel():  # a convolution in as many groups as planes: four times as fast at 9 x 9
        each = weights.expand(len(values), size, size).repeat_interleave(values.shape[1], 0)[:, None]
        planes = values.reshape(1, -1, *values.shape[2:])
        return torch.nn.functional.conv2d(planes, each, groups=planes.shape[1]).view(*values.shape[:2], height, width)
    total = torch.zeros(*values.shape[:2], height, width, device=values.device)
    for i in range(size):
        for j in range(size):
            total.addcmul_(values[:, :, i : i + height, j : j + width], weights[:, i, j].view(-1, 1, 1, 1))
    return total


def _as_box(weights: Tensor) -> tuple[float, float] | None:
    """Of a filter that is the same for all images and everywhere but in its middle: that weight, and the middle's
    beyond it. Looked for on the host only, where reading a number costs nothing."""
    if weights.device.type != "cpu" or (weights.shape[0] > 1 and weights.stride(0)):
        return None
    numbers = weights[0].flatten().tolist()
    around, middle = numbers[0], numbers.pop(len(numbers) // 2)
    return (around, middle - around) if all(number == around for number in numbers) else None


def _box(values: Tensor, around: float, middle: float, reach: int) -> Tensor:
    """`around` times the sum over a square plus `middle` times its centre: 2k additions where a filter takes k * k."""
    size = 2 * reach + 1
    height, width = values.shape[2] - 2 * reach, values.shape[3] - 2 * reach
    rows = values[:, :, :height] + values[:, :, 1 : height + 1]
    for i in range(2, size):
        rows += values[:, :, i : i + height]
    total = rows[..., :width] + rows[..., 1 : width + 1]
    for i in range(2, size):
        total += rows[..., i : i + width]
    return total.mul_(around).add_(values[:, :, reach : reach + height, reach : reach + width], alpha=middle)
