"""`DPPOLoss`: proximal policy optimisation in which each step of a chain is a decision of its own (DPPO)."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from tensordict import TensorDict, TensorDictBase
from tensordict.nn import dispatch
from tensordict.utils import NestedKey
from torch import Tensor, nn
from torchrl.objectives.common import LossModule

from diffpolicy import _validate as check
from diffpolicy.errors import InputError
from diffpolicy.networks.critic import CriticEnsemble
from diffpolicy.objectives.action_losses import check_drops_nothing, check_learns_actions
from diffpolicy.objectives.critics import check_critic, state_values
from diffpolicy.objectives.recorded import check_records, replayed, step_log_probs
from diffpolicy.objectives.rows import check_given, wide
from diffpolicy.policies.diffusion import DiffusionPolicy
from diffpolicy.policies.masks import as_mask


class DPPOLoss(LossModule):
    """Diffusion policy policy optimisation (Ren et al. 2024, arXiv 2409.00588) on rows `[M]` or `[G, M]`.

    The chain is a decision process within that of the environment: its state at step k is (s, x_k), what it decides the
    next x, and only the last one, the action, earns anything. Each step's law is known, a normal one of numbers, a
    categorical one of tokens, so that with x_I, ..., x_0 the states that acting went through, of n steps, A the
    advantage of the environment's step and g the discount of denoising,

        rho_k = p(x_{k+1} | x_k, s) / p_old(x_{k+1} | x_k, s),
        loss = - sum over k of min(rho_k A_k, clip(rho_k, 1 - clip, 1 + clip) A_k),   A_k = g^(n - 1 - k) A,

    and the critic's squared error to the value target. At unchanged parameters each ratio is 1, and for g = 1 the
    gradient is that of the score function, A grad log p(chain). Nothing is differentiated through more than one step:
    `ChainPPOLoss`, of policies whose chain ends in a law, goes through all of them. Values are means over rows and sums
    over steps and agents.

    Args:
        policy: a chain whose x_0 is the action, each of whose steps draws: of numbers its sampler has a `min_std`, by
            which it explores; of tokens it shows them in the order of chance.
        critic: `CriticEnsemble(F, 1, ensemble=1)`, with the policy's agents.
        clip: most by which a step's ratio counts, above or below 1; above 0 and at most 0.99.
        critic_weight: of the critic's error, above 0.
        denoising_gamma: g, above 0 and at most 1: the noisier a step, the less it counts.

    Raises:
        InputError: the policy has no such chain, is guided or remembers, an argument is out of range, or the critic
            does not fit.

    Keys: observation, action, draws, advantage and value_target `[.., M, 1]`, action_mask where the policy reads it,
    and what `begin` adds. Writes loss_objective, loss_critic, kl_approx and clip_fraction.

    Example:
        >>> chain = {"schedule": MaskedProcess(2), "head": TokenHead()}
        >>> policy = DiffusionPolicy.from_specs(Clinic(1), **chain)
        >>> policy.record = "draws"  # beside its action
        >>> loss, rows = DPPOLoss(policy, CriticEnsemble(3, 1, ensemble=1)), policy(Clinic(8).reset())
        >>> more = {"advantage": torch.full((8, 1), 2.0), "value_target": torch.zeros(8, 1)}
        >>> ready = loss.begin(rows.update(more))
        >>> round(loss(ready)["loss_objective"].item(), 4)  # two steps, whose ratios are 1
        -4.0
    """

    out_keys = ["loss_objective", "loss_critic", "kl_approx", "clip_fraction"]  # noqa: RUF012 (TorchRL's)
    reads_draws = True

    def __init__(
        self,
        policy: DiffusionPolicy,
        critic: CriticEnsemble,
        *,
        clip: float = 0.2,
        critic_weight: float = 0.5,
        denoising_gamma: float = 1.0,
    ) -> None:
        super().__init__()
        if not isinstance(policy, DiffusionPolicy):
            raise InputError(f"DPPOLoss goes through the steps of a chain, and the {type(policy).__name__} has none")
        check_learns_actions(policy)
        check_drops_nothing(policy, "a DPPOLoss")
        check_records(policy, steps=True, numbers=True)
        check_critic(critic, policy, policy.observation_dim, 1)
        self.policy, self.critic = policy, critic
        self.clip = check.number(clip, "clip", above=0, most=0.99)
        self.critic_weight = check.number(critic_weight, "critic_weight", above=0)
        self.denoising_gamma = check.number(denoising_gamma, "denoising_gamma", above=0, most=1)

    @property
    def in_keys(self) -> list[NestedKey]:
        """Keys read from the rows, beside what `begin` adds."""
        return ["observation", "action", "draws", *(["action_mask"] if self.policy.reading.masked else [])]

    def _forward_value_estimator_keys(self, **kwargs: Any) -> None:
        pass

    def check_rows(self, td: TensorDictBase) -> None:
        """Raises InputError if transitions lack what is read of them. Args: td: any batch, before advantages."""
        check_given(td, (*self.in_keys, "reward"))

    @torch.no_grad()
    def values(self, observation: Tensor) -> Tensor:
        """Values of states, `[..]`. Args: observation: `[M, F]`, or `[G, M, F]`."""
        return state_values(self.critic, self.policy, observation)

    @torch.no_grad()
    def begin(self, rows: TensorDict) -> TensorDict:
        """Rows with the states of their chains, and how probable each step was. Args: rows: `[M]` or `[G, M]`.

        The states are had again of the recorded draws, under the parameters that acted.
        """
        observation, mask = self._read(rows)
        lead = observation.ndim - 1
        states = replayed(self.policy, observation, mask, rows["draws"].movedim(lead, 0))
        was = step_log_probs(self.policy, observation, mask, states)
        return rows.exclude("draws").set("states", states.movedim(0, lead)).set("step_log_prob", was.movedim(0, -1))

    def _read(self, rows: TensorDictBase) -> tuple[Tensor, Tensor | None]:
        """What is observed of rows, and which choices are allowed."""
        policy = self.policy
        mask = policy.head.read_mask(as_mask(rows["action_mask"], "action_mask")) if policy.reading.masked else None
        return wide(rows, "observation").to(policy.dtype), mask

    @dispatch
    def forward(self, tensordict: TensorDictBase) -> TensorDict:
        """The losses of a batch of rows.

        Args:
            tensordict: what `begin` made of rows `[M]` or `[G, M]` with observation `[.., M, F]`, action
                `[.., M, *event]`, advantage and value_target `[.., M, 1]`,
                where the policy reads it action_mask, bool `[.., M, W]`.
        """
        observation, mask = self._read(tensordict)
        states = tensordict["states"].movedim(observation.ndim - 1, 0)
        now = step_log_probs(self.policy, observation, mask, states)
        log_ratio = now - tensordict["step_log_prob"].movedim(-1, 0)
        left = torch.arange(len(now) - 1, -1, -1, device=now.device).view(-1, *[1] * (now.ndim - 1))
        advantage = self.denoising_gamma**left * tensordict["advantage"].squeeze(-1)
        ratio = log_ratio.exp()
        clipped = ratio.clamp(1 - self.clip, 1 + self.clip)
        gain = torch.minimum(ratio * advantage, clipped * advantage)
        value = state_values(self.critic, self.policy, observation)
        error = (value - tensordict["value_target"].squeeze(-1)).square()
        return TensorDict(
            {
                "loss_objective": -gain.sum(0).mean(-1).sum(),
                "loss_critic": self.critic_weight * error.mean(-1).sum(),
                "kl_approx": -log_ratio.detach().sum(0).mean(),
                "clip_fraction": (ratio != clipped).float().mean(),
            }
        )

    def parameter_groups(self) -> dict[str, Iterable[nn.Parameter]]:
        """What is optimised, by the name of its learning rate."""
        return {"actor": self.policy.parameters(), "critic": self.critic.parameters()}
