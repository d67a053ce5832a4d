"""Team credit against brute force: what everybody's delays become if one task is a little larger, or is not there."""

from dataclasses import replace
from functools import partial

import pytest
import torch
from torchrl.data import LazyTensorStorage, ReplayBuffer
from torchrl.envs import TransformedEnv

from diffpolicy.edge import OffloadingEnv, Scenario, SlotTasks, Stream, make_policy, task_transitions
from diffpolicy.edge.credit.externality import (
    DifferenceReward,
    difference_rewards,
    externality_s,
    later_tasks,
    team_transitions,
)
from diffpolicy.edge.credit.objectives import cvar_delay_s, delay_prices, late_share, played_outcome
from diffpolicy.edge.evaluation import Recorded
from diffpolicy.edge.physics.queueing import next_queue_gcycles, slot_delays_s, work_sent_gcycles
from diffpolicy.edge.scenario.availability import Availability
from diffpolicy.errors import InputError
from diffpolicy.evaluation import play
from diffpolicy.methods import SACMethod
from diffpolicy.training.fit import fit

KEYS = ("home", "input_mbit", "result_mbit", "work_gcycles", "valid")


def rolled(scenario, name="random", batch=3, episodes=1, level="stale", **options):
    env = OffloadingEnv(scenario, [batch], information=level, dtype=torch.float64, **options)
    policy = make_policy(name, scenario)
    return env.rollout(scenario.slots * episodes, policy, break_when_any_done=False)


def replayed(rollout, scenario, work):
    """Delays of episode 0 under other work, by the pure functions, `[P, T, K]`. Args: work: `[P, T, K]`."""
    env = OffloadingEnv(scenario, [1], dtype=torch.float64)
    agents = rollout[0]["agents"]
    queue = torch.zeros(len(work), len(scenario.servers), dtype=torch.float64)
    slot_s = torch.full((len(work), 1), scenario.slot_s, dtype=torch.float64)
    delays = []
    for t in range(work.shape[1]):
        tasks = {k: agents[k][t].flatten().expand(len(work), -1) for k in KEYS} | {"work_gcycles": work[:, t]}
        server = agents["action"][t].flatten().expand(len(work), -1)
        tasks = SlotTasks(*(tasks[k] for k in KEYS))
        delays.append(slot_delays_s(server, tasks, queue, env.fleet))
        queue = next_queue_gcycles(queue, work_sent_gcycles(server, work[:, t], queue.shape[-1]), env.fleet, slot_s)
    return torch.stack(delays, 1)


def changed(rollout, change):
    """The work of episode 0, once for each of its tasks with that task's changed, `[P, T, K]`, and which those are."""
    work = rollout[0]["agents", "work_gcycles"].flatten(1)
    cells = rollout[0]["agents", "valid"].flatten(1).flatten().nonzero().squeeze(-1)
    many = work.flatten().repeat(len(cells), 1)
    rows = torch.arange(len(cells))
    many[rows, cells] = change(many[rows, cells])
    return many.view(len(cells), *work.shape), cells


@pytest.fixture
def busy(scenario):
    """The small scenario with twelve slots, at about its capacity, so that busy periods of any length occur.

    Capacities are no round numbers, lest a queue empty at the very end of a slot, where there is no derivative.
    """
    servers = [replace(s, capacity_gcycles_per_s=s.capacity_gcycles_per_s * 1.0137) for s in scenario.servers]
    return replace(scenario, slots=12, servers=tuple(servers))


@pytest.mark.parametrize("step", [1e-7, -1e-7])
@pytest.mark.parametrize("seed", [0, 1, 2])
@pytest.mark.parametrize("name", ["random", "slot-greedy"])
def test_the_marginal_cost_is_the_derivative_of_the_total_delay(busy, name, seed, step):
    rollout = rolled(busy, name, seed=seed)
    f = torch.tensor([s.capacity_gcycles_per_s for s in busy.servers], dtype=torch.float64)
    more, cells = changed(rollout, lambda w: w + step)
    base = replayed(rollout, busy, rollout[:1]["agents", "work_gcycles"].flatten(2))
    slope = (replayed(rollout, busy, more).sum((1, 2)) - base.sum()) / step
    own = 1 / f[rollout[0]["agents", "action"].flatten()[cells]]
    later = later_tasks(rollout)[0].flatten()[cells]
    assert torch.allclose(slope, own * (1 + later), atol=1e-5)
    work = rollout[0]["agents", "work_gcycles"].flatten()[cells]
    assert torch.allclose(externality_s(rollout)[0].flatten()[cells], work * own * later)
    assert later.max() > 6


@pytest.mark.parametrize("seed", [0, 1, 2])
@pytest.mark.parametrize("name", ["random", "slot-greedy"])
def test_the_cost_of_removal_is_what_the_others_save_without_the_task(busy, name, seed):
    rollout = rolled(busy, name, seed=seed)
    base = replayed(rollout, busy, rollout[:1]["agents", "work_gcycles"].flatten(2))
    assert torch.allclose(base[0], -rollout[0]["next", "agents", "reward"].flatten(1))
    less, cells = changed(rollout, lambda w: 0 * w)
    rows = torch.arange(len(cells))
    saved = base - replayed(rollout, busy, less)
    saved.view(len(cells), -1)[rows, cells] = 0  # the others' alone
    saved = saved.sum((1, 2))
    removal = externality_s(rollout, counterfactual="removal")[0].flatten()[cells]
    marginal = externality_s(rollout)[0].flatten()[cells]
    assert torch.allclose(saved, removal)
    assert (removal <= marginal + 1e-12).all()
    same = torch.isclose(removal, marginal)
    assert same.any()
    assert not same.all()


def test_with_long_queues_removal_and_marginal_cost_nearly_agree(busy):
    slow = replace(
        busy, servers=tuple(replace(s, capacity_gcycles_per_s=s.capacity_gcycles_per_s / 50) for s in busy.servers)
    )
    rollout = rolled(slow)
    count = rollout["agents", "valid"].double().cumsum(1)[:, -1].sum((1, 2))
    same = torch.isclose(externality_s(rollout), externality_s(rollout, counterfactual="removal"))
    assert same.double().mean() > 0.9  # all but the first few on each server
    assert (later_tasks(rollout) <= count.view(-1, 1, 1, 1)).all()


@pytest.mark.parametrize("objective", [partial(cvar_delay_s, level=0.7), partial(late_share, deadline_s=0.5)])
def test_credit_of_any_objective_is_its_derivative(busy, objective):
    rollout = rolled(busy, batch=1)
    outcome = played_outcome(rollout, busy)
    price = delay_prices(objective, outcome)
    more, cells = changed(rollout, lambda w: w + 1e-7)
    with_more = replayed(rollout, busy, more)

    def cost(delays):
        return objective(outcome.copy().set("delay_s", delays.view_as(outcome["delay_s"])))

    base = cost(replayed(rollout, busy, rollout["agents", "work_gcycles"].flatten(2)))
    slope = torch.stack([(cost(delays) - base) / 1e-7 for delays in with_more]) * len(cells)
    price = price.view_as(rollout["agents", "valid"])
    work = rollout["agents", "work_gcycles"].flatten()[cells]
    f = torch.tensor([s.capacity_gcycles_per_s for s in busy.servers], dtype=torch.float64)
    own = price.flatten()[cells] / f[rollout["agents", "action"].flatten()[cells]]
    expected = own + externality_s(rollout, price=price).flatten()[cells] / work
    assert torch.allclose(slope, expected, atol=1e-4)


def test_later_tasks_by_hand(busy):
    one = replace(busy, servers=busy.servers[:1], stations=(0,), slots=4)
    rollout = rolled(one, batch=4)
    queue, valid = rollout["next", "queue_gcycles"].squeeze(-1), rollout["agents", "valid"].squeeze(2)
    later = later_tasks(rollout).squeeze(2)
    for e in range(4):
        for t, n in valid[e].nonzero().tolist():
            count = int(valid[e, t].sum()) - n - 1
            s = t
            while s < 3 and queue[e, s] > 0:
                s += 1
                count += int(valid[e, s].sum())
            assert later[e, t, n] == count
    assert (later[~valid] == 0).all()


def test_episodes_in_a_row_do_not_touch_each_other(busy):
    rollout = rolled(busy, episodes=2)
    for kind in ("marginal", "removal"):
        whole = externality_s(rollout, counterfactual=kind)
        parts = [externality_s(rollout[:, k * 12 : (k + 1) * 12], counterfactual=kind) for k in range(2)]
        assert torch.equal(whole, torch.cat(parts, 1))


def test_tasks_of_a_file_count_in_their_order_of_arrival(scenario, read_tasks):
    tasks = read_tasks("0,1,3,.5,.5,4,2", "0,0,3,.5,.5,4,2", "0,1,3,.5,.5,4,0", "0,2,3,.5,.5,4,2")
    env = OffloadingEnv(scenario, [1], information="live", tasks=tasks, dtype=torch.float64)
    slots = []
    play(env, Recorded(torch.tensor([2, 2, 0, 2])), 1, watch=slots.append)
    later = later_tasks(torch.stack(slots, 1))
    assert later[0, 0, :, 0].tolist() == [1, 2, 0]
    assert later[0, 0, 1, 1] == 0


def test_difference_rewards_are_own_delay_and_externality(busy):
    rollout = rolled(busy)
    expected = rollout["next", "agents", "reward"] - externality_s(rollout)
    assert torch.equal(difference_rewards(rollout), expected)
    paper = rolled(busy, level="paper")
    assert torch.equal(difference_rewards(paper, busy), expected)
    transform = DifferenceReward(busy)
    assert torch.equal(transform.inv(paper)["next", "agents", "reward"], expected)


def test_a_replay_buffer_credits_the_rollouts_that_it_takes(busy):
    transform = DifferenceReward(out_key=("next", "agents", "team"))
    buffer = ReplayBuffer(storage=LazyTensorStorage(10), transform=transform)
    rollout = rolled(busy)
    expected = difference_rewards(rollout)
    buffer.extend(rollout)
    stored = buffer[:]
    assert torch.equal(stored["next", "agents", "team"], expected)
    assert torch.equal(stored["next", "agents", "reward"], rollout["next", "agents", "reward"])


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_collector_credits_the_episodes_that_it_plays(busy):
    from torchrl.collectors import Collector  # warns of itself when it is imported

    env = OffloadingEnv(busy, [3], information="stale", dtype=torch.float64)
    collector = Collector(
        env,
        make_policy("slot-greedy", busy),
        frames_per_batch=3 * busy.slots,
        total_frames=6 * busy.slots,
        postproc=DifferenceReward().inv,
        auto_register_policy_transforms=False,
    )
    for k, batch in enumerate(collector):
        expected = rolled(busy, "slot-greedy", episodes=k + 1)[:, -busy.slots :]
        assert torch.equal(batch["next", "agents", "reward"], difference_rewards(expected))
    collector.shutdown()


def test_the_transform_credits_by_an_objective(busy):
    rollout = rolled(busy)
    reward = difference_rewards(rollout)
    by_mean = DifferenceReward(busy, objective=lambda o: (o["weight"] * o["delay_s"]).sum() / o["weight"].sum())
    assert torch.allclose(by_mean.inv(rollout.clone())["next", "agents", "reward"], reward)
    by_tail = DifferenceReward(busy, objective=partial(cvar_delay_s, level=0.9))
    assert not torch.allclose(by_tail.inv(rollout.clone())["next", "agents", "reward"], reward)


def test_an_off_policy_method_learns_from_team_credit(busy):
    env = OffloadingEnv(busy, [2], stream=Stream.TRAINING)
    method = SACMethod(
        transitions=partial(team_transitions, scenario=busy),
        learning_rates={"actor": 1e-3, "critic": 1e-3, "alpha": 0.0},
        gamma=0.0,
        rollout_steps=busy.slots,
        start_after=20,
    )
    module = method.build(env, episode_steps=busy.slots)
    assert len(fit(module, episodes=6).history) == 3
    rollout = rolled(busy)
    mine, plain = team_transitions(rollout), task_transitions(rollout)
    assert torch.equal(mine["reward"], difference_rewards(rollout).transpose(1, 2))
    assert torch.equal(mine["observation"], plain["observation"])


def test_what_has_no_exact_credit_is_refused(busy):
    rollout = rolled(busy)
    with pytest.raises(InputError, match="ends within one"):
        later_tasks(rollout[:, :-1])
    with pytest.raises(InputError, match=r"lacks \('next', 'queue_gcycles'\)"):
        later_tasks(rollout.exclude(("next", "queue_gcycles")))
    with pytest.raises(InputError, match=r"batch \[E, T\]"):
        later_tasks(rollout[0])
    with pytest.raises(InputError, match="give the scenario"):
        difference_rewards(rolled(busy, level="paper"))
    with pytest.raises(InputError, match="marginal or removal"):
        externality_s(rollout, counterfactual="shapley")
    down = tuple(replace(s, availability=Availability(((1.0, 2.0),))) for s in busy.servers)
    with pytest.raises(InputError, match="outages"):
        later_tasks(rolled(replace(busy, servers=down)))
    measured = replace(Scenario.load("gpu-mix"), slots=3)
    with pytest.raises(InputError, match="measured"):
        later_tasks(rolled(measured, batch=1))
    with pytest.raises(InputError, match="part of an environment"):
        TransformedEnv(OffloadingEnv(busy), DifferenceReward(busy))
    with pytest.raises(InputError, match="needs the scenario"):
        DifferenceReward(objective=cvar_delay_s)
