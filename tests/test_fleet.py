"""Price rules and fleet policies: any number of servers, and the same decisions as the compiled player's."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch.nn.utils import parameters_to_vector

from diffpolicy.edge import Scenario, TaskList, Workload, evaluate, make_policy, play_episodes, replay
from diffpolicy.edge.credit.objectives import named_objective
from diffpolicy.edge.env.env import OffloadingEnv
from diffpolicy.edge.names import PRETRAINED_NAMES
from diffpolicy.edge.pricing.law import FEATURES, LATENTS
from diffpolicy.edge.pricing.policy import FleetPolicy
from diffpolicy.edge.pricing.slot import possible_tasks
from diffpolicy.edge.pricing.told import Told
from diffpolicy.edge.pricing.training.player import Arrivals, Player, RandomFleet, Recipe
from diffpolicy.edge.pricing.training.train import RECIPES, horizons, train_rule
from diffpolicy.edge.scenario.availability import Availability
from diffpolicy.edge.scenario.scenario import Server
from diffpolicy.edge.workload.seeds import Stream
from diffpolicy.errors import InputError
from diffpolicy.networks.set_denoiser import SetDenoiser
from diffpolicy.policies import Policy
from diffpolicy.policies.recurrent import with_recurrent_state
from diffpolicy.training.evolution import EvolutionModule
from diffpolicy.training.imitation import ImitationModule


def small(servers: int = 4, tasks: int = 7, slots: int = 6) -> Scenario:
    """A fleet that is a little overloaded."""
    rng = np.random.default_rng(3)
    fleet = tuple(
        Server(float(f), float(v))
        for f, v in zip(rng.uniform(3, 9, servers), rng.uniform(400, 500, servers), strict=True)
    )
    law = Workload(
        (1, tasks),
        (2.0, 5.0),
        tuple(rng.uniform(0.1, 0.3, tasks).tolist()),
        tuple(rng.integers(1, 15, tasks).tolist()),
        tuple(rng.uniform(0.6, 1.0, tasks).tolist()),
    )
    return Scenario(1.0, fleet, slots=slots, workload=law)


def lively(policy: FleetPolicy, seed: int = 1) -> FleetPolicy:
    """The policy with larger weights, so that its prices matter, in float64."""
    generator = torch.Generator().manual_seed(seed)
    policy.double()
    with torch.no_grad():
        for parameter in policy.denoiser.parameters():
            parameter.add_(0.2 * torch.randn(parameter.shape, generator=generator))
    return policy


@pytest.mark.parametrize("information", ["live", "stale"])
@pytest.mark.parametrize(("steps", "remember"), [(1, False), (1, True), (2, True)])
def test_decides_like_the_compiled_player(information: str, steps: int, remember: bool, monkeypatch) -> None:
    scenario = small()
    law = scenario.workload
    assert isinstance(law, Workload)
    policy = FleetPolicy(information=information, steps=steps, remember=remember, learns=False)  # as training plays
    policy = lively(policy).for_scenario(scenario)
    dreams = []
    dream = Told.dream
    monkeypatch.setattr(Told, "dream", lambda told, td: dreams.append(dream(told, td)) or dreams[-1])
    mean = play_episodes(scenario, policy, 1).cost.mean()
    player = Player(Recipe(information, steps, remember), policy.hidden)
    slots, b = 6, 4
    drawn = [law.draw(0, Stream.EVALUATION, 0, t, b) for t in range(slots)]
    counts = np.stack([x.counts for x in drawn]).astype(np.int64)
    inputs = np.stack([np.stack([x.input_mbit for x in drawn])] * 2)
    if information == "stale":
        inputs[1] = np.stack([tasks.input_mbit[0].numpy() for tasks, _ in dreams])
    fleet = RandomFleet(
        np.array([s.capacity_gcycles_per_s for s in scenario.servers]),
        np.array([s.rate_mbit_per_s for s in scenario.servers]),
        np.array(law.gcycles_per_step) * np.array(law.steps),
        np.array(law.result_mbit),
        slots,
    )
    theta = parameters_to_vector(policy.denoiser.parameters()).detach().numpy()
    total, number, _ = player.play_arrivals(theta, fleet, Arrivals(counts, inputs))
    assert total / number == pytest.approx(mean, rel=1e-9)
    greedy = play_episodes(scenario, make_policy("opt-ts", scenario), 1).cost.mean()
    assert mean != pytest.approx(greedy, rel=1e-4)


def test_decides_like_the_compiled_player_behind_one_dispatcher() -> None:
    slots, law = 40, Workload((1, 1), (2.0, 5.0), (0.3,), (9,), (0.8,))
    scenario = replace(small(slots=slots), slot_s=0.12, stations=(None,), workload=law)
    policy = FleetPolicy.pretrained("live").double().for_scenario(scenario)
    mean = play_episodes(scenario, policy, 1).cost.mean()
    drawn = [law.draw(0, Stream.EVALUATION, 0, t, 1) for t in range(slots)]
    inputs = np.stack([np.stack([x.input_mbit for x in drawn])] * 2)
    servers = scenario.servers
    fleet = RandomFleet(
        np.array([s.capacity_gcycles_per_s for s in servers]),
        np.array([s.rate_mbit_per_s for s in servers]),
        np.array([2.7]),
        np.array([0.8]),
        slots,
        slot_s=0.12,
        dispatched=True,
    )
    theta = parameters_to_vector(policy.denoiser.parameters()).detach().numpy()
    arrivals = Arrivals(np.ones((slots, 1), np.int64), inputs)
    total, number, _ = Player(RECIPES["stale"], policy.hidden).play_arrivals(theta, fleet, arrivals)
    assert number == slots
    assert total / number == pytest.approx(mean, rel=1e-9)
    greedy = play_episodes(scenario, make_policy("opt-ts", scenario), 1).cost.mean()
    assert mean != pytest.approx(greedy, rel=1e-4)


def requests(scenario: Scenario, number: int = 60, load: float = 0.9) -> TaskList:
    """Single requests of 2.7 Gcycles at exponential distances, for a dispatcher."""
    rng = np.random.default_rng(5)
    gaps = rng.exponential(2.7 / scenario.capacity_gcycles_per_s / load, number)
    return TaskList(
        slot=np.arange(number),
        duration_s=gaps,
        origin=np.full(number, -1),
        input_mbit=rng.uniform(2, 5, number),
        result_mbit=np.full(number, 0.8),
        work_gcycles=np.full(number, 2.7),
        steps=np.full(number, 9),
    )


@pytest.mark.parametrize("information", ["live", "stale"])
def test_replays_single_requests_as_the_compiled_player_plays_them(information: str) -> None:
    """Told their distance, not the slot's length; and nothing is stale where each step is one request."""
    scenario = replace(small(), workload=None)  # four stations, and a dispatcher beside them
    tasks = requests(scenario)
    policy = FleetPolicy.pretrained(information).double().for_scenario(scenario)
    rule = policy.rule
    played = replay(scenario, tasks, policy)
    assert policy.rule is rule
    fleet = RandomFleet(
        np.array([s.capacity_gcycles_per_s for s in scenario.servers]),
        np.array([s.rate_mbit_per_s for s in scenario.servers]),
        np.array([2.7]),
        np.array([0.8]),
        len(tasks),
        slot_s=tasks.duration_s[:-1].mean(),
        dispatched=True,
    )
    inputs = np.stack([tasks.input_mbit.reshape(-1, 1, 1)] * 2)
    counts = np.ones((len(tasks), 1), np.int64)
    arrivals = Arrivals(counts, inputs, np.zeros_like(counts), tasks.duration_s)
    delays = np.zeros(len(tasks))
    theta = parameters_to_vector(policy.denoiser.parameters()).detach().numpy()
    Player(RECIPES[information], policy.hidden).play_arrivals(theta, fleet, arrivals, delays=delays)
    assert np.allclose(played.delay_s, delays, rtol=1e-9)
    greedy = replay(scenario, tasks, make_policy("opt-ts", scenario))
    assert not np.allclose(greedy.delay_s, delays, rtol=1e-4)


def test_servers_may_stand_in_any_order() -> None:
    scenario = small(slots=4)
    turned = replace(scenario, servers=scenario.servers[::-1], stations=(3, 2, 1, 0))
    costs = [
        play_episodes(s, lively(FleetPolicy(information="live")).for_scenario(s), 2).cost for s in (scenario, turned)
    ]
    assert np.allclose(costs[0], costs[1], rtol=1e-12)


@pytest.mark.parametrize("dispatched", [None, (1.0, 80, 80)])
def test_objectives_are_of_the_same_episode(dispatched: tuple[float, int, int] | None) -> None:
    fleet = RandomFleet.draw(np.random.default_rng(0), (12, 12), (4, 4), dispatched=dispatched)
    assert fleet.dispatched == (dispatched is not None)
    player = Player(RECIPES["live"], 32)
    theta = parameters_to_vector(FleetPolicy.pretrained("live").denoiser.parameters()).detach().double().numpy()
    outcome = player.outcome(theta, fleet, 3)
    mean = player.play(theta, fleet, 3)[0]
    sums = player.until(theta, fleet, 3)
    assert named_objective("mean")(outcome).item() == pytest.approx(mean)
    assert sums[-1] / len(outcome["delay_s"]) == pytest.approx(mean)
    assert (np.diff(sums) > 0).all()
    assert len(sums) == fleet.slots
    assert named_objective("cvar:0")(outcome).item() == pytest.approx(mean)
    assert named_objective("size:0")(outcome).item() == pytest.approx(mean)
    assert named_objective("cvar:0.99")(outcome).item() > 1.5 * mean
    assert named_objective("late:1e9")(outcome).item() == 0
    assert (outcome["delay_s"][:, 0] >= outcome["unloaded_s"] - 1e-12).all()
    alone = outcome["unloaded_s"].unsqueeze(-1)
    assert named_objective("slowdown")(outcome).item() == pytest.approx((outcome["delay_s"] / alone).mean().item())


@pytest.mark.parametrize("text", ["", "mode", "mean:1", "cvar", "cvar:1", "cvar:x", "late:-1", "size:nan"])
def test_unknown_objectives_are_refused(text: str) -> None:
    with pytest.raises(InputError, match="objective"):
        named_objective(text)


def test_evolution_lowers_the_objective_that_was_asked_for() -> None:
    recipe = replace(
        RECIPES["price"], rounds=1, generations=25, pairs=8, slots=(12, 20), long=(0.0, 0), dispatched=None
    )
    player, rng = Player(recipe, 8), np.random.default_rng(5)
    fleets = [RandomFleet.draw(rng, (12, 20), (4, 8)) for _ in range(24)]
    found = []
    for name in ("slowdown", "cvar:0.98"):
        net = train_rule(recipe, hidden=8, objective=named_objective(name))
        theta = parameters_to_vector(net.parameters()).detach().numpy()
        outcomes = [player.outcome(theta, fleet, k) for k, fleet in enumerate(fleets)]
        found.append(
            [np.mean([np.log(named_objective(o)(x).item()) for x in outcomes]) for o in ("slowdown", "cvar:0.98")]
        )
    assert found[0][0] < found[1][0]
    assert found[1][1] < found[0][1]


def test_every_possible_task_counts_by_its_chance() -> None:
    scenario = small()
    law = scenario.workload
    assert isinstance(law, Workload)
    env = OffloadingEnv(scenario, [1], information="stale", dtype=torch.float64)
    td = env.reset()
    tasks, chance = possible_tasks(law, td["shared_seed"], td["agents", "home"])
    again, _ = possible_tasks(law, td["shared_seed"], td["agents", "home"])
    assert torch.equal(tasks.input_mbit, again.input_mbit)
    assert len(tasks.input_mbit.unique()) == tasks.input_mbit.numel()
    counts = np.concatenate([law.draw(0, Stream.EVALUATION, e, 0, 4).counts for e in range(500)])
    assert chance.numpy() == pytest.approx((counts[:, None] > np.arange(7)).mean(0), abs=0.05)
    assert (tasks.work_gcycles[0, 0] @ chance).item() == pytest.approx(law.mean_work_gcycles())


def test_a_stale_station_decides_without_the_tasks_of_others() -> None:
    scenario = small()
    policy = lively(FleetPolicy(information="stale")).for_scenario(scenario)
    env = with_recurrent_state(OffloadingEnv(scenario, [2], information="stale", dtype=torch.float64), policy)
    td = env.reset()
    seen = policy(td.clone())["agents", "action"][:, 1]
    other = td.clone()
    for name in ("input_mbit", "work_gcycles", "result_mbit"):
        other["agents", name][:, 0] *= 3
        other["agents", name][:, 2:] *= 0.5
    assert torch.equal(seen, policy(other)["agents", "action"][:, 1])


@pytest.mark.parametrize("name", ["price", *(f"pretrained:{n}" for n in PRETRAINED_NAMES)])
@pytest.mark.parametrize("servers", [1, 3, 30])
def test_bundled_rules_run_on_any_fleet(name: str, servers: int) -> None:
    scenario = small(servers, slots=2)
    result = evaluate([name], scenario, episodes=1).results[name]
    assert 0 < result.delays.mean_delay_s < np.inf


def test_bundled_rules_beat_the_greedy_rule_under_overload() -> None:
    scenario = replace(Scenario.load("lad-ts"), slots=20)
    names = ["price", "pretrained:live", "pretrained:stale"]
    for result in evaluate(names, scenario, episodes=2).results.values():
        assert result.ratio < 0.95


def test_nobody_is_sent_to_a_server_that_is_down() -> None:
    scenario = small(slots=3)
    servers = (replace(scenario.servers[0], availability=Availability(down_s=((0.0, 10.0),))), *scenario.servers[1:])
    scenario = replace(scenario, servers=servers)
    policy = make_policy("pretrained:live", scenario)
    env = with_recurrent_state(OffloadingEnv(scenario, [2], information="live", dtype=torch.float64), policy)
    td = policy(env.reset())
    assert (td["agents", "action"][td["agents", "valid"]] != 0).all()


@pytest.mark.parametrize("candidates", [1, 2, 3])
def test_candidates_are_up(candidates: int) -> None:
    scenario = small(slots=3)
    down = replace(scenario.servers[0], availability=Availability(down_s=((0.0, 10.0),)))
    scenario = replace(scenario, servers=(down, *scenario.servers[1:]))
    policy = FleetPolicy(information="live", candidates=candidates).for_scenario(scenario)
    env = with_recurrent_state(OffloadingEnv(scenario, [8], information="live", dtype=torch.float64), policy)
    td = policy(env.reset())
    chosen = td["agents", "action"][td["agents", "valid"]]
    assert set(chosen.tolist()) == {1, 2, 3}


def test_candidates_as_many_as_servers_are_all() -> None:
    scenario = small(slots=3)
    every, some, few = (
        lively(FleetPolicy(information="live", candidates=c)).for_scenario(scenario) for c in (None, 4, 2)
    )
    costs = [play_episodes(scenario, p, 2).cost.mean() for p in (every, some, few)]
    assert costs[0] == costs[1] != costs[2]


def test_without_prices_it_is_the_greedy_rule() -> None:
    scenario = small(slots=3)
    policy = lively(FleetPolicy(information="live", weight=0.0)).for_scenario(scenario)
    greedy = make_policy("opt-ts", scenario)
    assert np.allclose(*(play_episodes(scenario, p, 2).cost for p in (policy, greedy)), rtol=1e-9)
    with pytest.raises(InputError, match="weight must be at least 0, got -1"):
        FleetPolicy(weight=-1)


def test_a_fleet_policy_survives_saving(tmp_path) -> None:
    policy = lively(FleetPolicy(information="stale", candidates=3))
    policy.save(tmp_path)
    again = Policy.load(tmp_path)
    assert isinstance(again, FleetPolicy)
    assert again.config() == policy.config()
    for a, b in zip(policy.denoiser.parameters(), again.denoiser.parameters(), strict=True):
        assert torch.equal(a, b)


def test_wrong_use_is_named() -> None:
    with pytest.raises(InputError, match="live, stale or private, got 'paper'"):
        FleetPolicy(information="paper")
    with pytest.raises(InputError, match="candidates must be at least 1, got 0"):
        FleetPolicy(candidates=0)
    with pytest.raises(InputError, match="pretrained:other"):
        make_policy("pretrained:other", small())
    with pytest.raises(InputError, match="multiple of 4, got 30"):
        Player(RECIPES["live"], 30)
    policy = FleetPolicy(information="live")
    with pytest.raises(InputError, match="shows stale"):
        policy.check_env(OffloadingEnv(small(), [1], information="stale"))


def test_the_denoiser_is_equivariant() -> None:
    net = SetDenoiser(LATENTS, FEATURES, 2)
    x, c = torch.randn(5, 7, LATENTS), torch.randn(5, 7, FEATURES)
    turn = torch.randperm(7)
    assert torch.allclose(net(x, 2, net.prepare(c))[:, turn], net(x[:, turn], 2, net.prepare(c[:, turn])))


def test_an_episode_counts_with_its_beginnings() -> None:
    fleet = RandomFleet.draw(np.random.default_rng(0), (170, 170), (4, 4))
    assert horizons(fleet, 1) == [169]
    assert horizons(fleet, 2) == [169, 84]
    assert horizons(fleet, 9) == [169, 84, 41, 20]
    assert horizons(RandomFleet.draw(np.random.default_rng(0), (9, 9), (4, 4), dispatched=(1.0, 80, 80)), 9) == [79]


def test_a_beginning_is_an_episode_of_its_own() -> None:
    """What happens later changes nothing before."""
    fleet = RandomFleet.draw(np.random.default_rng(0), (40, 40), (4, 4))
    player, arrivals = Player(RECIPES["live"], 32), Arrivals.draw(fleet, 3)
    theta = parameters_to_vector(FleetPolicy.pretrained("live").denoiser.parameters()).detach().double().numpy()
    sums = np.zeros(40)
    player.play_arrivals(theta, fleet, arrivals, until=sums)
    half = Arrivals(arrivals.counts[:20], arrivals.inputs[:, :20])
    assert player.play_arrivals(theta, replace(fleet, slots=20), half)[0] == sums[19]


@pytest.mark.parametrize("name", ["live", "live-gated"])
def test_training_repeats_itself(name: str, few_fleets) -> None:
    recipe = replace(RECIPES[name], rounds=1, generations=3, pairs=2)
    if name == "live-gated":
        recipe = replace(recipe, slots=(20, 30), servers=(4, 6), generations=2)
    first, second = (parameters_to_vector(train_rule(recipe, hidden=8).parameters()) for _ in range(2))
    assert torch.equal(first, second)


def test_fleets_are_loaded_as_a_recipe_asks() -> None:
    rng = np.random.default_rng(0)
    fleets = [RandomFleet.draw(rng, (5, 5), (2, 6), dispatched=(0.3, 5, 9), least_load=1.05) for _ in range(40)]
    assert 1.05 <= min(fleet.load for fleet in fleets) < 1.3
    assert {fleet.dispatched for fleet in fleets} == {True, False}


def test_training_lowers_its_cost() -> None:
    fleet = RandomFleet.draw(np.random.default_rng(0), (60, 60), (4, 14))
    player = Player(Recipe("live", 1, False), 8)
    taught = train_rule(Recipe("live", 1, False, rounds=3, generations=1, pairs=1), hidden=8)
    theta = parameters_to_vector(taught.parameters()).detach().numpy()
    assert player.play(theta, fleet, 0)[0] < player.play(theta, fleet, 0, player.sim.GREEDY)[0]


def test_evolution_finds_the_minimum_of_a_parabola() -> None:
    import lightning as L

    net = torch.nn.Linear(3, 1, bias=False)
    aim = np.array([0.3, -0.2, 0.1])
    module = EvolutionModule(
        net, lambda thetas, _: ((thetas - aim) ** 2).sum(-1), generations=300, learning_rate=0.05, average=0.2
    )
    L.Trainer(max_epochs=1, accelerator="cpu", logger=False, enable_checkpointing=False, enable_progress_bar=False).fit(
        module
    )
    assert np.allclose(net.weight.detach().numpy(), aim, atol=0.03)
    with pytest.raises(InputError, match="sigma must be greater than 0, got 0"):
        EvolutionModule(net, lambda thetas, _: thetas[..., 0], generations=1, sigma=0)


def test_imitation_regresses_on_labels() -> None:
    import lightning as L

    net = torch.nn.Linear(2, 1)
    rows = torch.randn(500, 2, generator=torch.Generator().manual_seed(0))
    module = ImitationModule(
        net,
        lambda _: (rows, rows.sum(-1, keepdim=True)),
        lambda x, y: (net(x) - y).square().mean(),
        rounds=3,
        learning_rate=0.02,
        batch_size=64,
    )
    L.Trainer(max_epochs=1, accelerator="cpu", logger=False, enable_checkpointing=False, enable_progress_bar=False).fit(
        module
    )
    assert module.history[-1]["loss"] < 1e-3
