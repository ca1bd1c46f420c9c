"""The mixing steps of a `batch:`."""

from __future__ import annotations

from typing import Any

from augkit.strategy.choices import Choices
from augkit.strategy.draft import fill, weighted
from augkit.strategy.model import BatchStep, MixAlternative, MixStep, OneOfMix
from augkit.strategy.problems import Place, not_filled

MIXES = ("mixup", "cutmix", "resizemix", "fmix", "mosaic")
SCALES = "1 - uniform(0.1, 0.8) ** 2"
"""What resizemix keeps of an image unless a document says otherwise: the partner shrinks to a tenth up to 0.8."""


class Mixes:
    """Reads the steps that mix images."""

    def __init__(self, choices: Choices) -> None:
        self.draft, self.problems, self.named = choices.draft, choices.problems, choices.named

    def batch(self, body: Any, place: Place, where: str) -> BatchStep | None:
        if not isinstance(body, list) or not body:
            self.problems.add(place, not_filled(body, "expected a list of mixing steps"))
            return None
        made: list[MixStep | OneOfMix] = []
        for number, item in enumerate(body):
            mix = self.mix_or_choice(item, (*place, number), f"{where}.batch[{len(made)}]")
            made += [] if mix is None else [mix]
        return BatchStep(mixes=tuple(made))

    def mix_or_choice(self, item: Any, place: Place, where: str) -> MixStep | OneOfMix | None:
        if not (isinstance(item, dict) and "one_of" in item and len(item) == 1):
            return self.mix(item, place, where)
        place, items = (*place, "one_of"), item["one_of"]
        if not isinstance(items, list) or not items:
            self.problems.add(place, not_filled(items, "expected a list of mixing steps"))
            return None
        made: list[MixAlternative] = []
        for number, inner in enumerate(items):
            here, at = (*place, number), f"{where}.one_of[{len(made)}]"
            self.draft.places[at] = here
            weight, steps = weighted(inner, here, self.problems)
            if len(steps) != 1:
                self.problems.add(here, f"expected one mixing step, found {len(steps)}")
                continue
            mix = self.mix(*steps[0], at)
            if mix is not None:
                made.append(MixAlternative(weight=weight, mix=mix))
        if len({way.mix.partner for way in made}) > 1:
            self.problems.add(place, "give all mixing steps of a one_of the same partner, batch or pool")
        return OneOfMix(alternatives=tuple(made))

    def mix(self, item: Any, place: Place, where: str) -> MixStep | None:
        name, body, inner = self.named(item, place, "a mixing step")
        if name is None:
            return None
        if name not in MIXES:
            self.problems.unknown(inner, name, (*MIXES, "one_of"), "mixing step")
            return None
        self.draft.places[f"{where}.{name}"] = inner
        said = body if isinstance(body, dict) else {}
        if name == "mosaic" and said.get("partner") == "pool":
            self.problems.add((*inner, "partner"), "a mosaic takes its partners from the batch; leave partner out")
        if "across" in said and said.get("partner") == "pool":
            self.problems.add(
                (*inner, "across"), "a pool does not know its images' sides; leave partner: pool or across out"
            )
        if name == "mosaic" and "share" in said:
            self.problems.add((*inner, "share"), "a mosaic draws where its four images meet; say alpha instead")
        if name == "mosaic" and "label" in said:
            self.problems.add((*inner, "label"), "a mosaic weighs four labels by their areas; leave label out")
        if "alpha" in said and "share" in said:
            self.problems.add((*inner, "share"), "say either alpha or share")
        if name == "resizemix" and not {"alpha", "share"} & set(said) and isinstance(body, dict):
            body = {**said, "share": SCALES}
        return fill(MixStep, body, inner, self.problems, given={"kind": name})
