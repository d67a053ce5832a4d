"""Two policies of a station's whole slot, alike but for passes: a masked chain of eight, and a product of one.

Both imitate the best assignment that a search finds by the critic, from the same turns and for as many seconds.
"""

from __future__ import annotations

import time
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import softplus

from diffpolicy import DiffusionPolicy
from diffpolicy.diffusion import Ancestral, MaskedProcess
from diffpolicy.objectives import TokenImitationLoss
from diffpolicy.policies.heads import TokenHead
from joint import Row
from joint_search import Costs, Servers

PASSES = {"categorical": 1, "chain": 8}
"""A masked chain of one pass shows all tasks at once: it is a product of categoricals, given the station's slot."""
FEATURES = 9
Turn = tuple[Costs, Costs, Costs, Servers]
"""`alone`, `service`, `slope` and the assignment to imitate."""


class PairDenoiser(nn.Module):
    """Logits of servers from what the critic says of each, given the tasks that are shown and guesses of the others.

    Of task i on server a, given what is shown: J's increase if i went there. To it comes, round for round, what is
    expected of the hidden tasks by the logits of the round before, and a small network's correction of a pair's
    features, shared by all tasks and servers, so that it takes any number of both.

    Args:
        servers: S. hidden: width of the networks. rounds: of guesses.
    """

    reads_items = True

    def __init__(self, servers: int, hidden: int = 16, rounds: int = 2) -> None:
        super().__init__()
        self.servers = servers
        self.sharp = nn.Parameter(torch.full((rounds,), 2.0))
        self.nets = nn.ModuleList(
            nn.Sequential(
                nn.Linear(FEATURES, hidden), nn.ReLU(), nn.Linear(hidden, hidden), nn.ReLU(), nn.Linear(hidden, 1)
            )
            for _ in range(rounds)
        )
        for net in self.nets:
            nn.init.zeros_(net[-1].weight)  # type: ignore[index]

    def forward(self, x: Tensor, t: int | Tensor, cond: Tensor) -> Tensor:
        """`[.., n, S + 1]`. Args: x: tokens as one-hot numbers, `[.., n, S + 1]`. cond: `[.., n, 3 S]`."""
        alone, service, slope = cond.split(self.servers, -1)
        shown = x[..., : self.servers]
        hidden = 1 - shown.sum(-1, keepdim=True)
        n = shown.shape[-2]
        before, after = _others(shown, service, slope)
        given = alone + before + after
        given = given - given.min(-1, keepdim=True).values
        index = (torch.arange(n, dtype=x.dtype) / n).view(n, 1).expand_as(given)
        scale = service / service.mean((-1, -2), keepdim=True)
        constant = (
            scale,
            before,
            after,
            index,
            torch.full_like(given, n / 50),
            hidden.mean(-2, keepdim=True).expand_as(given),
        )
        logits = -softplus(self.sharp[0]) * given
        for sharp, net in zip(self.sharp, self.nets, strict=True):
            more_before, more_after = _others(hidden * logits.softmax(-1), service, slope)
            whole = given + more_before + more_after
            whole = whole - whole.min(-1, keepdim=True).values
            pair = torch.stack((torch.log1p(whole), more_before, more_after, *constant), -1)
            logits = net(pair).squeeze(-1) - softplus(sharp) * whole
        return torch.cat([logits, torch.full_like(logits[..., :1], -30.0)], -1)


def _others(there: Tensor, service: Tensor, slope: Tensor) -> tuple[Tensor, Tensor]:
    """What a task adds to J on each server for those before it, and for those after, `[.., n, S]` each. Args: alike."""
    busy = there * service
    before, count = busy.cumsum(-2) - busy, there.sum(-2, keepdim=True) - there.cumsum(-2)
    beyond = busy.sum(-2, keepdim=True) - busy.cumsum(-2)
    return before * (1 + slope * service), service * (count + slope * beyond)


class Arm:
    """One of the two policies, for stations of any number of tasks.

    Args:
        passes: of the chain. servers: S. seed: of parameters and draws.
    """

    def __init__(self, passes: int, servers: int, seed: int) -> None:
        torch.manual_seed(seed)
        self.passes, self.servers, self.seed = passes, servers, seed
        self.net = PairDenoiser(servers)
        self.of_count: dict[int, TokenImitationLoss] = {}

    def loss(self, count: int) -> TokenImitationLoss:
        """The loss, and its policy, of stations of so many tasks; all share the network."""
        if count not in self.of_count:
            allowed = torch.ones(count, self.servers, dtype=torch.bool)
            row = Row(1, allowed, torch.zeros(count, 3 * self.servers))
            policy = DiffusionPolicy.from_specs(
                row,
                items="joint",
                schedule=MaskedProcess(self.passes),
                sampler=Ancestral(order="confidence"),
                head=TokenHead(),
                denoiser=self.net,
                seed=self.seed,
            )
            self.of_count[count] = TokenImitationLoss(policy)
        return self.of_count[count]

    def train(self, turns: list[Turn], seconds: float, batch: int = 32, rate: float = 1e-2) -> tuple[int, float]:
        """Updates and the last losses' mean a task. Args: turns: to imitate. seconds: of processor time."""
        groups: dict[int, list[Turn]] = {}
        for turn in turns:
            groups.setdefault(len(turn[3]), []).append(turn)
        groups.pop(0, None)
        tensors = {n: (_condition(x), torch.tensor(np.array([y[3] for y in x]))) for n, x in groups.items()}
        chance = np.array([len(x) for x in groups.values()], float) / sum(map(len, groups.values()))
        rng = np.random.default_rng(self.seed)
        optimizer = torch.optim.Adam(self.net.parameters(), lr=rate)
        begun, updates, shown = time.process_time(), 0, 0.0
        while (spent := time.process_time() - begun) < seconds:
            for group in optimizer.param_groups:
                group["lr"] = rate * min(1.0, (updates + 1) / 50, 1.2 * (1 - spent / seconds) + 1e-3)
            n = int(rng.choice(list(groups), p=chance))
            seen, action = tensors[n]
            rows = torch.from_numpy(rng.integers(len(action), size=min(batch, len(action))))
            value = self.loss(n).imitate(seen[rows].flatten(1), action[rows]) / n
            optimizer.zero_grad()
            value.backward()
            nn.utils.clip_grad_norm_(self.net.parameters(), 1.0)
            optimizer.step()
            updates += 1
            shown += (float(value.detach()) - shown) * max(0.01, 1 / updates)
        return updates, shown

    @torch.no_grad()
    def decide(self, alone: list[Costs], service: list[Costs], slope: list[Costs]) -> list[Any]:
        """Servers of the tasks of several stations, without chance."""
        found: list[Any] = [np.zeros(0, np.int64)] * len(alone)
        for n in sorted({len(x) for x in alone} - {0}):
            rows = [r for r, x in enumerate(alone) if len(x) == n]
            seen = _condition([(alone[r], service[r], slope[r]) for r in rows]).flatten(1)
            policy = self.loss(n).policy
            allowed = torch.ones(len(rows), n, self.servers, dtype=torch.bool)
            start = policy.process.terminal(None, allowed)
            actions = policy.token_chain(seen, start, None, allowed, self.servers + 1)
            for r, servers in zip(rows, actions.numpy(), strict=True):
                found[r] = servers
        return found


def _condition(turns: Any) -> Tensor:
    """`alone`, `service` and `slope` in mean service times, `[R, n, 3 S]`."""
    alone, service, slope = (torch.from_numpy(np.stack([x[k] for x in turns])).float() for k in (0, 1, 2))
    unit = service.mean((-1, -2), keepdim=True)
    least = alone.min(-1, keepdim=True).values
    return torch.cat([(alone - least) / unit, service / unit, (slope.unsqueeze(-2) * unit).expand_as(alone)], -1)
