"""Who may see what: the keys of each level, and decisions that do not change with what is hidden."""

from dataclasses import replace

import pytest
import torch

from diffpolicy import ActionMemory, CategoricalHead, DiffusionPolicy, FeedforwardPolicy, with_recurrent_state
from diffpolicy.edge import HEURISTICS, OffloadingEnv, make_policy, play_episodes
from diffpolicy.edge.names import HEURISTIC_NAMES

PAPER = {
    "queue_gcycles",
    ("agents", "observation"),
    ("agents", "valid"),
    ("agents", "action_mask"),
    ("agents", "input_mbit"),
    ("agents", "work_gcycles"),
}
STALE = PAPER | {
    ("servers", "capacity_gcycles_per_s"),
    ("servers", "rate_mbit_per_s"),
    ("servers", "up"),
    ("agents", "result_mbit"),
    ("agents", "home"),
    "shared_seed",
    ("agents", "last_span"),
}
LIVE = STALE | {("agents", "arrival")}
KEYS = {"paper": PAPER, "private": STALE, "stale": STALE, "live": LIVE}
DONE = {"done", "terminated", "truncated"}
QUEUE = torch.tensor([[3.0, 7.0, 1.0], [0.5, 0.0, 9.0]])


def at_slot(scenario, information, slot=2, **options):
    """An environment of two episodes at a slot with given queues."""
    env = OffloadingEnv(scenario, [2], information=information, **options)
    env.reset()
    env.set_extra_state(env.get_extra_state() | {"slot": [slot] * 2, "queue_gcycles": QUEUE})
    return env


def learned(kind, env):
    options = {"head": CategoricalHead("argmax"), "seed": 5}
    if kind == "diffusion":
        return DiffusionPolicy.from_specs(env, steps=3, **options)
    if kind == "memory":
        return DiffusionPolicy.from_specs(env, prior=ActionMemory(), steps=3, **options)
    return FeedforwardPolicy.from_specs(env, **options)


LEARNED = ["diffusion", "memory", "categorical"]


def policy_of(name, scenario):
    if name not in LEARNED:
        return make_policy(name, scenario, seed=5)
    return learned(name, OffloadingEnv(scenario, [2])).eval()


def decide(name, scenario, td):
    """Decisions of a fresh policy on one slot; what it remembers is at its start."""
    policy = policy_of(name, scenario)
    env = with_recurrent_state(OffloadingEnv(scenario, list(td.shape), information="live"), policy)
    root = env.reset()
    return policy(td.clone().update({"agents": root["agents"].select("turn", "credit", "latent", strict=False)}))


def actions(name, scenario, td):
    return decide(name, scenario, td)["agents", "action"]


# Keys


@pytest.mark.parametrize("level", KEYS)
def test_each_level_has_its_keys_and_no_others(scenario, level):
    env = OffloadingEnv(scenario, [2], information=level)
    assert set(env.observation_spec.keys(True, True)) == KEYS[level]
    assert set(env.reset().keys(True, True)) == KEYS[level] | DONE


@pytest.mark.parametrize("level", KEYS)
def test_a_step_reveals_nothing_more(scenario, level):
    step = OffloadingEnv(scenario, [2], information=level).rand_step()
    assert set(step["next"].keys(True, True)) == KEYS[level] | DONE | {("agents", "reward")}


@pytest.mark.parametrize("level", KEYS)
def test_what_all_levels_see_is_the_same(scenario, level):
    td, paper = at_slot(scenario, level).observe(), at_slot(scenario, "paper").observe()
    for key in PAPER:
        assert torch.equal(td[key], paper[key])


@pytest.mark.parametrize("name", HEURISTIC_NAMES)
def test_rules_decide_by_the_keys_that_they_declare(scenario, name):
    policy = make_policy(name, scenario)
    env = with_recurrent_state(OffloadingEnv(scenario, [2], information=policy.information), policy)
    td = env.reset()
    assert set(policy.in_keys) <= set(env.observation_spec.keys(True, True))
    whole = make_policy(name, scenario)(td.clone())["agents", "action"]
    assert torch.equal(policy(td.select(*policy.in_keys))["agents", "action"], whole)


@pytest.mark.parametrize("kind", LEARNED)
def test_learned_policies_decide_by_the_keys_that_they_declare(scenario, kind):
    policy = policy_of(kind, scenario)
    env = with_recurrent_state(OffloadingEnv(scenario, [2]), policy)
    td = env.reset()
    state = policy.generator.get_state()
    whole = policy(td.clone())["agents", "action"]
    policy.generator.set_state(state)
    assert torch.equal(policy(td.select(*policy.in_keys))["agents", "action"], whole)


# What an environment hides


def other_fleet(scenario):
    return replace(
        scenario,
        servers=tuple(
            replace(s, capacity_gcycles_per_s=1 + 2 * s.capacity_gcycles_per_s, rate_mbit_per_s=s.rate_mbit_per_s / 3)
            for s in scenario.servers
        ),
    )


def other_results(scenario):
    workload = replace(scenario.workload, result_mbit=tuple(7 * r + 1 for r in scenario.workload.result_mbit))
    return replace(scenario, workload=workload)


@pytest.mark.parametrize("slot", [0, 2, 4])
def test_the_paper_level_shows_neither_servers_nor_results_nor_homes_nor_the_time(scenario, slot):
    td = at_slot(scenario, "paper", slot).observe()
    moved = replace(scenario, stations=(1, None, 0), slots=50)
    for other in (other_fleet(scenario), other_results(scenario), moved):
        assert (at_slot(other, "paper", slot).observe() == td).all()


@pytest.mark.parametrize("level", ["paper", "stale"])
def test_the_order_between_stations_is_hidden_below_live(scenario, read_tasks, level):
    rows = ["0,0,3,1,1,1,0", "0,1,4,1,2,1,0", "0,0,5,1,3,1,0", "0,2,2,1,4,1,0"]
    orders = [rows, [rows[i] for i in (3, 0, 2, 1)], [rows[i] for i in (0, 2, 1, 3)]]
    seen = [OffloadingEnv(scenario, tasks=read_tasks(*o), information=level).reset() for o in orders]
    assert (seen[1] == seen[0]).all()
    assert (seen[2] == seen[0]).all()
    live = [OffloadingEnv(scenario, tasks=read_tasks(*o), information="live").reset() for o in orders]
    assert live[1]["agents", "arrival"][0].tolist() == [[1, 2], [3, 6], [0, 6]]
    assert not torch.equal(live[0]["agents", "arrival"], live[1]["agents", "arrival"])


def test_the_shared_seed_is_one_number_an_episode_and_slot(scenario):
    seeds = [[OffloadingEnv(scenario, [1], information="stale", first_episode=k) for k in range(4)] for _ in "ab"]
    drawn = [[[int(td) for td in env.rollout(5)["shared_seed"].flatten()] for env in envs] for envs in seeds]
    assert drawn[0] == drawn[1]
    assert len({x for episode in drawn[0] for x in episode}) == 20
    batch = OffloadingEnv(scenario, [4], information="stale").rollout(5)["shared_seed"].squeeze(-1)
    assert batch.tolist() == drawn[0]


# What decisions may not depend on


PAPER_RULES = [name for name in HEURISTIC_NAMES if HEURISTICS[name].information == "paper"]
STALE_RULES = [name for name in HEURISTIC_NAMES if HEURISTICS[name].information == "stale"]


def test_the_rules_declare_what_the_design_says():
    assert set(PAPER_RULES) == {"random", "round-robin"}
    assert HEURISTICS["opt-ts"].information == "live"
    assert {HEURISTICS[n].information for n in HEURISTIC_NAMES} == {"paper", "stale", "live"}


@pytest.mark.parametrize("name", PAPER_RULES + LEARNED)
def test_paper_policies_decide_alike_whatever_the_servers_and_results(scenario, name):
    decisions = []
    for other in (scenario, other_fleet(scenario), other_results(scenario)):
        td = at_slot(other, "paper").observe()
        decisions.append(actions(name, scenario, td)[td["agents", "valid"]])
    assert torch.equal(decisions[0], decisions[1])
    assert torch.equal(decisions[0], decisions[2])


@pytest.mark.parametrize("name", ["weighted-round-robin", "slot-greedy", "capacity-proportional"])
def test_rules_that_may_know_the_servers_do_look_at_them(scenario, name):
    """So that the test above can fail."""
    big = replace(scenario, workload=replace(scenario.workload, tasks_per_station_and_slot=(4, 4)))
    fast = replace(big, servers=(replace(big.servers[0], capacity_gcycles_per_s=99), *big.servers[1:]))
    first, second = (at_slot(other, "stale").observe() for other in (big, fast))
    assert not torch.equal(actions(name, big, first), actions(name, big, second))


def disturbed(td, station, seed=0, numbers=True):
    """The slot with the tasks of all other stations replaced: sizes, homes, and with `numbers` how many there are."""
    g = torch.Generator().manual_seed(seed)
    td = td.clone()
    agents = td["agents"]
    others = torch.arange(agents.shape[1]) != station
    shape = agents["valid"][:, others].shape
    for name in ("input_mbit", "work_gcycles", "result_mbit"):
        agents[name][:, others] = 5 * torch.rand(shape, generator=g).to(agents[name])
    agents["observation"][..., 0], agents["observation"][..., 1] = agents["input_mbit"], agents["work_gcycles"]
    agents["home"][:, others] = torch.randint(3, shape, generator=g)
    if numbers:
        agents["valid"][:, others] = torch.arange(shape[-1]) < torch.randint(5, (*shape[:2], 1), generator=g)
    return td


@pytest.mark.parametrize("station", [0, 1, 2])
@pytest.mark.parametrize("name", STALE_RULES + PAPER_RULES)
def test_a_station_decides_alike_whatever_the_others_have_to_do(scenario, name, station):
    td = at_slot(scenario, "stale", dtype=torch.float64).observe()
    mine = td["agents", "valid"][:, station]
    before = actions(name, scenario, td)[:, station][mine]
    assert len(before) > 0
    for seed in range(5):
        assert torch.equal(actions(name, scenario, disturbed(td, station, seed))[:, station][mine], before)


@pytest.mark.parametrize("station", [0, 2])
@pytest.mark.parametrize("name", LEARNED)
def test_a_learned_station_decides_alike_whatever_the_sizes_of_the_others(scenario, name, station):
    td = at_slot(scenario, "stale").observe()
    mine = td["agents", "valid"][:, station]
    before = actions(name, scenario, td)[:, station][mine]
    for seed in range(5):
        other = disturbed(td, station, seed, numbers=False)
        assert torch.equal(actions(name, scenario, other)[:, station][mine], before)


def test_opt_ts_does_look_at_the_others(scenario):
    """So that the tests above can fail."""
    busy = replace(scenario, workload=replace(scenario.workload, tasks_per_station_and_slot=(4, 4)))
    td = at_slot(busy, "live", dtype=torch.float64).observe()
    before = actions("opt-ts", busy, td)[:, 2]
    assert any(not torch.equal(actions("opt-ts", busy, disturbed(td, 2, seed))[:, 2], before) for seed in range(5))


def interleaved(scenario, read_tasks):
    """One slot of a file whose stations take turns, as `opt-ts` sees it; the flat grid index of each task in order."""
    rows = [f"0,{(2 * k) % 3},{1 + k},1,{2 + k % 4},1,0" for k in range(9)]
    td = OffloadingEnv(scenario, tasks=read_tasks(*rows), information="live", dtype=torch.float64).reset()
    return td, td["agents", "arrival"].flatten().argsort()


@pytest.mark.parametrize("k", [0, 3, 7])
def test_opt_ts_does_not_look_at_later_tasks(scenario, read_tasks, k):
    td, order = interleaved(scenario, read_tasks)
    before = actions("opt-ts", scenario, td).flatten()[order]
    for seed in range(5):
        other = td.clone()
        g = torch.Generator().manual_seed(seed)
        for name in ("input_mbit", "work_gcycles", "result_mbit", "home"):
            flat = other["agents", name].view(-1)
            flat[order[k + 1 :]] = torch.randint(3, (8 - k,), generator=g).to(flat)
        after = actions("opt-ts", scenario, other).flatten()[order]
        assert torch.equal(after[: k + 1], before[: k + 1])


def test_opt_ts_does_not_look_at_the_time_left(scenario):
    decisions = [actions("opt-ts", scenario, at_slot(replace(scenario, slots=n), "live").observe()) for n in (3, 90)]
    assert torch.equal(decisions[0], decisions[1])


def test_no_level_holds_the_slot_or_the_time_left(scenario):
    for level in KEYS:
        tds = [at_slot(replace(scenario, slots=n), level).observe() for n in (3, 90)]
        assert (tds[0] == tds[1]).all()


def test_policies_say_what_they_need_before_they_fail(scenario):
    class Greedy(torch.nn.Module):
        in_keys = (("agents", "arrival"),)
        out_keys = (("agents", "action"),)
        information = "stale"

    with pytest.raises(ValueError, match=r"arrival.*stale"):
        play_episodes(scenario, Greedy(), 1)
