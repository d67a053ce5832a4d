"""`Gang`: tasks that each need several servers at once; which one next, and with how many denoising steps."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from tensordict import TensorDict, TensorDictBase
from torch import Tensor
from torchrl.data import Binary, MultiCategorical, Unbounded
from torchrl.envs import EnvBase

from diffpolicy.environments import Cost
from diffpolicy.environments.problem import Kind
from diffpolicy.policies.protocols import Decides
from diffpolicy.problems.drawn import DrawnEnv, DrawnProblem

TASKS, QUEUE = 32, 10
"""Of an episode, QUEUE of which wait as it begins; and as many, the longest waiting, are seen."""
DECISIONS = 96
"""More than an episode can have: TASKS launches, and fewer waits than there are arrivals and ends of work."""
STEPS = tuple(range(2, 33, 2))
"""Denoising steps that may be chosen."""
SIZES = (1, 2, 4, 8)
"""Servers that a task may need."""
STEP_S, LOAD_S = torch.tensor([0.315, 0.15625, 0.14, 0.10]), torch.tensor([24.0, 24.0, 32.0, 30.0])
"""By size: seconds of a denoising step, and of loading the model on servers that are not a warm group of that size."""
SCALE_S, FIELDS = 50.0, 5
"""Seconds that are 1 in an observation; numbers that it has of each task."""


def quality(steps: Tensor) -> Tensor:
    """How good images are, 0 below 5 steps, 0.16 ln s / ln 6 - 0.02 up to 30, and 0.27 beyond. Args: steps: s."""
    value = 0.16 * steps.log() / math.log(6) - 0.02
    return torch.where(steps < 5, 0.0, torch.where(steps > 30, 0.27, value))


def duration_s(size: Tensor, steps: Tensor, warm: Tensor) -> Tensor:
    """How long a task takes, s. Args: size: a power of two. steps: of denoising. warm: whether nothing is loaded."""
    kind = size.clamp_min(1).log2().long()
    step_s, load_s = STEP_S.to(steps.device)[kind], LOAD_S.to(steps.device)[kind]
    return step_s * steps + load_s.masked_fill(warm, 0.0)


def reward(mean_waiting_s: Tensor, waiting_s: Tensor, takes_s: Tensor, steps: Tensor) -> Tensor:
    """min(10, 250 / (mean waiting of the queue + duration + own waiting)) + 10 quality, s and pure numbers."""
    return (250 / (mean_waiting_s + takes_s + waiting_s)).clamp_max(10) + 10 * quality(steps)


class GangEnv(DrawnEnv):
    """One decision a step: a task of the queue and its denoising steps, or to wait for the next arrival or end of work.

    A task of size c takes an idle group of exactly c servers that worked together last, where there is one, and needs
    no loading then; else the first c free servers, and every group that these were of loses its model. Where no task
    that is seen fits, the clock goes on by itself.

    Args:
        seeds: of the lanes. servers: S. rate_per_s: of arrivals, which are a Poisson process. device: of all tensors.
    """

    def __init__(self, seeds: Sequence[int], servers: int, rate_per_s: float, device: Any = None) -> None:
        lanes, width = len(seeds), QUEUE + 1 + len(STEPS)
        shown = {
            "observation": Unbounded((lanes, FIELDS * QUEUE + 3 * servers + 1)),
            "action_mask": Binary(width, (lanes, width), dtype=torch.bool),
        }
        action = MultiCategorical([QUEUE + 1, len(STEPS)], (lanes, 2))
        super().__init__(seeds, DECISIONS, shown, action, device)
        self.servers, self.rate_per_s = servers, rate_per_s
        self.kinds = sum(size <= servers for size in SIZES)

    # Chance

    def draw(self, generator: torch.Generator) -> TensorDict:
        gaps = -(1 - torch.rand(TASKS, generator=generator)).log() / self.rate_per_s
        gaps[:QUEUE] = 0.0
        size = 2 ** torch.randint(self.kinds, (TASKS,), generator=generator)
        return TensorDict(arrival_s=gaps.cumsum(0), size=size.float())

    def begin(self, drawn: TensorDict) -> TensorDict:
        lanes, on = len(self.generators), self.device
        return TensorDict(
            clock_s=torch.zeros(lanes, 1, device=on),
            launched=torch.zeros(lanes, TASKS, dtype=torch.bool, device=on),
            until_s=torch.zeros(lanes, self.servers, device=on),
            group=torch.zeros(lanes, self.servers, dtype=torch.long, device=on),
            batch_size=self.batch_size,
        )

    # What is seen

    def _queue(self) -> tuple[Tensor, Tensor]:
        """Numbers of the tasks that are seen, `[E, L]`, and which of these places hold one."""
        waits = (self.drawn["arrival_s"] <= self.state["clock_s"]) & ~self.state["launched"]
        number = torch.arange(TASKS, device=waits.device).where(waits, torch.tensor(TASKS, device=waits.device))
        first = number.sort(-1).values[:, :QUEUE]
        return first.clamp_max(TASKS - 1), first < TASKS

    def _groups(self) -> tuple[Tensor, Tensor, Tensor]:
        """Which servers are free `[E, S]`, of one group `[E, S, S]`, and how many each one's group has `[E, S]`."""
        group = self.state["group"]
        same = (group.unsqueeze(-1) == group.unsqueeze(-2)) & (group > 0).unsqueeze(-1)
        return self.state["until_s"] <= self.state["clock_s"], same, same.sum(-1)

    def _choices(self) -> dict[str, Tensor]:
        """Of each place of the queue, `[E, L]`: waiting time, size, whether it fits now and whether on a warm group."""
        first, there = self._queue()
        free, _, count = self._groups()
        size = self.drawn["size"].gather(1, first)
        waiting = (self.state["clock_s"] - self.drawn["arrival_s"].gather(1, first)).masked_fill(~there, 0.0)
        warm = ((count.unsqueeze(1) == size.unsqueeze(-1)) & free.unsqueeze(1)).any(-1)
        fits = there & (size <= free.sum(-1, keepdim=True))
        return {
            "number": first,
            "there": there,
            "waiting_s": waiting,
            "size": size.masked_fill(~there, 0.0),
            "fits": fits,
            "warm": warm & there,
        }

    def show(self) -> dict[str, Tensor]:
        c, (free, _, count), s = self._choices(), self._groups(), self.state
        busy_s = (s["until_s"] - s["clock_s"]).clamp_min(0)
        numbers = (c["there"], c["waiting_s"] / SCALE_S, c["size"] / self.servers, c["fits"], c["warm"])
        tasks = torch.stack([x.float() for x in numbers], -1).flatten(-2)
        fleet = torch.stack([busy_s / SCALE_S, count / self.servers, free.float()], -1).flatten(-2)
        left = 1 - s["launched"].float().mean(-1, keepdim=True)
        wait = (self._next_event().isfinite() | ~c["fits"].any(-1, keepdim=True)).expand(-1, 1)
        any_steps = torch.ones(len(wait), len(STEPS), dtype=torch.bool, device=wait.device)
        return {
            "observation": torch.cat([tasks, fleet, left], -1),
            "action_mask": torch.cat([c["fits"], wait, any_steps], -1),
        }

    # What a decision does

    def _next_event(self) -> Tensor:
        """When the next task comes or the next work ends, s, `[E, 1]`; infinite: never."""
        s = self.state
        times = torch.cat([self.drawn["arrival_s"], s["until_s"]], -1)
        later: Tensor = times.masked_fill(times <= s["clock_s"], torch.inf).amin(-1, keepdim=True)
        return later

    def act(self, action: Tensor) -> tuple[Tensor, Tensor]:
        s, place, steps = self.state, action[:, 0], 2.0 * (action[:, 1] + 1)
        c, lane = self._choices(), torch.arange(len(action), device=action.device)
        launch = (place < QUEUE) & c["fits"][lane, place.clamp_max(QUEUE - 1)]
        at = place.clamp_max(QUEUE - 1)
        size, warm = c["size"][lane, at], c["warm"][lane, at]
        takes = duration_s(size, steps, warm)
        mean = c["waiting_s"].sum(-1) / c["there"].sum(-1).clamp_min(1)
        gain = torch.where(launch, reward(mean, c["waiting_s"][lane, at], takes, steps), 0.0)
        self._launch(launch, c["number"][lane, at], size, warm, takes)
        waits = ~launch.unsqueeze(-1)
        over = s["launched"].all(-1)
        while True:  # a wait, and then as long as nothing that is seen fits
            soon = self._next_event()
            s["clock_s"] = torch.where(waits & soon.isfinite(), soon, s["clock_s"])
            waits = ~(self._choices()["fits"].any(-1) | over).unsqueeze(-1)
            if not waits.any():
                return gain, over

    def _launch(self, launch: Tensor, number: Tensor, size: Tensor, warm: Tensor, takes: Tensor) -> None:
        """Gives tasks their servers. Args: launch: in which lanes; of the others nothing else is read. All `[E]`."""
        s, (free, same, count) = self.state, self._groups()
        lane = torch.arange(len(size), device=size.device)
        fit = free & (count == size.unsqueeze(-1))
        of_group = same[lane, fit.int().argmax(-1)]
        first = free & (free.cumsum(-1) <= size.unsqueeze(-1))
        taken = torch.where(warm.unsqueeze(-1), of_group, first) & launch.unsqueeze(-1)
        broken = (same & taken.unsqueeze(-2)).any(-1) & ~(warm & launch).unsqueeze(-1)
        fresh = s["launched"].sum(-1, keepdim=True) + 1
        cold = taken & ~warm.unsqueeze(-1)
        s["group"] = torch.where(cold, fresh, s["group"].masked_fill(broken & ~cold, 0))
        s["until_s"] = torch.where(taken, s["clock_s"] + takes.unsqueeze(-1), s["until_s"])
        s["launched"] = s["launched"] | (torch.nn.functional.one_hot(number, TASKS).bool() & launch.unsqueeze(-1))


class Gang(DrawnProblem):
    """Which task of a queue is done next, on servers that work together, and how well; the cost is minus the reward.

    The problem of EAT (arXiv 2507.10026), from its mathematics: time goes from event to event, and waiting is no way to
    earn, since every task waits meanwhile. An action is two choices, the task (or, last, to wait) and its steps.

    Args:
        servers: S, of 1 to 8 that a task may need. rate_per_s: of arrivals.

    Raises:
        InputError: a knob is out of range.

    Example:
        >>> env = Gang().make_env(8, seed=1)
        >>> td = env.reset()
        >>> td["observation"].shape, td["action_mask"][:, :11].all().item()  # all servers are free
        (torch.Size([8, 63]), True)
    """

    name, steps = "gang", DECISIONS
    cost = Cost("minus reward", column="minus_reward")
    methods: Sequence[str] = ("d2sac", "sac", "ppo")
    kinds: Mapping[str, Kind] = {"servers": "whole", "rate_per_s": "number"}
    least: Mapping[str, float] = {"servers": 1, "rate_per_s": 1e-3}

    def __init__(self, servers: int = 4, rate_per_s: float = 0.15) -> None:
        super().__init__(servers=servers, rate_per_s=rate_per_s)

    def lanes(self, seeds: Sequence[int], device: Any) -> EnvBase:
        return GangEnv(seeds, **self.options, device=device)

    def rules(self) -> Mapping[str, Callable[[int], Decides]]:
        servers = self.options["servers"]
        return {
            "greedy": lambda seed: lambda td: _greedy(td, servers),
            "first-fit": lambda seed: lambda td: _first_fit(td, servers),
            "warm-first": lambda seed: lambda td: _warm_first(td, servers),
        }


def launches(observation: Tensor, servers: int) -> Tensor:
    """The reward of each launch, minus infinity where it does not fit, `[*, L, steps]`.

    Args:
        observation: of a `GangEnv`, `[*, F]`. servers: S.
    """
    tasks = observation[..., : FIELDS * QUEUE].unflatten(-1, (QUEUE, FIELDS))
    there, waiting, size, fits, warm = tasks.unbind(-1)
    waiting, size = waiting * SCALE_S, (size * servers).round()
    steps = torch.tensor(STEPS, dtype=observation.dtype, device=observation.device)
    mean = waiting.sum(-1) / there.sum(-1).clamp_min(1)
    takes = duration_s(size.unsqueeze(-1), steps, (warm > 0).unsqueeze(-1))
    gain = reward(mean[..., None, None], waiting.unsqueeze(-1), takes, steps)
    return gain.masked_fill(fits.unsqueeze(-1) <= 0, -torch.inf)


def _decided(td: TensorDictBase, gain: Tensor) -> TensorDictBase:
    """The launch of the greatest value, or a wait where none fits."""
    best = gain.flatten(-2).argmax(-1)
    place = torch.where(gain.flatten(-2).amax(-1).isinf(), QUEUE, best // len(STEPS))
    return td.set("action", torch.stack([place, best % len(STEPS)], -1))


def _greedy(td: TensorDictBase, servers: int) -> TensorDictBase:
    """The launch of the greatest reward of its own; it never waits while something fits."""
    return _decided(td, launches(td["observation"], servers))


def _first_fit(td: TensorDictBase, servers: int) -> TensorDictBase:
    """Of the tasks that fit the one that waits longest, with the steps of its greatest reward."""
    gain = launches(td["observation"], servers)
    order = torch.arange(QUEUE, 0, -1, device=gain.device).unsqueeze(-1)
    return _decided(td, torch.where(gain.isinf(), gain, gain + 1e3 * order))


def _warm_first(td: TensorDictBase, servers: int) -> TensorDictBase:
    """A task for which nothing is loaded before all others, and of these the greatest reward."""
    warm = td["observation"][..., : FIELDS * QUEUE].unflatten(-1, (QUEUE, FIELDS))[..., 4:]
    return _decided(td, launches(td["observation"], servers) + 1e3 * warm)
