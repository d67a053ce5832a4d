"""A decision problem of your own: an environment, a policy that normalises what it observes, and its training.

A clinic has one doctor and three kinds of patients. Each minute the doctor sees one of those who wait, and may need
longer; each waiting patient of kind k costs `PRICE[k]` a minute. The best rule is known (see whoever has the largest
price x chance of being done), so one can see how far the learned policy is from it. The environment is the package's
own, `diffpolicy.problems.Clinic`.
"""

from __future__ import annotations

from typing import Any

import torch
from tensordict import TensorDict, TensorDictBase
from torch import Tensor

from diffpolicy import DiffusionPolicy
from diffpolicy.evaluation import play
from diffpolicy.networks import CriticEnsemble
from diffpolicy.objectives import LatentDiscreteSACLoss
from diffpolicy.problems.clinic import KINDS, MINUTES, Clinic, dearest_first, longest_queue
from diffpolicy.training import OffPolicyModule, PackedReplay, RolloutStream
from diffpolicy.training.fit import fit


class Normalising(DiffusionPolicy):
    """A diffusion policy that is conditioned on numbers of order 1."""

    def embed(self, td: TensorDictBase) -> Tensor:
        return super().embed(td).clamp_max(10) / 10


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
    print(f"cost of a minute, longest queue first: {cost(longest_queue):.2f}")
    print(f"cost of a minute, untrained policy:    {cost(module.policy):.2f}")
    fit(module, episodes=8 * 32)
    print(f"cost of a minute, trained policy:      {cost(module.policy):.2f}")
    print(f"cost of a minute, the best rule:       {cost(dearest_first):.2f}")


if __name__ == "__main__":
    main()
