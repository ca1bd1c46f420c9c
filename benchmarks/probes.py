"""What the curriculum's probe costs on CIFAR-100-LT: every class asked at all levels 0 to 10, before and after.

    python benchmarks/probes.py --data cifar100_lt.npz --out probes.json

Before, the published loop written plainly: for each class and each level l its own 10 (l + 1) images, each through
Pillow by itself (crop, flip, l operators, cutout), then through the model in batches of at most 128, so most batches
are small. Between, augkit asked one class at a time. After, augkit as it trains: all classes and levels in batches of
128. All three ask the same model (ResNet-32, bfloat16, channels_last, evaluation mode) for the same number of images:
660 of each class. `augkit, images alone` has a model that answers nothing, so that the rest is the model.

Times are processor time on one thread, the sides take turns. With `--classes 10` a tenth of the classes is asked, and
the whole is ten times that. Shares are of an epoch with its probe: `--steps` training steps are timed with every class
at level 10. Without `--data` the images are random, of the counts that an imbalance of 100 gives.
"""

from __future__ import annotations

import argparse
import json
import random
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from curriculum import pillow_table
from harness import machine
from lab import made_up
from PIL import Image
from torch import Tensor, nn

from augkit.lab.data import load
from augkit.lab.loop import Training, prepare
from augkit.lab.recipe import load_recipe
from augkit.learning.probe_pool import ProbePool
from augkit.plugins import registry

DEEPEST, TRIALS, CLASSES, BATCH = 10, 10, 100, 128
TABLES = [pillow_table(level / 30) if level else () for level in range(DEEPEST + 1)]


def training(data: Path, model: str) -> Training:
    """The run that is measured, before its first step, every class at the deepest level."""
    told = [f"data.source={data.absolute()}", "policy=cuda", "precision=bf16", "threads=1", f"model={model}"]
    recipe = load_recipe("cifar100-lt", registry(), told)
    return prepare(recipe, load(recipe.data), registry(), torch.device("cpu"))


class Silent(nn.Module):
    """A model that costs nothing."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.logits = nn.Parameter(torch.zeros(1, classes))

    def forward(self, images: Tensor) -> Tensor:
        return self.logits.expand(len(images), -1)


def ours(run: Training, model: nn.Module, classes: list[int]) -> int:
    """augkit's probe of these classes; how many images it asked."""
    policy, split = run.policy, run.data.train
    assert split.held is not None
    rows = torch.isin(split.labels, torch.tensor(classes)).nonzero()[:, 0]
    pool = ProbePool(split.held[rows], split.labels[rows], index=rows, of=len(split))
    policy.attach_model(model, pool, run.layout, autocast=run.autocast)
    deepen(run)
    policy.began = False
    policy.begin_epoch()
    return policy.probe_images


def deepen(run: Training) -> None:
    """Every class to the deepest level."""
    for values in run.policy.memory.values.values():
        if "depth" in values:
            values["depth"].fill_(DEEPEST)


class Plain:
    """The published loop."""

    def __init__(self, run: Training, classes: list[int]) -> None:
        self.run, self.classes = run, classes
        held = run.data.train.held
        assert held is not None
        arrays, labels = held.permute(0, 2, 3, 1).numpy(), run.data.train.labels.tolist()
        self.images = {c: [Image.fromarray(arrays[i]) for i, y in enumerate(labels) if y == c] for c in classes}
        mean, std = (torch.tensor(numbers).view(3, 1, 1) for numbers in (run.recipe.data.mean, run.recipe.data.std))
        self.scale, self.shift = 1 / (255 * std), -mean / std

    def __call__(self) -> int:
        asked = 0
        self.run.model.eval()
        with torch.no_grad():
            for c in self.classes:
                for level in range(DEEPEST + 1):
                    number = TRIALS * (level + 1)
                    images = [self.augmented(random.choice(self.images[c]), level) for _ in range(number)]
                    asked += self.right(images, c) >= 0 and number
        self.run.model.train()
        return asked

    def augmented(self, image: Image.Image, level: int) -> Tensor:
        """[3, 32, 32] float32, as a data loader's worker makes it."""
        left, top = random.randrange(9), random.randrange(9)
        image = image.transform(image.size, Image.Transform.AFFINE, (1, 0, left - 4, 0, 1, top - 4))
        if random.random() < 0.5:
            image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        for operator in random.choices(TABLES[level], k=level) if level else ():
            image = operator(image)
        made = torch.from_numpy(np.array(image)).permute(2, 0, 1) * self.scale + self.shift
        x, y = random.randrange(32), random.randrange(32)
        made[:, max(0, y - 8) : y + 8, max(0, x - 8) : x + 8] = self.shift
        return made

    def right(self, images: list[Tensor], c: int) -> int:
        count = 0
        for start in range(0, len(images), BATCH):
            batch = self.run.layout(torch.stack(images[start : start + BATCH]))
            with self.run.autocast():
                count += int((self.run.model(batch).argmax(1) == c).sum())
        return count


def epoch_seconds(run: Training, steps: int) -> tuple[float, float]:
    """Processor seconds of a training epoch at the deepest level without its probe: scaled from some of its steps."""
    policy, split = run.policy, run.data.train
    positions = run.stage.batches(0)
    batches = split.batches(positions)
    times = []
    policy.began = True
    for where in positions[: steps + 1]:
        deepen(run)
        begin = time.process_time()
        inputs, targets = policy(next(batches), split.labels[where], **split.companions(where))
        run.optimizer.zero_grad(set_to_none=True)
        with run.autocast():
            logits = run.model(run.layout(inputs))
        run.loss(logits, targets, where).backward()  # type: ignore[no-untyped-call]
        run.optimizer.step()
        policy.observe(logits.detach())
        times.append((time.process_time() - begin) / len(where))
    return statistics.median(times[1:]) * len(split), len(split)


def timed(side: Callable[[], int]) -> tuple[float, int]:
    begin = time.process_time()
    asked = side()
    return time.process_time() - begin, asked


def measured(run: Training, classes: int, repeats: int, steps: int) -> dict[str, Any]:
    """Every side's images and seconds for all classes, and its share of an epoch's time."""
    total = run.data.num_classes
    chosen = list(range(0, total, max(1, total // classes)))[:classes]
    plain, silent = Plain(run, chosen), Silent(total)
    sides: dict[str, Callable[[], int]] = {
        "before: Pillow, each class and level by itself": plain,
        "augkit, one class at a time": lambda: sum(ours(run, run.model, [c]) for c in chosen),
        "after: augkit, as it trains": lambda: ours(run, run.model, chosen),
        "augkit, images alone": lambda: ours(run, silent, chosen),
    }
    times: dict[str, list[float]] = {name: [] for name in sides}
    asked = dict.fromkeys(sides, 0)
    ours(run, run.model, chosen[:1])  # what is made once
    for _ in range(repeats):
        for name, side in sides.items():
            seconds, asked[name] = timed(side)
            times[name].append(seconds * total / len(chosen))
    if len(set(asked.values())) != 1:
        raise SystemExit(f"the sides asked different numbers of images: {asked}")
    epoch, images = epoch_seconds(run, steps)
    rows = []
    for name, seconds in times.items():
        middle = statistics.median(seconds)
        share = middle / (middle + epoch)
        rows.append({"name": name, "seconds": middle, "all_seconds": seconds, "share_of_epoch": share})
    asked_of_all = next(iter(asked.values())) * total // len(chosen)
    return {
        "classes_measured": len(chosen),
        "images_asked": asked_of_all,
        "training_images": images,
        "epoch_seconds_without_probe": epoch,
        "rows": rows,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="an .npz of CIFAR-100-LT; random images without it")
    parser.add_argument("--out", type=Path, default=Path("probes.json"), help="where the JSON goes")
    parser.add_argument("--classes", type=int, default=CLASSES, help="how many classes are asked, for all of them")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--steps", type=int, default=20, help="training steps that are timed")
    parser.add_argument("--model", default="resnet32_cifar")
    parser.add_argument("--smoke", action="store_true", help="a few images, to see that all of it runs")
    given = parser.parse_args()
    if given.smoke:
        given.classes, given.repeats, given.steps, given.model = 1, 1, 1, "resnet8_cifar"
    torch.set_num_threads(1)
    random.seed(0)
    with TemporaryDirectory() as folder:
        run = training(given.data or made_up(Path(folder), 100 if given.smoke else 500), given.model)
        found = {"machine": machine(), "data": "given" if given.data else "random images"}
        found |= measured(run, given.classes, given.repeats, given.steps)
    print(f"{found['images_asked']:,} images asked, {found['training_images']:,} trained on ({found['data']})")
    print(f"{'a training epoch without its probe':48} {found['epoch_seconds_without_probe']:8.1f} s")
    for row in found["rows"]:
        print(f"{row['name']:48} {row['seconds']:8.1f} s {row['share_of_epoch']:6.0%} of the epoch with it")
    given.out.write_text(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
