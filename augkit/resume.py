"""What a policy stores to go on exactly where it was, and taking that over again."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from augkit.errors import StateError

if TYPE_CHECKING:
    from augkit.policy import Policy


def state_of(policy: Policy) -> dict[str, Any]:
    """Everything needed to go on exactly, seed included; tensors on the CPU."""
    return {
        "strategy": policy.strategy.hash,
        "class_counts": None if policy.facts.counts is None else policy.facts.counts.tolist(),
        "seed": policy.seed,
        "epoch": policy.epoch,
        "step": policy.step,
        "batch": policy.batch,
        "began": policy.began,
        "memory": policy.memory.state_dict(),
        "statistics": policy.statistics.state_dict(),
        "occurrences": policy.occurrences.counts.to("cpu", copy=True),
        "history": list(policy.history),
        "pool": policy.pool.state_dict() if policy.pool is not None else None,
    }


def restore(policy: Policy, state: dict[str, Any]) -> None:
    """Go on from a stored state.

    Raises:
        StateError: it belongs to another document or data set.
    """
    if not isinstance(state, dict) or "strategy" not in state or "class_counts" not in state:
        raise StateError("this is no stored state of a policy; give what policy.state_dict() returned")
    if state["strategy"] != policy.strategy.hash:
        raise StateError(
            f'the stored state belongs to another document than "{policy.strategy.name}" as it stands now;'
            " load the document it was made with, or start anew"
        )
    own = None if policy.facts.counts is None else policy.facts.counts.tolist()
    if state["class_counts"] != own:
        raise StateError("the stored state belongs to another data set: its class counts differ from this policy's")
    counted = state["statistics"]["sums"].get("used")
    if counted is not None and counted.shape[1] != len(policy.program.choices):
        raise StateError(
            "the stored state is of another version of augkit, which counted operators otherwise;"
            " go on with that version, or start anew"
        )
    policy.memory.load_state_dict(state["memory"])
    policy.statistics.load_state_dict(state["statistics"])
    policy.memory.seed = policy.seed = state["seed"]
    policy.epoch, policy.step, policy.batch, policy.began = (
        state["epoch"],
        state["step"],
        state["batch"],
        state["began"],
    )
    now = {"epoch": float(policy.epoch), "step": float(policy.step)}
    policy.memory.set_signals({name: torch.full((), value, device=policy.device) for name, value in now.items()})
    policy.occurrences.counts = state["occurrences"].to(policy.device, copy=True)
    policy.history = list(state["history"])
    if policy.pool is not None and state["pool"] is not None:
        policy.pool.load_state_dict(state["pool"])
