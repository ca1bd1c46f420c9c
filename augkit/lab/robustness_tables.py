"""What may be said of runs on corrupted images: mean corruption errors, over seeds, beside those of a reference."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from augkit.errors import DataError
from augkit.lab import paired
from augkit.lab.robustness import CORRUPTIONS, MISSING, SEVERITIES, Record, mean_error
from augkit.report.told import holds, sign

Results = dict[str, Any]
_SAME_IMAGES = ("test_sha256", "pixels", "strategy_sha256", "strategy_seed")


def normalised(record: Record, reference: Record) -> tuple[float | None, float | None]:
    """mCE and relative mCE, 1 for a model as good as the reference (Hendrycks and Dietterich, ICLR 2019, section 4).

    For each corruption the errors are summed over severities and divided by those of the reference; relative, by how
    much they lie above the clean error in both. Their means over corruptions; None where the reference has no error, or
    none above its clean error, to divide by in some corruption.
    """
    plain: list[float] = []
    relative: list[float] = []
    for name in CORRUPTIONS:
        own, other = (sum(one["errors"][name]) for one in (record, reference))
        above, below = own - len(SEVERITIES) * record["clean"], other - len(SEVERITIES) * reference["clean"]
        plain += [own / other] if other > 0 else []
        relative += [above / below] if below > 0 else []
    whole = len(CORRUPTIONS)
    return (
        statistics.fmean(plain) if len(plain) == whole else None,
        statistics.fmean(relative) if len(relative) == whole else None,
    )


def tabulate(records: Sequence[Record], against: Sequence[Record] = ()) -> Results:
    """A row for each recipe, over its seeds; all errors in percent.

    Args:
        records: of `measure`.
        against: records of the reference: one run, or one for each seed.

    Raises:
        DataError: runs are of different test images, one is there twice, or a seed has no reference.
    """
    everything = check(records, against)
    rows: dict[tuple[str, ...], list[Record]] = {}
    for record in everything:
        rows.setdefault(_kind(record), []).append(record)
    names = _names(rows)
    by_seed = {record["seed"]: record for record in against}
    reference = names[_kind(against[0])] if against else None
    found = [_row(names[kind], runs, by_seed, reference) for kind, runs in rows.items()]
    looked_at = [row["difference"] for row in found if row.get("difference") and row["difference"]["p"] is not None]
    for entry, p in zip(looked_at, paired.holm([entry["p"] for entry in looked_at]), strict=True):
        entry["p_holm"] = p
    first = everything[0]
    return {
        "unit": "percent and percentage points",
        "strategy": first["strategy"],
        "strategy_sha256": first["strategy_sha256"],
        "corruptions": list(CORRUPTIONS),
        "severities": list(SEVERITIES),
        "missing": list(MISSING),
        "images": first["images"],
        "pixels": first["pixels"],
        "read": first["read"],
        "reference": reference,
        "differences_looked_at": len(looked_at),
        "rows": found,
        "runs": everything,
    }


def check(records: Sequence[Record], against: Sequence[Record] = ()) -> list[Record]:
    """All of them, the reference first, or raise what `tabulate` raises; nothing needs to be measured for this."""
    everything = [*against, *(one for one in records if one not in against)]
    _check_runs(everything)
    if len({_kind(record) for record in against}) > 1:
        raise DataError("--against names runs of several recipes: name one recipe's runs, of one or more seeds")
    known = {record["seed"] for record in against}
    missing = sorted({record["seed"] for record in everything} - known)
    if len(known) > 1 and missing:
        raise DataError(
            f"--against names no run with seed {missing[0]}: name one for each seed, or a single one for all"
        )
    return everything


def _check_runs(records: Sequence[Record]) -> None:
    """Raise unless they are different runs on the same test images."""
    first = records[0]
    for record in records[1:]:
        for name in _SAME_IMAGES:
            if record[name] != first[name]:
                raise DataError(
                    f"runs on different test images cannot be compared: {name} of {_told(record)} is"
                    f" {record[name]}, of {_told(first)} {first[name]}"
                )
    seen: set[tuple[str, ...]] = set()
    for record in records:
        key = (*_kind(record), str(record["seed"]))
        if key in seen:
            raise DataError(f"{_told(record)} is there twice: name each run once")
        seen.add(key)


def _told(record: Record) -> str:
    return f"{record['name']} {record['policy']} seed {record['seed']}"


def _kind(record: Record) -> tuple[str, ...]:
    return record["name"], record["policy"], record["loss"], record["kind_sha256"]


def _names(rows: Mapping[tuple[str, ...], Any]) -> dict[tuple[str, ...], str]:
    """As few words for each row as tell it from the others: policy; loss; recipe; or all and a part of the hash."""
    for words in ((1,), (1, 2), (1, 2, 0)):
        names = {kind: ", ".join(kind[word] for word in words) for kind in rows}
        if len(set(names.values())) == len(rows):
            return names
    return {kind: f"{kind[1]}, {kind[2]}, {kind[0]} {kind[3][:6]}" for kind in rows}


def _row(name: str, runs: Sequence[Record], by_seed: Mapping[int, Record], reference: str | None) -> dict[str, Any]:
    seeds = [record["seed"] for record in runs]
    row: dict[str, Any] = {
        "row": name,
        "seeds": seeds,
        "clean": _mean([100 * record["clean"] for record in runs]),
        "mean_corruption_error": _mean([100 * mean_error(record) for record in runs]),
        "errors": {name: _by_severity([record["errors"][name] for record in runs]) for name in CORRUPTIONS},
    }
    if reference is None:
        return row
    others = [by_seed[seed] if len(by_seed) > 1 else next(iter(by_seed.values())) for seed in seeds]
    pairs = list(zip(runs, others, strict=True))
    for place, key in enumerate(("mce", "relative_mce")):
        values = [normalised(record, other)[place] for record, other in pairs]
        known = [100 * value for value in values if value is not None]
        row[key] = _mean(known) if len(known) == len(values) else None
    same = [(100 * mean_error(one), 100 * mean_error(other)) for one, other in pairs if one["seed"] == other["seed"]]
    row["difference"] = None
    if name != reference and same:
        found = paired.difference([mine for mine, _ in same], [other for _, other in same])
        row["difference"] = {**asdict(found), "verdict": found.words(reference)}
    return row


def _by_severity(errors: Sequence[Sequence[float]]) -> list[float]:
    """Means over runs, in percent, at each severity."""
    return [100 * statistics.fmean(values) for values in zip(*errors, strict=True)]


def _mean(values: Sequence[float]) -> dict[str, Any]:
    return asdict(paired.mean(values))


def lines(results: Results) -> list[dict[str, str]]:
    """The table of means: a line for each row."""
    told = []
    for row in results["rows"]:
        line = {"policy": row["row"], "seeds": ", ".join(map(str, row["seeds"]))}
        line |= {"clean error": _words(row["clean"]), "corrupted": _words(row["mean_corruption_error"])}
        if results["reference"] is not None:
            found = row["difference"]
            interval = "" if not found or found["low"] is None else f" [{found['low']:+.1f}, {found['high']:+.1f}]"
            line["mCE"], line["relative mCE"] = _words(row["mce"]), _words(row["relative_mce"])
            line[f"against {results['reference']}"] = f"{found['mean']:+.1f}{interval}" if found else ""
            line["which means"] = found["verdict"] if found else ""
        told.append(line)
    return told


def _words(found: Mapping[str, Any] | None) -> str:
    if found is None:
        return "undefined"
    return f"{found['mean']:.1f}" + ("" if found["error"] is None else f" ±{found['error']:.1f}")


def by_corruption(results: Results) -> list[dict[str, str]]:
    """A line for each corruption: of a single row its errors by severity, of several the mean of each."""
    rows = results["rows"]
    told = []
    for name in CORRUPTIONS:
        line = {"corruption": name}
        if len(rows) == 1:
            errors = rows[0]["errors"][name]
            line |= {str(severity): f"{error:.1f}" for severity, error in zip(SEVERITIES, errors, strict=True)}
        means = {row["row"]: f"{statistics.fmean(row['errors'][name]):.1f}" for row in rows}
        line |= means if len(rows) > 1 else {"mean": means[rows[0]["row"]]}
        told.append(line)
    return told


def notes(results: Results) -> list[str]:
    """What must be known to read the tables, a sentence or two each."""
    seeds = max(len(row["seeds"]) for row in results["rows"])
    said = [
        f"Errors in % on {results['images']} test images of {results['pixels']} x {results['pixels']} pixels, last"
        " epoch. The test set is read, and nothing is chosen by it."
        + (" Mean ± standard error over seeds." if seeds > 1 else ""),
        f"Corrupted: mean over {len(results['corruptions'])} corruptions at five severities; of the published 15"
        f" {', '.join(results['missing'])} is missing. Strengths are those of ImageNet-C, made for 224 pixels: those"
        " told in pixels, such as blurs, weigh more on smaller images.",
    ]
    if results["reference"] is not None:
        said.append(
            f"mCE and relative mCE, of the same {len(results['corruptions'])}, are in % of those of"
            f" {results['reference']} (Hendrycks and Dietterich, ICLR 2019, with another reference than AlexNet),"
            " differences those of the corrupted error, paired by seed."
        )
    if any(row.get("relative_mce", ...) is None for row in results["rows"]):
        said.append(
            "An undefined mean has a corruption by which the reference errs no more than on clean images (for mCE: not"
            " at all), so that there is nothing to divide by."
        )
    count = results["differences_looked_at"]
    if count:
        found = [row["difference"] for row in results["rows"] if row.get("difference")]
        told = sum(sign(entry["low"], entry["high"]) != 0 for entry in found)
        left = sum(holds(entry, paired.LEVEL) for entry in found)
        said.append(
            f"Differences looked at: {count}, with 95 % confidence intervals (Student's t). Intervals that leave out"
            f" zero: {told}; after Holm's correction: {left}."
        )
    return said


def markdown(results: Results) -> str:
    """Tables and notes as a page."""
    tables = "\n\n".join(_table(table) for table in (lines(results), by_corruption(results)))
    return "\n\n".join(["# Robustness to corruptions", tables, *notes(results)]) + "\n"


def _table(rows: Sequence[Mapping[str, str]]) -> str:
    cells = [list(rows[0]), ["---", *["---:"] * (len(rows[0]) - 1)], *(list(row.values()) for row in rows)]
    return "\n".join(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in line)} |" for line in cells)
