"""`ReverseMirrorLoss`: reverse-KL mirror descent on recorded chains, by clipped ratios of single steps (RL-D2)."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from typing_extensions import Unpack

from diffpolicy import _validate as check
from diffpolicy.errors import InputError
from diffpolicy.objectives.action_critic import ActionCriticOptions, repeated
from diffpolicy.objectives.action_losses import check_drops_nothing
from diffpolicy.objectives.mirror_descent import MirrorDescentLoss
from diffpolicy.objectives.off_policy import frozen_copy
from diffpolicy.objectives.recorded import check_records, ended, recorded, step_log_probs
from diffpolicy.policies.policy import Policy


class ReverseMirrorLoss(MirrorDescentLoss):
    """A policy goes to pi_old exp(A / lambda) / Z by the gradient of E[A] - lambda KL(pi || pi_old) over its chains.

    The reverse Kullback-Leibler step of RL-D2 (Ma et al. 2025, arXiv 2509.22963), each step of a chain a decision whose
    probability is exact: an action's own has no closed form, and a bound on it would bias the ratios. Chains are
    recorded by a copy of the policy that is renewed every few updates; with r_k a step's ratio to it, pi_old the slowly
    following copy, and what is yet to come as the advantage of step k,

        A_k = Q(s, a_0) - lambda sum over steps j >= k of log(p_j / p_old_j), less its mean over the N chains,
        L = - mean_n sum_k min(r_k A_k, clip(r_k, 1 - clip, 1 + clip) A_k).

    The law of whole chains that is best is pi_old's times exp(A / lambda), whose end is the tilted law. Lambda follows
    the divergence of chains from pi_old, of which that of actions is at most as much. The copy is renewed by the losses
    that are taken with gradients, one an update, so that TorchRL's updaters of targets do as well as `update_targets`.

    Args:
        policy: a chain of tokens whose steps are drawn (`Ancestral` in the order of chance, `TauLeaping`); without a
            chain it is one step.
        critic: of `ActionCriticLoss`.
        clip: most by which a ratio counts, above or below 1; above 0 and at most 0.99.
        refresh: updates for which the recording copy stays as it is, at least 1.
        temperature, target_kl: of `MirrorDescentLoss`; the bound may be above log N.
        shared: samples, next_samples, gamma, tau and reward_scale of `ActionCriticLoss`, and target_actor, which stays
            true.

    Raises:
        InputError: a number is out of range, there is no target_actor, or the policy, its sampler or the critic does
            not fit.

    Example:
        >>> policy = DiffusionPolicy.from_specs(Clinic(1), schedule=MaskedProcess(2), head=TokenHead())
        >>> loss = ReverseMirrorLoss(policy, action_critic(policy), samples=4)
        >>> bool(loss.actor_losses(torch.zeros(5, 3), None)["loss_actor"].abs() < 1e-4)  # all ratios are 1
        True
    """

    by_weights = False

    def __init__(
        self,
        policy: Policy,
        critic: nn.Module,
        *,
        clip: float = 0.2,
        refresh: int = 4,
        temperature: float = 1.0,
        target_kl: float | None = 0.1,
        **shared: Unpack[ActionCriticOptions],
    ) -> None:
        check_records(policy, steps=True)
        check_drops_nothing(policy, "a ReverseMirrorLoss")
        if not shared.get("target_actor", True):
            raise InputError(
                "target_actor must be true under a ReverseMirrorLoss, whose divergence from the policy itself would "
                "always be 0, got False"
            )
        super().__init__(policy, critic, temperature=temperature, target_kl=target_kl, **shared)
        self.clip = check.number(clip, "clip", above=0, most=0.99)
        self.refresh = check.integer(refresh, "refresh", least=1)
        self.recorder = frozen_copy(policy)
        self.register_buffer("renewed", torch.zeros((), dtype=torch.int64))

    def actor_losses(self, observation: Tensor, mask: Tensor | None) -> dict[str, Tensor]:
        self._renew()
        each, given = repeated(observation, self.samples), repeated(mask, self.samples)
        with torch.no_grad():
            states = recorded(self.recorder, each, given)
            was = step_log_probs(self.recorder, each, given, states)
            old = step_log_probs(self.actor, each, given, states)
        now = step_log_probs(self.policy, each, given, states)
        some = self.counted(torch.ones_like(observation[..., 0]), mask).repeat_interleave(self.samples, -1)
        apart = (now - old).detach() * some
        to_come = apart.flip(0).cumsum(0).flip(0).unflatten(-1, (-1, self.samples))
        q = self.values(each, ended(self.policy, states))
        gain = q - self.temperature.unsqueeze(-1) * to_come
        advantage = (gain - gain.mean(-1, keepdim=True)).flatten(-2) * some
        ratio = (now - was).exp()
        worth = torch.minimum(ratio * advantage, ratio.clamp(1 - self.clip, 1 + self.clip) * advantage)
        return {"loss_actor": -worth.sum(0).mean(-1).sum(), **self.dual(apart.sum(0).mean(-1))}

    def _renew(self) -> None:
        """Counts an update, and before it renews the copy that records, when it is time."""
        if not torch.is_grad_enabled():
            return  # somebody only looks
        with torch.no_grad():
            if int(self.renewed) % self.refresh == 0:
                for copied, source in zip(self.recorder.parameters(), self.policy.parameters(), strict=True):
                    copied.copy_(source)
            self.renewed += 1
