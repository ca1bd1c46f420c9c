"""What one search came to, as JSON: all that its report tells, read from its archive and run folders."""

from __future__ import annotations

import csv
import json
import shlex
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from augkit_llm.archive import FILE, Archive
from augkit_llm.budget import OPTIONS
from augkit_llm.cascade import RECIPE, as_yaml, scores_of
from augkit_llm.controls import CONTROLS
from augkit_llm.evaluate import BASELINE, RUNS, Stage
from augkit_llm.finale import TEST, TWIN, finales
from augkit_llm.gaps import gap
from augkit_llm.models import Options
from augkit_llm.records import FATES, INVALID, UNANSWERED, Candidate, Evaluation
from augkit_llm.reward import Score, score
from augkit_llm.search import Settings
from augkit_llm.standing import Standing, mean_of

if TYPE_CHECKING:
    from augkit.registry import Registry

GROUPS = ("all", "many", "medium", "few")
WINNERS = 3


@dataclass
class Found:
    """An archive as a report needs it."""

    folder: Path
    archive: Archive
    settings: Settings = field(init=False)
    candidates: list[Candidate] = field(init=False)
    runs: list[Evaluation] = field(init=False)
    """Those that have ended, in the order in which they began."""
    scores: dict[str, dict[str, Score]] = field(init=False)
    """By stage and subject."""

    def __post_init__(self) -> None:
        self.settings = self.archive.settled("settings", Settings.from_json)
        self.candidates = self.archive.candidates()
        order = {tuple(row): k for k, row in enumerate(self.archive.rows(ORDER))}
        ended = [one for one in self.archive.evaluations() if one.state != "begun"]
        self.runs = sorted(ended, key=lambda one: order[one.stage, one.subject, one.seed])
        self.scores = {stage.name: scores_of(self.archive, stage) for stage in self.settings.stages}

    @property
    def stages(self) -> tuple[Stage, ...]:
        return self.settings.stages

    def strategies(self) -> dict[str, Candidate]:
        """Those that were to be trained, by hash."""
        return {str(one.hash): one for one in self.candidates if one.trainable}


ORDER = "SELECT stage, subject, seed FROM evaluations ORDER BY rowid"


def read(folder: Path) -> Found:
    """The search in a folder; close its archive.

    Raises:
        StateError: there is none.
    """
    return Found(folder, Archive.read(folder / FILE))


def facts(found: Found, registry: Registry, recipe_hash: str) -> dict[str, Any]:
    """All that is told of one search."""
    archive, settings = found.archive, found.settings
    standing = Standing(archive, found.folder, settings.stages)
    order = standing.ranked(found.candidates)
    stopped = archive.stopped()
    return {
        "folder": str(found.folder),
        "label": label(found),
        "recipe": {"name": settings.recipe["name"], "title": settings.recipe["title"], "sha256": recipe_hash},
        "models": [{"name": name, "share": share} for name, share in settings.models],
        "stages": [asdict(stage) for stage in settings.stages],
        "recipe_stages": [one["name"] for one in settings.recipe.get("stages", ())],
        "population": settings.population,
        "repairs": settings.repairs,
        "seed": settings.seed,
        "command": command(found),
        "stopped": stopped and stopped["words"],
        "spent": asdict(archive.spent()),
        "controls": dict(CONTROLS),
        "curves": [curve(found, stage) for stage in settings.stages],
        "winners": [winner(found, standing, one, registry) for one in order[:WINNERS]],
        "against": against(found, standing, order),
        "behaviour": behaviour(found, standing, order),
        "use": use_of(found, standing, order),
        "fates": fates(found),
        "candidates": [listed(found, one) for one in found.candidates],
        "by_model": [by_model(found, name) for name, _ in settings.models],
        "training": training(found),
        "finales": [finale(found, one) for one in finales(archive)],
        "versions": versions(found),
    }


def label(found: Found) -> str:
    """'local' or 'none', and the folder's name."""
    return f"{found.folder.name} ({' + '.join(name for name, _ in found.settings.models)})"


def who(one: Candidate) -> str:
    return one.model if one.origin == "model" else f"chance ({one.origin})"


def command(found: Found) -> str:
    """The command line that makes the same search again, from its own resolved recipe: whatever decides a result."""
    settings, archive = found.settings, found.archive
    asked, place = archive.meta("options"), archive.meta("place")
    price = asked["usd_per_mtok"]
    words = ["augkit", "search", str(found.folder / RECIPE)]
    for name, share in settings.models:
        words += ["--llm", name if len(settings.models) == 1 else f"{name}={share}"]
    said: dict[str, Any] = {OPTIONS[name]: value for name, value in archive.meta("budget").items()}
    said |= {"--population": settings.population, "--seed": settings.seed, "--seeds": settings.stages[0].seeds}
    said |= {"--repairs": settings.repairs, "--prompts": settings.prompts}
    said |= {"--rendering": asked["rendering"], "--api-base": asked["api_base"]}
    said |= {"--usd-per-mtok": price and ",".join(map(_figure, price))}
    said |= {"--timeout": asked["timeout"] if asked["timeout"] != Options().timeout else None}
    said |= {"--limit-minutes": place["minutes"], "--limit-memory": place["memory"]}
    for option, value in said.items():
        words += [] if value is None else [option, _figure(value)]
    words += [option for option, wanted in (("--names", settings.names), ("--sheet", settings.sheet)) if wanted]
    return shlex.join([*words, "--out", "again"])


def _figure(value: Any) -> str:
    """A number as an option takes it, with all its digits; text as it is."""
    return str(value).removesuffix(".0") if isinstance(value, float) else str(value)


def curve(found: Found, stage: Stage) -> dict[str, Any]:
    """What each strategy reached in a stage, at the number of evaluations begun by then, controls included."""
    last = {(run.stage, run.subject): number for number, run in enumerate(found.runs, 1)}
    scores, known = found.scores[stage.name], found.strategies()
    points = [
        {
            "evaluations": last[stage.name, name],
            "found": known[name].key,
            "hash": name,
            "who": who(known[name]),
            "reward": one.reward,
            "standard_error": one.standard_error,
        }
        for name, one in scores.items()
        if name in known
    ]
    controls = [{"name": name, **plain(scores[name])} for name in CONTROLS if name in scores]
    points.sort(key=lambda point: (point["evaluations"], point["found"]))
    return {"stage": stage.name, "epochs": stage.epochs, "controls": controls, "points": points}


def plain(one: Score) -> dict[str, Any]:
    return {"reward": one.reward, "standard_error": one.standard_error, "by_seed": list(one.by_seed.values())}


def winner(found: Found, standing: Standing, one: Candidate, registry: Registry) -> dict[str, Any]:
    """One of the best: its figures, what it does in words, and its document."""
    from augkit.strategy.describe import words
    from augkit.strategy.document import load_strategy

    stage, reached = standing.measured(one)
    document = one.document or {}
    return {
        **{"found": one.key, "hash": one.hash, "who": who(one), "operator": one.operator, "idea": one.idea},
        **{"name": document.get("name"), "title": document.get("title", ""), "stage": stage.name},
        **plain(reached),
        "groups": standing.parent(one).groups,
        "words": words(load_strategy(document, registry)),
        "yaml": as_yaml(document),
    }


def against(found: Found, standing: Standing, order: Sequence[Candidate]) -> list[dict[str, Any]]:
    """The best beside each control, and its twin, in the stage that the best was measured in."""
    if not order:
        return []
    stage, own = standing.measured(order[0])
    others = {name: found.scores[stage.name][name] for name in CONTROLS if name in found.scores[stage.name]}
    runs = [one for one in found.archive.closings(TWIN, stage.name) if one.subject == f"{order[0].hash}-{TWIN}"]
    if len(done := [one for one in runs if one.state == "done"]) == stage.seeds:
        others[TWIN] = score(TWIN, [_Run(one.seed, one.value or {}, "reward") for one in done])
    groups = {name: mean_of([run.value["groups"] for run in _of(found, stage, name) if run.value]) for name in others}
    groups[TWIN] = mean_of([(one.value or {})["groups"] for one in done])
    return [
        {"name": name, **plain(one), "groups": groups[name] or {}, "difference": asdict(gap(own, one))}
        for name, one in others.items()
    ]


@dataclass(frozen=True)
class _Run:
    """A training run or reading as `score` takes it."""

    seed: int
    value: Mapping[str, Any]
    figure: str

    @property
    def reward(self) -> float:
        return float(self.value[self.figure])

    @property
    def standard_error(self) -> float:
        return float(self.value["standard_error"])


def _of(found: Found, stage: Stage, subject: str) -> list[Evaluation]:
    return [one for one in found.runs if (one.stage, one.subject, one.state) == (stage.name, subject, "done")]


def behaviour(found: Found, standing: Standing, order: Sequence[Candidate]) -> list[dict[str, Any]]:
    """What the best, its twin and the controls really did to the images of each class group."""
    if not order:
        return []
    stage, _ = standing.measured(order[0])
    values = {name: [one.value or {} for one in _of(found, stage, name)] for name in (str(order[0].hash), *CONTROLS)}
    values[TWIN] = [
        one.value or {}
        for one in found.archive.closings(TWIN, stage.name)
        if one.subject == f"{order[0].hash}-{TWIN}" and one.state == "done"
    ]
    names = {str(order[0].hash): "best"}
    return [
        {"name": names.get(name, name), "groups": mean}
        for name, runs in values.items()
        if (mean := mean_of([run.get("intensity") for run in runs]))
    ]


def use_of(found: Found, standing: Standing, order: Sequence[Candidate]) -> dict[str, Any] | None:
    """How often an image met each operator of the best: by group over the whole training, and epoch by epoch."""
    if not order:
        return None
    stage, _ = standing.measured(order[0])
    folder = found.folder / RUNS / f"{stage.name}-{order[0].hash}-seed0"
    if not (folder / "operators.json").exists() or not (folder / "per_class.csv").exists():
        return None
    use = json.loads((folder / "operators.json").read_text(encoding="utf-8"))
    with (folder / "per_class.csv").open(encoding="utf-8") as file:
        groups = [row["group"] for row in csv.DictReader(file)]
    names = list(dict.fromkeys(use["operators"]))
    shares: dict[str, list[list[float]]] = {}
    for group in (group for group in GROUPS if group == "all" or group in groups):
        rows = [k for k, own in enumerate(groups) if group in ("all", own)]
        shares[group] = [
            _shares(use["operators"], names, [used[k] for k in rows], sum(seen[k] for k in rows))
            for used, seen in zip(use["used"], use["seen"], strict=True)
        ]
    if not names or not use["used"]:
        return None
    return {"operators": names, "by_epoch": shares, "run": folder.name}


def _shares(columns: Sequence[str], names: Sequence[str], used: Sequence[Sequence[int]], seen: int) -> list[float]:
    met = Counter[str]()
    for row in used:
        for name, number in zip(columns, row, strict=True):
            met[name] += number
    return [met[name] / max(1, seen) for name in names]


def fates(found: Found) -> list[dict[str, Any]]:
    """How many candidates came to which end."""
    number = Counter(one.fate for one in found.candidates)
    return [{"fate": fate, "words": words, "number": number[fate]} for fate, words in FATES.items() if number[fate]]


def listed(found: Found, one: Candidate) -> dict[str, Any]:
    """A candidate in the list of all."""
    rewards = {stage: plain(scores[str(one.hash)]) for stage, scores in found.scores.items() if one.hash in scores}
    title = (one.document or {}).get("title") or one.idea
    return {
        **{"found": one.key, "operator": one.operator, "who": who(one), "title": title, "parents": one.parents},
        **{"fate": one.fate, "problem": one.problem, "hash": one.hash, "rewards": rewards if one.trainable else {}},
    }


def by_model(found: Found, model: str) -> dict[str, Any]:
    """What was asked of a model, what it cost, how many of its documents were valid, and the best of them.

    Questions for slots that were never filled count too: they may have been billed.
    """
    own = [one for one in found.candidates if one.model == model]
    valid = [one for one in own if one.fate not in (UNANSWERED, INVALID)]
    hashes = {str(one.hash) for one in own if one.trainable}
    best: dict[str, Any] | None = None
    for stage, scores in found.scores.items():
        if measured := [scores[name] for name in hashes if name in scores]:
            best = {"stage": stage, **plain(max(measured, key=lambda one: one.reward))}
    calls = found.archive.rows(CALLS, (model,))
    return {
        "model": model,
        "questions": dict(Counter(row["state"] for row in calls)),
        "tokens": {"prompt": _sum(calls, "prompt_tokens"), "reply": _sum(calls, "completion_tokens")},
        "tokens_counted": _sum(calls, "tokens"),
        "usd": _sum(calls, "usd"),
        "seconds": _sum(calls, "seconds"),
        "strategies": len(own),
        "valid_at_once": sum(one.attempts <= 1 for one in valid),
        "valid_after_repair": len(valid),
        "trained": len(hashes),
        "best": best,
    }


CALLS = "SELECT state, prompt_tokens, completion_tokens, tokens, usd, seconds FROM calls WHERE model = ?"


def _sum(rows: Sequence[Any], name: str) -> Any:
    return sum(row[name] or 0 for row in rows)


def training(found: Found) -> list[dict[str, Any]]:
    """Training runs and their seconds by stage."""
    result = []
    for stage in found.stages:
        own = [one for one in found.runs if one.stage == stage.name]
        result.append(
            {
                "stage": stage.name,
                "runs": len(own),
                "controls": sum(one.subject in (*CONTROLS, BASELINE) for one in own),
                "failed": sum(one.state == "failed" for one in own),
                "seconds": sum(one.seconds or 0 for one in own),
            }
        )
    return result


def finale(found: Found, one: Mapping[str, Any]) -> dict[str, Any]:
    """The test figures of one of the best, its twin and the controls."""
    stage = next(stage for stage in found.stages if stage.name == one["stage"])
    readings = found.archive.closings(TEST, stage.name)
    twin = [run for run in found.archive.closings(TWIN, stage.name) if run.subject == one["twin"]]
    names = {one["hash"]: "best", one["twin"]: TWIN} | {name: name for name in CONTROLS}
    scores, rows = {}, []
    for subject, name in names.items():
        own = [run for run in readings if run.subject == subject]
        done = [run for run in own if run.state == "done"]
        missing = next((run.reason for run in (*twin, *own) if run.subject == subject and run.reason), None)
        if len(done) == stage.seeds:
            scores[name] = score(name, [_Run(run.seed, run.value or {}, "balanced") for run in done])
            groups = mean_of([{key: (run.value or {})[key] for key in GROUPS} for run in done])
            rows.append({"name": name, **plain(scores[name]), "groups": groups})
        elif subject is not None:
            rows.append({"name": name, "missing": missing or "not read yet"})
    for row in rows:
        if row["name"] != "best" and "best" in scores and row["name"] in scores:
            row["difference"] = asdict(gap(scores["best"], scores[row["name"]]))
    key = next((other.key for other in found.candidates if other.hash == one["hash"]), "")
    return {"hash": one["hash"], "found": key, "stage": stage.name, "why_no_twin": one["why"], "rows": rows}


def versions(found: Found) -> dict[str, list[str]]:
    """Packages, system and device of the training runs; more than one each where runs differ."""
    result: dict[str, dict[str, None]] = {}
    for path in sorted((found.folder / RUNS).glob("*/environment.json")):
        noted = json.loads(path.read_text(encoding="utf-8"))
        said = {"python": noted["python"], **noted["packages"], "system": noted["system"], "device": noted["device"]}
        for name, value in said.items():
            result.setdefault(name, {})[str(value)] = None
    return {name: list(values) for name, values in result.items()}
