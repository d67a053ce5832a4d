"""Proximal policy optimisation of any policy with a law: TorchRL's own loss on recorded draws."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from tensordict import TensorDict, TensorDictBase
from tensordict.nn import TensorDictModuleBase
from tensordict.utils import NestedKey
from torch import Tensor, nn
from torchrl.objectives import ClipPPOLoss

from diffpolicy import _validate as check
from diffpolicy.errors import InputError
from diffpolicy.networks.critic import CriticEnsemble
from diffpolicy.objectives.action_losses import check_drops_nothing
from diffpolicy.objectives.critics import check_critic
from diffpolicy.objectives.rows import wide
from diffpolicy.policies.law import HeadLaw
from diffpolicy.policies.masks import as_mask
from diffpolicy.policies.policy import Policy

WRITTEN = ("loss_objective", "loss_entropy", "loss_critic", "entropy", "kl_approx", "clip_fraction")
"""What is kept of what TorchRL's loss writes."""


class RowLaw(TensorDictModuleBase):
    """A policy's law of actions as TorchRL's losses ask for it, on rows instead of an environment's items.

    Args:
        policy: whose law it is.
    """

    def __init__(self, policy: Policy) -> None:
        super().__init__()
        self.policy = policy
        extra = {"draws": policy.draws > 0, "latent": policy.remembers, "action_mask": policy.reading.masked}
        self.in_keys = ["observation", *(name for name, read in extra.items() if read)]
        self.out_keys = ["action"]

    def get_dist(self, rows: TensorDictBase) -> HeadLaw:
        """The law of rows' actions given the recorded draws of their chains, `[M]` or `[G, M]`."""
        policy, observation = self.policy, wide(rows, "observation")
        draws, mask = rows.get("draws", None), rows.get("action_mask", None)
        law = policy.law(
            observation,
            rows.get("latent", None) if policy.remembers else None,
            None if not policy.reading.masked else policy.head.read_mask(as_mask(mask, "action_mask")),
            None if draws is None else draws.movedim(observation.ndim - 1, 0),
        )
        return HeadLaw(policy.head, law, policy.generator)


class RowValue(TensorDictModuleBase):
    """A critic of states on rows. Args: critic: of one output. policy: normalises what the critic reads."""

    in_keys = ("observation",)
    out_keys = ("state_value",)

    def __init__(self, critic: nn.Module, policy: Policy) -> None:
        super().__init__()
        self.critic = critic
        self.__dict__["policy"] = policy

    def forward(self, rows: TensorDictBase) -> TensorDictBase:
        value = self.critic(self.__dict__["policy"].normalized(wide(rows, "observation")))
        return rows.set("state_value", value.mean(0))


class ChainPPOLoss(ClipPPOLoss):
    """`torchrl.objectives.ClipPPOLoss` (Schulman et al. 2017, arXiv 1707.06347) on rows `[M]` or `[G, M]`.

    A policy that denoises its action draws noise z on the way; its ratio is that of the state with the noise in it, as
    acting recorded both: with x_0 = f(s, z) the end of the chain and pi(a | x_0) the head's law,

        rho = pi(a | f(s, z)) / pi_old(a | f_old(s, z)),   loss = - min(rho A, clip(rho, 1 - eps, 1 + eps) A)

    Differentiated is the head's law given the chain's draws, through every step of the chain; the draws themselves
    come from fixed laws without parameters, so their densities cancel in the ratio. At unchanged parameters it is 1
    (noise drawn anew would give another x_0). Without a chain this is PPO as published.

    Beside it stand the critic's squared error to the value target and the entropy of the law, conditional on the draws.
    Values are means over rows and sums over agents, so each agent learns as if it were alone.

    Args:
        policy: any with a law, whose head draws the action.
        critic: `CriticEnsemble(F, 1, ensemble=1)`, with the policy's agents; a mean is taken of several.
        clip: eps, between 0 and 1.
        entropy: weight of the entropy, at least 0.
        critic_weight: of the critic's error, above 0.

    Raises:
        InputError: the policy or its head has no law, or it has a `condition_drop`, an argument is out of range, or the
            critic does not fit.

    Keys: observation, action, action_log_prob, advantage, value_target (both `[.., M, 1]`) and, where the policy reads
    them, draws, latent and action_mask. Writes loss_objective, loss_critic, loss_entropy, entropy, kl_approx,
    clip_fraction.

    Example:
        >>> policy = DiffusionPolicy.from_specs(Clinic(1), head="sample", steps=5)
        >>> policy.record = True  # beside its action: the chain's draws, and the log-probability
        >>> loss = ChainPPOLoss(policy, CriticEnsemble(3, 1, ensemble=1))
        >>> rows = policy(Clinic(8).reset())
        >>> rows.update({"advantage": torch.full((8, 1), 2.0), "value_target": torch.zeros(8, 1)}).batch_size
        torch.Size([8])
        >>> round(loss(rows)["loss_objective"].item(), 4)  # nothing is learned yet, so each ratio is 1
        -2.0
    """

    def __init__(
        self,
        policy: Policy,
        critic: CriticEnsemble,
        *,
        clip: float = 0.2,
        entropy: float = 0.0,
        critic_weight: float = 0.5,
    ) -> None:
        if not 0 < check.number(clip, "clip") < 1:
            raise InputError(f"clip must be between 0 and 1, got {clip}")
        check.number(entropy, "entropy", least=0)
        check.number(critic_weight, "critic_weight", above=0)
        check_law(policy, entropy)
        check_drops_nothing(policy, f"a {type(self).__name__}")
        check_critic(critic, policy, policy.observation_dim, 1)
        super().__init__(
            RowLaw(policy),
            RowValue(critic, policy),
            clip_epsilon=clip,
            entropy_coeff=entropy,
            critic_coeff=critic_weight,
            loss_critic_type="l2",
            log_explained_variance=False,
            # the parts stay modules, so that the generator of the policy is saved with it and stays the one that acts
            functional=False,
        )
        self.set_keys(sample_log_prob="action_log_prob")
        self.loss_mask_key = None
        self.__dict__.update(policy=policy, critic=critic)

    def _set_in_keys(self) -> None:
        self._in_keys = [*self.actor_network.in_keys, "action", "action_log_prob", "advantage", "value_target"]

    @property
    def out_keys(self) -> list[NestedKey]:
        """Keys that are written."""
        return list(WRITTEN)

    def check_rows(self, td: TensorDictBase) -> None:
        """Raises InputError if transitions lack what is read of them. Args: td: any batch, before advantages."""
        for key in [*self.actor_network.in_keys, "action", "action_log_prob", "reward"]:
            if td.get(key, None) is None:
                raise InputError(
                    f"the transitions do not give {key!r}, which the objective reads; acting with record=True writes "
                    "it beside the action"
                )

    @torch.no_grad()
    def values(self, observation: Tensor) -> Tensor:
        """Values of states, `[..]`. Args: observation: `[M, F]`, or `[G, M, F]`."""
        rows = TensorDict({"observation": observation}, batch_size=observation.shape[:-1])
        value: Tensor = self.critic_network(rows)["state_value"]
        return value.squeeze(-1)

    def _get_entropy(self, dist: HeadLaw, adv_shape: torch.Size) -> Tensor:
        """In closed form, else of one draw, with a gradient through it where the head has one, `[.., M, 1]`."""
        try:
            entropy = dist.spread()
        except NotImplementedError:
            entropy = -dist.log_prob(dist.sample()).detach()
        return entropy.unsqueeze(-1)

    def forward(self, tensordict: TensorDictBase) -> TensorDict:
        """The losses of a batch of rows.

        Args:
            tensordict: rows `[M]`, or `[G, M]` of G agents: observation `[.., M, F]`, action `[.., M, *event]`,
                action_log_prob `[.., M]`, advantage and value_target `[.., M, 1]`; where the policy has them draws,
                latent and action_mask.
        """
        written = super().forward(tensordict)
        agents = self.__dict__["policy"].agents or 1
        return TensorDict(
            {
                key: value * agents if key.startswith("loss") else value
                for key, value in written.items()
                if key in WRITTEN
            }
        )

    def parameter_groups(self) -> dict[str, Iterable[nn.Parameter]]:
        """What is optimised, by the name of its learning rate."""
        return {"actor": self.__dict__["policy"].parameters(), "critic": self.__dict__["critic"].parameters()}


def check_law(policy: Policy, entropy: float) -> None:
    """Refuses a policy whose actions have no law under which their probability is known.

    Args:
        policy: any. entropy: the weight of its law's entropy, which must then have a gradient.

    Raises:
        InputError: names the policy or its head.
    """
    policy.check_law()
    head = policy.head
    if head.draw_input is None:
        raise InputError(f"PPO needs a head that draws its action, and this {type(head).__name__} takes the argmax")
    law = head.law(torch.zeros(1, policy.choices))
    head.log_prob(law, head.mode(law))
    if entropy:
        head.spread(law, torch.zeros(1, *head.draw_input[1]))
