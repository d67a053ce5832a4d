"""What fleet rules learn of arrivals: how many come, of which sizes, and whether stations come in turn or mixed.

A law that was told, of chances p_i that a station has more than i tasks in a slot, is a prior of k observations:

    chance_i = (k p_i + seen_i) / (k + n),

seen_i of n slots of stations having had more than i. Sizes are those that a station's task of that index had last;
before it had one, those of the told law. Without a told law k is 0.

Stations may come in turn, as in LAD-TS, or mixed, as requests do; which of the two is learned from how far apart a
station's own arrivals lay (`physics.file_steps.spans_of`).

Shapes: K knowers, who each have heard some of B stations; N tasks of a station at most.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import pad

from diffpolicy.edge.physics.queueing import SlotTasks

MIXED = 0.25
"""Mean span from which stations count as mixed: 0 where they come in turn, 1/3 where each sends two at random."""
OF_ALL = 20.0
"""k where a knower hears of all stations."""
OF_ONE = 1.0
"""k where it hears of its own alone."""


class Heard(NamedTuple):
    """What knowers have heard of arrivals in the slots before.

    Args:
        counts: slots of stations with more than i tasks, `[K, N]`. slots: of stations, `[K, 1]`.
        sizes: input and result (Mbit) and work (Gcycles) of the last task of each index, `[K, B, N, 3]`.
        known: 1 where there was one, `[K, B, N]`.
    """

    counts: Tensor
    slots: Tensor
    sizes: Tensor
    known: Tensor

    def learned(self, seen: SlotTasks, own: Tensor | None) -> Heard:
        """With a slot more.

        Args:
            seen: its tasks, `[K, B, N]`, valid where they were heard of.
            own: stations that are heard of, bool `[K, B]`; None: all.
        """
        slots = self.slots + (seen.valid.shape[1] if own is None else own.sum(-1, keepdim=True))
        sizes = torch.stack([seen.input_mbit, seen.result_mbit, seen.work_gcycles], -1)
        return Heard(
            self.counts + seen.valid.sum(1),
            slots,
            torch.where(seen.valid.unsqueeze(-1), sizes, self.sizes),
            torch.maximum(self.known, seen.valid.to(self.known)),
        )

    def chances(self, told: Tensor | None, k: float) -> Tensor:
        """Chance that a station has more than i tasks in a slot, `[K, N]`. Args: told: by law, `[N]`. k: see above."""
        if told is None:
            return self.counts / self.slots.clamp_min(1)
        return (k * told + self.counts) / (k + self.slots)

    def imagined(self, law: tuple[SlotTasks, Tensor] | None, home: Tensor, alone: bool) -> tuple[SlotTasks, Tensor]:
        """The tasks that stations may have, `[K, B, N']`, and the chances that one has them, `[K, N']`.

        Args:
            law: the same two as they were told, of M tasks; N' is the greater of M and N.
            home: server at each station, int64 `[K, B, 1]`.
            alone: whether a knower hears of one station, which then stands for all of them.
        """
        told, chance = (None, None) if law is None else law
        more = 0 if chance is None else max(len(chance) - self.counts.shape[-1], 0)
        wider = Heard(
            pad(self.counts, (0, more)), self.slots, pad(self.sizes, (0, 0, 0, more)), pad(self.known, (0, more))
        )
        known, sizes = wider.known.unsqueeze(-1), wider.sizes
        if alone:
            sizes = (sizes * known).sum(1, keepdim=True).expand_as(sizes)
            known = known.amax(1, keepdim=True).expand_as(wider.known.unsqueeze(-1))
        # what a station never had: as the law says; beyond the law, as what was heard is in the mean
        mean = (sizes * known).sum((1, 2), keepdim=True) / known.sum((1, 2), keepdim=True).clamp_min(1)
        instead = mean.expand_as(sizes)
        if told is not None and chance is not None:
            beyond = sizes.shape[2] - len(chance)
            of_law = torch.stack([told.input_mbit, told.result_mbit, told.work_gcycles], -1)
            instead = torch.cat([of_law, instead[:, :, :beyond]], 2)
            chance = pad(chance, (0, beyond))
        values = torch.where(known > 0, sizes, instead)
        tasks = SlotTasks(
            home.expand(values.shape[:-1]),
            values[..., 0],
            values[..., 1],
            values[..., 2],
            torch.ones_like(values[..., 0], dtype=torch.bool),
        )
        return tasks, wider.chances(chance, OF_ONE if alone else OF_ALL)


def span_learned(before: Tensor, span: Tensor, own: Tensor | None = None) -> Tensor:
    """Sum and number of the spans that were heard of, `[K, 2]`.

    Args:
        before: `[K, 2]`. span: of the slot before, `[K, B]`; -1 where nothing was to be told.
        own: stations that are heard of, bool `[K, B]`; None: all.
    """
    told = span >= 0 if own is None else (span >= 0) & own
    return before + torch.stack([(span * told).sum(-1), told.sum(-1)], -1).to(before)


def mixed(spans: Tensor) -> Tensor:
    """Whether stations come mixed, bool `[K]`. Args: spans: of `span_learned`."""
    return spans[..., 0] > MIXED * spans[..., 1]
