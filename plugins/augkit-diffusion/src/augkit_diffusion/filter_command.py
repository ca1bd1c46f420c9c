"""The verb `augkit synth filter`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from augkit.cli.output import Json, note, resumable, show_json, show_rows
from augkit.errors import AugkitError
from augkit_diffusion import filters
from augkit_diffusion.filters import FILTERS, Noted, Plan
from augkit_diffusion.manifest import SCORE, Row
from augkit_diffusion.progress import Meter
from augkit_diffusion.store import UNKNOWN, Store

PLACE = "filters"
StoreFolder = Annotated[Path, typer.Argument(metavar="STORE", help="A folder of augkit synth make.")]
Run = Annotated[
    Path | None, typer.Option(metavar="RUN", help="A finished run of augkit train whose network looks at the images.")
]
Model = Annotated[str | None, typer.Option(metavar="NAME", help="Instead, a timm model ...")]
Weights = Annotated[Path | None, typer.Option(metavar="FILE", help="... with its weights.")]


def filter(  # noqa: A001  what it is
    store: StoreFolder,
    run: Run = None,
    model: Model = None,
    weights: Weights = None,
    keep_cosine: Annotated[
        float | None,
        typer.Option(
            min=0, max=1, metavar="SHARE", help="Keep this share of each class: nearest to its real images in features."
        ),
    ] = None,
    nearest: Annotated[
        int, typer.Option(min=0, metavar="K", help="Nearest to K real images; 0 is to the mean of all of the class.")
    ] = 0,
    keep_entropy: Annotated[
        float | None,
        typer.Option(min=0, max=1, metavar="SHARE", help="Then this share: of which a classifier is surest."),
    ] = None,
    agree: Annotated[bool, typer.Option("--agree", help="Reject what a classifier takes for another class.")] = False,
    near_duplicate: Annotated[
        float | None,
        typer.Option(min=0, max=1, metavar="R", help="Reject near-copies of training images: pixels correlate by R."),
    ] = None,
    repeat: Annotated[
        float | None, typer.Option(min=0, max=1, metavar="R", help="Reject near-copies of earlier images of the store.")
    ] = None,
    blank: Annotated[bool, typer.Option("--blank", help="Reject images of nearly one colour.")] = False,
    undo: Annotated[
        list[str] | None, typer.Option(metavar="NAME", help="Take back a filter, or all; repeatable.")
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would be rejected, and change nothing.")] = False,
    as_json: Json = False,
) -> None:
    """Put images aside that do no good. They are moved to rejected/, and --undo brings them back.

    The store remembers its filters: they decide in one order (broken, blank, near_duplicate, repeat, agree, cosine,
    entropy) whatever order they were given in, and without any option they decide again, for images made since. Shares
    are of each class, of what the filters before left. Without --run or --model plain pixels and a linear classifier
    judge, which is little; name a run that is good at rare classes.

    \b
        augkit synth filter synth --run runs/baseline --keep-cosine 0.8 --keep-entropy 0.3
        augkit synth filter synth --run runs/baseline --agree --near-duplicate 0.98 --repeat 0.98 --blank
        augkit synth filter synth --undo entropy
        augkit synth filter synth --undo all
    """
    from augkit_diffusion.features import check_viewer

    check_viewer(run, model, weights)
    if nearest and keep_cosine is None:
        raise AugkitError("--nearest says how --keep-cosine compares: say that too")
    asked = _asked(blank, near_duplicate, repeat, agree, keep_cosine, nearest, keep_entropy)
    opened = Store.open(store)
    with resumable(), opened.writing(PLACE), Meter() as meter:
        work = Filtering(opened, asked, undo or [], {"run": run, "model": model, "weights": weights})
        work.decide(meter)
        if not dry_run:
            work.apply()
    work.tell(as_json=as_json, dry_run=dry_run)


def _asked(
    blank: bool,
    near_duplicate: float | None,
    repeat: float | None,
    agree: bool,
    keep_cosine: float | None,
    nearest: int,
    keep_entropy: float | None,
) -> Plan:
    """The filters of a command line."""
    said: list[tuple[str, bool, dict[str, Any]]] = [
        ("blank", blank, {}),
        ("near_duplicate", near_duplicate is not None, {"limit": near_duplicate}),
        ("repeat", repeat is not None, {"limit": repeat}),
        ("agree", agree, {}),
        ("cosine", keep_cosine is not None, {"keep": keep_cosine, "nearest": nearest}),
        ("entropy", keep_entropy is not None, {"keep": keep_entropy}),
    ]
    return {name: options for name, given, options in said if given}


class Filtering:
    """One call: which filters the store has from now on, and what they reject."""

    def __init__(self, store: Store, asked: Plan, undone: Sequence[str], viewer: Mapping[str, Any]) -> None:
        self.store, self.noted = store, filters.read(store.folder)
        self.rows = store.images(rejected=True)
        before = {str(row["rejected_by"]) for row in self.rows if row["rejected_by"] is not None}
        for name in undone:
            filters.check_name(name, before)
        every = "all" in undone
        plan = {name: options for name, options in self.noted.plan.items() if not every and name not in undone}
        plan |= asked
        if not plan and not undone:
            raise AugkitError(
                "say which filters: --keep-cosine 0.8, --keep-entropy 0.3, --agree, --near-duplicate 0.98,"
                " --repeat 0.98, --blank; or take some back with --undo"
            )
        if plan:
            plan["broken"] = {}  # nothing else can be said of a file that cannot be read
        self.plan: Plan = {name: plan[name] for name in FILTERS if name in plan}
        self.ours = {*FILTERS, UNKNOWN, *undone} | (before if every else set())
        self.viewer = dict(viewer)
        if all(value is None for value in viewer.values()):
            self.viewer |= {name: self.noted.viewer.get(name) for name in viewer}
        self.scores: dict[str, dict[str, float]] = {}
        self.decided: dict[str, str | None] = {}
        self.told: dict[str, Any] = {}
        self.classifier = ""

    def decide(self, meter: Meter) -> None:
        """Look at the images, and let every filter say what it thinks of them."""
        from augkit_diffusion.evidence import Evidence

        # an image that something else put aside, such as the user's own script, is not ours to judge
        rows = [row for row in self.rows if row["rejected_by"] is None or row["rejected_by"] in self.ours]
        paths = {name: None if value is None else Path(value) for name, value in self.viewer.items() if name != "model"}
        needed = any(FILTERS[name].network for name in self.plan)
        named = {**paths, "model": self.viewer["model"]} if needed else {}
        evidence = Evidence(self.store, rows, progress=meter, **named)
        self.scores = evidence.scores(self.plan) if rows else {}
        self.told = dict(evidence.viewer.told) if needed else self.noted.viewer
        if needed:
            self.classifier = evidence.classifier
        cells = {str(row["file"]): (row["class"], row.get("group")) for row in rows}
        self.decided = filters.decide(self.plan, self.scores, cells)

    def apply(self) -> None:
        """Note the filters first: after a kill the same call, or one without options, does what was meant."""
        filters.write(self.store.folder, Noted(self.plan, self.told))

        def change(said: dict[str, Row]) -> None:
            for file, row in said.items():
                for name, scores in self.scores.items():
                    row.pop(SCORE + name, None)
                    if file in scores:
                        row[SCORE + name] = scores[file]
                if file in self.decided and (row["rejected_by"] is None or row["rejected_by"] in self.ours):
                    row["rejected_by"] = self.decided[file]

        self.store.change(change)

    def tell(self, *, as_json: bool, dry_run: bool) -> None:
        """A line a filter, and what is left."""
        counts = Counter(name for name in self.decided.values() if name is not None)
        left = len(self.decided)
        table = []
        for name, options in self.plan.items():
            said = ", ".join(f"{key} {value:g}" for key, value in options.items() if value)
            table.append({"filter": name, "options": said, "looked at": left, "rejected": counts[name]})
            left -= counts[name]
        moved = sum(row["rejected_by"] != self.decided.get(row["file"], row["rejected_by"]) for row in self.rows)
        if as_json:
            show_json({"filters": table, "kept": left, "changed": moved, "dry_run": dry_run, "viewer": self.told})
            return
        show_rows(table, as_json=False, empty="no filter is left")
        would = "would be " if dry_run else ""
        print(f"\n{left} of {len(self.decided)} images {would}kept; {moved} {would}moved\n{self.store.folder}")
        if self.classifier and not (self.told.get("run")):
            note(f"the judge is {self.classifier}; a trained network judges better: --run RUN")
        self._empty_classes()

    def _empty_classes(self) -> None:
        had = Counter(row["class"] for row in self.rows)
        left = Counter(row["class"] for row in self.rows if self.decided.get(row["file"], row["rejected_by"]) is None)
        empty = [name for name in had if not left[name]]
        if empty:
            shown = ", ".join(empty[:5]) + (", ..." if len(empty) > 5 else "")
            note(f"{len(empty)} classes have no synthetic image left: {shown}")
