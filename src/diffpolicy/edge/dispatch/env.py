"""`HeldEnv`: held requests as an environment, whose action is a pair of waiting request and free server."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from tensordict import TensorDict, TensorDictBase
from torch import Tensor
from torchrl.data import Binary, Categorical, Composite, Unbounded
from torchrl.envs import EnvBase

from diffpolicy import _validate as check
from diffpolicy._types import Floats
from diffpolicy.edge.dispatch.arrivals import Arrivals
from diffpolicy.edge.dispatch.moment import Binding, Dispatcher, Moment
from diffpolicy.edge.dispatch.named import make_held
from diffpolicy.edge.dispatch.simulation import Simulation
from diffpolicy.environments import Cost, EnvProblem
from diffpolicy.errors import InputError

SHARES = np.array([0.15, 0.25, 0.45, 0.15])
PIXEL_STEPS = np.array([512**2 * 20, 768**2 * 20, 1024**2 * 25, 1536**2 * 35], dtype=np.float64)
COSTS_S = PIXEL_STEPS / PIXEL_STEPS[-1] * 19.7
"""vLLM-Omni's mixed workload: shares of four sizes, and seconds at speed 1."""
REQUESTS = 200
"""Of an episode."""
PER_REQUEST = ("wait_s", "passes", "deadline_s", "weight", "cost", "number")
PER_PAIR = ("service_s", "rest_s", "link_s")
PER_SERVER = ("free", "starts_s", "outstanding", "outstanding_cost", "loaded")
NONE = -1.0
"""Stands for an infinite number, and where there is no request."""

Draw = Callable[[int, int], Arrivals]
"""From the seed and the number of an episode to its requests."""


def mixed_requests(seed: int, episode: int) -> Arrivals:
    """Poisson requests of vLLM-Omni's mixed workload on servers of speeds 2, 1, 0.5 and 0.5 at a load of 0.85.

    Args:
        seed: at least 0. episode: its number.

    Returns:
        `REQUESTS` of them.

    Example:
        >>> mixed_requests(0, 0).servers, len(mixed_requests(0, 1))
        (4, 200)
    """
    rng, speeds = np.random.default_rng([seed, episode, 18]), np.array([2.0, 1.0, 0.5, 0.5])
    kind = rng.choice(len(SHARES), REQUESTS, p=SHARES)
    arrival = np.cumsum(rng.exponential(COSTS_S @ SHARES / (0.85 * speeds.sum()), REQUESTS))
    return Arrivals(arrival, COSTS_S[kind, None] / speeds, cost=COSTS_S[kind], kind=kind)


class HeldEnv(EnvBase):
    """Each step binds one of the requests that wait to one of the servers that are free, or waits for what comes next.

    The first `most` of those that wait are shown, W of them in order of arrival. The action is `request * S + server`,
    or W S for waiting; `action_mask` allows what is feasible. The reward of a step is minus the seconds until the next
    decision, times how many requests are there, waiting or served; so an episode costs the sum of all delays, and
    waiting is not free. It ends when all are bound.

    Beside the flat `observation` all fields of a `Moment` stand under `moment`, -1 for what is infinite or not there.

    Args:
        batch: lanes. seed: of the requests. draw: gives an episode's; lane e plays the episodes e, e + E, ...
        most: how many that wait are shown, W. seats, dead_s: of `simulate`.

    Raises:
        InputError: an argument is out of range, or an action is not allowed.

    Example:
        >>> env = HeldEnv(2)
        >>> td = env.reset()
        >>> td["action_mask"].shape, int(td["action_mask"][0].sum())  # one request, four free servers, or to wait
        (torch.Size([2, 65]), 5)
    """

    def __init__(
        self,
        batch: int,
        seed: int = 0,
        draw: Draw = mixed_requests,
        *,
        most: int = 16,
        seats: int = 1,
        dead_s: float = 0.0,
    ) -> None:
        super().__init__(batch_size=[check.integer(batch, "batch", least=1)])
        self.draw, self.most, self.seats, self.dead_s = draw, check.integer(most, "most", least=1), seats, dead_s
        self.seed, self.next = check.integer(seed, "seed", least=0), list(range(batch))
        self.sims: list[Simulation] = [self._fresh(e) for e in range(batch)]
        self.moments: list[Moment | None] = [None] * batch
        self.cost_s = [0.0] * batch
        s = self.servers = self.sims[0].arrivals.servers
        e, w = batch, self.most
        moment = {
            **{name: Unbounded((e, w)) for name in PER_REQUEST},
            **{name: Unbounded((e, w, s)) for name in PER_PAIR},
            **{name: Unbounded((e, s)) for name in PER_SERVER},
        }
        self.observation_spec = Composite(
            observation=Unbounded((e, w * (s + 3) + 2 * s)),
            action_mask=Binary(w * s + 1, (e, w * s + 1), dtype=torch.bool),
            moment=Composite(moment, shape=(e,)),
            shape=(e,),
        )
        self.action_spec = Categorical(w * s + 1, (e,))
        self.reward_spec = Unbounded((e, 1))
        ends = {name: Binary(1, (e, 1), dtype=torch.bool) for name in ("done", "terminated", "truncated")}
        self.done_spec = Composite(ends, shape=(e,))

    def _fresh(self, episode: int) -> Simulation:
        """An episode at its first decision."""
        return Simulation(self.draw(self.seed, episode), seats=self.seats, dead_s=self.dead_s)

    def _to_decision(self, e: int) -> None:
        """Goes on until a request waits and a server is free for it, or all is over."""
        sim = self.sims[e]
        self.moments[e] = None
        while not sim.over:
            if sim.waiting and sim.free.any():
                moment = sim.moment()
                if moment.feasible[: self.most].any():
                    self.moments[e] = moment
                    return
            sim.note_refusals()
            sim.advance()

    def _reset(self, tensordict: TensorDictBase | None = None, **_: Any) -> TensorDict:
        again = None if tensordict is None else tensordict.get("_reset", None)
        for e in range(self.batch_size[0]):
            if again is None or bool(again[e].any()):
                self.sims[e] = self._fresh(self.next[e])
                self.next[e] += self.batch_size[0]
                self._to_decision(e)
                self.cost_s[e] = 0.0
        return self._seen()

    def _step(self, tensordict: TensorDictBase) -> TensorDict:
        rewards = torch.zeros(*self.batch_size, 1)
        for e, action in enumerate(tensordict["action"].tolist()):
            moment, sim = self.moments[e], self.sims[e]
            if moment is None:
                continue
            if not self._mask(e)[action]:
                raise InputError(f"action {action} of lane {e} is not allowed: its request or its server is not there")
            if action == self.most * self.servers:
                sim.note_refusals()
                sim.advance()
            else:
                sim.bind(Binding(*divmod(action, self.servers)), moment)
            self._to_decision(e)
            before, self.cost_s[e] = self.cost_s[e], self._cost_s(e)
            rewards[e, 0] = before - self.cost_s[e]
        return self._seen().set("reward", rewards)

    def _cost_s(self, e: int) -> float:
        """Seconds that requests of lane e have been there since its first decision; all of them once it is over."""
        sim = self.sims[e]
        arrival, bound = sim.arrivals.arrival_s, sim.server >= 0
        now = np.inf if sim.over else sim.now_s
        until = np.where(bound, np.minimum(sim.finish_s, now), now)[: sim.next] - arrival[: sim.next]
        links = sim.arrivals.link_s[np.arange(len(arrival)), sim.server]
        return float(until.sum() + links[bound].sum())

    def _mask(self, e: int) -> Tensor:
        """What lane e may do, bool `[W S + 1]`; to wait, unless nothing will come."""
        w, s = self.most, self.servers
        mask = torch.zeros(w * s + 1, dtype=torch.bool)
        moment, sim = self.moments[e], self.sims[e]
        if moment is not None:
            shown = moment.feasible[:w]
            mask[: shown.size] = torch.as_tensor(shown.reshape(-1))
        mask[-1] = moment is None or bool(sim.running) or sim.next < len(sim.arrivals)
        return mask

    def _seen(self) -> TensorDict:
        """What all lanes show."""
        lanes, w, s = self.batch_size[0], self.most, self.servers
        fields: dict[str, Floats] = {name: np.full((lanes, w), NONE) for name in PER_REQUEST}
        fields |= {name: np.full((lanes, w, s), NONE) for name in PER_PAIR}
        fields |= {name: np.full((lanes, s), NONE) for name in PER_SERVER}
        for e, moment in enumerate(self.moments):
            if moment is not None:
                for name, rows in fields.items():
                    value = getattr(moment, name)
                    value = value[:w] if name not in PER_SERVER else value
                    rows[e, : len(value)] = np.where(np.isfinite(value), value, NONE)
        there = (fields["wait_s"] >= 0).astype(np.float64)
        seen = [there, fields["wait_s"] / 10, fields["passes"] / 10, fields["rest_s"].reshape(lanes, -1) / 10]
        seen += [fields["free"], fields["starts_s"] / 10]
        over = torch.tensor([[sim.over] for sim in self.sims])
        return TensorDict(
            {
                "observation": torch.as_tensor(np.concatenate(seen, -1), dtype=torch.float32),
                "action_mask": torch.stack([self._mask(e) for e in range(lanes)]),
                "moment": TensorDict(
                    {n: torch.as_tensor(x, dtype=torch.float32) for n, x in fields.items()}, self.batch_size
                ),
                "done": over,
                "terminated": over.clone(),
                "truncated": torch.zeros_like(over),
            },
            self.batch_size,
        )

    def _set_seed(self, seed: int | None) -> None:
        self.seed, self.next = seed or 0, list(range(self.batch_size[0]))


class OrderRule:
    """A dispatcher that holds as a rule of a `HeldEnv`; what it remembers is of a lane, and of an episode.

    Args:
        dispatcher: such as `Held`. Each lane has a copy of it, begun from the lane's number.

    Example:
        >>> env = HeldEnv(1)
        >>> int(OrderRule(Held())(env.reset())["action"])  # the only request, on the fastest server
        0
    """

    def __init__(self, dispatcher: Dispatcher) -> None:
        self.dispatcher = dispatcher
        self._lanes: list[tuple[Dispatcher, int]] = []
        """Of each lane its copy, and the number of the request that had waited longest when it was last asked."""

    def __call__(self, td: TensorDictBase) -> TensorDictBase:
        """Adds `action`, int64 `[E]`. Args: td: what a `HeldEnv` shows."""
        lanes, w, s = td["moment", "service_s"].shape
        return td.set("action", torch.tensor([self._one(e, td["moment"][e], w, s) for e in range(lanes)]))

    def _of(self, e: int, oldest: int) -> Dispatcher:
        """The copy of lane e, begun where an episode begins: within one the oldest number only grows."""
        while len(self._lanes) <= e:
            self._lanes.append((copy.deepcopy(self.dispatcher), oldest + 1))
        dispatcher, before = self._lanes[e]
        if oldest < before:
            dispatcher.begin(e)
        self._lanes[e] = dispatcher, oldest
        return dispatcher

    def _one(self, e: int, shown: TensorDictBase, w: int, s: int) -> int:
        """The action of a lane."""
        there = int((shown["wait_s"] >= 0).sum())
        if there == 0:
            return w * s
        of = {name: shown[name].numpy().astype(np.float64) for name in (*PER_REQUEST, *PER_PAIR, *PER_SERVER)}
        for name in (*PER_REQUEST, *PER_PAIR):
            of[name] = of[name][:there]
        for name in ("deadline_s", "service_s", "rest_s"):
            of[name] = np.where(of[name] == NONE, np.inf, of[name])
        whole: dict[str, Any] = {
            name: of[name].astype(np.int64) for name in ("passes", "free", "outstanding", "loaded", "number")
        }
        binding = self._of(e, int(whole["number"][0])).decide(Moment(**(of | whole)))
        return w * s if binding is None else binding.request * s + binding.server


problem = EnvProblem(
    HeldEnv,
    rules={
        "first-come": OrderRule(make_held("first-come")),
        "shortest-first": OrderRule(make_held("shortest-first")),
        "cost-minus-age": OrderRule(make_held("cost-minus-age:age=0.5")),
    },
    cost=Cost("delays of all requests", "s", per="episode"),
    name="held",
    version="1",
)
