"""A policy's learned state in a file beside a training loop's own checkpoints, which know no policy."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import torch
import torch.distributed as distributed

from augkit.errors import StateError
from augkit.policy import Policy

FORMAT = 1


def _ranks() -> tuple[int, int]:
    if distributed.is_available() and distributed.is_initialized():
        return distributed.get_rank(), distributed.get_world_size()
    return 0, 1


def check_place(path: Path) -> None:
    """Try the place of a state file before an epoch is spent; makes its folder.

    Raises:
        StateError: no file can be written there.
    """
    if _ranks()[0] != 0:
        return
    trial = path.with_name(f"{path.name}.{os.getpid()}.partial")
    try:
        if path.is_dir():
            raise IsADirectoryError(None, "it is a folder")
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            trial.write_bytes(b"augkit")
        finally:
            trial.unlink(missing_ok=True)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise StateError(f"policy state cannot be written to {path} ({reason}); give state= another path") from None


def write_state(path: Path, policy: Policy, *, finished: bool) -> None:
    """Write the state of every rank to one file, atomically; all ranks must call this together.

    `finished`: the epoch under way has seen its last batch, but its rules have not run yet.
    """
    rank, world = _ranks()
    states: list[Any] = [policy.state_dict()]
    if world > 1:
        states = [None] * world
        distributed.all_gather_object(states, policy.state_dict())
    if rank != 0:
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f"{path.name}.{os.getpid()}.partial")
    try:
        with open(partial, "wb") as file:
            torch.save({"augkit_policy": FORMAT, "finished": finished, "ranks": states}, file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)


def read_state(path: Path, policy: Policy) -> bool:
    """Load this rank's state into the policy; returns what `finished` was.

    Raises:
        StateError: the file is damaged, belongs to another policy, or to another number of processes.
    """
    try:
        stored = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # junk can fail anywhere in the unpickler
        reason = str(error).partition("\n")[0] or type(error).__name__
        raise StateError(f"{path} cannot be read as policy state ({reason}); delete it to start anew") from None
    if not isinstance(stored, dict) or stored.get("augkit_policy") != FORMAT:
        raise StateError(f"{path} is not policy state written by this version of augkit; delete it to start anew")
    rank, world = _ranks()
    ranks, finished = stored.get("ranks"), bool(stored.get("finished"))
    if not isinstance(ranks, list) or not ranks:
        raise StateError(f"{path} holds no policy state; delete it to start anew")
    if len(ranks) != world and finished:
        raise StateError(
            f"{path} was written by {len(ranks)} processes before their counts were summed, and there are {world} now;"
            f" go on once with {len(ranks)}, or delete it to start anew"
        )
    try:
        policy.load_state_dict(ranks[rank] if len(ranks) == world else ranks[0])
    except StateError as error:
        raise StateError(f"{path} does not fit: {error}; to start anew, delete the file") from None
    except Exception as error:  # parts that are missing or of another kind
        reason = f"{type(error).__name__}: {error}".partition("\n")[0]
        raise StateError(f"{path} holds damaged policy state ({reason}); delete it to start anew") from None
    return finished
