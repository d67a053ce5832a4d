"""`OffloadingEnv`: the edge-AIGC offloading problem as a batched TorchRL environment; one step is one slot."""

from __future__ import annotations

from typing import Any, Literal, get_args

import torch
from tensordict import TensorDict, TensorDictBase
from torch import Tensor
from torchrl.data import Binary, Bounded, Categorical, Composite, Unbounded
from torchrl.envs import EnvBase

from diffpolicy._validate import show
from diffpolicy.edge.arrivals import SlotGrid, TaskListSource, WorkloadSource
from diffpolicy.edge.queueing import Fleet, next_queue_gcycles, slot_delays_s, work_sent_gcycles
from diffpolicy.edge.scenario import Scenario
from diffpolicy.edge.tasks import TaskList
from diffpolicy.edge.workload import Stream
from diffpolicy.errors import InputError

Information = Literal["paper", "stale", "live"]
LEVELS: tuple[Information, ...] = get_args(Information)


class OffloadingEnv(EnvBase):
    """Stations send each of a slot's tasks to a server; the reward of a task is minus its service delay in seconds.

    Batch `[E]`; B stations as agents, each with up to N tasks a slot under the mask `valid`; S servers. Environment e
    plays the episodes e, e + E, e + 2E, ... What arrives in episode k depends on (scenario, seed, stream, k) alone.
    There are no terminal states: the horizon is a truncation, and the slot after it can be observed.

    Args:
        scenario: servers, stations, slots and workload.
        batch_size: `[E]`.
        seed: of the arrivals, at least 0.
        information: what a decision may use. `paper`: `("agents", "observation")` = input size, work, slot-start
            queues. `stale`: also capacities, rates, availability, result sizes, homes and a seed shared by the
            stations. `live`: also the order of arrival over all stations, in which decisions may be taken one after
            the other.
        stream: evaluation or training episodes; the two never meet.
        tasks: a task file's tasks instead of the workload; then E is 1.
        first_episode: number of environment 0's first episode.
        dtype: of all real tensors. device: of all tensors.

    Raises:
        InputError: the scenario has no workload and no tasks are given, or an argument is out of range.

    Example:
        >>> env = OffloadingEnv(Scenario.load("lad-ts"), batch_size=[8])
        >>> env.rollout(3)["agents", "observation"].shape
        torch.Size([8, 3, 20, 50, 22])
    """

    batch_locked = True

    def __init__(
        self,
        scenario: Scenario,
        batch_size: Any = (1,),
        seed: int = 0,
        *,
        information: Information = "paper",
        stream: Stream = Stream.EVALUATION,
        tasks: TaskList | None = None,
        first_episode: int = 0,
        dtype: torch.dtype = torch.float32,
        device: torch.device | str | None = None,
    ) -> None:
        size = torch.Size([batch_size] if isinstance(batch_size, int) else batch_size)
        if len(size) != 1 or size[0] < 1:
            raise InputError(f"batch_size must be [E] with E >= 1, got {list(size)}")
        if information not in LEVELS:
            raise InputError(f"information must be one of {', '.join(LEVELS)}, got {show(information)}")
        if first_episode < 0:
            raise InputError(f"first_episode must be at least 0, got {first_episode}")
        if seed < 0:
            raise InputError(f"seed must be at least 0, got {seed}")
        if any(server.availability is not None for server in scenario.servers):
            raise InputError("servers with 'availability' are not simulated by this version")
        device = None if device is None else torch.device(device)
        super().__init__(device=device, batch_size=size)
        self.scenario, self.information = scenario, information
        self.dtype = dtype
        self.fleet = Fleet(
            torch.tensor([s.capacity_gcycles_per_s for s in scenario.servers], dtype=dtype, device=device),
            torch.tensor([s.rate_mbit_per_s for s in scenario.servers], dtype=dtype, device=device),
        )
        self.source: WorkloadSource | TaskListSource = (
            WorkloadSource(scenario, seed, stream, dtype, device)
            if tasks is None
            else TaskListSource(tasks, scenario, dtype, device)
        )
        self._first_episode, self._stride = first_episode, size[0]
        self._next_episode = [first_episode + e for e in range(size[0])]
        self._episode = list(self._next_episode)
        self._slot = [0] * size[0]
        self._queue = torch.zeros(size[0], len(scenario.servers), dtype=dtype, device=device)
        self._grid: SlotGrid | None = None
        self._make_specs()

    # What it looks like

    def _make_specs(self) -> None:
        e, b, s = self.batch_size[0], len(self.scenario.stations), len(self.scenario.servers)
        n = self.source.max_tasks
        like = {"dtype": self.dtype, "device": self.device}
        integer = {"dtype": torch.int64, "device": self.device}
        flag = {"dtype": torch.bool, "device": self.device}
        agents = {
            "observation": Unbounded((e, b, n, 2 + s), **like),
            "valid": Binary(n, (e, b, n), **flag),
            "action_mask": Binary(s, (e, b, s), **flag),
            "input_mbit": Unbounded((e, b, n), **like),
            "work_gcycles": Unbounded((e, b, n), **like),
        }
        root: dict[str, Any] = {"queue_gcycles": Unbounded((e, s), **like)}
        if self.information != "paper":
            agents["result_mbit"] = Unbounded((e, b, n), **like)
            agents["home"] = Bounded(-1, s - 1, (e, b, n), **integer)
            root["servers"] = Composite(
                capacity_gcycles_per_s=Unbounded((e, s), **like),
                rate_mbit_per_s=Unbounded((e, s), **like),
                up=Binary(s, (e, s), **flag),
                shape=(e,),
            )
            root["shared_seed"] = Unbounded((e, 1), **integer)
        if self.information == "live":
            agents["arrival"] = Bounded(0, b * n, (e, b, n), **integer)
        root["agents"] = Composite(agents, shape=(e, b))
        self.observation_spec = Composite(root, shape=(e,))
        self.action_spec = Composite(
            agents=Composite(action=Categorical(s, (e, b, n), **integer), shape=(e, b)), shape=(e,)
        )
        self.reward_spec = Composite(agents=Composite(reward=Unbounded((e, b, n), **like), shape=(e, b)), shape=(e,))
        done = {name: Binary(1, (e, 1), **flag) for name in ("done", "terminated", "truncated")}
        self.done_spec = Composite(done, shape=(e,))

    def observe(self) -> TensorDict:
        """What may be seen of the present slot, at this environment's level of information; batch `[E]`."""
        grid = self.grid
        e, b, n = grid.valid.shape
        s = self._queue.shape[-1]
        agents = {
            "observation": torch.cat(
                [
                    torch.stack([grid.input_mbit, grid.work_gcycles], -1),
                    self._queue[:, None, None].expand(e, b, n, s),
                ],
                -1,
            ),
            "valid": grid.valid.clone(),
            "action_mask": torch.ones(e, b, s, dtype=torch.bool, device=self.device),
            "input_mbit": grid.input_mbit.clone(),
            "work_gcycles": grid.work_gcycles.clone(),
        }
        root: dict[str, Any] = {"queue_gcycles": self._queue.clone()}
        if self.information != "paper":
            agents["result_mbit"] = grid.result_mbit.clone()
            agents["home"] = grid.home.clone()
            root["servers"] = TensorDict(
                capacity_gcycles_per_s=self.fleet.capacity_gcycles_per_s.expand(e, s).clone(),
                rate_mbit_per_s=self.fleet.rate_mbit_per_s.expand(e, s).clone(),
                up=torch.ones(e, s, dtype=torch.bool, device=self.device),
                batch_size=[e],
            )
            root["shared_seed"] = self._shared_seed()
        if self.information == "live":
            rank = torch.arange(grid.order.shape[1], device=self.device).expand_as(grid.order)
            last = torch.full((e, b * n), b * n, dtype=torch.int64, device=self.device)
            arrival = last.scatter(1, grid.order, rank).view(e, b, n)
            agents["arrival"] = torch.where(grid.valid, arrival, b * n)
        root["agents"] = TensorDict(agents, batch_size=[e, b], device=self.device)
        return TensorDict(root, batch_size=self.batch_size, device=self.device)

    def _shared_seed(self) -> Tensor:
        """A number per environment and slot that all stations know: 63 bits mixed of (seed, stream, episode, slot)."""
        of_run = _mix(_mix(getattr(self.source, "seed", 0)) ^ int(getattr(self.source, "stream", 0)))
        mixed = [_mix(_mix(of_run ^ k) ^ t) for k, t in zip(self._episode, self._slot, strict=True)]
        return torch.tensor(mixed, dtype=torch.int64, device=self.device).unsqueeze(-1)

    @property
    def grid(self) -> SlotGrid:
        """The tasks of the present slot."""
        if self._grid is None:
            self._grid = self.source.slot(self._episode, self._slot)
        return self._grid

    @property
    def queue_gcycles(self) -> Tensor:
        """Work queued on each server at the start of the present slot, `[E, S]`."""
        return self._queue

    # What happens

    def _reset(self, tensordict: TensorDictBase | None = None, **_: Any) -> TensorDict:
        chosen = [True] * self.batch_size[0]
        if tensordict is not None and "_reset" in tensordict.keys():
            chosen = tensordict["_reset"].view(-1).tolist()
        for e, now in enumerate(chosen):
            if now:
                self._episode[e] = self._next_episode[e]
                self._next_episode[e] += self._stride
                self._slot[e] = 0
        keep = torch.tensor([not now for now in chosen], device=self.device).unsqueeze(-1)
        self._queue = self._queue * keep
        self._grid = None
        done = torch.zeros(self.batch_size[0], 1, dtype=torch.bool, device=self.device)
        result = self.observe()
        return result.update({"done": done, "terminated": done.clone(), "truncated": done.clone()})

    def _step(self, tensordict: TensorDictBase) -> TensorDict:
        grid = self.grid
        tasks = grid.in_order()
        server = grid.pack(tensordict["agents", "action"])
        delay_s = slot_delays_s(server, tasks, self._queue, self.fleet)
        sent = work_sent_gcycles(server, tasks.work_gcycles, self._queue.shape[-1])
        self._queue = next_queue_gcycles(self._queue, sent, self.fleet, grid.duration_s)
        self._slot = [t + 1 for t in self._slot]
        self._grid = None
        horizon = self.source.slots
        truncated = torch.tensor([horizon is not None and t >= horizon for t in self._slot], device=self.device)
        result = self.observe()
        result["agents", "reward"] = -grid.unpack(delay_s)
        terminated = torch.zeros(self.batch_size[0], 1, dtype=torch.bool, device=self.device)
        truncated = truncated.unsqueeze(-1)
        return result.update({"done": truncated.clone(), "terminated": terminated, "truncated": truncated})

    def _set_seed(self, seed: int | None) -> None:
        if isinstance(self.source, WorkloadSource) and seed is not None:
            self.source.seed = seed
        self._next_episode = [self._first_episode + e for e in range(self.batch_size[0])]

    def shard(self, rank: int, world: int) -> None:
        """Makes this one of `world` environments alike that share the episodes out; call it before the first reset.

        Environment e then plays the episodes rank E + e, rank E + e + world E, ...
        """
        self._first_episode += rank * self.batch_size[0]
        self._stride = world * self.batch_size[0]
        self._next_episode = [self._first_episode + e for e in range(self.batch_size[0])]

    # Saving and restoring

    def get_extra_state(self) -> dict[str, Any]:
        """Counters and queues: with them, arrivals included, the environment continues as if nothing had happened."""
        return {
            "seed": getattr(self.source, "seed", None),
            "episode": list(self._episode),
            "next_episode": list(self._next_episode),
            "slot": list(self._slot),
            "queue_gcycles": self._queue.clone(),
        }

    def set_extra_state(self, state: dict[str, Any]) -> None:
        """Takes up what `get_extra_state` gave."""
        if isinstance(self.source, WorkloadSource):
            self.source.seed = state["seed"]
        self._episode, self._slot = list(state["episode"]), list(state["slot"])
        self._next_episode = list(state["next_episode"])
        self._queue = state["queue_gcycles"].to(self._queue)
        self._grid = None


def _mix(x: int) -> int:
    """SplitMix64's finaliser, kept to 63 bits."""
    x = (x + 0x9E3779B97F4A7C15) & 0xFFFFFFFFFFFFFFFF
    x = ((x ^ (x >> 30)) * 0xBF58476D1CE4E5B9) & 0xFFFFFFFFFFFFFFFF
    x = ((x ^ (x >> 27)) * 0x94D049BB133111EB) & 0xFFFFFFFFFFFFFFFF
    return (x ^ (x >> 31)) >> 1
