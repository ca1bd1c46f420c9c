"""Images that are nearly the same, up to their mirror image and a small shift: by the correlation of their pixels."""

from __future__ import annotations

import numpy as np

from augkit_diffusion.features import standardised

CHUNK = 1024
CANDIDATES = 8
"""Images that are compared closely, of those that are most alike when reduced."""
CLOSE = 64
"""Images that are compared closely at once."""


def nearest(
    these: np.ndarray, those: np.ndarray, count: int = 1, *, own: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """The `count` largest products of each row of `these` [N, D] with rows of `those` [M, D], and where they are.

    Returns:
        [N, count] float32, largest first, and [N, count] int64. `own` [N] are rows of `those` that are the same and
        no neighbours. Where there are fewer rows, -inf and -1.
    """
    values = np.full((len(these), count), -np.inf, np.float32)
    places = np.full((len(these), count), -1, np.int64)
    width = min(count, len(those) - (own is not None))
    if width < 1:
        return values, places
    for begin in range(0, len(these), CHUNK):
        products = these[begin : begin + CHUNK] @ those.T
        if own is not None:
            products[np.arange(len(products)), own[begin : begin + CHUNK]] = -np.inf
        order = _largest(products, width)
        values[begin : begin + CHUNK, :width] = np.take_along_axis(products, order, 1)
        places[begin : begin + CHUNK, :width] = order
    return values, places


def _largest(products: np.ndarray, count: int) -> np.ndarray:
    """[N, count] where the largest of each row are, largest first; of equals the first first."""
    if count == 1:
        return np.asarray(products.argmax(1)[:, None])
    some = np.sort(np.argpartition(-products, count - 1, axis=1)[:, :count], axis=1)
    values = np.take_along_axis(products, some, 1)
    return np.take_along_axis(some, np.argsort(-values, axis=1, kind="stable"), 1)


def likest(
    these: np.ndarray, those: np.ndarray, vectors: np.ndarray, others: np.ndarray, *, own: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Of each image the likeness of the one that it is most like, and where that is.

    The likeness is the correlation of pixels, the largest over the image and its mirror image, and over shifts by up to
    a 16th of its side; what a shift moves out of sight does not count. It is measured for the `CANDIDATES` images that
    are nearest when both are reduced and unshifted.

    Args:
        these: [N, 3, S, S] uint8.
        those: [M, 3, S, S] uint8, looked through.
        vectors: [N, P] float32, of `features.vectors`.
        others: the same of `those`.
        own: [N] which of `those` each is itself, and shall not be compared with.

    Returns:
        [N] float32, -inf if there is nothing to be like, and [N] int64, then -1.
    """
    best, place = np.full(len(these), -np.inf, np.float32), np.full(len(these), -1, np.int64)
    if not len(these) or not len(those):
        return best, place
    turned = _mirrored(vectors)
    plain, where = nearest(vectors, others, CANDIDATES, own=own)
    mirror, there = nearest(turned, others, CANDIDATES, own=own)
    for images, values, places in ((these, plain, where), (these[..., ::-1], mirror, there)):
        for begin in range(0, len(these), CLOSE):
            part = slice(begin, begin + CLOSE)
            found = np.where(np.isfinite(values[part]), _close(images[part], those, places[part]), -np.inf)
            first = found.argmax(1)
            value = found[np.arange(len(found)), first]
            better = value > best[part]
            best[part] = np.where(better, value, best[part])
            place[part] = np.where(better, places[part][np.arange(len(found)), first], place[part])
    return best, place


def _close(images: np.ndarray, those: np.ndarray, places: np.ndarray) -> np.ndarray:
    """[n, K] largest correlation over shifts of images [n, 3, S, S] with the middle of those at `places` [n, K]."""
    side = images.shape[-1]
    most = side // 16
    inner = side - 2 * most
    middle = those[places][..., most : most + inner, most : most + inner]
    wanted = standardised(middle.reshape(*places.shape, -1).astype(np.float32))
    best = np.full(places.shape, -np.inf, np.float32)
    for down in range(2 * most + 1):
        for right in range(2 * most + 1):
            window = images[..., down : down + inner, right : right + inner].reshape(len(images), -1)
            own = standardised(window.astype(np.float32))
            best = np.maximum(best, np.einsum("nd,nkd->nk", own, wanted))
    return best


def _mirrored(vectors: np.ndarray) -> np.ndarray:
    """`features.vectors` of the mirror images."""
    side = round((vectors.shape[1] / 3) ** 0.5)
    return np.ascontiguousarray(vectors.reshape(-1, 3, side, side)[..., ::-1]).reshape(vectors.shape)
