"""`TokenImitationLoss`: imitation of actions by chains of tokens, the cross-entropy of what is hidden."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from diffpolicy import _validate as check
from diffpolicy.diffusion.tokens import TokenProcess
from diffpolicy.errors import InputError
from diffpolicy.objectives.denoising import spread
from diffpolicy.objectives.imitation import ImitationLoss
from diffpolicy.policies.diffusion import DiffusionPolicy
from diffpolicy.policies.draws import generator_on
from diffpolicy.policies.masks import as_mask


class TokenImitationLoss(ImitationLoss):
    """Cross-entropy of an action's tokens x_0 under what is predicted of them from corrupted ones, x_t.

    With t uniform in 1..I, x_t ~ q(x_t | x_0) and p = softmax of the denoiser's logits within the mask,

        L = sum_t w_t E [ - sum_k log p(x_0^k | x_t, t, s) ].

    * Where a process hides tokens (its `vocabulary` has more than the choices) the sum is over slots that are hidden,
      and w_t = (abar_{t-1} - abar_t) / (1 - abar_t), abar of `TokenProcess.kept`: L is minus the variational bound of
      D3PM with an absorbing state (Austin et al. 2021, arXiv 2107.03006), the loss of masked diffusion in MDLM (Sahoo
      et al. 2024, arXiv 2406.07524).
    * Where it changes them for others (a uniform process) the sum is over all slots and w_t = 1 / I: the auxiliary loss
      of D3PM, least at the true law of x_0 given x_t, as the bound is.

    The steps of a batch are spread evenly over 1..I from one random number, as in MDLM, for less variance.

    Args:
        policy: a chain of tokens, of categorical or multi-categorical actions, of one item or of joint ones; what a
            sampler later does with its predictions does not matter here.

    Raises:
        InputError: the policy's chain is not of tokens; in `forward`: a key is missing, an observation or a mask is of
            another shape, or the mask forbids what is to be imitated.

    Keys: of `ImitationLoss`.

    Example:
        >>> chain = {"schedule": MaskedProcess(4), "sampler": Ancestral(), "head": TokenHead()}
        >>> loss = TokenImitationLoss(DiffusionPolicy.from_specs(Clinic(1), **chain))
        >>> seen, longest = torch.rand(64, 3), torch.ones(64).long()
        >>> module = ImitationModule(loss.policy, lambda number: (seen, longest), loss.imitate, rounds=2, updates=50)
        >>> fit(module).history[1]["loss"] < 1
        True
    """

    def __init__(self, policy: DiffusionPolicy) -> None:
        process = policy.process if isinstance(policy, DiffusionPolicy) else None
        if not isinstance(process, TokenProcess):
            of = "has no chain" if process is None else f"goes through the numbers of a {type(process).__name__}"
            raise InputError(f"TokenImitationLoss trains chains of tokens, and the {type(policy).__name__} {of}")
        super().__init__(policy)

    def imitate(self, observation: Tensor, action: Tensor, mask: Tensor | None = None) -> Tensor:
        generator = generator_on(self.policy.generator, observation.device)
        rows = observation.shape[:-1]
        draws = torch.rand(*rows[:-1], 1, generator=generator, device=generator.device)
        noise = torch.rand(*rows, self.policy.head.slots, generator=generator, device=generator.device)
        dropped = self.policy.drops(rows)
        return self.losses(
            observation,
            action,
            mask,
            draws.to(observation.device),
            noise.to(observation.device),
            dropped,
        )

    def losses(
        self,
        observation: Tensor,
        action: Tensor,
        mask: Tensor | None,
        when: Tensor,
        noise: Tensor,
        dropped: Tensor | None = None,
    ) -> Tensor:
        """What `imitate` gives: a pure function of rows and draws.

        Args:
            observation, action, mask: of `imitate`. when: U[0, 1) that spreads the steps, `[.., 1]`. noise: U[0, 1)
                that corrupts, `[.., M, K]`.
            dropped: rows whose condition is left out, bool `[.., M]`, or None.
        """
        policy, process = self.policy, self.policy.process
        assert isinstance(process, TokenProcess)
        x0 = policy.head.encode(action)
        allowed = self._allowed(mask, x0)
        t = spread(when, observation.shape[-2], process.steps)
        x = process.corrupt(x0, t, noise, allowed.expand(*x0.shape, -1))
        return token_errors(policy, observation, x0, x, t, allowed, dropped).mean(-1).sum()

    def _allowed(self, mask: Tensor | None, x0: Tensor) -> Tensor:
        """Which choices may be, bool `[.., M, K, W]`; refuses actions that are none of them."""
        head = self.policy.head
        if mask is None:
            mask = torch.ones(*x0.shape[:-1], head.mask_width, dtype=torch.bool, device=x0.device)
        allowed: Tensor = head.read_mask(as_mask(mask, "action_mask")).unflatten(-1, (head.slots, -1))
        inside = (x0 >= 0) & (x0 < allowed.shape[-1])
        good = inside & allowed.expand(*x0.shape, -1).gather(-1, (x0 * inside).unsqueeze(-1)).squeeze(-1)
        if not good.all():
            at = (~good).nonzero()[0].tolist()
            raise InputError(f"the action to imitate at {at} is {check.show(int(x0[tuple(at)]))}, which is not allowed")
        return allowed


def token_errors(
    policy: DiffusionPolicy,
    observation: Tensor,
    x0: Tensor,
    x: Tensor,
    t: Tensor,
    allowed: Tensor,
    dropped: Tensor | None = None,
    path: Sequence[int] | None = None,
) -> Tensor:
    """I w_t times the cross-entropy of each row's x_0 as predicted of its tokens at step t, summed over slots.

    It is what weighted objectives of chains take of choices (Sahoo et al. 2024, arXiv 2406.07524).

    Args:
        policy: of tokens; where it hides some, they alone count. observation: `[.., M, F]`.
        x0, x: tokens, `[.., M, K]`. t: 1..I, `[.., M]`. allowed: bool `[.., M, K, W]`.
        dropped: rows whose condition is left out, bool `[.., M]`, or None.
        path: the levels of which t are, where a chain leaves some out; None: all.

    Returns:
        `[.., M]`.

    Example:
        >>> policy = DiffusionPolicy.from_specs(Clinic(1), schedule=MaskedProcess(1), head=TokenHead())
        >>> zero = [p.data.zero_() for p in policy.parameters()]  # so that all three choices are predicted alike
        >>> x0, hidden, allowed = torch.tensor([[2]]), torch.tensor([[3]]), torch.ones(1, 1, 3, dtype=torch.bool)
        >>> token_errors(policy, torch.zeros(1, 3), x0, hidden, torch.ones(1).long(), allowed).detach().exp()
        tensor([3.])
    """
    process = policy.process
    assert isinstance(process, TokenProcess)
    cond = policy.learned(observation, dropped)
    logits = policy.token_logits(x, t, cond, allowed, policy.vocabulary)
    each = -logits.log_softmax(-1).gather(-1, x0.unsqueeze(-1)).squeeze(-1)
    choices = policy.choices // policy.head.slots
    if policy.vocabulary == choices:
        return each.sum(-1)
    return weights(process, path).to(each)[t - 1] * each.masked_fill(x < choices, 0).sum(-1)


def weights(process: TokenProcess, path: Sequence[int] | None = None) -> Tensor:
    """I w_t of a process that hides tokens, w_t = (abar_s - abar_t) / (1 - abar_t), s being the level after t, `[I]`.

    Args:
        process: any.
        path: the levels that a chain goes through, of which the weights are, by their number instead of I, and 0 of the
            others; None: all.
    """
    levels = sorted(range(1, process.steps + 1) if path is None else path)
    kept = torch.tensor([process.kept(t) for t in (0, *levels)], dtype=torch.float64)
    result = torch.zeros(process.steps, dtype=torch.float64)
    result[torch.tensor(levels) - 1] = len(levels) * (kept[:-1] - kept[1:]) / (1 - kept[1:])
    return result
