"""`FQLLoss`: a policy of one step that goes where values are high, held near a flow that imitates what was played."""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial

import torch
from tensordict import TensorDict, TensorDictBase
from tensordict.nn import dispatch
from torch import Tensor, nn
from torch.func import functional_call

from diffpolicy import _validate as check
from diffpolicy.errors import InputError
from diffpolicy.objectives.action_losses import check_drops_nothing
from diffpolicy.objectives.critics import action_values, check_critic
from diffpolicy.objectives.denoising import DenoisingLoss, denoising_errors, spread
from diffpolicy.objectives.off_policy import OffPolicyLoss
from diffpolicy.objectives.rows import wide
from diffpolicy.policies.diffusion import DiffusionPolicy
from diffpolicy.policies.draws import generator_on
from diffpolicy.policies.heads import BoundedHead, VectorHead
from diffpolicy.policies.nested_keys import next_key
from diffpolicy.policies.policy import Policy


class FQLLoss(OffPolicyLoss):
    """Flow Q-learning (Park et al. 2025, arXiv 2502.02538), from a replay as from a data set.

    A flow v imitates the actions of the rows; the policy mu(s, z) leads from noise to an action at once and never has
    to be differentiated through the flow. With z, z' ~ N(0, 1) and Q the mean of the ensemble,

    * critics: (Q_k(s, a) - r - gamma (1 - terminated) Qbar(s', mu(s', z')))^2
    * flow: || eps - x_0 - v(x_t, t, s) ||^2 / D, flow matching (`DenoisingLoss`)
    * policy: alpha || mu(s, z) - ODE_v(s, z) ||^2 / D - Q(s, mu(s, z)) / c

    where c is the mean magnitude of Q over the rows, if `normalize_q`, else 1. Values are means over rows and sums
    over agents and critics. Without a flow, the control, a normal law is held near the rows by alpha times minus their
    log-probability.

    Args:
        policy: a chain of one step with a `VectorHead`; for the control any policy with a `BoundedHead`.
        critic: of `action_critic`.
        flow: of the same widths, which is trained beside it; None: the control.
        alpha: weight of staying near what was played, at least 0.
        normalize_q: whether alpha is in units of c.
        gamma, tau, reward_scale: of `OffPolicyLoss`.

    Raises:
        InputError: a head is another one, the policy remembers its actions, the flow is of other widths or draws noise
            on its way, a policy has a `condition_drop`, a number is out of range, or the critic does not fit.

    Keys: observation, action, reward and their next ones. Writes loss_actor, loss_qvalue, loss_flow and distance.

    Example:
        >>> from tensordict import TensorDict
        >>> head, process = VectorHead(low=(0.0,), high=(1.0,)), FlowProcess(10)
        >>> shape = {"choices": 1, "observation_dim": 3, "head": head, "schedule": process}
        >>> policy = DiffusionPolicy(**shape, sampler="one-step", prediction="x0")
        >>> flow = DiffusionPolicy(**shape, sampler="flow-euler", prediction="velocity")
        >>> loss = FQLLoss(policy, action_critic(policy), flow)
        >>> state = {"observation": torch.zeros(8, 3)}
        >>> rows = TensorDict({**state, "action": torch.ones(8, 1), "reward": torch.zeros(8), "next": state}, [8])
        >>> sorted(loss(rows).keys())
        ['distance', 'loss_actor', 'loss_flow', 'loss_qvalue']
    """

    out_keys = ["loss_actor", "loss_qvalue", "loss_flow", "distance"]  # noqa: RUF012 (TorchRL's attribute)

    def __init__(
        self,
        policy: Policy,
        critic: nn.Module,
        flow: DiffusionPolicy | None,
        *,
        alpha: float = 1.0,
        normalize_q: bool = True,
        gamma: float = 0.95,
        tau: float = 0.005,
        reward_scale: float = 1.0,
    ) -> None:
        wanted = BoundedHead if flow is None else VectorHead
        if not isinstance(policy.head, wanted):
            raise InputError(f"this loss needs a {wanted.__name__}, got a {type(policy.head).__name__}")
        check.number(alpha, "alpha", least=0)
        super().__init__(policy, critic, gamma=gamma, tau=tau, reward_scale=reward_scale)
        if self.reads_latent:
            raise InputError("FQLLoss trains policies that start from noise, and this one remembers its actions")
        for part in (policy, flow):
            if part is not None:
                check_drops_nothing(part, "an FQLLoss")
        if flow is not None:
            DenoisingLoss(flow)  # which says what a flow must be
            if flow.head != policy.head or flow.observation_dim != policy.observation_dim or flow.draws != policy.draws:
                raise InputError(
                    "the flow must have the policy's head and observations, and draw nothing but its start"
                )
            flow.normalizer = policy.normalizer
        self.flow = flow
        self.alpha, self.normalize_q = alpha, normalize_q
        check_critic(critic, policy, policy.observation_dim + policy.head.feature_width, 1)

    def parameter_groups(self) -> dict[str, Iterable[nn.Parameter]]:
        """What is optimised, by the name of its learning rate."""
        return {**super().parameter_groups(), **({} if self.flow is None else {"flow": self.flow.parameters()})}

    @dispatch
    def forward(self, tensordict: TensorDictBase) -> TensorDict:
        """The losses of a batch of rows, by the names in `out_keys`.

        Args:
            tensordict: transitions `[M]` or `[G, M]`, with the entries of `OffPolicyLoss.forward`.
        """
        k, policy = self.tensor_keys, self.policy
        self.check_rows(tensordict)
        observation, after = wide(tensordict, k.observation), wide(tensordict, next_key(k.observation))
        rows, action = observation.shape[:-1], tensordict[k.action].to(policy.dtype)
        over = self.over(tensordict, rows)
        reward = tensordict[k.reward].view(rows).to(policy.dtype)
        with torch.no_grad():
            value = action_values(self.target_critic, policy, after, self._decided(after)[0]).mean(0)
            target = self.backed_up(reward, value, over)
        errors = (action_values(self.critic, policy, observation, action) - target).square()
        decided, distance = self._decided(observation, action)
        still = {name: p.detach() for name, p in self.critic.named_parameters()}  # the actor's loss moves it alone
        q = action_values(partial(functional_call, self.critic, still), policy, observation, decided).mean(0)
        unit = q.detach().abs().mean(-1, keepdim=True).clamp_min(1e-6) if self.normalize_q else 1.0
        result = {
            "loss_actor": (self.alpha * distance - q / unit).mean(-1).sum(),
            "loss_qvalue": errors.mean(-1).sum(),
            "distance": distance.detach().mean(),
        }
        if self.flow is not None:
            result["loss_flow"] = self._imitated(observation, action)
        return TensorDict(result)

    def _imitated(self, observation: Tensor, action: Tensor) -> Tensor:
        """The flow's matching of the rows' actions."""
        assert self.flow is not None
        x0 = self.flow.head.encode(action)
        generator = generator_on(self.policy.generator, x0.device)
        when = torch.rand(*x0.shape[:-2], 1, generator=generator, device=generator.device)
        noise = torch.randn(*x0.shape, generator=generator, device=generator.device)
        t = spread(when.to(x0.device), x0.shape[-2], self.flow.process.steps)
        return denoising_errors(self.flow, observation, x0, t, noise.to(x0)).mean(-1).sum()

    def _decided(self, observation: Tensor, played: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Actions of the policy with their gradient, and how far it is from what was played, `[.., M]`."""
        policy, rows = self.policy, observation.shape[:-1]
        noise = policy.noise(rows)
        law = policy.law(observation, noise=noise)
        none = law.new_zeros(rows)
        if self.flow is None:
            draws = policy.head.draws(rows, generator_on(policy.generator, law.device))
            action = policy.head.sample(law, draws)
            return action, none if played is None else -policy.head.log_prob(law, played)
        if played is None:
            return policy.head.mode(law), none
        with torch.no_grad():
            end = self.flow.law(observation, noise=noise).clamp(-1, 1)
        return policy.head.mode(law), (law - end).square().mean(-1)
