"""LAD-TS the obvious way: one decision and one agent at a time, as its algorithm reads (arXiv 2412.18212).

What `training.py` compares the package with. It plays the same episodes of the same scenario with the same networks,
constants and numbers of updates, and shares no code with the package but the scenario's arrivals.

    python benchmarks/one_at_a_time.py --slots 5      # seconds a slot, and what an episode of 59 would take
"""

from __future__ import annotations

import argparse
import math
import random
import time
from collections import deque

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from diffpolicy.edge import Scenario, Stream

STEPS, HIDDEN, TIME = 5, 20, 16
GAMMA, TAU, BATCH, CAPACITY, START = 0.95, 0.005, 64, 1000, 300
B_MIN, B_MAX = 0.1, 10.0


class Denoiser(nn.Module):
    """eps(x, i, s), which ends in a softmax."""

    def __init__(self, state: int, actions: int) -> None:
        super().__init__()
        self.time = nn.Sequential(nn.Linear(TIME, 2 * TIME), nn.Mish(), nn.Linear(2 * TIME, TIME))
        self.body = nn.Sequential(
            nn.Linear(actions + TIME + state, HIDDEN),
            nn.ReLU(),
            nn.Linear(HIDDEN, HIDDEN),
            nn.ReLU(),
            nn.Linear(HIDDEN, actions),
        )

    def forward(self, x: torch.Tensor, i: torch.Tensor, s: torch.Tensor) -> torch.Tensor:
        half = TIME // 2
        angle = i.float().unsqueeze(-1) * torch.exp(torch.arange(half) * (-math.log(10000) / (half - 1)))
        t = self.time(torch.cat([angle.sin(), angle.cos()], -1))
        return self.body(torch.cat([x, t, s], -1)).softmax(-1)


class Actor(nn.Module):
    """The reverse chain from the latent action to logits."""

    def __init__(self, state: int, actions: int) -> None:
        super().__init__()
        self.denoiser = Denoiser(state, actions)
        i = torch.arange(1, STEPS + 1)
        alpha = torch.exp(-B_MIN / STEPS - (B_MAX - B_MIN) * (2 * i - 1) / (2 * STEPS**2))
        self.alpha, self.bar = alpha, alpha.cumprod(0)
        self.before = torch.cat([torch.ones(1), self.bar[:-1]])

    def forward(self, s: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
        for k in reversed(range(STEPS)):
            eps = self.denoiser(x, torch.full((len(x),), k + 1), s)
            x0 = x / self.bar[k].sqrt() - (1 / self.bar[k] - 1).sqrt() * eps
            beta = 1 - self.alpha[k]
            mean = (
                beta * self.before[k].sqrt() / (1 - self.bar[k]) * x0
                + (1 - self.before[k]) * self.alpha[k].sqrt() / (1 - self.bar[k]) * x
            )
            x = (
                mean
                if k == 0
                else mean + (beta * (1 - self.before[k]) / (1 - self.bar[k])).sqrt() * torch.randn_like(x)
            )
        return x


def critic(state: int, actions: int) -> nn.Module:
    """Action values."""
    return nn.Sequential(
        nn.Linear(state, HIDDEN), nn.ReLU(), nn.Linear(HIDDEN, HIDDEN), nn.ReLU(), nn.Linear(HIDDEN, actions)
    )


class Agent:
    """One station's networks, replay and optimisers."""

    def __init__(self, state: int, actions: int) -> None:
        self.actor = Actor(state, actions)
        self.critics = [critic(state, actions) for _ in range(2)]
        self.targets = [critic(state, actions) for _ in range(2)]
        for target, source in zip(self.targets, self.critics, strict=True):
            target.load_state_dict(source.state_dict())
        self.log_alpha = torch.tensor(math.log(0.05), requires_grad=True)
        self.of_actor = torch.optim.Adam(self.actor.parameters(), lr=1e-4)
        self.of_critics = [torch.optim.Adam(c.parameters(), lr=1e-3) for c in self.critics]
        self.of_alpha = torch.optim.Adam([self.log_alpha], lr=3e-4)
        self.replay: deque[tuple[np.ndarray, np.ndarray, int, float, np.ndarray, np.ndarray]] = deque(maxlen=CAPACITY)

    def act(self, s: np.ndarray, x: np.ndarray) -> tuple[int, np.ndarray]:
        """A server, and what to remember."""
        with torch.no_grad():
            logits = self.actor(torch.from_numpy(s).unsqueeze(0), torch.from_numpy(x).unsqueeze(0))
            p = logits.softmax(-1)
            return int(torch.distributions.Categorical(p).sample()), p.squeeze(0).numpy()

    def update(self) -> None:
        """One step of all optimisers on one batch."""
        rows = random.sample(self.replay, BATCH)
        s, x, a, r, s2, x2 = (torch.as_tensor(np.array(column)) for column in zip(*rows, strict=True))
        a, r = a.unsqueeze(-1), r.float().unsqueeze(-1)
        alpha = self.log_alpha.exp().detach()
        with torch.no_grad():
            p2 = self.actor(s2, x2).softmax(-1)
            entropy = -(p2 * (p2 + 1e-8).log()).sum(-1, keepdim=True)
            least = torch.min(*(target(s2) for target in self.targets))
            goal = r + GAMMA * ((p2 * least).sum(-1, keepdim=True) + alpha * entropy)
        for network, optimizer in zip(self.critics, self.of_critics, strict=True):
            loss = F.mse_loss(network(s).gather(1, a), goal)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        p = self.actor(s, x).softmax(-1)
        entropy = -(p * (p + 1e-8).log()).sum(-1, keepdim=True)
        with torch.no_grad():
            least = torch.min(*(network(s) for network in self.critics))
        loss = (-alpha * entropy - (p * least).sum(-1, keepdim=True)).mean()
        self.of_actor.zero_grad()
        loss.backward()
        self.of_actor.step()
        loss = (self.log_alpha.exp() * (entropy.detach() + 1)).mean()
        self.of_alpha.zero_grad()
        loss.backward()
        self.of_alpha.step()
        with torch.no_grad():
            for target, network in zip(self.targets, self.critics, strict=True):
                for to, source in zip(target.parameters(), network.parameters(), strict=True):
                    to.lerp_(source, TAU)


class Training:
    """The training loop, a slot at a time.

    Args:
        scenario: with a workload of kind lad-ts, and slots. seed: of the arrivals.
    """

    def __init__(self, scenario: Scenario, seed: int = 0) -> None:
        assert scenario.workload is not None
        assert scenario.slots is not None
        self.scenario, self.seed = scenario, seed
        self.capacity = np.array([s.capacity_gcycles_per_s for s in scenario.servers])
        self.rate = np.array([s.rate_mbit_per_s for s in scenario.servers])
        stations, servers = len(scenario.stations), len(scenario.servers)
        self.agents = [Agent(2 + servers, servers) for _ in range(stations)]
        shape = (scenario.slots, stations, scenario.workload.max_tasks, servers)
        self.memory = np.random.default_rng(seed).standard_normal(shape, dtype=np.float32)
        self.episode = self.slot = 0
        self.queue = np.zeros(servers)
        self.last: list[tuple[np.ndarray, np.ndarray, int, float] | None] = [None] * stations

    def play_slot(self) -> list[float]:
        """Decides all tasks of a slot, in order, with one update of each agent; their delays in seconds."""
        scenario, t = self.scenario, self.slot
        arrivals = scenario.workload.draw(self.seed, Stream.TRAINING, self.episode, t, len(self.agents))
        sent = np.zeros_like(self.queue)
        delays = []
        for b, agent in enumerate(self.agents):
            for n in range(arrivals.counts[b]):
                d, w, result = (
                    float(v[b, n]) for v in (arrivals.input_mbit, arrivals.work_gcycles, arrivals.result_mbit)
                )
                s = np.array([d, w, *self.queue], dtype=np.float32)
                x = self.memory[t, b, n].copy()
                if self.last[b] is not None:
                    agent.replay.append((*self.last[b], s, x))
                a, self.memory[t, b, n] = agent.act(s, x)
                f, v = self.capacity[a], self.rate[a]
                delay = (a != scenario.stations[b]) * d / v + (self.queue[a] + sent[a] + w) / f + result / v
                sent[a] += w
                self.last[b] = (s, x, a, -delay)
                delays.append(delay)
            if len(agent.replay) > START:
                agent.update()
        self.queue = np.maximum(self.queue + sent - self.capacity * scenario.slot_s, 0)
        self.slot += 1
        if self.slot == scenario.slots:
            self.slot, self.episode = 0, self.episode + 1
            self.queue = np.zeros_like(self.queue)
            self.last = [None] * len(self.agents)
        return delays


def main() -> None:
    """Plays until all agents learn, then times some slots."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--slots", type=int, default=5)
    options = parser.parse_args()
    torch.set_num_threads(1)
    training = Training(Scenario.load("lad-ts"))
    while min(len(agent.replay) for agent in training.agents) <= START:
        training.play_slot()
    times = []
    for _ in range(options.slots):
        start = time.perf_counter()
        training.play_slot()
        times.append(time.perf_counter() - start)
    print(f"{np.median(times):.3f} s a slot, {59 * np.median(times):.1f} s an episode of 59 slots")


if __name__ == "__main__":
    main()
