"""`EvolutionModule`: antithetic evolution strategies on any module whose cost can be played, as a LightningModule."""

from __future__ import annotations

import ast
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.utils import vector_to_parameters
from torchrl.envs import EnvBase

from diffpolicy import _validate as check
from diffpolicy._types import Floats
from diffpolicy.objectives.action_losses import check_drops_nothing
from diffpolicy.training.rounds import RoundsModule, require_functions
from diffpolicy.training.trainable import described


class EvolutionModule(RoundsModule):
    """Minimises a cost of a module's parameters that has no gradient, such as one of hard decisions.

    The gradient of the cost smoothed by a Gaussian of width sigma is estimated from antithetic pairs (Salimans et al.
    2017, arXiv 1703.03864),

        g = sum_p clip(J(theta + sigma eps_p) - J(theta - sigma eps_p)) eps_p / (2 sigma P).

    Adam follows it with a learning rate that falls as a cosine to a tenth. The module ends with the moving average of
    its parameters. One training step is one generation, which `fit` takes as an episode.

    Args:
        module: whose parameters move.
        cost: `cost(thetas, generation) -> costs`: flat parameters of both members of P pairs, float64 `[2, P, D]`, to
            `[2, P]`; what is drawn for a pair must be common to both members.
        generations: in all.
        pairs: P, how many a generation has.
        sigma: of the perturbations, in units of the parameters.
        learning_rate: of Adam, at the start.
        clip: most that a pair's difference counts, in units of the cost.
        average: weight of a new generation in the moving average, from 0 to 1.
        seed: of the perturbations.
        env: where the module is to decide, if it is a policy: `fit` checks before the first generation that it can;
            None: nothing is checked.

    Raises:
        InputError: a number is out of range, an argument of another kind, or the module has a `condition_drop`.

    Example:
        >>> line = torch.nn.Linear(1, 1)
        >>> module = EvolutionModule(
        ...     line, lambda thetas, _: ((thetas - 2) ** 2).sum(-1), generations=100, learning_rate=0.1, average=0.2
        ... )
        >>> fit(module).episodes
        100
        >>> round(line.weight.item(), 1), round(line.bias.item(), 1)
        (2.0, 2.0)
    """

    kind = "evolution"
    round_name = "generation"

    def __init__(
        self,
        module: nn.Module,
        cost: Callable[[Floats, int], Floats],
        *,
        generations: int,
        pairs: int = 16,
        sigma: float = 0.05,
        learning_rate: float = 0.02,
        clip: float = 0.3,
        average: float = 0.05,
        seed: int = 0,
        env: EnvBase | None = None,
    ) -> None:
        generations = check.integer(generations, "generations", least=1)
        super().__init__(module, rounds=generations, env=env)
        require_functions(cost=cost)
        check_drops_nothing(module, "an EvolutionModule")
        self.generations, self.pairs = generations, check.integer(pairs, "pairs", least=1)
        for name, real in {"sigma": sigma, "learning_rate": learning_rate, "clip": clip}.items():
            check.number(real, name, above=0)
        check.number(average, "average", least=0, most=1)
        self.cost = cost
        self.sigma, self.clip, self.average = sigma, clip, average
        self.learning_rate = learning_rate
        self.seed = seed
        self.rng = np.random.Generator(np.random.PCG64(np.random.SeedSequence((seed, 1))))
        self.mean = _flat(module)

    def content(self) -> dict[str, Any]:
        return {
            **super().content(),
            "cost": described(self.cost),
            **{
                name: getattr(self, name)
                for name in ("generations", "pairs", "sigma", "learning_rate", "clip", "average")
            },
            "seed": self.seed,
        }

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.Adam(self.module.parameters(), lr=self.learning_rate, betas=(0.9, 0.99))

    def training_step(self, generation: int, batch_idx: int) -> None:
        optimizer = self.optimizers()
        theta = _flat(self.module).numpy()
        epsilon = self.rng.standard_normal((self.pairs, theta.size))
        both = np.stack([theta + self.sigma * epsilon, theta - self.sigma * epsilon])
        costs = self.cost(both, int(generation))
        if not np.isfinite(costs).all():
            raise FloatingPointError(f"a cost of generation {generation} is not finite")
        difference = np.clip(costs[0] - costs[1], -self.clip, self.clip)
        gradient = torch.as_tensor(difference @ epsilon / (2 * self.sigma * self.pairs))
        start = 0
        for parameter in self.module.parameters():
            stop = start + parameter.numel()
            parameter.grad = gradient[start:stop].view_as(parameter).to(parameter)
            start = stop
        part = 0.5 * (1 + math.cos(math.pi * generation / self.generations))
        for group in optimizer.param_groups:  # type: ignore[union-attr]
            group["lr"] = self.learning_rate * (0.1 + 0.9 * part)
        optimizer.step()  # type: ignore[union-attr]
        now = _flat(self.module)
        self.mean += self.average * (now - self.mean)
        self.end_round(generation, cost=float(costs.mean()))

    def on_train_end(self) -> None:
        self.finish()

    def finish(self) -> None:
        """The moving average, into the module."""
        vector_to_parameters(self.mean.to(next(self.module.parameters())), self.module.parameters())

    def state(self) -> dict[str, Any]:
        return {"mean": self.mean, "rng": str(self.rng.bit_generator.state)}

    def take(self, state: dict[str, Any]) -> None:
        self.mean = state["mean"]
        self.rng.bit_generator.state = ast.literal_eval(state["rng"])


def _flat(module: nn.Module) -> Tensor:
    """All parameters one after the other, in float64, however they lie in memory."""
    return torch.cat([p.detach().reshape(-1) for p in module.parameters()]).double()
