"""A page of what a policy does to real images: a row for each class, a slider for what changes while a model learns."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

from markupsafe import Markup

from augkit.errors import some_of
from augkit.policy import Policy
from augkit.report.dials import MOST_DIALS, dials_of, unturned
from augkit.report.page import render
from augkit.report.preview import Samples
from augkit.report.preview_board import KEPT, SMALL, Board, board_of, fitting
from augkit.strategy.describe import words

ENLARGED = 112
"""CSS pixels up to which small images are enlarged, by a whole number."""


def page(make: Callable[[], Policy], samples: Samples, *, data: str = "", command: str = "", epoch: int = 0) -> str:
    """The page as text: the same arguments give the same bytes.

    Args:
        make: a fresh policy each time, of the same strategy and seed, for the classes of `samples`.
        samples: what it is shown on; rows are ordered by the classes' training images.
        data: where they are from, as a person calls it.
        command: how to make the page again, as one types it.
        epoch: of the policy, from 0; a slider of epochs begins there.

    Raises:
        AugkitError: no page below 5 MB holds so many images.
    """
    samples, policy, dials = _by_count(samples), make(), dials_of(make(), epoch)
    side = samples.images.shape[-1]
    board = board_of(make, samples, dials[:MOST_DIALS], epoch, lossless=side <= SMALL)
    board, left_out = fitting(board)
    if dials[MOST_DIALS:]:
        left_out.append(f"there is no slider for {', '.join(dial.name for dial in dials[MOST_DIALS:])}")
    rows = list(_rows(samples, policy, board))
    facts = {
        "policy": policy,
        "told": words(policy.strategy),
        "answer": _answer(policy, samples, board, len(rows)),
        "rows": rows,
        "board": board,
        "size": side,
        "kept": KEPT,
        "tile": min(KEPT, side * max(1, ENLARGED // side)),
        "longest": max(len(frame.label) for own in board.frames for frame in own),
        "source": data,
        "command": command,
        "epoch": epoch if {"epoch", "step"} & policy.strategy.reads else None,
        "left_out": left_out,
        "warning": samples.warning,
        "unturned": unturned(policy),
        "data": _as_json(board),
    }
    return render("preview.html.j2", facts)


def _by_count(samples: Samples) -> Samples:
    """The same with the images of the most frequent class first."""
    counts, labels = samples.class_counts, samples.targets.tolist()
    order = sorted(range(len(labels)), key=lambda i: (-counts[labels[i]], labels[i]))
    ordered = {name: getattr(samples, name)[order] for name in ("images", "targets", "index")}
    return replace(samples, **ordered, names=tuple(samples.names[i] for i in order if samples.names))


def _answer(policy: Policy, samples: Samples, board: Board, rows: int) -> str:
    """One sentence of what is seen, and one of what the slider does."""
    empty = [name for name, n in zip(samples.class_names, samples.class_counts, strict=True) if not n]
    name, classes = policy.strategy.name, len(samples.class_names) - len(empty)
    of = f"{rows} of {classes} classes" if rows < classes else "1 class" if rows == 1 else f"{rows} classes"
    count = len(samples.images)
    what = f"{'two draws' if board.draws == 2 else 'one draw'} of {name}"
    if policy.views:
        what = f"the {len(policy.views)} views that {name} makes of it"
    told = f"{count} image{'s' if count > 1 else ''} of {of}, each beside {what}."
    if empty:
        have = "1 class has" if len(empty) == 1 else f"{len(empty)} classes have"
        told += f" {have} no images: {some_of(empty)}."
    if not board.dials and not unturned(policy):
        return f"{told} {name} does the same in every epoch, whatever the model learns, so there is no slider."
    if not board.dials:
        return told
    ends = [f"{dial.name} ({dial.span})" for dial in board.dials]
    return f"{told} The slider changes {', or '.join(ends)}, and nothing else: images and random numbers stay the same."


def _rows(samples: Samples, policy: Policy, board: Board) -> Iterator[dict[str, Any]]:
    """Each class: its name, its training images, and its images with what was drawn of them."""
    labels = samples.targets.tolist()
    for label in dict.fromkeys(labels):
        mine = [i for i, one in enumerate(labels) if one == label]
        images = [
            {
                "number": i,
                "file": samples.names[i] if samples.names else "",
                "shot": board.originals[i],
                "tiles": list(_tiles(i, policy, board)),
            }
            for i in mine
        ]
        yield {"name": samples.class_names[label], "count": samples.class_counts[label], "images": images}


def _tiles(i: int, policy: Policy, board: Board) -> Iterator[dict[str, Any]]:
    """What was drawn of an image: `at` is its place in a frame."""
    views, count = policy.views or ("",), len(board.originals)
    for number in range(board.draws):
        for place, view in enumerate(views):
            at = (number * len(views) + place) * count + i
            drawn = f"draw {number + 1}" if board.draws > 1 or not view else ""
            name = ", ".join(filter(None, (view, drawn)))
            yield {"at": at, "shot": board.shown.shots[at], "words": board.shown.words[at], "name": name}


def _as_json(board: Board) -> Markup:
    """What the slider needs: all pictures that do not stand in the rows, and which are where."""
    sliders = [
        {"name": dial.name, "what": dial.what, "start": dial.start, "frames": [vars(frame) for frame in own]}
        for dial, own in zip(board.dials, board.frames, strict=False)  # without a dial there is a frame nevertheless
    ]
    facts = {
        "shots": {i: board.album.shots[i] for i in sorted(board.rest)},
        "originals": board.originals,
        "dials": sliders,
    }
    return Markup(json.dumps(facts, ensure_ascii=False, separators=(",", ":")).replace("<", "\\u003c"))
