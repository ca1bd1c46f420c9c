"""A timm training loop with a policy in it: one line more than without, marked below.

    python examples/timm_train.py                                    # digits, a tiny network, under a minute on a CPU
    python examples/timm_train.py --data DIR --model resnet50 --size 224 --policy my_strategy.yaml --amp

DIR holds `train` and `val` folders with a folder for each class. Copy it and change it.
"""

from __future__ import annotations

import argparse
import logging
import time
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from sklearn.datasets import load_digits

from augkit.integrations.timm import wrap
from augkit.torchvision_compat import ensure_torchvision

ensure_torchvision()  # PyPI's torchvision does not import beside a CPU-only torch without this

import timm  # noqa: E402
from timm.data import create_dataset, create_loader  # noqa: E402
from timm.loss import SoftTargetCrossEntropy  # noqa: E402
from timm.optim import create_optimizer_v2  # noqa: E402
from timm.scheduler import create_scheduler_v2  # noqa: E402
from timm.utils import AverageMeter, ModelEmaV3, accuracy  # noqa: E402


class Digits(torch.utils.data.Dataset[Any]):
    """The 1,797 handwritten digits of scikit-learn as images; every fifth is for validation."""

    def __init__(self, train: bool) -> None:
        data = load_digits()
        kept = (np.arange(len(data.target)) % 5 != 0) == train
        self.images = (data.images[kept] * 255 / 16).astype(np.uint8)
        self.targets = data.target[kept].tolist()
        self.transform: Any = None

    def __len__(self) -> int:
        return len(self.targets)

    def __getitem__(self, i: int) -> tuple[Any, int]:
        return self.transform(Image.fromarray(self.images[i]).convert("RGB")), self.targets[i]


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--data", type=Path, help="folder with train and val; the digits without it")
    parser.add_argument("--model", default="test_resnet")
    parser.add_argument("--size", type=int, default=32)
    parser.add_argument("--policy", default="trivialaugment", help="a registered name or a document's path")
    parser.add_argument("--epochs", type=int, default=5)
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--grad-accum-steps", type=int, default=1)
    parser.add_argument("--lr", type=float, default=2e-3)
    parser.add_argument("--workers", type=int, default=0)
    parser.add_argument("--mixup-off-epoch", type=int, default=0)
    parser.add_argument("--amp", action="store_true", help="bfloat16 autocast")
    parser.add_argument("--torchcompile", metavar="BACKEND")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--output", type=Path, help="folder for checkpoint and policy state; resumes what is there")
    return parser.parse_args()


def loaders(args: argparse.Namespace, model: torch.nn.Module, device: torch.device) -> tuple[Any, Any]:
    """timm's own loaders. Its colour jitter and flips stay off here: digits mind them, and the policy augments."""
    config = timm.data.resolve_data_config({"input_size": (3, args.size, args.size)}, model=model)
    made = []
    for train in (True, False):
        root = args.data and args.data / ("train" if train else "val")
        dataset = create_dataset("", root=str(root)) if root else Digits(train)
        made.append(
            create_loader(
                dataset,
                config["input_size"],
                args.batch_size,
                is_training=train,
                scale=(0.7, 1.0),
                ratio=(0.9, 1.1),
                hflip=0.5 if args.data else 0.0,
                color_jitter=None,
                mean=config["mean"],
                std=config["std"],
                crop_pct=1.0,
                num_workers=args.workers,
                device=device,
            )
        )
    return made[0], made[1]


def train_one_epoch(
    epoch: int, model: Any, loader: Any, optimizer: Any, scheduler: Any, ema: ModelEmaV3, args: argparse.Namespace
) -> float:
    if args.mixup_off_epoch and epoch >= args.mixup_off_epoch and loader.mixup_enabled:
        loader.mixup_enabled = False
    model.train()
    losses = AverageMeter()
    device = next(model.parameters()).device
    updates = epoch * -(-len(loader) // args.grad_accum_steps)
    optimizer.zero_grad()
    for number, (images, targets) in enumerate(loader):
        images = images.contiguous(memory_format=torch.channels_last)
        with torch.autocast(device.type, dtype=torch.bfloat16) if args.amp else nullcontext():
            output = model(images)
            # a document that mixes images gives dense targets, any other the class numbers
            loss = (
                SoftTargetCrossEntropy()(output, targets)
                if targets.ndim == 2
                else torch.nn.functional.cross_entropy(output, targets)
            )
        (loss / args.grad_accum_steps).backward()
        losses.update(loss.item(), len(images))
        if (number + 1) % args.grad_accum_steps and number != len(loader) - 1:
            continue
        optimizer.step()
        optimizer.zero_grad()
        updates += 1
        ema.update(model, step=updates)
        scheduler.step_update(num_updates=updates)
    return float(losses.avg)


@torch.inference_mode()
def validate(model: Any, loader: Any) -> float:
    model.eval()
    top1 = AverageMeter()
    for images, targets in loader:
        top1.update(
            accuracy(model(images.contiguous(memory_format=torch.channels_last)), targets)[0].item(), len(images)
        )
    return float(top1.avg)


def main() -> None:
    args = parse()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    torch.manual_seed(args.seed)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    classes = len(list((args.data / "train").iterdir())) if args.data else 10
    model: Any = timm.create_model(args.model, num_classes=classes).to(device, memory_format=torch.channels_last)
    loader_train, loader_eval = loaders(args, model, device)
    optimizer = create_optimizer_v2(model, opt="adamw", lr=args.lr, weight_decay=0.02)
    scheduler, _ = create_scheduler_v2(
        optimizer, sched="cosine", num_epochs=args.epochs, warmup_epochs=1, warmup_lr=args.lr / 10
    )
    ema = ModelEmaV3(model, decay=0.99, use_warmup=True)
    checkpoint = args.output / "last.pt" if args.output else None
    start = 0
    if checkpoint is not None and checkpoint.exists():
        saved = torch.load(checkpoint, map_location=device, weights_only=True)
        model.load_state_dict(saved["model"])
        ema.module.load_state_dict(saved["ema"])
        optimizer.load_state_dict(saved["optimizer"])
        start = saved["epoch"] + 1
    trained = torch.compile(model, backend=args.torchcompile) if args.torchcompile else model

    state = args.output / "policy.pt" if args.output else None
    loader_train = wrap(  # <- the one line: everything else is timm's loop as it was
        loader_train, args.policy, trained, state=state, epochs=args.epochs, seed=args.seed
    )

    for epoch in range(start, args.epochs):
        begun = time.perf_counter()
        scheduler.step(epoch)
        loss = train_one_epoch(epoch, trained, loader_train, optimizer, scheduler, ema, args)
        top1, top1_ema = validate(model, loader_eval), validate(ema.module, loader_eval)
        took = time.perf_counter() - begun
        print(f"epoch {epoch}: loss {loss:.3f}, top-1 {top1:.1f} %, averaged model {top1_ema:.1f} %, {took:.1f} s")
        if checkpoint is not None:
            weights = {"model": model.state_dict(), "ema": ema.module.state_dict(), "optimizer": optimizer.state_dict()}
            checkpoint.parent.mkdir(parents=True, exist_ok=True)
            torch.save({**weights, "epoch": epoch}, checkpoint.with_suffix(".partial"))
            checkpoint.with_suffix(".partial").replace(checkpoint)


if __name__ == "__main__":
    main()
