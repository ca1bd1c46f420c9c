"""What a page of previews holds: each picture once, the frames of every slider, and what fits into a page."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace

from PIL import Image
from torch import Tensor

from augkit.errors import AugkitError
from augkit.policy import Policy
from augkit.report.dials import Dial, Position, at_epoch
from augkit.report.page import data_uri
from augkit.report.preview import Samples, draw

SMALL, KEPT = 56, 128
"""Up to `SMALL` pixels a side pictures are lossless; larger ones than `KEPT` are reduced to it, for the page alone."""
MOST_BYTES, MOST_SHOTS = 4_500_000, 1000
"""Of a page's pictures and words; drawn pictures above which each image is drawn once a position instead of twice."""


@dataclass
class Album:
    """Pictures as data addresses, each different one once; they are known by their number."""

    lossless: bool
    shots: list[str] = field(default_factory=list)
    _known: dict[bytes, int] = field(default_factory=dict)

    def add(self, image: Tensor) -> int:
        """The number of an image [3, S, S] uint8."""
        array = image.permute(1, 2, 0).contiguous().numpy()
        key = array.tobytes()
        if key not in self._known:
            shot = Image.fromarray(array)
            if shot.width > KEPT:
                shot = shot.resize((KEPT, KEPT), Image.Resampling.LANCZOS)
            self._known[key] = len(self.shots)
            self.shots.append(data_uri(shot, lossless=self.lossless))
        return self._known[key]


@dataclass(frozen=True)
class Frame:
    """A position of a dial: for each draw, in it each view, in it each image the picture's number and its words."""

    label: str
    shots: tuple[int, ...]
    words: tuple[str, ...]


@dataclass(frozen=True)
class Board:
    """The frames of each dial; without a dial one list of one frame."""

    album: Album
    originals: tuple[int, ...]
    """The pictures of the images as they are."""
    dials: tuple[Dial, ...]
    frames: tuple[tuple[Frame, ...], ...]
    draws: int

    @property
    def shown(self) -> Frame:
        """What is shown first."""
        return self.frames[0][self.dials[0].start if self.dials else 0]

    @property
    def rest(self) -> set[int]:
        """Pictures that are not shown first."""
        every = {i for own in self.frames for frame in own for i in frame.shots}
        return every - set(self.shown.shots) - set(self.originals)

    @property
    def size(self) -> int:
        """About how many bytes its pictures and words take in a page."""
        told = sum(len(text.encode()) + 8 for own in self.frames for frame in own for text in frame.words)
        return told + sum(len(self.album.shots[i]) for i in (*self.rest, *self.shown.shots, *self.originals))


def board_of(
    make: Callable[[], Policy], samples: Samples, dials: tuple[Dial, ...], epoch: int, lossless: bool
) -> Board:
    """Draw the samples at every position of every dial, by a fresh policy each: same seed, same random numbers."""
    album = Album(lossless)
    originals = tuple(album.add(image) for image in samples.images)
    still = (Position("", lambda policy: at_epoch(policy, epoch)),)
    positions = [dial.positions for dial in dials] or [still]
    drawn = len(samples.images) * sum(map(len, positions))
    draws = 2 if not make().views and 2 * drawn <= MOST_SHOTS else 1  # views are several draws already
    frames = tuple(tuple(_frame(make(), place, samples, album, draws) for place in own) for own in positions)
    return _awake(Board(album, originals, dials, frames, draws), epoch)


def _awake(board: Board, epoch: int) -> Board:
    """The same with dials turned to their middle that begin where no image changes, as a curriculum's level does; not
    that of epochs, where one was asked for."""
    dials = []
    for dial, own in zip(board.dials, board.frames, strict=False):
        still = all(shot == board.originals[at % len(board.originals)] for at, shot in enumerate(own[dial.start].shots))
        if (
            still
            and not (epoch and dial.name == "epoch")
            and any(frame.shots != own[dial.start].shots for frame in own)
        ):
            told = f"{dial.what}; it begins at {own[dial.start].label}, where images stay as they are"
            dial = replace(dial, what=told, start=len(own) // 2)
        dials.append(dial)
    return replace(board, dials=tuple(dials))


def _frame(policy: Policy, position: Position, samples: Samples, album: Album, draws: int) -> Frame:
    position.put(policy)
    made = [draw(policy, samples) for _ in range(draws)]
    shots = tuple(album.add(image) for one in made for image in one.images)
    return Frame(position.label, shots, tuple(text for one in made for text in one.words))


def fitting(board: Board) -> tuple[Board, list[str]]:
    """What of it makes a page that is small enough, and in words what was left out for that.

    Raises:
        AugkitError: nothing does.
    """
    left_out, before = [], sum(map(len, board.frames))
    if board.size > MOST_BYTES and board.draws > 1:
        board = _once(board)
        left_out.append("each image is drawn only once")
    while board.size > MOST_BYTES and max(map(len, board.frames)) > 3:
        board = _thinned(board)
    if sum(map(len, board.frames)) < before:
        left_out.append("the slider has fewer positions")
    if board.size > MOST_BYTES and len(board.dials) > 1:
        left_out.append(f"there is no slider for {', '.join(dial.name for dial in board.dials[1:])}")
        board = replace(board, dials=board.dials[:1], frames=board.frames[:1])
    if board.size > MOST_BYTES:
        raise AugkitError("the page would be larger than 5 MB; ask for fewer --images, or a smaller --size")
    return board, left_out


def _once(board: Board) -> Board:
    """The first draw of each image alone."""
    half = len(board.shown.shots) // board.draws
    frames = (tuple(replace(f, shots=f.shots[:half], words=f.words[:half]) for f in own) for own in board.frames)
    return replace(board, frames=tuple(frames), draws=1)


def _thinned(board: Board) -> Board:
    """Every other position of each dial, its ends and where it begins."""
    dials, frames = [], []
    for dial, own in zip(board.dials, board.frames, strict=True):
        kept = [i for i in range(len(own)) if i % 2 == 0 or i in (len(own) - 1, dial.start)]
        if len(kept) == len(own):
            kept = sorted({0, dial.start, len(own) - 1})
        frames.append(tuple(own[i] for i in kept))
        dials.append(replace(dial, positions=tuple(dial.positions[i] for i in kept), start=kept.index(dial.start)))
    return replace(board, dials=tuple(dials), frames=tuple(frames))
