"""An objective and its method. `diffpolicy train mine_method:method --problem mine:problem`."""

import copy
from dataclasses import dataclass
from typing import ClassVar

import torch
from tensordict import TensorDict
from torchrl.objectives.common import LossModule

from diffpolicy import DiffusionPolicy
from diffpolicy.methods import OffPolicyMethod
from diffpolicy.networks import CriticEnsemble


class BoltzmannLoss(LossModule):
    """Draws a policy towards softmax(Q / temperature), through its chain.

    * critics: (Q_k(s, a) - r - gamma E[Q'(s', a')])^2, with a' of the policy and Q' the least of slow copies
    * actor: - sum_a p(a) log pi(a), with p = softmax(Q / temperature)
    """

    in_keys = [
        "observation",
        "action_mask",
        "action",
        "reward",
        ("next", "observation"),
        ("next", "action_mask"),
        ("next", "terminated"),
    ]
    out_keys = ["loss_actor", "loss_qvalue"]

    def __init__(self, policy, critic, gamma=0.95, temperature=0.5, tau=0.01):
        super().__init__()
        self.policy, self.critic = policy, critic
        self.slow = copy.deepcopy(critic).requires_grad_(False)
        self.gamma, self.temperature, self.tau = gamma, temperature, tau

    def log_chances(self, rows):
        """Log-probabilities of the choices at the end of a fresh chain, [M, A]."""
        seen = rows["observation"]
        law = self.policy.law(seen, None, rows["action_mask"], self.policy.noise(seen.shape[:-1]))
        return self.policy.head.joint_log_prob(law)

    def forward(self, tensordict):
        after = tensordict["next"]
        with torch.no_grad():
            chances = self.log_chances(after).exp()
            value = (chances * self.slow(after["observation"]).amin(0)).sum(-1)
            going_on = ~after["terminated"].flatten()
            target = tensordict["reward"].flatten() + self.gamma * going_on * value
        q = self.critic(tensordict["observation"])  # [2, M, A]
        taken = q[:, torch.arange(len(target)), tensordict["action"].flatten()]
        goal = q.detach().amin(0).masked_fill(~tensordict["action_mask"], -1e9) / self.temperature
        return TensorDict(
            loss_actor=-(goal.softmax(-1) * self.log_chances(tensordict)).sum(-1).mean(),
            loss_qvalue=(taken - target).square().mean(),
        )

    def parameter_groups(self):
        """What is optimised, by the name of its learning rate."""
        return {"actor": self.policy.parameters(), "critic": self.critic.parameters()}

    def update_targets(self):
        """After each update: the slow copies follow."""
        with torch.no_grad():
            torch._foreach_lerp_(list(self.slow.parameters()), list(self.critic.parameters()), self.tau)

    def _forward_value_estimator_keys(self, **kwargs):
        pass  # TorchRL asks for it; there is no value estimator


@dataclass(frozen=True, kw_only=True)
class Boltzmann(OffPolicyMethod):
    """Trains a diffusion policy by `BoltzmannLoss`."""

    temperature: float = 0.5
    tau: float = 0.01
    own_policy: ClassVar[type] = DiffusionPolicy

    def options(self):
        network = {"hidden": self.hidden, "act": self.act}
        kept = {key: value for key, value in super().options().items() if key not in network}
        return {**kept, "steps": 3, "prediction": "x0", "denoiser": network}

    def make_objective(self, policy, seed):
        generator = torch.Generator().manual_seed(seed)
        critic = CriticEnsemble(
            policy.observation_dim, policy.head.joint, hidden=self.hidden, generator=generator
        )
        return BoltzmannLoss(policy, critic, self.gamma, self.temperature, self.tau)


method = Boltzmann(
    learning_rates={"actor": 1e-3, "critic": 1e-3},
    hidden=[128, 128],
    gamma=0.98,
    capacity=50_000,
    batch_size=128,
    start_after=200,
    updates=2,
)
