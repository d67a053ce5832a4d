"""A decision problem of your own: an environment, a policy that normalises what it observes, and its training.

A clinic has one doctor and three kinds of patients. Each minute the doctor sees one of those who wait, and may need
longer; each waiting patient of kind k costs `PRICE[k]` a minute. The best rule is known (see whoever has the largest
price x chance of being done), so one can see how far the learned policy is from it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from tensordict import TensorDict, TensorDictBase
from torch import Tensor
from torchrl.data import Binary, Categorical, Composite, Unbounded
from torchrl.envs import EnvBase

from diffpolicy import DiffusionPolicy
from diffpolicy.networks import CriticEnsemble
from diffpolicy.objectives import LatentDiscreteSACLoss
from diffpolicy.training import OffPolicyModule, PackedReplay, RolloutStream, play
from diffpolicy.training.fit import fit

ARRIVAL = torch.tensor([0.20, 0.15, 0.10])
DONE = torch.tensor([0.90, 0.40, 0.60])
PRICE = torch.tensor([1.0, 1.0, 4.0])
KINDS, MINUTES = 3, 50


class Clinic(EnvBase):
    """E clinics side by side: observes how many wait of each kind, float `[E, 3]`, and takes whom to see, int `[E]`."""

    def __init__(self, clinics: int, seed: int = 0) -> None:
        super().__init__(batch_size=torch.Size([clinics]))
        self.generator = torch.Generator().manual_seed(seed)
        self.observation_spec = Composite(
            observation=Unbounded((clinics, KINDS)),
            action_mask=Binary(KINDS, (clinics, KINDS), dtype=torch.bool),
            shape=(clinics,),
        )
        self.action_spec = Categorical(KINDS, (clinics,))
        self.reward_spec = Unbounded((clinics, 1))
        ends = {name: Binary(1, (clinics, 1), dtype=torch.bool) for name in ("done", "terminated", "truncated")}
        self.done_spec = Composite(ends, shape=(clinics,))

    def _now(self) -> TensorDict:
        someone = self.waiting > 0
        over = torch.full((*self.batch_size, 1), self.minute >= MINUTES)
        return TensorDict(
            observation=self.waiting.clone(),
            action_mask=someone | ~someone.any(-1, keepdim=True),
            done=over,
            truncated=over.clone(),
            terminated=torch.zeros_like(over),
            batch_size=self.batch_size,
        )

    def _reset(self, tensordict: TensorDictBase | None = None, **_: Any) -> TensorDict:
        self.waiting, self.minute = torch.full((*self.batch_size, KINDS), 4.0), 0
        return self._now()

    def _step(self, tensordict: TensorDictBase) -> TensorDict:
        u = torch.rand(2, *self.waiting.shape, generator=self.generator)
        seen = torch.nn.functional.one_hot(tensordict["action"], KINDS) * (u[0] < DONE)
        self.waiting = (self.waiting - seen).clamp_min(0) + (u[1] < ARRIVAL)
        self.minute += 1
        return self._now().set("reward", -(self.waiting * PRICE).sum(-1, keepdim=True))

    def _set_seed(self, seed: int | None) -> None:
        self.generator.manual_seed(seed or 0)


class Normalising(DiffusionPolicy):
    """A diffusion policy that is conditioned on numbers of order 1."""

    def embed(self, td: TensorDictBase) -> Tensor:
        return super().embed(td).clamp_max(10) / 10


def rule(score: Callable[[Tensor], Tensor]) -> Callable[[TensorDictBase], TensorDictBase]:
    """Sees whoever scores highest among those who wait."""
    return lambda td: td.set("action", score(td["observation"]).masked_fill(~td["action_mask"], -1).argmax(-1))


def cost(policy: Any) -> float:
    """Mean cost of a minute, in 256 clinics that all policies share."""
    return float(play(Clinic(256, seed=10), policy, MINUTES, reward_key="reward", valid_key=None).cost.mean())


def make_module(seed: int = 0) -> OffPolicyModule:
    """Discrete soft actor-critic through a chain of two steps."""
    env = Clinic(32, seed=seed)
    policy = Normalising.from_specs(env, steps=2, denoiser={"hidden": [32, 32], "output": "tanh"}, seed=seed).train()
    critic = CriticEnsemble(KINDS, KINDS, hidden=(32, 32), generator=torch.Generator().manual_seed(seed))
    loss = LatentDiscreteSACLoss(policy, critic, gamma=0.9, tau=0.1, alpha=0.2, entropy="marginal", samples=4)

    def transitions(rollout: TensorDictBase) -> TensorDict:
        """What the loss trains on: the networks read what `embed` gives."""
        after = rollout["next"]
        return TensorDict(
            observation=rollout["observation"],
            action_mask=rollout["action_mask"],
            action=rollout["action"],
            reward=after["reward"] / 10,
            next=TensorDict(observation=after["observation"], action_mask=after["action_mask"]),
            batch_size=rollout.batch_size,
        )

    return OffPolicyModule(
        policy,
        loss,
        RolloutStream(env, policy, episode_steps=MINUTES, steps=5),
        PackedReplay(20_000, None, seed),
        transitions,
        learning_rates={"actor": 3e-3, "critic": 1e-2, "alpha": 0.0},
        batch_size=128,
        updates=5,
        start_after=200,
    )


def main() -> None:
    torch.set_num_threads(1)
    module = make_module()
    print(f"cost of a minute, longest queue first: {cost(rule(lambda n: n)):.2f}")
    print(f"cost of a minute, untrained policy:    {cost(module.policy):.2f}")
    fit(module, episodes=8 * 32)
    print(f"cost of a minute, trained policy:      {cost(module.policy):.2f}")
    print(f"cost of a minute, the best rule:       {cost(rule(lambda n: (n > 0) * DONE * PRICE)):.2f}")


if __name__ == "__main__":
    main()
