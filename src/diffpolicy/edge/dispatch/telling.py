"""What is told of episodes whose requests were held: the two bounds on starvation, dead time, and warnings of it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from diffpolicy.edge.dispatch.holding import Holding
from diffpolicy.edge.dispatch.outcome import MUCH_DEAD
from diffpolicy.evaluation.playing import Played

PASSES, REFUSED, DEAD, BUSY = "passes", "refused_s", "dead_s", "busy_s"
"""Notes of what was held."""


def add_held(
    told: Mapping[str, Any], holding: Holding, played: Mapping[str, Played], of: str = "policies"
) -> dict[str, Any]:
    """A JSON form with how requests were held.

    Args:
        told: it. holding: how. played: by policy. of: under which key the policies stand.
    """
    policies = {name: {**x, **(worst_of(played[name]) if name in played else {})} for name, x in told[of].items()}
    shares = {name: x["dead_share"] for name, x in policies.items() if "dead_share" in x}
    return {**told, of: policies, **holding.to_dict(), **warned(holding, shares)}


def held_line(holding: Holding, played: Mapping[str, Played]) -> str:
    """How requests were held, in words. Args: holding: how. played: by policy."""
    worst = {name: worst_of(x) for name, x in played.items() if PASSES in x.notes}
    told = [f"{n}: {w['most_passes']} and {w['longest_refused_s']:.2f} s" for n, w in worst.items()]
    shares = {name: float(x["dead_share"]) for name, x in worst.items()}
    dead = f"; dead time: {', '.join(f'{n} {x:.1%}' for n, x in shares.items())}" if any(shares.values()) else ""
    lines = [
        f"held in the order {holding.told()}; most later arrivals that went first, and longest time for which a free "
        f"server was refused: {', '.join(told)}{dead}"
    ]
    return "\n".join([*lines, *warned(holding, shares).get("warnings", [])])


def warned(holding: Holding, shares: Mapping[str, float]) -> dict[str, list[str]]:
    """A warning of each policy under which servers stand still for long, unless the lead already hides dead time.

    Args:
        holding: how requests were held. shares: of the service time, by policy.
    """
    if holding.lead_s >= holding.dead_s:  # what is left is of servers that were idle, and binding at once has it too
        return {}
    found = [
        f"warning: under {name} dead time is {share:.1%} of the service time, and above {MUCH_DEAD:.0%} holding loses "
        "much of what it gains; send requests that much earlier (--lead), or bind them on arrival"
        for name, share in shares.items()
        if share > MUCH_DEAD
    ]
    return {"warnings": found} if found else {}


def worst_of(played: Played) -> dict[str, Any]:
    """The two bounds on starvation, and the dead time. Args: played: of a policy; empty of one that held nothing."""
    if PASSES not in played.notes:
        return {}
    passes, refused = int(played.notes[PASSES].max()), float(played.notes[REFUSED].max())
    dead = float(played.notes[DEAD].sum() / max(played.notes[BUSY].sum(), 1e-12))
    return {"most_passes": passes, "longest_refused_s": refused, "dead_share": dead}
