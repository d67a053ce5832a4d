"""`FPOLoss`: proximal policy optimisation of a flow, by ratios of its matching losses."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from tensordict import TensorDict, TensorDictBase
from tensordict.nn import dispatch
from tensordict.utils import NestedKey
from torch import Tensor, nn
from torchrl.objectives.common import LossModule

from diffpolicy import _limits
from diffpolicy import _validate as check
from diffpolicy.errors import InputError
from diffpolicy.networks.critic import CriticEnsemble
from diffpolicy.objectives.action_critic import repeated
from diffpolicy.objectives.action_losses import check_drops_nothing
from diffpolicy.objectives.critics import check_critic, state_values
from diffpolicy.objectives.denoising import DenoisingLoss, denoising_errors
from diffpolicy.objectives.rows import check_given, wide
from diffpolicy.policies.diffusion import DiffusionPolicy
from diffpolicy.policies.draws import generator_on


class FPOLoss(LossModule):
    """Flow policy optimisation (McAllister et al. 2025, arXiv 2507.21053) on rows `[M]` or `[G, M]`.

    A flow has no density at hand, but its matching loss bounds it. Of each action a the level t and the noise eps of S
    draws are kept, with l(t, eps) = || y - y_theta(x_t, t, s) ||^2 / D before the update; then

        rho = exp( mean_S l_old - mean_S l_theta ),   loss = - min(rho A, clip(rho, 1 - eps, 1 + eps) A)

    and the critic's squared error to the value target. At unchanged parameters each ratio is 1. Values are means over
    rows and sums over agents.

    Args:
        policy: a chain of numbers that ends in the action; of a flow this is FPO as published.
        critic: `CriticEnsemble(F, 1, ensemble=1)`, with the policy's agents.
        clip: eps, between 0 and 1. critic_weight: of the critic's error, above 0. samples: draws of each action, S, at
            least 1.

    Raises:
        InputError: the policy's chain is of another kind or has a `condition_drop`, an argument is out of range, or the
            critic does not fit.

    Keys: observation, action, advantage and value_target `[.., M, 1]`, and what `begin` adds. Writes loss_objective,
    loss_critic, kl_approx and clip_fraction.

    Example:
        >>> head = VectorHead(low=(0.0,), high=(1.0,))
        >>> chain = {"schedule": FlowProcess(10), "sampler": "flow-euler", "prediction": "velocity"}
        >>> policy = DiffusionPolicy(choices=1, observation_dim=3, head=head, **chain)
        >>> loss, zeros = FPOLoss(policy, CriticEnsemble(3, 1, ensemble=1)), torch.zeros(8, 1)
        >>> rows = {"observation": torch.zeros(8, 3), "action": zeros, "advantage": zeros + 2, "value_target": zeros}
        >>> from tensordict import TensorDict
        >>> round(loss(loss.begin(TensorDict(rows, [8])))["loss_objective"].item(), 4)  # nothing is learned yet
        -2.0
    """

    in_keys: list[NestedKey] = ["observation", "action", "advantage", "value_target"]  # noqa: RUF012 (TorchRL's)
    out_keys = ["loss_objective", "loss_critic", "kl_approx", "clip_fraction"]  # noqa: RUF012 (TorchRL's)

    def __init__(
        self,
        policy: DiffusionPolicy,
        critic: CriticEnsemble,
        *,
        clip: float = 0.05,
        critic_weight: float = 0.5,
        samples: int = 8,
    ) -> None:
        super().__init__()
        if not 0 < check.number(clip, "clip") < 1:
            raise InputError(f"clip must be between 0 and 1, got {clip}")
        check.number(critic_weight, "critic_weight", above=0)
        samples = check.integer(samples, "samples", least=1, most=_limits.DRAWN)
        DenoisingLoss(policy)  # which says what its chain must be
        check_drops_nothing(policy, "an FPOLoss")
        check_critic(critic, policy, policy.observation_dim, 1)
        self.policy, self.critic = policy, critic
        self.clip, self.critic_weight, self.samples = clip, critic_weight, samples

    def _forward_value_estimator_keys(self, **kwargs: Any) -> None:
        pass

    def check_rows(self, td: TensorDictBase) -> None:
        """Raises InputError if transitions lack what is read of them. Args: td: any batch, before advantages."""
        check_given(td, ("observation", "action", "reward"))

    @torch.no_grad()
    def values(self, observation: Tensor) -> Tensor:
        """Values of states, `[..]`. Args: observation: `[M, F]`, or `[G, M, F]`."""
        return state_values(self.critic, self.policy, observation)

    @torch.no_grad()
    def begin(self, rows: TensorDict) -> TensorDict:
        """Rows with S draws of each action, and the loss of each before the update. Args: rows: `[M]` or `[G, M]`."""
        policy, shape = self.policy, rows.batch_size
        generator = generator_on(policy.generator, rows["observation"].device)
        drawn: dict[str, Any] = {"generator": generator, "device": generator.device}
        t = torch.randint(1, policy.process.steps + 1, (*shape, self.samples), **drawn)
        noise = torch.randn(*shape, self.samples, policy.choices, **drawn).to(policy.dtype)
        rows = rows.copy().set("flow_step", t).set("flow_noise", noise)
        return rows.set("flow_loss", self._errors(rows))

    def _errors(self, rows: TensorDictBase) -> Tensor:
        """The matching loss of each draw, `[.., M, S]`."""
        observation, x0 = wide(rows, "observation"), self.policy.head.encode(rows["action"].to(self.policy.dtype))
        seen, given = repeated(observation, self.samples), repeated(x0, self.samples)
        t, noise = rows["flow_step"].flatten(-2), rows["flow_noise"].flatten(-3, -2)
        errors: Tensor = denoising_errors(self.policy, seen, given, t, noise).unflatten(-1, (-1, self.samples))
        return errors

    @dispatch
    def forward(self, tensordict: TensorDictBase) -> TensorDict:
        """The losses of a batch of rows.

        Args:
            tensordict: what `begin` made of rows `[M]` or `[G, M]` with observation `[.., M, F]`, action
                `[.., M, *event]`, advantage and value_target `[.., M, 1]`.
        """
        log_ratio = (tensordict["flow_loss"] - self._errors(tensordict)).mean(-1)
        ratio, advantage = log_ratio.exp(), tensordict["advantage"].squeeze(-1)
        clipped = ratio.clamp(1 - self.clip, 1 + self.clip)
        gain = torch.minimum(ratio * advantage, clipped * advantage)
        value = state_values(self.critic, self.policy, wide(tensordict, "observation"))
        error = (value - tensordict["value_target"].squeeze(-1)).square()
        return TensorDict(
            {
                "loss_objective": -gain.mean(-1).sum(),
                "loss_critic": self.critic_weight * error.mean(-1).sum(),
                "kl_approx": -log_ratio.detach().mean(),
                "clip_fraction": (ratio != clipped).float().mean(),
            }
        )

    def parameter_groups(self) -> dict[str, Iterable[nn.Parameter]]:
        """What is optimised, by the name of its learning rate."""
        return {"actor": self.policy.parameters(), "critic": self.critic.parameters()}
