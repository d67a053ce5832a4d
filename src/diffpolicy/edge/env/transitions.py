"""From a rollout of slots to the transitions of LAD-TS, which go from task to task of a station."""

from __future__ import annotations

import torch
from tensordict import TensorDict, TensorDictBase
from torch import Tensor

from diffpolicy.environments.transitions import RECORDED


def task_transitions(
    rollout: TensorDictBase, *, zero_queues_between_slots: bool = False, masks: bool = False
) -> TensorDict:
    """Transitions (s, x, a, r, s', x') from each task of a station to the station's next one.

    The successor of a slot's last task is the station's first task of the next slot, with the queues as updated. The
    slot after the rollout's last one serves for successors only; a task that has none, since nothing follows on its
    station, is not valid.

    Args:
        rollout: batch `[E, T]`, from `OffloadingEnv`.
        zero_queues_between_slots: put empty queues into the successor's observation where it stands in another slot,
            as the released code does (a defect that `lad-ts-released` keeps).
        masks: give `action_mask` and `("next", "action_mask")` too, the servers that are up.

    Returns:
        Batch `[E, B, T, N]`, with observation, action, reward, valid, ("next", observation), and where the policy has
        one, latent and ("next", latent), and what it recorded of its law (`record`).

    Example:
        >>> env = OffloadingEnv(Scenario.load("lad-ts").override(tasks=5, stations=3, slots=4), batch_size=[2])
        >>> task_transitions(env.rollout(4)).batch_size
        torch.Size([2, 3, 4, 5])
    """
    agents, following_agents = rollout["agents"], rollout["next", "agents"]
    e, t, b, n = agents["valid"].shape

    def all_slots(name: str) -> Tensor:
        """All T + 1 slots of a key, `[E, B, T + 1, ...]`."""
        return torch.cat([agents[name].transpose(1, 2), following_agents[name][:, -1].unsqueeze(2)], 2)

    def follow(name: str) -> Tensor:
        """The same in the order of the station's tasks, `[E, B, (T + 1) N, ...]`."""
        return all_slots(name).flatten(2, 3)

    valid = follow("valid")
    index = torch.arange(valid.shape[-1], device=valid.device)
    beyond = valid.shape[-1]
    following = torch.where(valid, index, beyond).flip(-1).cummin(-1).values.flip(-1)
    successor = torch.cat([following[..., 1:], torch.full_like(following[..., :1], beyond)], -1)[..., : t * n]
    known = successor < beyond
    successor = successor.clamp_max(beyond - 1)
    stations = torch.arange(e * b, device=valid.device).view(e, b, 1)
    row = (stations * beyond + successor).flatten()

    def now_and_next(name: str) -> tuple[Tensor, Tensor]:
        values = follow(name)
        after = values.flatten(0, 2).index_select(0, row).view(e, b, t, n, -1)
        return values[:, :, : t * n].unflatten(2, (t, n)), after

    observation, next_observation = now_and_next("observation")
    if zero_queues_between_slots:
        crossing = (successor // n != index[: t * n] // n).unflatten(-1, (t, n)).unsqueeze(-1)
        next_observation[..., 2:].masked_fill_(crossing, 0)  # a copy already, which nobody else reads
    result = TensorDict(
        {
            "observation": observation,
            "action": agents["action"].transpose(1, 2),
            "reward": rollout["next", "agents", "reward"].transpose(1, 2),
            "valid": agents["valid"].transpose(1, 2) & known.unflatten(-1, (t, n)),
            "next": {"observation": next_observation},
        },
        batch_size=[e, b, t, n],
    )
    if "latent" in agents.keys():
        result["latent"], result["next", "latent"] = now_and_next("latent")
    for name in RECORDED:
        if name in agents.keys():
            result[name] = agents[name].transpose(1, 2)
    if masks:
        up = all_slots("action_mask")
        slot = (successor // n).flatten(2)
        after = up.gather(2, slot.unsqueeze(-1).expand(-1, -1, -1, up.shape[-1]))
        result["action_mask"] = up[:, :, :t].unsqueeze(3).expand(e, b, t, n, -1)
        result["next", "action_mask"] = after.view(e, b, t, n, -1)
    return result


def released_transitions(rollout: TensorDictBase, *, masks: bool = False) -> TensorDict:
    """`task_transitions` with the empty queues of the code that LAD-TS released; for the preset `lad-ts-released`.

    There the last task of a slot is succeeded by an observation in which nothing is queued (arXiv 2412.18212 updates
    the queues instead).

    Args:
        rollout, masks: of `task_transitions`.

    Returns:
        What `task_transitions` gives, with zeros for the queues of a successor that stands in another slot.

    Example:
        >>> scenario = Scenario.load("lad-ts").override(slots=3)
        >>> env = OffloadingEnv(scenario, information="stale")
        >>> rollout = env.rollout(3, make_policy("least-work", scenario))
        >>> queues = released_transitions(rollout)["next", "observation"][..., 2:].sum()
        >>> bool(queues < task_transitions(rollout)["next", "observation"][..., 2:].sum())
        True
    """
    return task_transitions(rollout, zero_queues_between_slots=True, masks=masks)
