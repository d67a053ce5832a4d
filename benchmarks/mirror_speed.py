"""How far mirror descent gets in so many updates if its critic were exact, on the robots of `examples/extending`.

python benchmarks/mirror_speed.py --csv docs/_static/mirror_speed.csv

An update pulls a policy towards pi_old exp(Q / lambda), and pi_old follows with a share tau of it. Of a policy that is
there after each update, and of values of actions that are known, both laws are exp(eta Q) of some eta, at first 0. An
update makes of them

    eta = eta_old + 1 / lambda,   and then   eta_old = eta_old + tau / lambda,

and the mean cost of each is a sum over the sixteen pairs of shelves. `qdfm` has beta for 1 / lambda; `rl-d2` moves the
logarithm of lambda by Adam, to its bound on the divergence. No training reaches more with these numbers.
"""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from diffpolicy.experiments import make_method
from timing import machine, table, write_csv

sys.path.insert(0, str(Path(__file__).parents[1] / "examples" / "extending"))
from robots import BLOCKED, SHELVES, STEPS, Robots, nearest

UPDATES = (0, 100, 200, 400, 835, 2000)
COLUMNS = ("method", "changed", *(f"{n} updates" for n in UPDATES))
WAYS = (("qdfm", {}), ("qdfm", {"tau": 0.05}), ("qdfm", {"reward_scale": 1.0}), ("rl-d2", {}), ("rl-d2", {"tau": 0.05}))
"""Methods, and what of their presets is changed."""


@dataclass(frozen=True)
class Pairs:
    """The pairs of shelves of some moments. Args: cost, allowed: of each, `[M, 16]`. nearest: the rule's, `[M]`."""

    cost: Tensor
    allowed: Tensor
    nearest: Tensor

    @classmethod
    def drawn(cls, moments: int) -> Pairs:
        """As an episode has them. Args: moments: how many."""
        shown = Robots(moments).reset()
        way, may = shown["observation"], shown["action_mask"]
        cost = way[:, 0, :, None] + way[:, 1, None, :] + BLOCKED * torch.eye(SHELVES)
        allowed = (may[:, 0, :, None] & may[:, 1, None, :]).flatten(1)
        return cls(cost.flatten(1), allowed, nearest(shown)["action"] @ torch.tensor([SHELVES, 1]))

    def law(self, eta: float) -> Tensor:
        """The chances exp(- eta cost) of allowed pairs, `[M, 16]`. Args: eta: per unit of cost."""
        return (-eta * self.cost).masked_fill(~self.allowed, -torch.inf).softmax(-1)

    def mean(self, eta: float) -> float:
        """The cost of an episode. Args: eta: of `law`."""
        return STEPS * float((self.law(eta) * self.cost).sum(-1).mean())

    def step(self, old: float, new: float) -> float:
        """Nats from one law to another, a mean over moments. Args: old, new: eta of each."""
        before, after = self.law(old), self.law(new)
        tiny = torch.finfo(after.dtype).tiny
        return float((after * (after.clamp_min(tiny) / before.clamp_min(tiny)).log()).sum(-1).mean())


def course(pairs: Pairs, name: str, changes: dict[str, float]) -> Iterator[float]:
    """The cost of an episode at the start and after each update. Args: name: of a preset. changes: of its fields."""
    fields = {**vars(make_method(name)), **changes}
    tau, scale, beta = fields["tau"], fields["reward_scale"], fields.get("beta")
    lam = torch.tensor(math.log(fields["temperature"] if beta is None else 1 / beta), requires_grad=True)
    adam = torch.optim.Adam([lam], lr=fields["learning_rates"].get("temperature", 0.0))
    eta = 0.0
    yield pairs.mean(eta)
    while True:
        push = scale / math.exp(lam.item())
        yield pairs.mean(eta + push)
        if beta is None:
            adam.zero_grad()
            (lam.exp() * (fields["target_kl"] - pairs.step(eta, eta + push))).backward()
            adam.step()
        eta += tau * push


def main() -> None:
    """Prints the table, a row a method, and writes it."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--moments", type=int, default=500)
    parser.add_argument("--csv", type=Path, required=True)
    options = parser.parse_args()
    pairs = Pairs.drawn(options.moments)
    rows = []
    for name, changes in WAYS:
        costs = [cost for cost, _ in zip(course(pairs, name, changes), range(UPDATES[-1] + 1), strict=False)]
        told = ", ".join(f"{key}={value:g}" for key, value in changes.items())
        rows.append([name, told, *(f"{costs[n]:.1f}" for n in UPDATES)])
    write_csv(options.csv, [list(COLUMNS), *rows])
    print(table(list(COLUMNS), rows))
    rule = STEPS * float(pairs.cost.gather(1, pairs.nearest.unsqueeze(1)).mean())
    print(f"random {pairs.mean(0):.1f}, nearest {rule:.1f}, the best pair {pairs.mean(1e6):.1f}; {machine()}")


if __name__ == "__main__":
    main()
