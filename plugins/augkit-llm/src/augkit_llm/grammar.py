"""Random strategies: pieces that fit together, drawn and joined."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from augkit.registry import Registry

Document = dict[str, Any]

SHARES = (0.1, 0.2, 0.3, 0.5, 0.7, 0.9, 1.0)
USES = ("autoaugment_cifar10", "autoaugment_svhn", "randaugment", "trivialaugment", "uniformaugment", "random_erasing")
MIXES = ("mixup", "cutmix", "resizemix", "fmix")
RARE = "class_rank / max(1, max(class_rank, over=classes))"
"""0 for the class with the most images, 1 for the one with the fewest."""


class Grammar:
    """Draws documents; everything is a function of the generator and the registry."""

    def __init__(self, rng: np.random.Generator, registry: Registry) -> None:
        self.rng, self.registry = rng, registry
        self.operators = sorted(set(registry.operators) - {"identity"})
        self.palettes = sorted(registry.palettes)
        self.uses = [name for name in USES if name in registry.strategies]

    def one(self, items: Sequence[Any]) -> Any:
        return items[int(self.rng.integers(len(items)))]

    def happens(self, p: float) -> bool:
        return bool(self.rng.random() < p)

    def some(self, items: Sequence[str], least: int, most: int) -> list[str]:
        """Different items in random order."""
        number = int(self.rng.integers(least, min(most, len(items)) + 1))
        return [items[int(index)] for index in self.rng.permutation(len(items))[:number]]

    def share(self) -> float:
        return float(self.one(SHARES))

    def document(self, name: str) -> Document:
        """A whole document, not yet checked."""
        made: Document = {"augkit": 1, "name": name, "params": {}, "palette": self.palette(), "state": {}}
        made["pipeline"], made["update"] = [], []
        if self.happens(0.3):
            made["image"] = self.image()
        for _ in range(int(self.rng.integers(0, 3))):
            made["pipeline"].append(self.extra(made))
        if self.happens(0.12):
            made["pipeline"].append(self.branches(made))
        else:
            made["pipeline"].append(self.pick(made))
        if self.happens(0.25):
            made["pipeline"].append(self.batch(made))
        return {key: value for key, value in made.items() if value not in ({}, [])}

    def palette(self) -> Any:
        if self.palettes and self.happens(0.25):
            return self.one(self.palettes)
        return [self.entry(name) for name in self.some(self.operators, 2, 14)]

    def entry(self, name: str) -> Any:
        """An operator of the palette, sometimes with a shorter range."""
        operator = self.registry.operators[name]
        if not operator.has_value or self.happens(0.6):
            return name
        low, high = float(operator.low or 0), float(operator.high or 0)
        ends = sorted((self.share(), float(self.rng.uniform(0, 0.4))), reverse=True)
        body = {"high": round(low + (high - low) * ends[0], 4)}
        if self.happens(0.3):
            body["low"] = round(low + (high - low) * ends[1], 4)
        return {name: body}

    def image(self) -> Document:
        fill, resample = self.one(("black", "mean", "reflect")), self.one(("nearest", "bilinear"))
        return {"fill": fill, "resample": resample}

    # -- steps --------------------------------------------------------------------------------------------------

    def extra(self, made: Document) -> Any:
        """A step beside the one that learns."""
        kind = self.one(("operator", "operator", "one_of", "use"))
        if kind == "use" and self.uses:
            return {"use": {"name": self.one(self.uses), "p": self.chance(made)}}
        if kind == "one_of":
            ways = [{"weight": self.share(), "steps": [self.single(made)]} for _ in range(int(self.rng.integers(2, 5)))]
            return {"one_of": ways}
        return self.single(made)

    def single(self, made: Document) -> Any:
        name = self.one(self.operators)
        body: Document = {"p": self.chance(made)}
        if self.registry.operators[name].has_value:
            body["strength"] = self.one((self.share(), "uniform()", f"uniform(0, {self.share()})"))
        return {name: body}

    def chance(self, made: Document) -> Any:
        """A probability: a number, by how rare the class is, or by the time."""
        share = self.share()
        kind = int(self.rng.integers(6))
        if kind == 0:
            made["state"]["rare"] = {"axes": ["classes"], "init": RARE}
            return self.one((f"{share} * rare[y]", f"{share} * (1 - rare[y])"))
        if kind == 1:
            return f"{share} * {self.progress()}"
        return share

    def progress(self) -> str:
        """0..1 over the training."""
        start, stop = self.one(((0, 1), (1, 0), (0.2, 1), (1, 0.3)))
        name = self.one(("linear", "cosine", "cyclic", "step"))
        turns = f"{int(self.rng.integers(2, 6))} * " if name == "cyclic" else ""
        shift = " * 2" if name == "step" else ""
        return f"{name}({start}, {stop}, {turns}epoch / epochs{shift})"

    def pick(self, made: Document) -> Document:
        """The step that learns, with its state and rules."""
        strength, count = self.strength(made), self.count(made)
        pick: Document = {"p": self.chance(made), "count": count, "strength": strength, "replace": True}
        weights = self.weights(made)
        if weights is not None:
            pick["weights"] = weights
        if self.happens(0.15):
            pick["each_p"] = self.share()
        if self.happens(0.15):
            pick["order"] = "palette"
        return {"pick": pick}

    def branches(self, made: Document) -> Document:
        width, deepest = int(self.rng.integers(2, 4)), int(self.rng.integers(2, 4))
        body = {"p": self.chance(made), "width": width, "depth": f"randint(1, {deepest + 1})"}
        return {"branches": {**body, "strength": f"uniform(0, {self.share()})"}}

    def count(self, made: Document) -> Any:
        kind = int(self.rng.integers(5))
        if kind == 0:
            return f"randint(1, {int(self.rng.integers(2, 4)) + 1})"
        if kind == 1 and "level" in made["state"]:
            return f"ceil({int(self.rng.integers(2, 5))} * {self.own(made, 'level')})"
        return int(self.rng.integers(1, 4))

    def own(self, made: Document, name: str) -> str:
        return f"{name}[y]" if "classes" in made["state"][name]["axes"] else name

    def strength(self, made: Document) -> Any:
        kind = self.one(("fixed", "uniform", "normal", "rare", "time", "level", "level", "level"))
        top = self.share()
        if kind == "uniform":
            return self.one(("uniform()", f"uniform(0, {top})"))
        if kind == "normal":
            return f"clip(normal({top}, 0.1), 0, 1)"
        if kind == "rare":
            made["state"]["rare"] = {"axes": ["classes"], "init": RARE}
            return self.one((f"{top} * rare[y]", f"uniform(0, 1 - rare[y] * {top})", f"uniform(0, {top}) * rare[y]"))
        if kind == "time":
            return f"uniform(0, {top}) * {self.progress()}"
        if kind == "level":
            self.levels(made)
            own = self.own(made, "level")
            return self.one((own, f"uniform(0, {own})", f"{own} * {top}", f"clip(normal({own}, 0.1), 0, 1)"))
        return top

    # -- what learns --------------------------------------------------------------------------------------------

    def levels(self, made: Document) -> None:
        """A level, of each class or of all together, that moves after each epoch."""
        together = self.happens(0.2)
        made["state"]["level"] = {
            "axes": [] if together else ["classes"],
            "init": self.one((0, 0.2, 0.5, 1)),
            "clamp": [0, 1],
        }
        made["params"] |= {"by": float(self.one((0.02, 0.05, 0.1))), "goal": float(self.one((0.4, 0.6, 0.8)))}
        rules = made["update"]
        kind = "goal" if together else self.one(("goal", "rising", "loss", "behind"))
        rise: Document = {"at": "epoch_end", "set": {"level": "where(knows, level + by, level - by)"}}
        if kind == "goal":
            known = ("sum(correct, over=classes)", "sum(seen, over=classes)") if together else ("correct", "seen")
            rise["let"] = {"knows": f"{known[0]} > goal * {known[1]}"}
        elif kind == "rising":
            made["state"]["last"] = {"axes": ["classes"], "init": 0}
            rise["let"] = {"now": "correct / max(1, seen)", "knows": "now > last"}
            rise["set"]["last"] = "now"
        elif kind == "loss":
            rise["let"] = {"mine": "loss / max(1, seen)", "knows": "mine < mean(mine, over=classes)"}
        else:
            rise["let"] = {"now": "correct / max(1, seen)", "knows": "now > mean(now, over=classes)"}
        if self.happens(0.3):
            rise["when"] = f"epoch >= {int(self.rng.integers(1, 10))}"
        if self.happens(0.2):
            rise["set"]["level"] = self.one(("1 - correct / max(1, seen)", "correct / max(1, seen)"))
            if together:
                rise["set"]["level"] = "sum(correct, over=classes) / max(1, sum(seen, over=classes))"
            if kind != "rising":
                del rise["let"]
        rules.append(rise)

    def weights(self, made: Document) -> str | None:
        """What the operators are drawn by."""
        kind = self.one(("none", "none", "least", "bandit", "chosen", "soft"))
        state, rules = made["state"], made["update"]
        if kind == "none":
            return None
        if kind == "least":
            return "1 / (1 + used[y])"
        rate = float(self.one((0.5, 1, 2)))
        state["weight"] = {"axes": ["classes", "ops"], "init": 1, "clamp": [0.1, 20]}
        state["before"] = {"axes": ["classes"], "init": 0}
        if kind == "chosen":
            state["chosen"] = {"axes": ["classes", "ops"], "init": "onehot(categorical(weight, over=ops), ops)"}
            let = {"better": f"max(0.1, weight + {rate} * chosen * sign(correct - before))"}
            drawn = "onehot(categorical(better, over=ops), ops)"
            rules.append(
                {"at": "epoch_end", "let": let, "set": {"weight": "better", "chosen": drawn, "before": "correct"}}
            )
            return "chosen[y]"
        let = {"now": "correct / max(1, seen)", "blame": "used / max(1, sum(used, over=ops))"}
        gain = "sign(now - before)" if kind == "bandit" else "10 * (now - before)"
        rules.append(
            {"at": "epoch_end", "let": let, "set": {"weight": f"weight + {rate} * blame * {gain}", "before": "now"}}
        )
        return "weight[y]" if kind == "bandit" else "exp(weight[y] / 4)"

    def batch(self, made: Document) -> Document:
        name = self.one(MIXES)
        body: Document = {
            "p": self.one((self.share(), f"where(epoch >= {int(self.rng.integers(1, 6))}, {self.share()}, 0)"))
        }
        if name != "resizemix":
            body["alpha"] = self.one((0.2, 0.4, 1))
        if self.happens(0.4):
            body |= {"weights": self.one(("1 / class_count", "class_rank + 1"))}
            body |= {"partner": "pool"} if self.happens(0.5) else {}
        return {"batch": [{name: body}]}


def parts(document: Mapping[str, Any]) -> frozenset[str]:
    """The words of a document: operators, kinds of steps, signals, functions and states, to compare documents by."""
    words: set[str] = set()
    waiting: list[Any] = [document.get(key) for key in ("palette", "state", "pipeline", "update")]
    while waiting:
        value = waiting.pop()
        if isinstance(value, Mapping):
            words |= set(value)
            waiting.extend(value.values())
        elif isinstance(value, (list, tuple)):
            waiting.extend(value)
        elif isinstance(value, str):
            words |= set(re.findall(r"[A-Za-z_]\w*", value))
    return frozenset(words)
