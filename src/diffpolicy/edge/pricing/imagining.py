"""Stations who decide by slots that they imagine: who imagines which, and what each then remembers.

What may come and where it is placed is `imagined`; here stand the stations of an environment around it.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from tensordict import TensorDict, TensorDictBase
from torch import Tensor

from diffpolicy.edge.physics.queueing import SlotTasks
from diffpolicy.edge.pricing import heard, imagined
from diffpolicy.edge.pricing.beginning import begun
from diffpolicy.edge.pricing.imagined import Own, Slot, decided
from diffpolicy.edge.pricing.law import Coefficients
from diffpolicy.edge.pricing.memory import SPAN, FleetMemory, heard_in, of_servers
from diffpolicy.edge.pricing.slot import READS, costs_of, tasks_of
from diffpolicy.edge.pricing.state import FleetState
from diffpolicy.edge.pricing.told import Told


@dataclass(frozen=True)
class Imagining:
    """Decides for stations who imagine one slot together, or one each where they hear of themselves alone.

    Args:
        memory: from slot to slot. told: of arrivals. coefficients: the network. weight: of prices.
    """

    memory: FleetMemory
    told: Told
    coefficients: Coefficients
    weight: float

    def decide(self, td: TensorDictBase, seen: SlotTasks, own: Own) -> Tensor:
        """Servers of the stations' real tasks, int64 `[R, N']`; writes `("next", "fleet", ...)`.

        Args:
            td: what is seen. seen: the slot's tasks, `[E, B, N]`. own: the same, of each of R = E B stations.
        """
        e, b = seen.valid.shape[:2]
        memory, device = self.memory.of(td), seen.valid.device
        stations = torch.arange(b, device=device)
        station = stations.repeat(e)
        if self.memory.information != "private":
            who = torch.arange(e, device=device).repeat_interleave(b)
            chosen, new = self._decided(td, memory, seen, None, who, station, own)
        else:
            known = td.select(*READS, "shared_seed", SPAN, strict=False)
            memories = memory.apply(lambda x: x.flatten(0, 1), batch_size=[e * b])
            of_own, parts = station.unsqueeze(-1) == stations, []
            cells = seen.valid[0].numel() * own.delay_s.shape[-1]
            # each station imagines a slot of its own, so that they are many: some at once
            for rows in torch.arange(e * b, device=device).split(max(1, imagined.CELLS // cells)):
                root, who = known[rows // b], torch.arange(len(rows), device=device)
                heard_of = replace(tasks_of(root), valid=root["agents", "valid"] & of_own[rows].unsqueeze(-1))
                parts.append(
                    self._decided(root, memories[rows], heard_of, of_own[rows], who, station[rows], own.at(rows))
                )
            chosen = torch.cat([x for x, _ in parts])
            new = {name: torch.cat([x[name] for _, x in parts]).unflatten(0, (e, b)) for name in parts[0][1]}
        td["next", "fleet"] = TensorDict(new, batch_size=[e])
        return chosen

    def _decided(
        self,
        td: TensorDictBase,
        memory: TensorDictBase,
        seen: SlotTasks,
        heard_of: Tensor | None,
        who: Tensor,
        station: Tensor,
        own: Own,
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Decisions in K imagined slots, int64 `[R, N']`, and what is remembered of each.

        Args:
            td, memory: as K slots begin. seen: their tasks, valid where they are heard of afterwards.
            heard_of: which stations they are of, bool `[K, B]`; None: all. who, station, own: see `imagined.in_turn`.
        """
        slot, fleets = self._imagined(td, memory, seen, heard_of is not None)
        spans = self.memory.spans(td, memory, heard_of)
        chosen, after = decided(slot, fleets, heard.mixed(spans), who, station, own, self.coefficients)
        new = {**memory, **of_servers(after)}
        if self.memory.learns:
            new |= {"spans": spans, **heard_in(memory).learned(seen, heard_of)._asdict()}
        return chosen, new

    def _imagined(
        self, td: TensorDictBase, memory: TensorDictBase, seen: SlotTasks, alone: bool
    ) -> tuple[Slot, FleetState]:
        """Slots as they are imagined, and fleets as they begin. Args: alone: see `Heard.imagined`."""
        b = seen.valid.shape[1]
        offered = None
        if self.memory.learns:
            law = None if self.told.workload is None else self.told.dream(td)
            known = heard_in(memory)
            dream, chance = known.imagined(law, td["agents", "home"][..., :1], alone)
            works = (chance.unsqueeze(1) * dream.work_gcycles).sum((1, 2))
            offered = torch.stack([b * chance.sum(-1), works], -1).masked_fill(known.slots == 0, torch.nan)
        else:
            dream, chance = self.told.dream(td)
        delay, service = costs_of(dream, td)
        fleets = begun(td, memory, seen, self.told, self.coefficients, self.weight, offered)
        expected = fleets.whole.tasks * fleets.whole.number / b
        return Slot(delay, service, chance.expand(len(delay), -1), expected), fleets
