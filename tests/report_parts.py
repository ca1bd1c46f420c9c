"""A report's page as a test reads it, and the folder of a long run with many classes, written without training it."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import torch

from augkit.engine.program import Sizes, bind
from augkit.lab import folder as files
from augkit.lab.augmentation import own_columns, strategy_of
from augkit.lab.metrics import group_of
from augkit.lab.recipe import load_recipe
from augkit.plugins import load_registry


class Page(HTMLParser):
    """Its text (scripts apart), tags, headings, and the words of its charts."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.charts: list[str] = []
        self.scripts: list[str] = []
        self.text = ""
        self._open = ""
        self.feed(text)
        self.text = re.sub(r"\s+", " ", self.text)
        self.headings = [int(tag[1]) for tag in self.tags if re.fullmatch(r"h[1-6]", tag)]

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self._open = tag
        if ("class", "vega") in attrs:
            self.charts.append(dict(attrs)["aria-label"] or "")

    def handle_data(self, data: str) -> None:
        if self._open in ("script", "style"):
            self.scripts.append(data)
        else:
            self.text += data

    def handle_endtag(self, tag: str) -> None:
        self._open = ""


def large_run(folder: Path, classes: int, epochs: int) -> Path:
    """What a run of TrivialAugment's many operators on so many classes and epochs leaves behind."""
    registry, rng = load_registry(plugins=False), np.random.default_rng(0)
    recipe = load_recipe("demo", registry, ["policy=trivialaugment", f"epochs={epochs}"])
    strategy = strategy_of(recipe, registry)
    program = bind(strategy, Sizes())
    columns, operators = own_columns(program), len(program.choices)
    counts = np.geomspace(500, 5, classes).astype(int)
    groups = group_of(torch.from_numpy(counts))
    folder.mkdir()
    files.write_yaml(folder / files.RECIPE, recipe.model_dump(mode="json"))
    environment = {"strategy_sha256": strategy.hash, "class_counts": counts.tolist(), "packages": {"torch": "2"}}
    files.write_json(folder / files.ENVIRONMENT, environment)
    accuracy = {"all": 0.4, "many": 0.6, "medium": 0.4, "few": 0.1}
    record = {"stage": "train", "lr": 0.1, "train_accuracy": 0.123456789, "val": accuracy, "seconds": 1.0}
    records = [{"epoch": e, **record, "loss": float(rng.random())} for e in range(epochs)]
    files.write_lines(folder / files.METRICS, records)
    header = ("class", "name", "train_images", "group", "test_images", "correct", "accuracy", "synthetic_images")
    rows = [(k, f"<i>name</i> {k}", counts[k], groups[k], 100, 40, float(rng.random()), 0) for k in range(classes)]
    files.write_table(folder / files.PER_CLASS, header, rows)
    used = rng.integers(0, 60, (epochs, classes, operators)).astype(np.float32)
    seen = np.repeat(counts[None], epochs, 0).astype(np.float32)
    strength = used * rng.random(used.shape).astype(np.float32)
    history = [
        {
            "epoch": e,
            "level": torch.from_numpy(rng.random(classes)),
            **{name: torch.from_numpy(seen[e]) for name in ("correct", "seen")},
            "used": torch.from_numpy(used[e]),
            "strength_used": torch.from_numpy(strength[e]),
        }
        for e in range(epochs)
    ]
    names = [program.choices[column].operator.name for column in columns]
    use = {
        "operators": names,
        "used": used[:, :, columns].astype(int).tolist(),
        "seen": seen.astype(int).tolist(),
        "strength_used": strength[:, :, columns].sum(0).tolist(),
    }
    files.write_json(folder / files.OPERATORS, use)
    policy = {"history": history, "memory": {"values": {"": {"level": torch.zeros(classes)}}}}
    files.save_checkpoint(folder, {"policy": policy})
    files.write_json(folder / files.SUMMARY, {"test": accuracy, "reported": "last epoch", "warnings": []})
    return folder
