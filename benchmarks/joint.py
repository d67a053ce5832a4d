"""Joint actions: how far a chain of tokens, trained on drawn actions, is from a law that no product of laws is near.

python benchmarks/joint.py --out runs/joint.csv

Energies of pairs of items are drawn at random, some choices are forbidden, and actions follow exp(-energy / lambda).
The distance of a chain is exact: its steps' probabilities are multiplied out over all states, and none is drawn.
"""

from __future__ import annotations

import argparse
import itertools
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from tensordict import TensorDict
from torch import Tensor
from torchrl.data import Binary, Categorical, Composite, Unbounded
from torchrl.envs import EnvBase

from diffpolicy import DiffusionPolicy
from diffpolicy.diffusion import Ancestral, MaskedProcess
from diffpolicy.diffusion import Categorical as CategoricalKernel
from diffpolicy.objectives import TokenImitationLoss
from diffpolicy.policies.heads import TokenHead
from timing import table, write_csv

PROBLEMS = ((8, 3, 2, 0.35), (5, 3, 0, 0.5), (4, 4, 1, 1.0))
"""Choices of an item, items, seed of the energies, and a lambda that puts the best factorised policy about 0.4 away."""
COLUMNS = [
    *("choices", "items", "seed", "allowed", "lambda", "best factorised", "product of marginals"),
    *("updates", "seconds", "chain"),
]


class Row(EnvBase):
    """Rows of items that see something, by default each its own number; only its specs and its mask matter here.

    Args:
        rows: how many. allowed: choices of each item, bool `[n, A]`. seen: of each item, `[n, F]`.
    """

    def __init__(self, rows: int, allowed: Tensor, seen: Tensor | None = None) -> None:
        super().__init__(batch_size=[rows])
        n, a = allowed.shape
        seen = torch.eye(n) if seen is None else seen
        shown = {
            "observation": Unbounded((rows, *seen.shape)),
            "action_mask": Binary(a, (rows, n, a), dtype=torch.bool),
        }
        self.observation_spec = Composite(shown, shape=(rows,))
        self.action_spec = Categorical(a, (rows, n))
        self.reward_spec = Unbounded((rows, 1))
        self.seen = {"observation": seen.repeat(rows, 1, 1), "action_mask": allowed.repeat(rows, 1, 1)}

    def _reset(self, tensordict: Any = None, **_: Any) -> TensorDict:
        return TensorDict(self.seen, batch_size=self.batch_size).clone()

    def _step(self, tensordict: Any) -> TensorDict:
        raise NotImplementedError

    def _set_seed(self, seed: int | None) -> None:
        pass


@dataclass(frozen=True)
class Law:
    """exp(-energy / lambda) over the allowed of A^K actions.

    Args:
        actions: all of them, `[A^K, K]`. allowed: choices of each item, bool `[K, A]`. energy: `[A^K]`. lam: lambda.
    """

    actions: Tensor
    allowed: Tensor
    energy: Tensor
    lam: float

    @classmethod
    def drawn(cls, choices: int, items: int, seed: int, lam: float) -> Law:
        """Energies N(0, 1) of each pair of items' choices; about a fifth of the choices is forbidden."""
        generator = torch.Generator().manual_seed(seed)
        actions = torch.tensor(list(itertools.product(range(choices), repeat=items)))
        pairs = list(itertools.combinations(range(items), 2))
        tables = torch.randn(len(pairs), choices, choices, generator=generator)
        energy = sum(t[actions[:, i], actions[:, j]] for t, (i, j) in zip(tables, pairs, strict=True))
        allowed = torch.rand(items, choices, generator=generator) < 0.8
        allowed[:, 0] = True
        assert isinstance(energy, Tensor)
        return cls(actions, allowed, energy, lam)

    @property
    def possible(self) -> Tensor:
        return self.allowed[torch.arange(self.actions.shape[1]), self.actions].all(-1)

    def chances(self) -> Tensor:
        return (-self.energy / self.lam).masked_fill(~self.possible, -torch.inf).softmax(0)

    def margins(self) -> Tensor:
        n, a = self.allowed.shape
        p = self.chances()
        return torch.stack([torch.zeros(a).index_add(0, self.actions[:, i], p) for i in range(n)])

    def product(self, log_p: Tensor) -> Tensor:
        """Chances of actions under items on their own, `[.., A^K]`. Args: log_p: of choices, `[.., K, A]`."""
        return log_p[..., torch.arange(self.actions.shape[1]), self.actions].sum(-1).exp()

    def far(self, chances: Tensor) -> Tensor:
        """Total variation from the law, `[..]`. Args: chances: `[.., A^K]`."""
        return 0.5 * (chances - self.chances()).abs().sum(-1)

    def best_factorised(self, starts: int = 8, updates: int = 200) -> float:
        """The least distance of any product law, found by gradients from the margins and from drawn starts."""
        generator = torch.Generator().manual_seed(0)
        noise = 2 * torch.randn(starts, *self.allowed.shape, generator=generator)
        noise[0] = 0
        free = ((self.margins() + 1e-3).log() + noise).requires_grad_()
        optimizer, best = torch.optim.Adam([free], lr=0.05), 1.0
        for _ in range(updates):
            far = self.far(self.product(free.masked_fill(~self.allowed, -1e9).log_softmax(-1)))
            best = min(best, float(far.detach().min()))
            optimizer.zero_grad()
            far.sum().backward()
            optimizer.step()
        return best


def chain_chances(policy: DiffusionPolicy, law: Law) -> Tensor:
    """Chances of actions at the end of the chain, `[A^K]`, by its steps' laws over all states, multiplied out."""
    n, a = law.allowed.shape
    states = torch.tensor(list(itertools.product(range(a + 1), repeat=n)))
    rows = len(states)
    cond = policy.prepared(policy.condition(torch.eye(n).flatten().expand(rows, -1)))
    allowed = law.allowed.expand(rows, n, a)
    chances = torch.zeros(rows, dtype=torch.float64)
    chances[-1] = 1

    def model(x: Tensor, t: int, given: Any) -> Tensor:
        return policy.token_logits(x, t, given, allowed, a + 1)

    for k in range(len(policy.path)):
        kernel = policy.sampling.kernel(model, states, k, cond, policy.process)
        assert isinstance(kernel, CategoricalKernel)
        first, *others = kernel.logits.double().softmax(-1).unbind(-2)
        for each in others:
            first = (first.unsqueeze(-1) * each.unsqueeze(-2)).flatten(-2)
        chances = chances @ first
    place = (a + 1) ** torch.arange(n - 1, -1, -1)
    return chances[(law.actions * place).sum(-1)].float()


def train(law: Law, updates: int, batch: int, rate: float, seed: int) -> list[tuple[int, float, float]]:
    """Updates, seconds of one thread, and the distance of the chain, on the way and at the end."""
    n, a = law.allowed.shape
    policy = DiffusionPolicy.from_specs(
        Row(1, law.allowed),
        items="joint",
        schedule=MaskedProcess(n),
        sampler=Ancestral(order="confidence"),
        head=TokenHead(),
        denoiser={"kind": "MLPDenoiser", "hidden": [128, 128], "act": "mish"},
        seed=seed,
    )
    loss, chances = TokenImitationLoss(policy), law.chances()
    optimizer = torch.optim.Adam(policy.parameters(), lr=rate)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda k: min(1.0, (k + 1) / 50, 1.2 * (1 - k / updates) + 1e-3)
    )
    generator = torch.Generator().manual_seed(seed)
    seen, mask = torch.eye(n).flatten().expand(batch, -1), law.allowed.flatten().expand(batch, n * a)
    found, spent = [], 0.0
    for k in range(1, updates + 1):
        start = time.process_time()
        action = law.actions[torch.multinomial(chances, batch, True, generator=generator)]
        value = loss.imitate(seen, action, mask)
        optimizer.zero_grad()
        value.backward()
        optimizer.step()
        schedule.step()
        spent += time.process_time() - start
        if k % (updates // 16) == 0:
            with torch.no_grad():
                found.append((k, spent, float(law.far(chain_chances(policy, law)))))
            print(f"{a}^{n}: {k} updates, {spent:.1f} s, {found[-1][-1]:.4f}", file=sys.stderr)
    with torch.no_grad():
        drawn = policy.eval()(Row(20_000, law.allowed).reset())["action"]
    assert law.allowed[torch.arange(n), drawn].all(), "a forbidden choice was drawn"
    return found


def main() -> None:
    """Prints the table, and writes it."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--problems", type=int, nargs="+", default=list(range(len(PROBLEMS))))
    parser.add_argument("--updates", type=int, default=4000)
    parser.add_argument("--batch", type=int, default=512)
    parser.add_argument("--rate", type=float, default=3e-3)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(1)
    lines = []
    for choices, items, seed, lam in (PROBLEMS[k] for k in options.problems):
        law = Law.drawn(choices, items, seed, lam)
        known = [str(choices), str(items), str(seed), str(int(law.possible.sum())), f"{law.lam:g}"]
        known += [f"{law.best_factorised():.3f}", f"{float(law.far(law.product(law.margins().log()))):.3f}"]
        for updates, seconds, far in train(law, options.updates, options.batch, options.rate, options.seed):
            lines.append([*known, str(updates), f"{seconds:.1f}", f"{far:.4f}"])
    print(table(COLUMNS, lines))
    if options.out:
        write_csv(options.out, [COLUMNS, *lines])


if __name__ == "__main__":
    main()
