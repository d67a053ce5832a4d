"""The compiled form of the price is the law: the same decisions and the same state, on fleets of every kind."""

from __future__ import annotations

from types import FunctionType

import pytest
import torch

from diffpolicy.edge.pricing import law
from diffpolicy.edge.pricing.bundled import load_bundled
from diffpolicy.edge.pricing.chains import LEAST_OVERLOAD, GatedChain, PriceChain, shares
from diffpolicy.edge.pricing.policy import FleetPolicy
from diffpolicy.edge.pricing.state import FleetState, Queue, compiled_form


def uniform(generator: torch.Generator, *shape: int, low: float = 0.0, high: float = 1.0) -> torch.Tensor:
    return low + (high - low) * torch.rand(shape, generator=generator, dtype=torch.float64)


def chain(name: str, seed: int = 0) -> PriceChain | GatedChain:
    """A bundled network, or three that are gated, with larger weights, in float64."""
    policy = (FleetPolicy(gated=True) if name == "gated" else load_bundled(name)).double()
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in policy.parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape, generator=generator))
    coefficients = policy.coefficients()
    assert isinstance(coefficients, PriceChain | GatedChain)
    return coefficients


def fleet(seed: int, fleets: int, servers: int, coefficients: law.Coefficients, weight: float) -> FleetState:
    """Some servers idle, some alike, some down, never all."""
    g = torch.Generator().manual_seed(seed)
    shape = (fleets, servers)
    # of gated sets, each fleet is to be in another part of the ramps
    high = torch.linspace(60, 20, fleets).unsqueeze(-1) * 60 if isinstance(coefficients, GatedChain) else 60
    load = uniform(g, *shape) * high * (torch.rand(shape, generator=g) < 0.8)
    capacity = torch.randint(10, 14, shape, generator=g).double()
    up = torch.rand(shape, generator=g) < 0.8
    up[:, 0] = True
    columns = [uniform(g, *shape, low=low, high=high) for low, high in ((0, 40), (1, 80), (1, 80), (-1, 1))]
    known = law.Servers(load * up, columns[0], capacity, *columns[1:])
    latent = uniform(g, *shape, law.LATENTS, low=-1)
    return FleetState.start(known, latent, up, coefficients, step_s=0.7, weight=weight)


def queue(seed: int, state: FleetState, tasks: int, *, chances: bool, candidates: int | None, turns: bool) -> Queue:
    """Tasks of measured times (no server's is the work over its capacity), some of them absent or by chance."""
    g = torch.Generator().manual_seed(seed)
    fleets, servers = state.up.shape
    delay = uniform(g, fleets, tasks, servers, high=2).masked_fill(~state.up.unsqueeze(1), torch.inf)
    amount = uniform(g, fleets, tasks) if chances else torch.rand(fleets, tasks, generator=g) < 0.9
    come = torch.arange(1, tasks + 1).expand(fleets, -1).double() / tasks
    of = None if candidates is None else torch.randint(0, servers, (fleets, tasks, candidates), generator=g)
    others = torch.rand(fleets, servers, generator=g).argsort(-1) if turns else None
    service = uniform(g, fleets, tasks, servers, low=0.05)
    return Queue(delay, service, amount, come, 1 - come + 1 / tasks, others, of)


@pytest.mark.parametrize("name", ["price", "live", "stale", "gated"])
@pytest.mark.parametrize(
    ("fleets", "servers", "chances", "candidates", "turns", "weight"),
    [
        (3, 9, False, None, True, 1.0),
        (2, 6, True, None, False, 0.5),
        (4, 7, False, 3, True, 1.0),
        (1, 1, False, None, True, 2.0),
    ],
)
def test_compiled_is_the_law(name, fleets, servers, chances, candidates, turns, weight) -> None:
    pytest.importorskip("numba")
    assert compiled_form() is not None
    coefficients = chain(name)
    every = 10 if chances else None
    with torch.no_grad():
        state = fleet(1, fleets, servers, coefficients, weight)
        tasks = queue(2, state, 40, chances=chances, candidates=candidates, turns=turns)
        ours, after, parts = state.place(tasks, coefficients, every=every)
        theirs, expected, snapshots = state.place_by_law(tasks, coefficients, every=every)
    assert torch.equal(ours, theirs)
    assert servers == 1 or len(ours.unique()) > 2
    for one, other in zip([after, *parts], [expected, *snapshots], strict=True):
        for field in ("servers", "terms"):
            for a, b in zip(getattr(one, field), getattr(other, field), strict=True):
                assert torch.allclose(a, b, rtol=1e-9, atol=1e-12), field
        assert torch.allclose(one.latent, other.latent, rtol=1e-9, atol=1e-12)
    assert torch.allclose(after.sent_tasks, expected.sent_tasks)
    assert torch.allclose(after.sent_work, expected.sent_work)
    assert state.sent_tasks.sum() == 0  # what it began from is as it was


def test_a_price_is_what_the_coefficients_make_of_the_counts() -> None:
    """The sum that training regresses is the price that acting and the export compute."""
    coefficients = chain("live")
    with torch.no_grad():
        state = fleet(3, 2, 5, coefficients, 1.0)
        c = law.coefficients(uniform(torch.Generator().manual_seed(0), 2, 5, law.LATENTS, low=-1))
        rest, service = torch.full((2, 1), 0.4, dtype=torch.float64), state.servers.tasks / 50
        fleet_s = state.fleet_load / state.whole.capacity
        counts = law.counts(state.servers, state.whole, rest, fleet_s, service, state.step_s)
        terms = law.terms(c, state.servers, state.whole, state.step_s)
        assert torch.allclose(law.price(terms, rest, fleet_s, service), (c * counts).sum(-1))


def test_what_a_fleet_has_behind_it_says_which_parameters_count() -> None:
    """Below the load none but the first; then by the slots that the overload has lasted, with nothing lost between."""
    overload = torch.tensor([-0.3, 0.0, 0.5, 0.5, 0.5, 0.5, 0.5, 0.16]).double()
    tau = torch.tensor([20.0, 29.0, 0.0, 2.0, 6.0, 60.0, 210.0, 50.0]).double()
    backlog = tau * overload.clamp_min(LEAST_OVERLOAD)
    share = shares(overload, backlog / (1 + backlog))
    first, second, third, mixed = ([1.0, 0, 0], [0, 1.0, 0], [0, 0, 1.0], [0.5, 0.5, 0])
    expected = torch.tensor([first, first, first, first, second, second, third, mixed]).double()
    assert torch.allclose(share, expected, atol=1e-9)
    ramp = torch.linspace(0, 0.999, 500).double()
    assert torch.allclose(shares(torch.full_like(ramp, 0.2), ramp).sum(-1), torch.ones(500).double())


def test_three_sets_alike_are_one() -> None:
    one = chain("price")
    seen = uniform(torch.Generator().manual_seed(0), 50, law.FEATURES)
    latent = torch.zeros(50, law.LATENTS).double()
    with torch.no_grad():
        assert torch.allclose(GatedChain((one, one, one))(seen, latent), one(seen, latent), rtol=1e-12)


def test_features_have_names_and_their_order_is_the_networks() -> None:
    assert law.Features._fields[:3] == ("backlog", "fleet_backlog", "excess")
    assert law.FEATURES == FleetPolicy().denoiser.features == 14


def test_machine_code_on_disk_is_known_by_what_is_called_and_told_elsewhere() -> None:
    pytest.importorskip("numba")
    from diffpolicy._compile import compile, made_of  # noqa: A004

    def caller() -> float:
        return called(LEVEL) + SHARE[0]  # type: ignore[name-defined]  # noqa: F821

    def digest(called, level=2.0, share=1.0) -> str:
        known = {"called": compile(called), "LEVEL": level, "SHARE": torch.tensor([share]).numpy()}
        return made_of(FunctionType(caller.__code__, known))

    of_today = digest(lambda x: x + 1)
    assert digest(lambda x: x + 1) == of_today
    assert (
        len({of_today, digest(lambda x: x + 2), digest(lambda x: x + 1, 3.0), digest(lambda x: x + 1, share=0.5)}) == 4
    )
