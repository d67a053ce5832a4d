"""The fluid form against the queues that it stands for, and what a team may want of delays."""

from dataclasses import replace
from functools import partial

import pytest
import torch
from tensordict import TensorDict

from diffpolicy import DiffusionPolicy, Policy
from diffpolicy.edge import OffloadingEnv, Scenario, ServerSpeeds, SlotTasks, Stream, make_policy, play_episodes
from diffpolicy.edge.credit.objectives import (
    cvar_delay_s,
    late_share,
    mean_delay_s,
    mean_energy_j,
    mean_price,
    mean_slowdown,
    played_outcome,
    size_weighted_delay_s,
)
from diffpolicy.edge.fluid.rollout import FluidRollout
from diffpolicy.edge.fluid.size_table import SizeTable, size_edges
from diffpolicy.edge.physics.fluid import fluid_slot
from diffpolicy.edge.physics.queueing import next_queue_gcycles, slot_delays_s, work_sent_gcycles
from diffpolicy.edge.scenario.availability import Availability
from diffpolicy.errors import InputError
from diffpolicy.objectives.pathwise import choice_probabilities

S, K = 4, 9


def draw(batch=(3,), seed=0):
    g = torch.Generator().manual_seed(seed)

    def uniform(*shape):
        return torch.rand(*batch, *shape, generator=g, dtype=torch.float64)

    valid = uniform(K) < 0.7
    slot = SlotTasks((uniform(K) * (S + 1)).long() - 1, 2 + 3 * uniform(K), uniform(K), 3 * uniform(K) * valid, valid)
    fleet = ServerSpeeds(1 + 9 * uniform(S), 40 + 10 * uniform(S))
    return slot, (uniform(K) * S).long(), 10 * uniform(S), fleet, 0.2 + uniform(1)


@pytest.mark.parametrize("batch", [(), (3,), (2, 3)])
def test_with_chances_of_zero_and_one_it_is_the_queue_itself(batch):
    slot, server, queue, fleet, slot_s = draw(batch)
    result = fluid_slot(torch.nn.functional.one_hot(server, S).double(), slot, queue, fleet, slot_s)
    none = SlotTasks(*(x[..., :0] for x in vars(slot).values()))
    empty = fluid_slot(torch.zeros(*server.shape[:-1], 0, S).double(), none, queue, fleet, slot_s)
    torch.testing.assert_close(
        empty.next_queue_gcycles, next_queue_gcycles(queue, torch.zeros_like(queue), fleet, slot_s)
    )
    delay = result.delay_s.gather(-1, server.unsqueeze(-1)).squeeze(-1)
    assert torch.allclose(delay, slot_delays_s(server, slot, queue, fleet), rtol=0, atol=1e-12)
    sent = work_sent_gcycles(server, slot.work_gcycles, S)
    after = next_queue_gcycles(queue, sent, fleet, slot_s)
    assert torch.allclose(result.next_queue_gcycles, after, rtol=0, atol=1e-12)


def test_delays_are_the_mean_over_independent_draws():
    slot, _, queue, fleet, slot_s = draw(())
    p = torch.rand(K, S, generator=torch.Generator().manual_seed(1), dtype=torch.float64).softmax(-1)
    expected = (p * fluid_slot(p, slot, queue, fleet, slot_s).delay_s).sum(-1)
    drawn = torch.multinomial(p, 20000, replacement=True, generator=torch.Generator().manual_seed(2)).T
    many = SlotTasks(*(getattr(slot, x).expand(20000, K) for x in SlotTasks.__dataclass_fields__))
    played = slot_delays_s(drawn, many, queue.expand(20000, S), fleet)
    error = played.std(0) / 20000**0.5
    assert ((played.mean(0) - expected).abs() <= 4.5 * error + 1e-12).all()


def test_the_gradient_is_that_of_finite_differences():
    slot, _, queue, fleet, slot_s = draw(())
    p = torch.rand(K, S, generator=torch.Generator().manual_seed(1), dtype=torch.float64).softmax(-1).requires_grad_()

    def both(p):
        first = fluid_slot(p, slot, queue, fleet, slot_s)
        second = fluid_slot(p, slot, first.next_queue_gcycles, fleet, slot_s)
        return (p * second.delay_s).sum() + (p * first.delay_s).sum()

    assert torch.autograd.gradcheck(both, (p,))


class OneHot:
    """Chances of one, of the servers that a rule chooses; draws nothing."""

    def __init__(self, rule):
        self.rule = rule

    def __call__(self, td):
        return torch.nn.functional.one_hot(self.rule(td)["agents", "action"], 3).double()


@pytest.mark.parametrize("name", ["slot-greedy", "least-work-own"])
def test_an_episode_of_a_certain_rule_is_the_episode_of_the_environment(scenario, name):
    rule = make_policy(name, scenario)
    fluid = FluidRollout(scenario, 2, information="stale", stream=Stream.EVALUATION, dtype=torch.float64)
    played = play_episodes(scenario, rule, 4)
    for episodes in ((0, 1), (2, 3)):
        outcome = fluid(OneHot(rule))
        assert outcome.shape == (2, scenario.slots)
        for e, number in enumerate(episodes):
            cost = played.cost[played.episode == number].mean()
            assert float(mean_delay_s(outcome[e : e + 1])) == pytest.approx(cost, rel=1e-12)


def test_outcomes_of_both_kinds_agree(scenario):
    priced = replace(scenario, servers=tuple(replace(s, power_w=100.0 + a) for a, s in enumerate(scenario.servers)))
    rule = make_policy("slot-greedy", priced)
    fluid = FluidRollout(priced, 2, information="stale", stream=Stream.EVALUATION, dtype=torch.float64)
    env = OffloadingEnv(priced, [2], information="stale", dtype=torch.float64)
    both = [fluid(OneHot(rule)), played_outcome(env.rollout(5, rule), priced)]
    wishes = [
        mean_delay_s,
        mean_slowdown,
        partial(cvar_delay_s, level=0.8),
        partial(late_share, deadline_s=0.4),
        partial(size_weighted_delay_s, fairness=2.0),
        mean_energy_j,
    ]
    for wish in wishes:
        fluid_value, played_value = (float(wish(outcome)) for outcome in both)
        assert fluid_value == pytest.approx(played_value, rel=1e-12)


def test_nothing_of_the_rest_of_the_slot_or_of_the_clock_is_seen(scenario):
    for level in ("paper", "stale"):
        fluid = FluidRollout(scenario, 2, information=level)
        keys = {str(k) for k in fluid.env.reset().keys(True, True)}
        assert not any(word in key for key in keys for word in ("slot", "arrival", "time", "step"))
    with pytest.raises(InputError, match="paper or stale"):
        FluidRollout(scenario, information="live")


def test_each_call_plays_the_next_episodes_and_horizons_are_drawn(scenario):
    fluid, again = (FluidRollout(scenario, 2, seed=3, slots=(2, 40)) for _ in range(2))
    table = SizeTable.from_specs(fluid.env, edges=[1.0])
    first = [fluid(table) for _ in range(4)]
    second = [again(table) for _ in range(4)]
    assert len({outcome.shape[1] for outcome in first}) > 1
    assert all(2 <= outcome.shape[1] <= 40 for outcome in first)
    assert all(torch.equal(a["delay_s"], b["delay_s"]) for a, b in zip(first, second, strict=True))


def test_cvar_is_the_mean_of_the_slowest():
    delay = torch.rand(100, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    outcome = TensorDict({"delay_s": delay.view(4, 25, 1), "weight": torch.ones(4, 25, 1, dtype=torch.float64)})
    slowest = delay.sort().values
    assert float(cvar_delay_s(outcome, 0.9)) == pytest.approx(float(slowest[-10:].mean()))
    assert float(cvar_delay_s(outcome, 0.895)) == pytest.approx(float(slowest[-10:].sum() + slowest[-11] / 2) / 10.5)
    assert float(cvar_delay_s(outcome, 0.0)) == pytest.approx(float(delay.mean()))
    with pytest.raises(InputError, match="below 1"):
        cvar_delay_s(outcome, 1.0)


def test_cvar_has_the_gradient_of_its_definition():
    g = torch.Generator().manual_seed(0)
    delay = torch.rand(12, 1, generator=g, dtype=torch.float64).requires_grad_()
    weight = torch.rand(12, 1, generator=g, dtype=torch.float64).requires_grad_()
    assert torch.autograd.gradcheck(
        lambda d, w: cvar_delay_s(TensorDict({"delay_s": d, "weight": w}), 0.7), (delay, weight)
    )


def test_other_wishes_by_hand():
    outcome = TensorDict(
        {
            "delay_s": torch.tensor([[1.0], [3.0], [99.0]]),
            "weight": torch.tensor([[1.0], [1.0], [0.0]]),
            "work_gcycles": torch.tensor([1.0, 3.0, 0.0]),
            "unloaded_s": torch.tensor([0.5, 1.0, 0.0]),
        }
    )
    assert float(mean_slowdown(outcome)) == pytest.approx(2.5)
    assert float(late_share(outcome, 2.0, 0.0)) == pytest.approx(0.5)
    assert float(late_share(outcome, 2.0, 1e-3)) == pytest.approx(0.5)
    assert float(late_share(outcome, 1.0, 0.1)) == pytest.approx(0.75, abs=1e-6)
    assert float(size_weighted_delay_s(outcome, 0.0)) == pytest.approx(2.0)
    assert float(size_weighted_delay_s(outcome, 1.0)) == pytest.approx(2.5)
    assert float(size_weighted_delay_s(outcome, 60.0)) == pytest.approx(3.0)
    for wish, what in ((mean_energy_j, "power_w"), (mean_price, "price_per_hour")):
        with pytest.raises(InputError, match=what):
            wish(outcome)
    with pytest.raises(InputError, match="level stale"):
        mean_slowdown(outcome.exclude("unloaded_s"))


def test_energy_and_price_are_those_of_the_busy_time(scenario):
    servers = tuple(replace(s, power_w=50.0 * a, price_per_hour=3600.0) for a, s in enumerate(scenario.servers))
    priced = replace(scenario, servers=servers)
    env = OffloadingEnv(priced, [2], dtype=torch.float64)
    rollout = env.rollout(5, make_policy("random", priced))
    outcome = played_outcome(rollout, priced)
    f = torch.tensor([s.capacity_gcycles_per_s for s in servers], dtype=torch.float64)
    server = rollout["agents", "action"]
    busy = rollout["agents", "work_gcycles"] / f[server]
    count = rollout["agents", "valid"].sum()
    assert float(mean_energy_j(outcome)) == pytest.approx(float((50 * server * busy).sum() / count))
    assert float(mean_price(outcome)) == pytest.approx(float(busy.sum() / count))


# Tables and chances


def test_bins_hold_about_as_many_tasks_each():
    scenario = Scenario.load("lad-ts")
    edges = size_edges(scenario, 8)
    assert edges == sorted(edges)
    env = OffloadingEnv(scenario, [4])
    td = env.reset()
    work = td["agents", "work_gcycles"][td["agents", "valid"]]
    share = torch.bincount(torch.bucketize(work, torch.tensor(edges)), minlength=8) / len(work)
    assert len(share) == 8
    assert (share > 0.06).all()
    assert size_edges(scenario, 1) == []


def test_a_table_chooses_by_size_and_is_saved(scenario, tmp_path):
    env = OffloadingEnv(scenario, [4])
    table = SizeTable.from_specs(env, edges=[1.0, 1.2])
    with torch.no_grad():
        table.table.copy_(100 * torch.eye(3))
    td = table(env.reset())
    work, valid = td["agents", "work_gcycles"], td["agents", "valid"]
    expected = (work > 1.0).long() + (work > 1.2).long()
    assert torch.equal(td["agents", "action"][valid], expected[valid])
    again = Policy.load(table.save(tmp_path / "table"))
    assert isinstance(again, SizeTable)
    assert torch.equal(again.table, table.table)
    assert torch.equal(again.edges, table.edges)
    assert play_episodes(scenario, table, 2).cost.mean() == play_episodes(scenario, again, 2).cost.mean()
    with pytest.raises(InputError, match="must increase"):
        SizeTable.from_specs(env, edges=[1.0, 1.0])


def test_chances_are_those_with_which_a_policy_plays(scenario):
    env = OffloadingEnv(scenario, [2])
    td = env.reset()
    table = SizeTable.from_specs(env, edges=[1.0])
    torch.nn.init.normal_(table.table, generator=torch.Generator().manual_seed(0))
    p = choice_probabilities(table, td)
    valid = td["agents", "valid"]
    assert torch.equal(p[~valid], torch.zeros_like(p[~valid]))
    counts = torch.zeros_like(p)
    for _ in range(3000):
        counts += torch.nn.functional.one_hot(table(td)["agents", "action"], 3)
    assert ((counts / 3000 - p)[valid].abs() < 0.05).all()
    sharp = choice_probabilities(table, td, temperature=1e-3)[valid]
    assert torch.allclose(sharp.amax(-1), torch.ones(len(sharp)))


def test_the_gradient_of_an_episode_reaches_every_step_of_a_chain(scenario):
    fluid = FluidRollout(scenario, 2)
    policy = DiffusionPolicy.from_specs(fluid.env, steps=3, share_parameters=True)
    used = []
    inner = policy.denoiser.forward
    policy.denoiser.forward = lambda x, i, cond: used.append(inner(x, i, cond)) or used[-1]
    cost = mean_delay_s(fluid(policy))
    gradients = torch.autograd.grad(cost, used[:3])
    assert all(g.abs().sum() > 0 for g in gradients)


def test_what_has_no_fluid_form_is_refused(scenario):
    with pytest.raises(InputError, match="measured"):
        FluidRollout(Scenario.load("gpu-mix"))
    down = tuple(replace(s, availability=Availability(((1.0, 2.0),))) for s in scenario.servers)
    with pytest.raises(InputError, match="outages"):
        FluidRollout(replace(scenario, servers=down))
    with pytest.raises(InputError, match="no 'slots'"):
        FluidRollout(replace(scenario, slots=None))
    for slots in (0, (3, 2)):
        with pytest.raises(InputError, match="slots must be"):
            FluidRollout(scenario, slots=slots)
