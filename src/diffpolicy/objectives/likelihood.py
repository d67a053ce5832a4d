"""`LikelihoodLoss`: imitation by the log-probability of what was decided, for every policy with a law."""

from __future__ import annotations

from torch import Tensor

from diffpolicy.errors import InputError
from diffpolicy.objectives.action_losses import check_drops_nothing
from diffpolicy.objectives.imitation import ImitationLoss
from diffpolicy.objectives.rows import check_possible
from diffpolicy.policies.masks import as_mask
from diffpolicy.policies.policy import Policy


class LikelihoodLoss(ImitationLoss):
    """L = E[ - log pi(a | s, z) ]: the cross-entropy of choices, the density of vectors within bounds.

    Maximum likelihood, the control of behaviour cloning (Pomerleau 1991, doi:10.1162/neco.1991.3.1.88). Through a chain
    whose x_0 holds a law's parameters, z is what the chain draws, the gradient goes through all of its steps, and L is
    at least the cross-entropy of what is played, by Jensen's inequality; without a chain it is that.

    Args:
        policy: any with a law; its chain's x_0 is not the action itself.

    Raises:
        InputError: the policy has no law, remembers its actions or has a `condition_drop`; in `forward`: a key is
            missing, an observation of another width, or what is to be imitated is no choice or one that the mask
            forbids.

    Keys: of `ImitationLoss`.

    Example:
        >>> loss = LikelihoodLoss(FeedforwardPolicy.from_specs(Clinic(1)))
        >>> seen, longest = torch.rand(64, 3), torch.ones(64).long()
        >>> module = ImitationModule(loss.policy, lambda number: (seen, longest), loss.imitate, rounds=2, updates=50)
        >>> fit(module).history[1]["loss"] < 0.1
        True
    """

    def __init__(self, policy: Policy) -> None:
        policy.check_law()
        check_drops_nothing(policy, "a LikelihoodLoss")
        super().__init__(policy)

    def imitate(self, observation: Tensor, action: Tensor, mask: Tensor | None = None) -> Tensor:
        policy = self.policy
        allowed = None if mask is None else policy.head.read_mask(as_mask(mask, "action_mask"))
        check_possible(policy.head, action, allowed)
        law = policy.law(observation, None, allowed, policy.noise(observation.shape[:-1]))
        log_prob: Tensor = policy.head.log_prob(law, action)
        if mask is not None and bool((log_prob < FORBIDDEN).any()):
            at = (log_prob < FORBIDDEN).nonzero()[0].tolist()
            raise InputError(f"the action to imitate at {at} is one that the mask forbids")
        return -log_prob.mean(-1).sum()


FORBIDDEN = -1e6
"""A log-probability that only a forbidden choice has, whose logit is at -1e9."""
