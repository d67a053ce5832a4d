"""`DistillationLoss`: a student decides by the law of a teacher, in one pass of its network instead of a chain."""

from __future__ import annotations

from typing import Any

import torch
from tensordict import TensorDict, TensorDictBase
from tensordict.nn import dispatch
from tensordict.utils import NestedKey
from torch import Tensor

from diffpolicy.errors import InputError
from diffpolicy.objectives.action_losses import check_drops_nothing
from diffpolicy.objectives.imitation import ImitationLoss
from diffpolicy.objectives.rows import check_possible, wide
from diffpolicy.policies.guidance import BestOf
from diffpolicy.policies.heads import BoundedHead, Head
from diffpolicy.policies.masks import as_mask
from diffpolicy.policies.policy import Policy
from diffpolicy.policies.steered import SteeredPolicy


class DistillationLoss(ImitationLoss):
    """How far a student's law is from its teacher's, on rows of the teacher's play.

    With z what the teacher's chain draws, and z_I the noise from which both chains start where both start from noise:

    * where both heads read a law's parameters, KL(pi_teacher(. | s, z) || pi(. | s, z_I)), summed over all choices, or
      of the normal laws within bounds; without a chain of its own the student so comes to the mean over z;
    * where the x_0 of both is a vector, || x_0(s, z_I) - ODE(s, z_I) ||^2 / D, ODE the end of the teacher's chain
      without noise on the way: the distillation of a flow into one step, as in FQL (Park et al. 2025,
      arXiv 2502.02538);
    * else minus the log-probability of what the teacher decides: the same KL but for a constant, by samples; so also
      where a critic chooses among the teacher's draws (`BestOf`).

    Args:
        policy: the student, such as a `FeedforwardPolicy`, or a chain under the sampler `one-step`.
        teacher: a policy, which is not trained; or a rule, whose decisions are in the rows.

    Raises:
        InputError: the student remembers its actions, has a `condition_drop` or is a chain of tokens; or its x_0 is a
            vector, and the
            teacher's chain draws noise on the way, so that its end does not follow from its start, or a critic chooses
            among its chains.

    Keys: of `ImitationLoss`, the mask also where the teacher alone reads it, and the teacher's latent where it
    remembers its actions.

    Example:
        >>> teacher = DiffusionPolicy.from_specs(Clinic(1), steps=5, prediction="x0", sampler="ddim")
        >>> student = teacher.with_sampler("one-step")  # another law
        >>> rows = Clinic(64).reset().set("action", torch.zeros(64).long())
        >>> (DistillationLoss(student, teacher)(rows)["loss_actor"] > 0).item()
        True
        >>> (DistillationLoss(teacher, teacher)(rows)["loss_actor"].abs() < 1e-6).item()
        True
    """

    def __init__(self, policy: Policy, teacher: Any) -> None:
        super().__init__(policy)
        check_drops_nothing(policy, "a DistillationLoss")
        self.__dict__["teacher"] = teacher  # no part of what is trained and saved
        mine = policy.head
        self.asks = isinstance(teacher, Policy)
        theirs = teacher.head if isinstance(teacher, Policy) else None
        self.regresses = mine.x0_is == "action" and not mine.tokens
        self.compares = theirs is not None and theirs == mine and mine.x0_is == "parameters" and _has_divergence(mine)
        guidance = teacher.guidance if isinstance(teacher, SteeredPolicy) else None
        self.picks = isinstance(guidance, BestOf)  # then its law is not that of what it decides
        self.compares = self.compares and not self.picks
        if mine.tokens:
            raise InputError("a student of tokens has no law that could come near a teacher's; use logits of choices")
        if self.regresses and self.picks:
            raise InputError(
                "a student whose x_0 is the action learns the ends of a teacher's chains, and this teacher's critic "
                "chooses among several of them; remove its guidance, with_guidance(None)"
            )
        if self.regresses and theirs is not None and (theirs != mine or teacher.draws > 1):
            raise InputError(
                "a student whose x_0 is the action learns the ends of a teacher's chain without noise on the way, and "
                f"this {type(theirs).__name__} ends a chain that draws {teacher.draws} times; give it a sampler "
                "such as ddim or flow-euler"
            )

    @property
    def in_keys(self) -> list[NestedKey]:
        """Keys read from the rows, the teacher's mask too."""
        masked = self.asks and self.__dict__["teacher"].reading.masked
        keys = super().in_keys
        return [*keys, "action_mask"] if masked and "action_mask" not in keys else keys

    @dispatch
    def forward(self, tensordict: TensorDictBase) -> TensorDict:
        """The loss of a batch of rows.

        Args:
            tensordict: of `ImitationLoss`, with the teacher's latent `[.., M, W]` where it remembers its actions.
        """
        self.check_rows(tensordict)
        policy, teacher = self.policy, self.__dict__["teacher"]
        observation = wide(tensordict, "observation")
        mask = tensordict["action_mask"] if policy.reading.masked else None
        action = self._existing(observation, tensordict)
        if not self.asks:
            return TensorDict({"loss_actor": self.imitate(observation, action, mask)})
        rows = observation.shape[:-1]
        latent = tensordict["latent"] if teacher.remembers else None
        allowed = None
        if teacher.reading.masked:  # also where the student reads none
            allowed = teacher.head.read_mask(as_mask(tensordict["action_mask"], "action_mask"))
        with torch.no_grad():
            noise: Any = None if self.picks else teacher.noise(rows)
            if self.picks:
                decided = teacher.decided(teacher.condition(observation), latent, allowed, False).action
            else:
                theirs = teacher.law(observation, latent, allowed, noise)
                decided = None if self.regresses or self.compares else teacher.choose(theirs)
        if decided is not None:
            return TensorDict({"loss_actor": self.imitate(observation, decided, mask)})
        shared = policy.draws > 0 and not teacher.remembers and noise is not None
        mine = policy.noise(rows) if not shared else torch.cat([noise[:1], policy.noise(rows)[1:]])
        law = policy.law(observation, None, self._allowed(mask), mine)
        if self.regresses:
            return TensorDict({"loss_actor": (law - theirs).square().mean(-1).mean(-1).sum()})
        return TensorDict({"loss_actor": divergence(policy.head, theirs, law).mean(-1).sum()})

    def imitate(self, observation: Tensor, action: Tensor, mask: Tensor | None = None) -> Tensor:
        """By decisions alone: their likelihood, or their distance where x_0 is the action."""
        policy, allowed = self.policy, self._allowed(mask)
        check_possible(policy.head, action, allowed)
        law = policy.law(observation, None, allowed, policy.noise(observation.shape[:-1]))
        if self.regresses:
            target = policy.head.encode(action.to(policy.dtype))
            distance: Tensor = (law - target).square().mean(-1).mean(-1).sum()
            return distance
        likelihood: Tensor = -policy.head.log_prob(law, action).mean(-1).sum()
        return likelihood

    def _allowed(self, mask: Tensor | None) -> Tensor | None:
        return None if mask is None else self.policy.head.read_mask(as_mask(mask, "action_mask"))


def _has_divergence(head: Head) -> bool:
    if isinstance(head, BoundedHead):
        return True
    try:
        return head.expectation == "enumerated" and head.joint > 0
    except InputError:
        return False


def divergence(head: Head, teacher: Tensor, law: Tensor) -> Tensor:
    """KL(teacher || law) of rows, `[..]`: over all choices, or of normal laws, which their squashing leaves as it is.

    With means m, M and deviations s, S of the two normal laws, log(S / s) + (s^2 + (m - M)^2) / (2 S^2) - 1 / 2.

    Args:
        head: of both laws, one whose choices are enumerated or a `BoundedHead`. teacher, law: parameters, `[.., W]`.

    Returns:
        Nats of each row, `[..]`, at least 0.

    Raises:
        InputError: the head's choices cannot be enumerated, and it is no `BoundedHead`.

    Example:
        >>> head = CategoricalHead(choices=2)
        >>> divergence(head, torch.tensor([0.0, -1e9]), torch.zeros(2))  # sure against even: log 2
        tensor(0.6931)
    """
    if isinstance(head, BoundedHead):
        (m, s), (own_m, own_s) = teacher.chunk(2, -1), law.chunk(2, -1)
        each = (own_s / s).log() + (s.square() + (m - own_m).square()) / (2 * own_s.square()) - 0.5
        return each.sum(-1)
    log_p, log_q = head.joint_log_prob(teacher), head.joint_log_prob(law)
    return (log_p.exp() * (log_p - log_q)).sum(-1)
