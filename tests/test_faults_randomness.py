"""What is drawn, from where, and who may change it: draws, streams of a seed, copies, and acting without chance."""

import copy
import pickle
import random
import sys
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.multiprocessing
from tensordict import TensorDict
from torch import nn
from torchrl.collectors import MultiSyncCollector
from torchrl.envs.utils import ExplorationType, set_exploration_type

from diffpolicy import (
    ActionMemory,
    CategoricalHead,
    DiffusionPolicy,
    FeedforwardPolicy,
    GreedyValuePolicy,
    with_recurrent_state,
)
from diffpolicy._imports import import_attribute
from diffpolicy.edge import OffloadingEnv, Scenario, Stream, TaskList, evaluate, make_policy, replay, task_transitions
from diffpolicy.edge.fluid.rollout import FluidRollout
from diffpolicy.edge.pricing.policy import FleetPolicy
from diffpolicy.edge.training import build, train
from diffpolicy.edge.workload.mix import RequestType
from diffpolicy.edge.workload.traces.readers import azure_sample
from diffpolicy.environments.seeds import episode_seed
from diffpolicy.errors import InputError
from diffpolicy.evaluation import undisturbed
from diffpolicy.export.decision import Decision
from diffpolicy.methods import DiffusionSACMethod
from diffpolicy.policies import Draws, rows
from diffpolicy.policies.systematic import SystematicDraws
from diffpolicy.training import PackedReplay
from toys import GuessEnv, small

KINDS = [
    pytest.param(lambda env, **o: DiffusionPolicy.from_specs(env, **o), id="gaussian"),
    pytest.param(lambda env, **o: DiffusionPolicy.from_specs(env, prior=ActionMemory(), **o), id="memory"),
    pytest.param(lambda env, **o: FeedforwardPolicy.from_specs(env, **o), id="categorical"),
    pytest.param(lambda env, **o: GreedyValuePolicy.from_specs(env, epsilon=0.5, **o).train(), id="greedy"),
]


def actions(policy, env, steps=3):
    """The actions of some steps of a copy of an environment, `[E, steps, ...]`."""
    env = with_recurrent_state(copy.deepcopy(env), policy)
    played = env.rollout(steps, policy, break_when_any_done=False, auto_cast_to_device=False)
    return played[policy.action_key]


# Blocks are a matter of speed


@pytest.mark.parametrize("agents", [None, 2])
@pytest.mark.parametrize("make", KINDS)
@torch.no_grad()
def test_the_size_of_a_block_changes_no_action(make, agents, monkeypatch):
    env = GuessEnv(600, agents)
    seen = []
    for block in (256, 77, 10**6):
        monkeypatch.setattr(rows, "BLOCK", block)
        seen.append(actions(make(env, seed=4), env))
    assert torch.equal(seen[0], seen[1])
    assert torch.equal(seen[0], seen[2])


def test_a_gradient_changes_no_action():
    env = GuessEnv(600)
    td = env.reset()
    with torch.no_grad():
        first = DiffusionPolicy.from_specs(env)(td.clone())["action"]
    assert torch.equal(first, DiffusionPolicy.from_specs(env)(td.clone())["action"])


# Copies, and processes that are spawned


def test_draws_are_those_of_torch():
    ours, theirs = Draws(7), torch.Generator().manual_seed(7)
    assert torch.equal(torch.randn(50, generator=ours), torch.randn(50, generator=theirs))
    assert torch.equal(ours.get_state(), theirs.get_state())
    assert ours.initial_seed() == 7


@pytest.mark.parametrize("again", [copy.deepcopy, lambda x: pickle.loads(pickle.dumps(x))])
def test_a_copy_of_draws_goes_on_from_the_same_state(again):
    ours = Draws(7)
    torch.randn(5, generator=ours)
    other = again(ours)
    assert isinstance(other, Draws)
    assert other.initial_seed() == 7
    expected = torch.randn(20, generator=ours)
    assert torch.equal(torch.randn(20, generator=other), expected)


def test_streams_of_a_seed_differ_and_the_first_is_the_seed_itself():
    first, again, second = Draws(7), Draws(7, stream=0), Draws(7, stream=1)
    other = Draws(8, stream=1)
    x, y, z, w = (torch.rand(100, generator=g) for g in (first, again, second, other))
    assert torch.equal(x, y)
    assert len({x[0].item(), z[0].item(), w[0].item()}) == 3
    for seed, stream in ((-1, 0), (2**64, 0), (0, -1), (1.5, 0)):
        with pytest.raises(InputError, match=r"^(seed|stream) must be"):
            Draws(seed, stream)


def act(job):
    """What a policy does, in a process of its own. Args: job: the policy, an environment and a stream, or None."""
    policy, env, stream = job
    if stream is not None:
        policy.reseed(3, stream)
    return actions(policy, env)


@pytest.mark.parametrize("make", KINDS)
def test_a_policy_and_its_copies_draw_the_same(make):
    env = GuessEnv(8)
    policy = make(env, seed=2)
    actions(policy, env)  # somewhere in its stream
    twins = copy.deepcopy(policy), pickle.loads(pickle.dumps(policy))
    expected = actions(policy, env)
    for twin in twins:
        assert torch.equal(actions(twin, env), expected)


@pytest.mark.slow
def test_policies_arrive_in_spawned_processes_and_explore_apart():
    """What copies and pickles do, in a process that imports everything again, and two streams of one seed there."""
    env = OffloadingEnv(small(), [2])
    policy = DiffusionPolicy.from_specs(env, prior=ActionMemory(), steps=2, seed=3)
    with torch.multiprocessing.get_context("spawn").Pool(1) as pool:
        same, first, second = pool.map(act, [(policy, env, None), (policy, env, 1), (policy, env, 2)])
    assert torch.equal(same, actions(policy, env))
    assert not torch.equal(first, second)
    policy.reseed(3, 1)
    assert torch.equal(first, actions(policy, env))


@pytest.mark.parametrize("name", ["random", "power-of-two", "pretrained:live"])
def test_rules_and_replays_pickle_too(name, scenario):
    rule = make_policy(name, scenario, seed=1)
    twin = pickle.loads(pickle.dumps(rule))
    assert torch.equal(torch.rand(9, generator=twin.generator), torch.rand(9, generator=rule.generator))
    replay = PackedReplay(10, None, seed=1)
    replay.extend(TensorDict(x=torch.arange(10.0), batch_size=[10]))
    assert torch.equal(copy.deepcopy(replay).sample(9)["x"], pickle.loads(pickle.dumps(replay)).sample(9)["x"])


def test_parts_that_share_their_draws_share_them_in_a_copy():
    env = OffloadingEnv(small(), [2], information="stale")
    twin = pickle.loads(pickle.dumps(SystematicDraws(FeedforwardPolicy.from_specs(env), ("agents", "work_gcycles"))))
    assert twin.generator is twin.policy.generator


# Acting without chance

WITHOUT = [ExplorationType.DETERMINISTIC, ExplorationType.MODE]


@pytest.mark.parametrize("kind", WITHOUT)
@pytest.mark.parametrize("agents", [None, 2])
@pytest.mark.parametrize("make", KINDS)
def test_without_chance_the_seed_does_not_matter_and_nothing_is_drawn(make, agents, kind):
    env = GuessEnv(40, agents)
    first, second = make(env, seed=1), make(env, seed=1)
    second.reseed(2)
    state = first.generator.get_state()
    with set_exploration_type(kind):
        assert torch.equal(actions(first, env), actions(second, env))
    assert torch.equal(first.generator.get_state(), state)
    assert not torch.equal(actions(first, env), actions(second, env))


def test_without_chance_the_chain_starts_at_the_mode_and_the_likeliest_choice_is_taken():
    env = GuessEnv(40)
    policy = DiffusionPolicy.from_specs(env, head=CategoricalHead("sample"))
    td = env.reset()
    with set_exploration_type(ExplorationType.DETERMINISTIC):
        chosen = policy(td.clone())["action"]
    x = policy.chain(policy.condition(td["observation"]), torch.zeros(40, 3), torch.zeros(policy.draws - 1, 40, 3))
    assert torch.equal(chosen, x.argmax(-1))


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("make", KINDS)
def test_random_exploration_is_that_of_train_mode(make, training):
    env = GuessEnv(40)
    expected = actions(make(env, seed=1).train(), env)
    with set_exploration_type(ExplorationType.RANDOM):
        assert torch.equal(actions(make(env, seed=1).train(training), env), expected)


def test_rules_with_a_policy_within_heed_it_too():
    env = OffloadingEnv(small(), [3], information="stale")
    policy = SystematicDraws(FeedforwardPolicy.from_specs(env), ("agents", "work_gcycles"))
    td = env.reset()
    with set_exploration_type(ExplorationType.DETERMINISTIC):
        assert torch.equal(policy(td.clone())["agents", "action"], policy.policy(td.clone())["agents", "action"])
    live = OffloadingEnv(small(), [3], information="live")
    td = live.reset()
    few = FleetPolicy(candidates=2)
    with set_exploration_type(ExplorationType.DETERMINISTIC):
        assert torch.equal(few(td.clone())["agents", "action"], few(td.clone())["agents", "action"])


# What is passed in stays as it was


def modes(policy):
    return [part.training for part in policy.modules()]


@pytest.mark.parametrize("training", [True, False])
def test_a_decision_leaves_the_policy_as_it_was(training):
    env = GuessEnv(4)
    policy = DiffusionPolicy.from_specs(env).train(training)
    policy.denoiser.train(not training)
    before = modes(policy)
    decision = Decision(policy)
    assert modes(policy) == before
    assert not any(modes(decision.policy))
    with torch.no_grad():
        next(policy.parameters()).add_(1)
    assert torch.equal(next(decision.policy.parameters()), next(policy.parameters()))
    fleet = FleetPolicy().train()
    fleet.decision()
    assert all(modes(fleet))


class Both(nn.Module):
    """A policy made of two, one of which is frozen; draws from the second."""

    def __init__(self, env):
        super().__init__()
        self.first, self.second = FeedforwardPolicy.from_specs(env), FeedforwardPolicy.from_specs(env, seed=1)


def test_undisturbed_leaves_every_part_as_it_was():
    env = GuessEnv(4)
    policy = Both(env).train()
    policy.first.eval()
    before, states = modes(policy), [p.generator.get_state() for p in (policy.first, policy.second)]
    with undisturbed(policy):
        assert not any(modes(policy))
        policy.second(env.reset())
    assert modes(policy) == before
    for part, state in zip((policy.first, policy.second), states, strict=True):
        assert torch.equal(part.generator.get_state(), state)


# Policies of other people's that draw from the global generators


class Careless(nn.Module):
    """Chooses by global generators: torch's, NumPy's and Python's; its weights are drawn from there too."""

    information = "paper"
    in_keys = (("agents", "valid"),)

    def __init__(self, scenario):
        super().__init__()
        self.servers = len(scenario.servers)
        self.weights = nn.Linear(self.servers, self.servers)

    def forward(self, td):
        shape = td["agents", "valid"].shape
        luck = np.random.rand() + random.random()  # noqa: NPY002
        logits = self.weights(torch.rand(*shape, self.servers)).squeeze(-1) + luck * torch.rand(self.servers)
        return td.set(("agents", "action"), logits.argmax(-1))


def globals_now():
    return torch.get_rng_state().tolist(), np.random.get_state()[1].tolist(), random.getstate()  # noqa: NPY002


def both_with_other_globals(call):
    """What a call gives twice, with global generators that stand elsewhere; it must leave them there."""
    results = []
    for seed in (1, 2):
        torch.manual_seed(seed)
        np.random.seed(seed)  # noqa: NPY002
        random.seed(seed)
        before = globals_now()
        results.append(call())
        assert globals_now() == before
    return results


def test_a_policy_of_global_draws_is_repeatable_under_a_seed(scenario, monkeypatch, read_tasks):
    monkeypatch.syspath_prepend(str(Path(__file__).parent))
    source = f"{Path(__file__).stem}:Careless"

    def cost(seed):
        return evaluate([source], scenario, episodes=2, seed=seed).results[source].delays.mean_delay_s

    first, second = both_with_other_globals(lambda: cost(3))
    assert first == second
    careless = both_with_other_globals(lambda: make_policy(source, scenario, seed=5))
    assert torch.equal(careless[0].weights.weight, careless[1].weights.weight)
    assert not torch.equal(careless[0].weights.weight, make_policy(source, scenario, seed=6).weights.weight)
    tasks = read_tasks(*(f"{k // 4},{k % 3},3.0,0.5,0.5,{1 + k % 4},0" for k in range(40)))

    def servers(seed):
        return replay(scenario, tasks, make_policy(source, scenario), seed=seed).server.tolist()

    first, second = both_with_other_globals(lambda: servers(3))
    assert first == second
    assert first != servers(4)


def test_importing_someones_module_draws_always_the_same(tmp_path, monkeypatch, scenario):
    (tmp_path / "drawn_at_import.py").write_text("import torch\ntorch.manual_seed(5)\nvalue = torch.rand(3)\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))

    def load():
        sys.modules.pop("drawn_at_import", None)
        return import_attribute("drawn_at_import:value", "policy")

    first, second = both_with_other_globals(load)
    assert torch.equal(first, second)


class Dropping(DiffusionPolicy):
    """Its denoiser drops units while training, by torch's global generator."""

    def denoise(self, x, t, cond):
        return nn.functional.dropout(super().denoise(x, t, cond), 0.2, self.training)


@dataclass(frozen=True, kw_only=True)
class DroppingMethod(DiffusionSACMethod):
    """LAD-TS with such a policy."""

    def policy(self, env, seed):
        return Dropping.from_specs(env, prior=ActionMemory(), steps=2, mask_key=None, seed=seed)


METHOD = DroppingMethod(
    transitions=task_transitions,
    learning_rates={"actor": 1e-3, "critic": 1e-3, "alpha": 0.0},
    capacity=200,
    start_after=20,
    batch_size=8,
)


def test_training_that_draws_globally_is_repeatable_and_resumes_bit_for_bit(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(str(Path(__file__).parent))
    name, scenario = f"{Path(__file__).stem}:METHOD", small(2, 4, 8)

    def run(episodes, out=None, resume=None):
        module = build(name, scenario, seed=1)
        train(name, scenario, episodes=episodes, seed=1, module=module, out=out, resume=resume)
        return module.policy.tensors()

    whole, again = both_with_other_globals(lambda: run(3))
    assert all(torch.equal(whole[k], again[k]) for k in whole)
    run(2, tmp_path / "a")
    torch.manual_seed(9)
    resumed = run(3, tmp_path / "a", tmp_path / "a" / "checkpoint.ckpt")
    assert all(torch.equal(whole[k], resumed[k]) for k in whole)


# Streams of one seed


def rank_correlation(x, y):
    a, b = (np.argsort(np.argsort(v)).astype(float) for v in (x, y))
    return abs(np.corrcoef(a, b)[0, 1])


def test_horizons_tell_nothing_of_the_arrivals():
    fluid = FluidRollout(small(slots=1), 1, slots=(1, 10**6))
    horizons, counts = [], []
    law = fluid.env.scenario.workload
    for episode in range(400):
        fluid.env._episode = [episode]
        horizons.append(fluid.env.horizon(1, 10**6))
        counts.append([law.draw(0, Stream.TRAINING, episode, t, 3).counts[0] for t in range(3)])
    for t in range(3):
        assert rank_correlation(horizons, np.array(counts)[:, t]) < 0.15
    wide = replace(law, input_mbit=(0.0, 1.0))
    firsts = [wide.draw(0, Stream.TRAINING, episode, 1, 3).input_mbit[0, 0] for episode in range(400)]
    assert rank_correlation(horizons, firsts) < 0.15


def test_what_a_trace_draws_for_one_seed_is_drawn_apart(tmp_path):
    size = {"width": 8, "height": 8, "steps": 1, "gcycles_per_step": 1.0, "input_mbit": 1.0, "result_mbit": 1.0}
    kind = RequestType(model="a", **size)
    mix = (kind, replace(kind, model="b"))
    trace = azure_sample().with_requests(mix, seed=0)
    trace.to_tasks(tmp_path / "tasks.csv", 2, 1.0, seed=0)
    origin = TaskList.read(tmp_path / "tasks.csv", Scenario.load("lad-ts")).origin
    b = np.array([model == "b" for model in trace.model])
    numbered = replace(trace, model=tuple(map(str, range(len(trace)))))
    kept = np.isin(numbered.model, numbered.thin(0.5, seed=0).model)
    for lag in range(8):
        for step in (1, 2, 4):
            n = len(b) // step - lag
            assert abs(np.corrcoef(b[:n], origin[lag::step][:n])[0, 1]) < 0.15
            assert abs(np.corrcoef(b[:n], kept[lag::step][:n])[0, 1]) < 0.15


def test_the_first_episode_of_a_seed_has_a_seed_of_its_own():
    own = {int(np.random.SeedSequence(7).generate_state(1)[0]) % 2**31}
    seeds = {episode_seed(7), episode_seed(7, 0), episode_seed(7, 0, 0), episode_seed(7, 1), episode_seed(7, 1, 0)}
    assert len(own | seeds) >= 5


def test_another_sampler_keeps_the_seed():
    env = GuessEnv(40)
    policy = DiffusionPolicy.from_specs(env, steps=4, seed=1)
    policy.reseed(5)
    state = policy.generator.get_state()
    other = policy.with_sampler("ddpm", 2)
    assert torch.equal(other.generator.get_state(), state)
    other(env.reset())
    assert torch.equal(policy.generator.get_state(), state)


def worker(policy, stream):
    """A collector's own copy of a policy."""
    mine = copy.deepcopy(policy)
    mine.reseed(0, stream)
    return mine


@pytest.mark.slow
def test_a_collector_of_several_processes_takes_a_policy_and_its_streams():
    policy = DiffusionPolicy.from_specs(GuessEnv(4), seed=1)
    makers = [partial(GuessEnv, 4)] * 2
    factories = [partial(worker, policy, k) for k in (1, 2)]
    for given, alike in (({"policy": policy}, True), ({"policy_factory": factories}, False)):
        collector = MultiSyncCollector(makers, frames_per_batch=40, total_frames=40, **given)
        try:
            (played,) = [td["action"].clone() for td in collector]
        finally:
            collector.shutdown()
        assert torch.equal(played[0], played[1]) == alike
