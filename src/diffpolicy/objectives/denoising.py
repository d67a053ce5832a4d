"""`DenoisingLoss`: imitation by chains of numbers, the regression of denoising and of flow matching."""

from __future__ import annotations

import torch
from torch import Tensor

from diffpolicy.errors import InputError
from diffpolicy.objectives.imitation import ImitationLoss
from diffpolicy.policies.diffusion import DiffusionPolicy
from diffpolicy.policies.draws import generator_on


class DenoisingLoss(ImitationLoss):
    """L = E || y - y_theta(x_t, t, s) ||^2 / D, with x_t of an action x_0 and noise, y what is predicted of them.

    With t uniform in 1..I and eps ~ N(0, 1), x_t = alpha_t x_0 + sigma_t eps.

    * Where the noise is predicted, y = eps: the loss of DDPM (Ho et al. 2020, arXiv 2006.11239) by which diffusion
      policies imitate (Chi et al. 2023, arXiv 2303.04137); where x_0 is, y = x_0.
    * Where the velocity of a straight path is, y = eps - x_0: conditional flow matching (Lipman et al. 2023, arXiv
      2210.02747).

    The steps of a batch are spread evenly over 1..I from one random number, for less variance.

    Args:
        policy: a chain of numbers whose x_0 is the action, as a `VectorHead` reads it.

    Raises:
        InputError: the policy has no such chain; in `forward`: a key is missing, or an observation of another width.

    Keys: of `ImitationLoss`.

    Example:
        >>> head = VectorHead(low=(0.0,), high=(1.0,))
        >>> chain = {"schedule": FlowProcess(10), "sampler": "flow-euler", "prediction": "velocity"}
        >>> policy = DiffusionPolicy(choices=head.width, observation_dim=3, head=head, **chain)
        >>> loss, seen, half = DenoisingLoss(policy), torch.rand(64, 3), torch.full((64, 1), 0.5)
        >>> module = ImitationModule(policy, lambda number: (seen, half), loss.imitate, rounds=2, updates=50)
        >>> history = fit(module).history
        >>> history[1]["loss"] < history[0]["loss"]
        True
    """

    def __init__(self, policy: DiffusionPolicy) -> None:
        if not isinstance(policy, DiffusionPolicy):
            raise InputError(f"DenoisingLoss trains chains of numbers, and the {type(policy).__name__} has no chain")
        if policy.process.discrete or policy.head.x0_is != "action":
            head, process = type(policy.head).__name__, type(policy.process).__name__
            raise InputError(
                f"DenoisingLoss trains chains of numbers that end in the action, and this one goes through a {process} "
                f"to a {head}; use a VectorHead"
            )
        super().__init__(policy)

    def imitate(self, observation: Tensor, action: Tensor, mask: Tensor | None = None) -> Tensor:
        x0 = self.policy.head.encode(action.to(self.policy.dtype))
        generator = generator_on(self.policy.generator, observation.device)
        rows = observation.shape[:-1]
        when = torch.rand(*rows[:-1], 1, generator=generator, device=generator.device)
        noise = torch.randn(*rows, x0.shape[-1], generator=generator, device=generator.device)
        t = spread(when.to(observation.device), rows[-1], self.policy.process.steps)
        dropped = self.policy.drops(rows)
        return denoising_errors(self.policy, observation, x0, t, noise.to(x0), dropped).mean(-1).sum()


def denoising_errors(
    policy: DiffusionPolicy, observation: Tensor, x0: Tensor, t: Tensor, noise: Tensor, dropped: Tensor | None = None
) -> Tensor:
    """The squared error of each row's prediction, a mean over its numbers, `[.., M]`.

    It is what weighted and on-policy objectives of chains take of actions (Lipman et al. 2023, arXiv 2210.02747).

    Args:
        policy: a chain of numbers. observation: `[.., M, F]`. x0: `[.., M, D]`. t: 1..I, `[.., M]`.
        noise: of N(0, 1), `[.., M, D]`. dropped: rows whose condition is left out, bool `[.., M]`, or None.

    Returns:
        || y - y_theta(x_t, t, s) ||^2 / D.

    Example:
        >>> head = VectorHead(low=(0.0,), high=(1.0,))
        >>> policy = DiffusionPolicy(choices=1, observation_dim=3, head=head, prediction="x0")
        >>> zero = [p.data.zero_() for p in policy.parameters()]  # so that x_0 = 0 is predicted
        >>> t = torch.ones(2).long()
        >>> denoising_errors(policy, torch.zeros(2, 3), torch.tensor([[1.0], [0.5]]), t, torch.zeros(2, 1)).detach()
        tensor([1.0000, 0.2500])
    """
    process, n = policy.process, policy.items_read
    x = process.corrupt(x0, t, noise)
    cond = policy.learned(observation, dropped)
    given = policy.denoise(x.unflatten(-1, (n, -1)) if n else x, t, cond)
    target = process.target(x0, t, noise, policy.prediction)
    return (given.reshape(target.shape) - target).square().mean(-1)


def spread(when: Tensor, rows: int, steps: int, turns: int = 1) -> Tensor:
    """Steps of a chain for rows, evenly from one random number, int64 `[.., rows]`, in each 1..I equally likely.

    Args:
        when: U[0, 1), `[.., 1]`. rows: how many. steps: I. turns: how many rows in a row belong together, a divisor of
            `rows`: their steps are spread over 1..I, too.
    """
    number = torch.arange(rows, device=when.device)
    # a ladder that is turned as a whole: a row's place in the batch says nothing of its step
    rung = (number // turns) * (steps / rows) + (number % turns) * (steps / turns)
    t = (rung + when * steps) % steps
    return t.long().clamp_max(steps - 1) + 1
