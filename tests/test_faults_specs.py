"""Specs: observations, batches and agents of any shape are served rightly, or refused by one sentence before work."""

from dataclasses import replace

import pytest
import torch
from tensordict import TensorDict
from torchrl.data import Binary, Categorical, Composite, MultiCategorical, Unbounded
from torchrl.envs import EnvBase, FlattenObservation, ParallelEnv, SerialEnv, TransformedEnv

from diffpolicy import (
    ActionMemory,
    DiffusionPolicy,
    FeedforwardPolicy,
    GreedyValuePolicy,
    InputError,
    Policy,
    with_recurrent_state,
)
from diffpolicy.edge import FleetPolicy, OffloadingEnv
from diffpolicy.edge.rules.registry import HEURISTICS
from diffpolicy.methods import DQNMethod, SACMethod
from diffpolicy.objectives import choice_probabilities
from diffpolicy.policies.rows import Rows
from diffpolicy.policies.systematic import SystematicDraws
from diffpolicy.training import PackedReplay
from diffpolicy.training.fit import fit
from toys import GuessEnv, guess_transitions, small

CLASSES = [DiffusionPolicy, FeedforwardPolicy, GreedyValuePolicy]
METHODS = {
    "dqn": (DQNMethod, {"critic": 1e-2}),
    "sac": (SACMethod, {"actor": 1e-2, "critic": 1e-2, "alpha": 0.0}),
}


class Shaped(EnvBase):
    """Shows numbers of any shape and type, and takes one of three choices for each item.

    Args:
        batch: of the environment. seen: shape of an observation beyond the items'. dtype: of it.
        agents, items: of the action, in a group where there are agents. group: shape of that group's specs.
    """

    def __init__(
        self, batch=(4,), seen=(3,), dtype=torch.float32, *, agents=None, items=(), group=None, action=None, wide=()
    ):
        super().__init__(batch_size=torch.Size(batch))
        lead = (*batch, *(() if agents is None else (agents,)), *items)
        self.group = None if agents is None else torch.Size(group if group is not None else (*batch, agents))
        self.seen, self.kind, self.lead, self.steps = (*lead, *seen), dtype, lead, torch.zeros(*batch, 1)
        self.draws = torch.Generator().manual_seed(0)
        self.observation_spec = self._nested("observation", Unbounded(self.seen, dtype=dtype))
        self.action_spec = self._nested("action", action or Categorical(3, (*lead, *wide)))
        self.reward_spec = self._nested("reward", Unbounded((*lead, 1)))
        ends = {k: Binary(1, (*batch, 1), dtype=torch.bool) for k in ("done", "terminated", "truncated")}
        self.done_spec = Composite(ends, shape=batch)

    def _nested(self, name, spec):
        if self.group is None:
            return Composite({name: spec}, shape=self.batch_size)
        return Composite(agents=Composite({name: spec}, shape=self.group), shape=self.batch_size)

    def _now(self, **more):
        over = self.steps >= 5
        ends = {"done": over, "truncated": over.clone(), "terminated": torch.zeros_like(over)}
        value = (10 * torch.randn(self.seen, generator=self.draws)).to(self.kind)
        values = {"observation": value, **more}
        if self.group is not None:
            values = {"agents": TensorDict(values, batch_size=self.group)}
        return TensorDict({**values, **ends}, batch_size=self.batch_size)

    def _reset(self, tensordict=None, **_):
        again = None if tensordict is None else tensordict.get("_reset", None)
        self.steps = torch.zeros_like(self.steps) if again is None else self.steps.masked_fill(again, 0)
        return self._now()

    def _step(self, tensordict):
        self.steps = self.steps + 1
        return self._now(reward=torch.ones(*self.lead, 1))

    def _set_seed(self, seed):
        self.draws.manual_seed(seed or 0)


def action_of(policy, td):
    with torch.no_grad():
        return policy(td)[policy.action_key]


def train(name, env, transitions=guess_transitions, **options):
    kind, rates = METHODS[name]
    options = {"start_after": 4, "capacity": 50, **options}
    module = kind(transitions=transitions, learning_rates=rates, **options).build(env, episode_steps=5)
    return fit(module, episodes=2 * env.batch_size.numel()), module


# Observations


@pytest.mark.parametrize("kind", CLASSES)
@pytest.mark.parametrize("batch", [(), (1,), (4,), (2, 3)])
def test_one_number_without_a_dimension_is_a_width_of_one(kind, batch):
    env = Shaped(batch, ())
    policy = kind.from_specs(env)
    assert policy.observation_dim == 1
    assert action_of(policy, env.reset()).shape == batch
    policy.check_env(env)


@pytest.mark.parametrize("agents", [1, 2, 4])
def test_one_number_of_each_agent_is_a_width_of_one(agents):
    env = Shaped((4,), (), agents=agents)
    policy = FeedforwardPolicy.from_specs(env)
    assert (policy.observation_dim, policy.agents) == (1, agents)
    assert action_of(policy, env.reset()).shape == (4, agents)


def test_one_number_acts_as_if_it_had_a_dimension():
    bare, wide = Shaped((4,), ()), Shaped((4,), (1,))
    first, second = (FeedforwardPolicy.from_specs(env, seed=3) for env in (bare, wide))
    assert torch.equal(action_of(first, bare.reset()), action_of(second, wide.reset()))


@pytest.mark.parametrize("name", METHODS)
@pytest.mark.parametrize("agents", [None, 2])
@pytest.mark.parametrize("normalize", [False, True])
def test_one_number_trains(name, agents, normalize):
    _, module = train(name, Shaped((4,), (), agents=agents), normalize=normalize)
    assert "loss" in module.history[-1] or "loss_actor" in module.history[-1]


@pytest.mark.parametrize("name", METHODS)
@pytest.mark.parametrize("dtype", [torch.float64, torch.int64, torch.uint8, torch.float16, torch.bool])
@pytest.mark.parametrize("normalize", [False, True])
def test_observations_of_any_type_of_number_act_and_train(name, dtype, normalize):
    _, module = train(name, Shaped((4,), (3,), dtype), normalize=normalize)
    assert "loss" in module.history[-1] or "loss_actor" in module.history[-1]
    policy = module.policy.eval()
    value = torch.ones(2, 3, dtype=dtype)
    assert torch.equal(policy.logits(value), policy.logits(value.float()))


@pytest.mark.parametrize("name", METHODS)
def test_rewards_and_ends_of_any_type_train_alike(name):
    def transitions(rollout, kind=None):
        td = guess_transitions(rollout)
        if kind is not None:
            td["reward"], td["next", "terminated"] = td["reward"].to(kind), td["next", "terminated"].to(kind)
            td["action"] = td["action"].to(torch.int32)
        return td

    plain = train(name, Shaped(), transitions)[1]
    for kind in (torch.float64, torch.int64):
        other = train(name, Shaped(), lambda rollout, kind=kind: transitions(rollout, kind))[1]
        for a, b in zip(plain.policy.parameters(), other.policy.parameters(), strict=True):
            assert torch.equal(a, b)


@pytest.mark.parametrize("kind", CLASSES)
@pytest.mark.parametrize(
    ("env", "says"),
    [
        (Shaped((4,), (3,), wide=(1,)), r"'observation' has shape \[4, 3\].*\[4, 1\]"),
        (Shaped((4,), (), agents=2, items=(5,)), r"has shape \[4, 2, 5\]"),
    ],
)
def test_observations_of_another_shape_are_refused(kind, env, says):
    with pytest.raises(InputError, match=says):
        kind.from_specs(env)


@pytest.mark.parametrize("kind", CLASSES)
@pytest.mark.parametrize(("batch", "agents"), [((4,), None), ((), None), ((4,), 2)])
def test_a_picture_is_read_as_its_numbers(kind, batch, agents, tmp_path):
    env = Shaped(batch, (2, 2), agents=agents)
    policy = kind.from_specs(env)
    assert policy.observation_dim == 4
    shape = (*batch, *(() if agents is None else (agents,)))
    assert action_of(policy, env.reset()).shape == shape
    policy.check_env(env)
    policy.save(tmp_path)
    assert action_of(kind.load(tmp_path), env.reset()).shape == shape


def test_a_flattened_observation_is_read():
    env = TransformedEnv(Shaped((4,), (2, 2)), FlattenObservation(-2, -1, in_keys=["observation"]))
    policy = FeedforwardPolicy.from_specs(env)
    assert policy.observation_dim == 4
    assert action_of(policy, env.reset()).shape == (4,)


def test_action_values_of_several_slots_are_refused():
    with pytest.raises(InputError, match="need a categorical action, and this head is a MultiCategoricalHead"):
        GreedyValuePolicy.from_specs(Shaped(action=MultiCategorical([3, 2], (4, 2))))


def test_a_policy_does_not_fit_an_environment_that_shows_another_shape():
    policy = FeedforwardPolicy.from_specs(Shaped((4,), (2,)))
    with pytest.raises(InputError, match="2 observed features, and the environment has 4"):
        policy.check_env(Shaped((4,), (2, 2)))
    with pytest.raises(InputError, match="2 observed features"):
        policy.check_env(Shaped((4,), ()))
    with pytest.raises(InputError, match=r"'observation' must have 2 features, got shape \[4, 3\]"):
        policy(Shaped((4,), (3,)).reset())


def test_a_mask_of_another_shape_is_refused_by_the_specs():
    env = GuessEnv(4, 2, mask=True)
    spec = env.observation_spec.clone()
    spec["agents", "action_mask"] = Binary(4, (4, 2, 4), dtype=torch.bool)
    env.observation_spec = spec
    with pytest.raises(InputError, match=r"action_mask'\) must have shape \[4, 2, 3\], got \[4, 2, 4\]"):
        FeedforwardPolicy.from_specs(env)


@pytest.mark.parametrize("kind", CLASSES)
@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("agents", [None, 2])
@pytest.mark.parametrize("normalize", [False, True])
def test_observations_that_are_not_finite_are_refused(kind, value, agents, normalize):
    env = GuessEnv(4, agents)
    policy, td = kind.from_specs(env, normalize=normalize), env.reset()
    key = policy.observation_keys[0]
    td[key][1] = value
    with pytest.raises(InputError, match=r"observation'.* holds (nan|inf|-inf) at \[1, 0"):
        policy(td)
    assert policy.action_key not in td.keys(True)
    with pytest.raises(InputError, match="observation"):
        choice_probabilities(policy, td)


def test_a_number_too_large_for_the_networks_type_is_refused():
    env = Shaped((4,), (3,), torch.float64)
    policy, td = FeedforwardPolicy.from_specs(env), env.reset()
    td["observation"][2, 1] = 1e300
    with pytest.raises(InputError, match=r"1e\+300 at \[2, 1\], not finite in float32"):
        policy(td)


def test_finite_numbers_whose_sum_overflows_are_read():
    env = Shaped((4,), (3,))
    td = env.reset()
    td["observation"][:] = 3e38
    action_of(FeedforwardPolicy.from_specs(env, normalize=True), td)


@pytest.mark.parametrize("share", [True, False])
def test_what_is_observed_of_items_that_do_not_exist_means_nothing(share):
    env = OffloadingEnv(small(3, 5, 6), [4])
    policy = FeedforwardPolicy.from_specs(env, share_parameters=share)
    td = env.reset()
    td["agents", "observation"][~td["agents", "valid"]] = float("nan")
    action_of(policy, td)
    SystematicDraws(policy, ("agents", "work_gcycles"))(td)
    td["agents", "observation"][1, 2, 0] = float("nan")
    td["agents", "valid"][1, 2, 0] = True
    with pytest.raises(InputError, match=r"nan at \[1, 2, 0, 0\]"):
        policy(td)


# Batches


@pytest.mark.parametrize("kind", [SerialEnv, ParallelEnv])
def test_environments_that_are_not_started_yet_tell_their_specs(kind):
    env = kind(2, GuessEnv, **({"mp_start_method": "fork"} if kind is ParallelEnv else {}))
    try:
        policy = FeedforwardPolicy.from_specs(env)
        assert policy.information == "paper"
        assert action_of(policy, env.reset()).shape == (2, 4)
        policy.check_env(env)
    finally:
        env.close()


def test_the_information_of_several_environments_is_theirs():
    env = SerialEnv(2, lambda: OffloadingEnv(small(3, 5, 6), [1], information="stale"))
    assert FeedforwardPolicy.from_specs(env).information == "stale"
    assert FeedforwardPolicy.from_specs(TransformedEnv(env)).information == "stale"
    env.close()


@pytest.mark.parametrize("name", METHODS)
@pytest.mark.parametrize("batch", [(), (2, 3)])
def test_an_environment_of_another_batch_acts_and_is_refused_before_it_trains(name, batch):
    env = Shaped(batch)
    policy = FeedforwardPolicy.from_specs(env)
    assert action_of(policy, env.reset()).shape == batch
    with pytest.raises(InputError, match="training needs an environment of batch"):
        train(name, env)
    memory = DiffusionPolicy.from_specs(env, prior=ActionMemory())
    with pytest.raises(InputError, match="memory needs an environment of batch"):
        with_recurrent_state(env, memory)


@pytest.mark.parametrize("name", METHODS)
def test_environments_without_a_batch_train_side_by_side(name):
    env = SerialEnv(3, lambda: Shaped(()))
    _, module = train(name, env)
    assert "loss" in module.history[-1] or "loss_actor" in module.history[-1]
    env.close()


# Agents


@pytest.mark.parametrize("kind", CLASSES)
@pytest.mark.parametrize("lead", [(3, 3), (5, 3), (2, 3, 3)])
def test_each_agent_has_its_own_network_whatever_the_batch(kind, lead):
    env = Shaped(lead[:-1], (3,), agents=3)
    policy = kind.from_specs(env, seed=5).eval()
    td = env.reset()
    rows, bare = policy.rows(td), TensorDict(td.to_dict())
    assert bare.batch_size == ()
    assert torch.equal(policy.rows(bare).index, rows.index)
    places = torch.arange(3).expand(lead).unsqueeze(-1)
    assert (rows.take(places) == torch.arange(3).view(3, 1, 1)).all()
    if kind is not DiffusionPolicy:
        state = policy.generator.get_state()
        action = action_of(policy, td)
        policy.generator.set_state(state)
        assert torch.equal(action_of(policy, bare), action)


def test_a_batch_that_does_not_tell_the_agents_is_refused():
    policy = FeedforwardPolicy(
        choices=3,
        observation_dim=2,
        agents=3,
        action_key=("agents", "action"),
        observation_keys=[("agents", "observation")],
    )
    for shape in ((3, 3), (3, 2, 3), (5, 3), (4,)):
        td = TensorDict({"agents": {"observation": torch.zeros(*shape, 2)}}, batch_size=[])
        with pytest.raises(InputError, match="3 agents"):
            policy(td)
    td = TensorDict({"agents": {"observation": torch.zeros(3, 3, 2)}}, batch_size=[3])
    assert action_of(policy, td).shape == (3, 3)


def test_agents_are_counted_by_the_action_and_not_by_its_groups_shape():
    policy = FeedforwardPolicy.from_specs(Shaped((4,), agents=2, group=(4,)))
    assert policy.agents == 2
    assert FeedforwardPolicy.from_specs(Shaped((4,), agents=2, items=(5,))).item_dims == 1


def test_the_agents_place_is_saved(tmp_path):
    env = Shaped((3,), (3,), agents=3)
    policy = FeedforwardPolicy.from_specs(env)
    policy.save(tmp_path)
    loaded = Policy.load(tmp_path)
    assert loaded.item_dims == 0
    assert torch.equal(loaded.rows(TensorDict(env.reset().to_dict())).index, policy.rows(env.reset()).index)
    assert policy.for_agent(1).agents is None


# Replay


def transitions(batch, **changes):
    td = TensorDict(observation=torch.zeros(*batch, 2), extra=torch.ones(*batch, 2), batch_size=batch)
    for key, value in changes.items():
        td[key] = value
    return td


@pytest.mark.parametrize("dim", [None, 0, 2, 3, -1])
def test_a_dimension_that_does_not_count_the_agents_is_refused(dim):
    with pytest.raises(InputError, match="keeps 3 agents"):
        PackedReplay(20, 3).extend(transitions((2, 3, 5)), agent_dim=dim)


def test_transitions_of_one_agent_or_of_none_are_refused_before_anything_is_stored():
    def flat(rollout):
        return guess_transitions(rollout).flatten(0, 1)

    def untouched(rollout):
        now, after = rollout["agents"], rollout["next", "agents"]
        td = TensorDict(batch_size=rollout.batch_size)
        td["observation"], td["action"] = now["observation"], now["action"]
        td["reward"], td["next", "observation"] = after["reward"].squeeze(-1), after["observation"]
        return td

    for own, steps in ((flat, 1), (untouched, 5), (untouched, 1)):
        with pytest.raises(InputError, match=r"keeps 5 agents|'observation' must have shape"):
            train("sac", Shaped((4,), (5,), agents=5), own, rollout_steps=steps)


def test_fields_are_filed_by_their_keys_and_shapes():
    replay = PackedReplay(20, None)
    replay.extend(transitions((4,)))
    other = TensorDict(extra=torch.ones(4, 2), observation=torch.zeros(4, 2), batch_size=[4])
    replay.extend(other)
    assert (replay.sample(50)["extra"] == 1).all()
    wrong = {
        "'observation' of shape": transitions((4,)).rename_key_("observation", "seen"),
        "'extra' of shape .* give none": transitions((4,)).exclude("extra"),
        "'more' of none": transitions((4,), more=torch.ones(4)),
        r"'extra' of shape \[2\].* shape \[1, 2\]": transitions((4,), extra=torch.ones(4, 1, 2)),
    }
    for says, td in wrong.items():
        with pytest.raises(InputError, match=says):
            replay.extend(td)
    again = PackedReplay(20, None)
    again.load_state_dict(replay.state_dict())
    with pytest.raises(InputError, match="'extra'"):
        again.extend(transitions((4,)).exclude("extra"))
    assert len(replay) == 8


def test_a_valid_of_another_shape_is_refused():
    with pytest.raises(InputError, match=r"'valid' must have their batch \[4\], got \[4, 1\]"):
        PackedReplay(20, None).extend(transitions((4,), valid=torch.ones(4, 1, dtype=torch.bool)))


# Devices


def test_rows_are_counted_on_the_device_of_their_values():
    meta = torch.device("meta")
    for agent_dim in (None, 1):
        rows = Rows(torch.Size([4, 3]), agent_dim, None, meta)
        taken = rows.take(torch.empty(4, 3, 2, device=meta))
        assert taken.device == meta
        assert rows.put(taken).shape == (4, 3, 2)
    policy = FeedforwardPolicy.from_specs(Shaped((4,), agents=3))
    assert policy.rows(Shaped((4,), agents=3).reset().to("meta")).index.device == meta


def under_another_default(policy, td):
    """Decisions where tensors that are made without a device are on another one than what is observed."""
    policy.generator.manual_seed(0)
    with torch.no_grad():
        expected = policy(td.clone())["agents", "action"]
        policy.generator.manual_seed(0)
        with torch.device("meta"):
            found = policy(td.clone())["agents", "action"]
    assert torch.equal(found, expected)


@pytest.mark.parametrize("name", HEURISTICS)
def test_rules_count_on_the_device_of_what_they_observe(name):
    scenario = small(3, 5, 6)
    rule = HEURISTICS[name](3, 3)
    if hasattr(rule, "for_scenario"):
        rule.for_scenario(scenario)
    env = with_recurrent_state(OffloadingEnv(scenario, [2], information=rule.information), rule)
    under_another_default(rule, env.reset())


@pytest.mark.parametrize("candidates", [None, 2])
@pytest.mark.parametrize("remembers", [True, False])
@pytest.mark.parametrize("name", ["live", "stale"])
def test_fleet_policies_count_on_the_device_of_what_they_observe(name, candidates, remembers):
    scenario = small(3, 5, 6)
    policy = FleetPolicy.pretrained(name).for_scenario(scenario)
    policy.rule.candidates = candidates
    env = OffloadingEnv(scenario, [2], information=name)
    td = (with_recurrent_state(env, policy) if remembers else env).reset()
    under_another_default(policy, td)
    policy.rule.told = replace(policy.rule.told, usual=(1.0, 2.0))
    under_another_default(policy, td)


@pytest.mark.parametrize("options", [{}, {"share_parameters": True}, {"prior": ActionMemory()}])
def test_policies_count_on_the_device_of_what_they_observe(options):
    env = OffloadingEnv(small(3, 5, 6), [2], information="stale")
    policy = DiffusionPolicy.from_specs(env, **options)
    td = with_recurrent_state(env, policy).reset()
    under_another_default(policy, td)
    for seed_key in (None, "shared_seed"):
        under_another_default(SystematicDraws(policy, ("agents", "work_gcycles"), seed_key), td)
