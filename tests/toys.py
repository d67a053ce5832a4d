"""Tiny decision problems with a known best choice, and small helpers that several test files share."""

from __future__ import annotations

from importlib import resources
from pathlib import Path
from typing import Any

import torch
import yaml
from tensordict import TensorDict, TensorDictBase
from torch import Tensor, nn
from torchrl.data import Binary, Categorical, Composite, Unbounded
from torchrl.envs import EnvBase

from diffpolicy.edge import Scenario


def small(stations: int = 3, tasks: int = 5, slots: int = 12) -> Scenario:
    """LAD-TS, so small that an episode takes a fraction of a second, and about as busy."""
    return Scenario.load("lad-ts").override(stations=stations, tasks=tasks, slots=slots, capacity=(3, 6))


class GuessEnv(EnvBase):
    """Guess the largest of A numbers, shifted by the agent's index: reward 1 if right, 0 if wrong.

    Args:
        e: batch `[E]`. agents: B of a nested group `("agents", ...)`, or None for plain keys.
        choices: A. horizon: steps until the truncation.
        mask: gives an `action_mask` that forbids a choice.
    """

    batch_locked = True

    def __init__(
        self, e: int = 4, agents: int | None = None, *, choices: int = 3, horizon: int = 5, mask: bool = False
    ) -> None:
        super().__init__(batch_size=[e])
        self.agents, self.choices, self.horizon, self.mask = agents, choices, horizon, mask
        self.draws = torch.Generator().manual_seed(0)
        self.now = torch.zeros(e, 1, dtype=torch.long)
        shape = (e,) if agents is None else (e, agents)
        self.lead = shape
        seen = {"observation": Unbounded((*shape, choices))}
        if mask:
            seen["action_mask"] = Binary(choices, (*shape, choices), dtype=torch.bool)
        action = Categorical(choices, shape)
        reward = Unbounded((*shape, 1))
        if agents is None:
            self.observation_spec = Composite(seen, shape=(e,))
            self.action_spec = Composite(action=action, shape=(e,))
            self.reward_spec = Composite(reward=reward, shape=(e,))
        else:
            self.observation_spec = Composite(agents=Composite(seen, shape=shape), shape=(e,))
            self.action_spec = Composite(agents=Composite(action=action, shape=shape), shape=(e,))
            self.reward_spec = Composite(agents=Composite(reward=reward, shape=shape), shape=(e,))
        done = {k: Binary(1, (e, 1), dtype=torch.bool) for k in ("done", "terminated", "truncated")}
        self.done_spec = Composite(done, shape=(e,))
        self.seen = torch.zeros(*shape, choices)

    def _observe(self) -> dict[str, Any]:
        self.seen = torch.randn(*self.lead, self.choices, generator=self.draws)
        values: dict[str, Any] = {"observation": self.seen.clone()}
        if self.mask:
            values["action_mask"] = self.seen < self.seen.amax(-1, keepdim=True)
        return values if self.agents is None else {"agents": TensorDict(values, batch_size=self.lead)}

    def best(self) -> Tensor:
        shift = 0 if self.agents is None else torch.arange(self.agents)
        return (self.seen.argmax(-1) + shift) % self.choices

    def _reset(self, tensordict: TensorDictBase | None = None, **_: Any) -> TensorDict:
        reset = None if tensordict is None else tensordict.get("_reset", None)
        again = torch.ones_like(self.now, dtype=torch.bool) if reset is None else reset
        self.now, before = self.now.masked_fill(again, 0), self.seen
        done = torch.zeros_like(self.now, dtype=torch.bool)
        flags = {"done": done, "terminated": done.clone(), "truncated": done.clone()}
        result = TensorDict({**self._observe(), **flags}, batch_size=self.batch_size)
        self.seen = torch.where(again.view(-1, *[1] * (len(self.lead))), self.seen, before)
        return result

    def _step(self, tensordict: TensorDictBase) -> TensorDict:
        action = tensordict["action"] if self.agents is None else tensordict["agents", "action"]
        reward = (action == self.best()).float().unsqueeze(-1)
        self.now = self.now + 1
        over = self.now >= self.horizon
        result = TensorDict(
            {**self._observe(), "done": over, "terminated": torch.zeros_like(over), "truncated": over.clone()},
            batch_size=self.batch_size,
        )
        key = "reward" if self.agents is None else ("agents", "reward")
        return result.set(key, reward)

    def _set_seed(self, seed: int | None) -> None:
        self.draws.manual_seed(seed or 0)

    def get_extra_state(self) -> dict[str, Any]:
        return {"draws": self.draws.get_state(), "now": self.now, "seen": self.seen}

    def set_extra_state(self, state: dict[str, Any]) -> None:
        self.draws.set_state(state["draws"])
        self.now, self.seen = state["now"], state["seen"]


def guess_transitions(rollout: TensorDictBase) -> TensorDict:
    """One-step transitions of `GuessEnv`, `[E, T]`, or `[E, B, T]` for a group of agents."""
    group = "agents" in rollout.keys()
    now, after = (rollout["agents"], rollout["next", "agents"]) if group else (rollout, rollout["next"])
    order = (lambda x: x.transpose(1, 2)) if group else (lambda x: x)
    values = {
        "observation": order(now["observation"]),
        "action": order(now["action"]),
        "reward": order(after["reward"].squeeze(-1)),
        "next": {"observation": order(after["observation"])},
    }
    values["next"]["terminated"] = torch.ones_like(values["action"], dtype=torch.bool)
    if "latent" in now.keys():
        values["latent"], values["next"]["latent"] = order(now["latent"]), order(after["latent"])
    return TensorDict(values, batch_size=values["action"].shape)


def copy_slice(single: nn.Module, stacked: nn.Module, index: int) -> nn.Module:
    """Gives a single network the parameters of one of a stack: entry `index` of each tensor's first dimension."""
    source = dict(stacked.named_parameters())
    with torch.no_grad():
        for name, value in single.named_parameters():
            value.copy_(source[name][index].reshape(value.shape))
    return single


def used_index(output: Tensor, stacked: nn.Module) -> int:
    """Which entry of the first dimension of a stack's parameters an output depends on; exactly one, or it fails."""
    parameters = list(stacked.parameters())
    gradients = torch.autograd.grad(output.sum(), parameters, retain_graph=True, allow_unused=True)
    used = torch.zeros(parameters[0].shape[0], dtype=torch.bool)
    for gradient in gradients:
        if gradient is not None:
            used |= gradient.flatten(1).abs().sum(1) > 0
    assert int(used.sum()) == 1, f"the output depends on {int(used.sum())} of the stack's entries"
    return int(used.nonzero())


def quick_method(name: str, folder: Path, **changes: Any) -> str:
    """A preset as a file of its own, whose updates begin after a few slots. Args: changes: of its `init_args`."""
    data = yaml.safe_load((resources.files("diffpolicy.edge") / "presets" / f"{name}.yaml").read_text())
    data["init_args"] |= {"start_after": 20, "capacity": 100, **changes}
    path = folder / f"{name}.yaml"
    path.write_text(yaml.safe_dump(data))
    return str(path)


def same_tensors(a: nn.Module, b: nn.Module) -> bool:
    """Whether two modules hold bitwise the same parameters and buffers."""
    first, second = ({k: v for k, v in m.state_dict().items() if isinstance(v, Tensor)} for m in (a, b))
    return first.keys() == second.keys() and all(torch.equal(first[k], second[k]) for k in first)
