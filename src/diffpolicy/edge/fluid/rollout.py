"""Episodes in the fluid form (`physics/fluid.py`): tasks are chances, so that an episode has a gradient.

Nothing observes more than it does in `OffloadingEnv`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import torch
from tensordict import TensorDict, TensorDictBase
from torch import Tensor, nn

from diffpolicy.edge.credit.objectives import busy_costs
from diffpolicy.edge.env.env import OffloadingEnv
from diffpolicy.edge.information import Information
from diffpolicy.edge.physics.fluid import fluid_slot
from diffpolicy.edge.physics.queueing import unloaded_delay_s
from diffpolicy.edge.scenario.scenario import Scenario
from diffpolicy.edge.workload.seeds import Purpose, Stream, drawer
from diffpolicy.errors import InputError
from diffpolicy.objectives.pathwise import choice_probabilities
from diffpolicy.policies.policy import Policy


class _FluidEnv(OffloadingEnv):
    """The environment whose queues move by chances, with a gradient."""

    def in_order(self, grid: Tensor) -> Tensor:
        """What stands in a grid for the present slot's tasks, in order of arrival, `[E, B, N, F]` to `[E, K, F]`."""
        order = self.grid.order.unsqueeze(-1)
        return grid.flatten(1, 2).gather(1, order.expand(*order.shape[:2], grid.shape[-1]))

    def move(self, probability: Tensor) -> TensorDict:
        """Plays the slot under chances `[E, B, N, S]`; its outcome (see `team_objectives`), batch `[E]`."""
        grid, tasks, p = self.grid, self.grid.in_order(), self.in_order(probability)
        slot = fluid_slot(p, tasks, self._queue, self.fleet, grid.duration_s)
        outcome = {
            "delay_s": slot.delay_s,
            "weight": p * tasks.valid.unsqueeze(-1),
            "valid": tasks.valid,
            "work_gcycles": tasks.work_gcycles,
            "unloaded_s": unloaded_delay_s(tasks, self.fleet).amin(-1) * tasks.valid,
            **busy_costs(tasks.work_gcycles, self.scenario),
            "queue_gcycles": self._queue,
        }
        self._queue, self._grid = slot.next_queue_gcycles, None
        self._slot = [t + 1 for t in self._slot]
        self._clock_s = self._clock_s + grid.clock_s
        return TensorDict(outcome, batch_size=self.batch_size)

    def let_go(self) -> None:
        """Forgets how the queues came about."""
        self._queue = self._queue.detach()

    def horizon(self, least: int, greatest: int) -> int:
        """Slots of the present episodes, a function of the seed and of their number."""
        state = (self.source.seed or 0, int(self.source.stream or 0), self._episode[0])
        return int(drawer(Purpose.HORIZON, *state).integers(least, greatest, endpoint=True))


class FluidRollout:
    """Plays episodes of a scenario under choice probabilities, differentiably through all slots: `rollout(policy)`.

    Called with a policy it gives an outcome of batch `[E, T]` (see `team_objectives`), and beside it `valid`,
    `queue_gcycles` at the start of each slot `[S]`, and for a policy that normalises its observations `observation`
    `[K, F]`, without a gradient. Each call plays the next E episodes. Memory grows with T times what the policy's
    networks keep.

    Args:
        scenario: has a workload; linear law, no outages.
        batch_size: environments, E. seed: of the arrivals.
        information: what the policy sees, `paper` or `stale`: nothing of the slot's other decisions.
        stream: training or evaluation episodes.
        slots: T, or `(least, greatest)`: drawn for each call, so that no policy can be tuned to one horizon; by
            default the scenario's.
        dtype, device: of all tensors.

    Raises:
        InputError: the scenario has measured service times, outages or no slots, or an argument is out of range.

    Example:
        >>> rollout = FluidRollout(Scenario.load("lad-ts"), batch_size=2, slots=5)
        >>> table = SizeTable.from_specs(rollout.env, edges=size_edges(Scenario.load("lad-ts"), 8))
        >>> outcome = rollout(table)
        >>> (outcome["weight"] * outcome["delay_s"]).sum().backward()
    """

    def __init__(
        self,
        scenario: Scenario,
        batch_size: int = 8,
        seed: int = 0,
        *,
        information: Information = "paper",
        stream: Stream = Stream.TRAINING,
        slots: int | tuple[int, int] | None = None,
        dtype: torch.dtype = torch.float32,
        device: torch.device | str | None = None,
    ) -> None:
        if scenario.measured:
            raise InputError(f"scenario {scenario.name} has measured service times, which have no fluid form")
        if any(server.availability is not None for server in scenario.servers):
            raise InputError(f"scenario {scenario.name} has servers with outages, which have no fluid form")
        if information == "live":
            raise InputError("the fluid form decides a slot's tasks at once; information must be paper or stale")
        if slots is None and scenario.slots is None:
            raise InputError(f"scenario {scenario.name} has no 'slots', so an episode has no end; give slots")
        chosen = slots if slots is not None else scenario.slots or 0
        least, greatest = self.horizon = chosen if isinstance(chosen, tuple) else (chosen, chosen)
        if not 1 <= least <= greatest:
            raise InputError(f"slots must be T or (least, greatest) from 1 on, got {slots}")
        self.env = _FluidEnv(
            replace(scenario, slots=greatest),
            [batch_size],
            seed,
            information=information,
            stream=stream,
            dtype=dtype,
            device=device,
        )

    def __call__(self, policy: Policy | Callable[[TensorDictBase], Tensor]) -> TensorDict:
        """An outcome, `[E, T]`.

        Args:
            policy: a learned policy, whose softmax is taken and whose draws are left out; or a function from what is
                observed to chances `[E, B, N, S]`.
        """
        td, slots = self.env.reset(), []
        for _ in range(self.env.horizon(*self.horizon)):
            chances = choice_probabilities(policy, td) if isinstance(policy, Policy) else policy(td)
            seen = {}
            if isinstance(policy, Policy) and policy.normalizer is not None:
                seen["observation"] = self.env.in_order(policy.observe(td).detach())
            slots.append(self.env.move(chances.to(self.env.dtype)).update(seen))
            td = self.env.observe()
        self.env.let_go()
        most = max(slot["valid"].shape[-1] for slot in slots)
        return torch.stack([_padded(slot, most) for slot in slots], 1)


def _padded(slot: TensorDict, tasks: int) -> TensorDict:
    """A slot's outcome with room for so many tasks, the rest of them zero."""

    def pad(key: str, x: Tensor) -> Tensor:
        missing = 0 if key == "queue_gcycles" else tasks - x.shape[1]
        return nn.functional.pad(x, [0, 0] * (x.ndim - 2) + [0, missing]) if missing else x

    return TensorDict({key: pad(key, x) for key, x in slot.items()}, batch_size=slot.batch_size)
