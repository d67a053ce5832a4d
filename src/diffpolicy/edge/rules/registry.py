"""The untrained rules by name; each stands in the file of its kind."""

from __future__ import annotations

from diffpolicy.edge.rules.least_cost import LeastWorkOwn, OptTS, SlotGreedy
from diffpolicy.edge.rules.price import Price
from diffpolicy.edge.rules.rule import Heuristic
from diffpolicy.edge.rules.stateless import CapacityProportional, LeastWork, Local, PowerOfTwo, Random
from diffpolicy.edge.rules.turns import RoundRobin, WeightedRoundRobin

HEURISTICS: dict[str, type[Heuristic]] = {
    rule.name: rule
    for rule in (
        OptTS,
        Price,
        WeightedRoundRobin,
        CapacityProportional,
        PowerOfTwo,
        LeastWorkOwn,
        RoundRobin,
        SlotGreedy,
        Random,
        LeastWork,
        Local,
    )
}
