"""Methods as data: presets, the quirks they keep, YAML against dataclasses, and what is refused."""

import dataclasses
import math
import sys
from pathlib import Path

import pytest
import torch
import yaml

from diffpolicy import ActionMemory, DiffusionPolicy, FeedforwardPolicy, GaussianPrior, GreedyValuePolicy, InputError
from diffpolicy.edge import OffloadingEnv, make_method, released_transitions, task_transitions
from diffpolicy.edge.names import METHOD_NAMES
from diffpolicy.edge.training import build
from diffpolicy.methods import DiffusionSACMethod, DQNMethod, Method, OffPolicyMethod, SACMethod, parse_method
from diffpolicy.objectives import AgentsDQNLoss, LatentDiscreteSACLoss
from toys import GuessEnv, guess_transitions, quick_method, small

SCENARIO = small(3, 5, 4)
CLASSES = {
    "lad-ts": DiffusionSACMethod,
    "lad-ts-released": DiffusionSACMethod,
    "d2sac-ts": DiffusionSACMethod,
    "sac-ts": SACMethod,
    "dqn-ts": DQNMethod,
    "lad-ts-plus": DiffusionSACMethod,
    "plus-one-step": DiffusionSACMethod,
    "plus-no-chain": SACMethod,
}
PLUS = ("lad-ts-plus", "plus-one-step", "plus-no-chain")
MINIMAL = {
    "transitions": "diffpolicy.edge.task_transitions",
    "learning_rates": {"actor": 1e-3, "critic": 1e-3, "alpha": 0.0},
}


def text(kind="SACMethod", **init_args):
    return yaml.safe_dump({"class_path": f"diffpolicy.methods.{kind}", "init_args": {**MINIMAL, **init_args}})


def next_queues(rollout, transitions):
    """Queues in the successors of tasks that are the last of their slot."""
    rows = transitions(rollout)
    valid = rollout["agents", "valid"].transpose(1, 2)
    last = valid & ~torch.cat([valid[..., 1:], torch.zeros_like(valid[..., :1])], -1)
    return rows["next", "observation"][last & rows["valid"]][:, 2:]


# Presets


@pytest.mark.parametrize("name", METHOD_NAMES)
def test_every_preset_is_a_method_and_builds(name):
    method = make_method(name)
    assert type(method) is CLASSES[name]
    module = method.build(OffloadingEnv(SCENARIO, [1]), episode_steps=4)
    kind = {SACMethod: FeedforwardPolicy, DQNMethod: GreedyValuePolicy}.get(type(method), DiffusionPolicy)
    assert type(module.policy) is kind
    assert module.policy.training


@pytest.mark.parametrize("name", METHOD_NAMES)
def test_all_presets_share_the_constants_of_the_paper(name):
    method = make_method(name)
    constants = (method.hidden, method.gamma, method.capacity, method.batch_size, method.start_after, method.updates)
    assert constants == ([20, 20], 0.95, 1000, 64, 300, 1)
    assert not method.share_parameters
    if name in PLUS:
        return
    assert method.learning_rates["critic"] == (1e-4 if name == "dqn-ts" else 1e-3)
    if isinstance(method, SACMethod):
        assert (method.alpha, method.tau, method.learning_rates["actor"]) == (0.05, 0.005, 1e-4)
        assert method.learning_rates["alpha"] == (0.0 if name == "d2sac-ts" else 3e-4)


def test_the_controls_of_lad_ts_plus_differ_from_it_in_the_chain_alone():
    plus, one, none = (make_method(name) for name in PLUS)
    assert dataclasses.replace(one, steps=plus.steps) == plus
    assert (plus.steps, one.steps) == (5, 1)
    shared = {f.name for f in dataclasses.fields(SACMethod)}
    assert {name: getattr(none, name) for name in shared} == {name: getattr(plus, name) for name in shared}


def test_lad_ts_plus_normalises_predicts_x0_and_keeps_its_temperature():
    module = build("lad-ts-plus", SCENARIO)
    policy = module.policy
    assert policy.normalizer is not None
    assert (policy.prediction, policy.sampler, policy.draws) == ("x0", "ddim", 0)
    assert policy.prior == ActionMemory(key="task", store="probabilities", start="uniform")
    assert module.learning_rates["alpha"] == 0


def test_lad_ts_released_keeps_the_quirks_of_the_code():
    module = build("lad-ts-released", SCENARIO)
    policy, objective = module.policy, module.objective
    assert policy.prior == ActionMemory(key="slot-task", store="probabilities", start="normal", lifetime="run")
    assert policy.config()["denoiser"]["output"] == "softmax"
    assert policy.head.draw == "sample"
    assert (policy.schedule_name, policy.schedule.steps, policy.sampler, policy.sampler_steps) == (
        "vp",
        5,
        "ddpm",
        None,
    )
    assert objective.target_entropy == -1
    assert not objective.critic_latent
    assert objective.target_policy is None
    assert module.transitions is released_transitions
    rollout = torch.cat(list(module.stream), 1)
    assert (next_queues(rollout, released_transitions) == 0).all()
    assert (next_queues(rollout, task_transitions) > 0).any()


def test_lad_ts_follows_the_papers_figure():
    module = build("lad-ts", SCENARIO)
    policy, objective = module.policy, module.objective
    assert policy.prior == ActionMemory(key="task", store="x0", start="normal", lifetime="run")
    assert policy.config()["denoiser"]["output"] == "softmax"
    assert policy.head.draw == "argmax"
    assert (policy.schedule_name, policy.schedule.steps, policy.sampler) == ("vp", 5, "ddpm")
    assert objective.target_entropy == -1
    assert module.transitions is task_transitions


def test_d2sac_starts_from_noise_and_has_a_target_actor_and_a_fixed_temperature():
    module = build("d2sac-ts", SCENARIO)
    policy, objective = module.policy, module.objective
    assert policy.prior == GaussianPrior()
    assert policy.config()["denoiser"]["output"] == "tanh"
    assert policy.head.draw == "sample"
    assert objective.target_policy is not None
    assert module.learning_rates["alpha"] == 0
    assert module.transitions is task_transitions
    assert float(objective.log_alpha.detach().exp().mean()) == pytest.approx(0.05)


def test_sac_has_no_chain():
    module = build("sac-ts", SCENARIO)
    assert isinstance(module.objective, LatentDiscreteSACLoss)
    assert module.policy.head.draw == "sample"
    assert module.objective.target_entropy == -1
    assert module.objective.target_policy is None
    assert module.transitions is task_transitions


def test_dqn_explores_at_one_percent_and_copies_every_two_hundred_updates():
    method = make_method("dqn-ts")
    assert (method.epsilon, method.target_interval, method.double) == (0.01, 200, False)
    module = build("dqn-ts", SCENARIO)
    assert isinstance(module.objective, AgentsDQNLoss)
    assert module.policy.epsilon == 0.01
    assert module.transitions is task_transitions


@pytest.mark.parametrize("name", METHOD_NAMES)
def test_policies_trained_through_their_chain_know_it(name):
    policy = build(name, SCENARIO).policy
    assert bool(policy.trained.get("through_chain")) == isinstance(policy, DiffusionPolicy)


def test_critics_that_read_the_latent_are_wider():
    method = dataclasses.replace(make_method("lad-ts"), critic_latent=True, start_after=5, capacity=50)
    module = method.build(OffloadingEnv(SCENARIO, [1]), episode_steps=4)
    plain = make_method("lad-ts").build(OffloadingEnv(SCENARIO, [1]), episode_steps=4)
    sizes = [sum(p.numel() for p in m.objective.critic.parameters()) for m in (module, plain)]
    # 2 members x 3 agents, 3 more inputs to 20 units
    assert sizes[0] - sizes[1] == 2 * 3 * 3 * 20


def test_switches_reach_the_policy_and_the_objective():
    method = DiffusionSACMethod(
        transitions=guess_transitions,
        learning_rates={"actor": 1e-3, "critic": 1e-3, "alpha": 1e-3},
        share_parameters=True,
        hidden=[7],
        act="silu",
        steps=6,
        schedule="cosine",
        sampler="ddim",
        sampler_steps=3,
        time=8,
        target_entropy="share",
        entropy_share=0.25,
        entropy="marginal",
        entropy_samples=3,
        gamma=0.5,
        tau=0.1,
        alpha=0.2,
        rollout_steps=5,
        updates=4,
        batch_size=9,
        capacity=33,
        start_after=2,
    )
    module = method.build(GuessEnv(4, 2), episode_steps=5)
    policy, objective = module.policy, module.objective
    assert policy.agents is None
    assert (policy.schedule_name, policy.schedule.steps, policy.sampler, policy.sampler_steps) == (
        "cosine",
        6,
        "ddim",
        3,
    )
    assert policy.config()["denoiser"] == {"hidden": [7], "act": "silu", "output": "linear", "time": 8}
    assert objective.target_entropy == pytest.approx(0.25 * math.log(3))
    assert (objective.gamma, objective.tau, objective.samples) == (0.5, 0.1, 3)
    assert float(objective.log_alpha.detach().exp()) == pytest.approx(0.2)
    assert (module.stream.steps, module.updates, module.batch_size, module.start_after) == (5, 4, 9, 2)
    assert module.replay.capacity == 33


def test_the_seed_decides_policy_critics_and_replay_alike_and_apart():
    def state(seed):
        module = make_method("lad-ts").build(OffloadingEnv(SCENARIO, [1]), episode_steps=4, seed=seed)
        tensors = [p.detach() for p in module.objective.parameters() if p.ndim > 1 and p.numel() > 9]
        return torch.cat([t.flatten() for t in tensors]), module.replay.generator.initial_seed()

    (a, first), (b, again), (c, other) = state(0), state(0), state(1)
    assert torch.equal(a, b)
    assert not torch.equal(a, c)
    assert first == again != other


# YAML and dataclasses agree


@pytest.mark.parametrize("name", METHOD_NAMES)
def test_what_a_preset_does_not_say_is_the_dataclass_default(name, tmp_path):
    method = make_method(name)
    text_of_preset = Path(quick_method(name, tmp_path)).read_text()
    given = yaml.safe_load(text_of_preset)["init_args"].keys() - {"start_after", "capacity"}
    for field in dataclasses.fields(method):
        if field.name in given:
            continue
        default = field.default if field.default is not dataclasses.MISSING else field.default_factory()
        assert getattr(method, field.name) == default, field.name


@pytest.mark.parametrize("name", METHOD_NAMES)
def test_a_preset_as_a_file_is_the_same_method(name, tmp_path):
    file = make_method(quick_method(name, tmp_path))
    assert dataclasses.replace(file, start_after=300, capacity=1000) == make_method(name)


def test_a_minimal_file_gives_the_defaults():
    method = parse_method(text(), "my.yaml")
    assert method == SACMethod(transitions=task_transitions, learning_rates=MINIMAL["learning_rates"])


def test_values_of_a_file_are_taken():
    method = parse_method(
        text("DiffusionSACMethod", steps=3, target_entropy="share", prior={"type": "GaussianPrior"}), "f"
    )
    assert (method.steps, method.target_entropy, method.prior) == (3, "share", {"type": "GaussianPrior"})
    assert parse_method(text(target_entropy=0.5), "f").target_entropy == 0.5


# What is refused


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (text(colour="red"), "colour"),
        (text(capacity="many"), "capacity"),
        (text(gamma=[1]), "gamma"),
        (text(draw="best"), "draw"),
        (text(entropy="joint"), "entropy"),
        (text(target_entropy="all"), "target_entropy"),
        (text(transitions="diffpolicy.edge.env.transitions.nothing"), "nothing"),
        (text("NoMethod"), "NoMethod"),
        ("class_path: diffpolicy.training.methods.SACMethod\n", r"transitions|learning_rates"),
        ("class_path: diffpolicy.Scenario\ninit_args: {}\n", "Scenario"),
        ("class_path: diffpolicy.edge.Scenario\n", r"must name a diffpolicy\.methods\.Method"),
        ("class_path: Method\n", "is abstract"),
        ("class_path: [1]\n", r"must be an import path.*\[1\]"),
        ("class_path: SACMethod\ninit_args: {transitions: diffpolicy.Policy}\n", "must name a function"),
        ("class_path: SACMethod\ninit_args: {learning_rates: 3}\n", "learning_rates must be an object.* a number"),
        ("class_path: SACMethod\ninit_args: {hidden: 3}\n", "hidden must be a list.* a whole number.*got 3"),
        ("class_path: nowhere.Thing\ninit_args: {}\n", "nowhere"),
        ("init_args: {}\n", "class_path"),
        ("- a\n- b\n", "class_path"),
        ("", "class_path"),
        ("a: [1, 2\n", "YAML"),
        ("a: b: c\n", "YAML"),
    ],
)
def test_a_wrong_file_is_refused_in_one_sentence_that_names_it(content, message, tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text(content)
    with pytest.raises(InputError, match=rf"mine\.yaml.*({message})") as error:
        make_method(str(path))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"prior": {"type": "Laplace"}}, "Laplace"),
        ({"prior": {"type": "ActionMemory", "key": "planet"}}, "planet"),
        ({"steps": 0}, "got 0"),
        ({"schedule": "quadratic"}, "quadratic"),
        ({"sampler": "euler"}, "euler"),
        ({"sampler_steps": 9}, "got 9"),
        ({"act": "gelu"}, "gelu"),
        ({"hidden": []}, "hidden"),
        ({"alpha": -1.0}, "-1"),
        ({"capacity": 0}, "capacity"),
        ({"rollout_steps": 3}, "got 3"),
    ],
)
def test_values_out_of_range_are_refused_before_training(changes, message, tmp_path):
    file = quick_method("lad-ts", tmp_path, **changes)
    with pytest.raises(InputError, match=message):
        build(file, SCENARIO)


@pytest.mark.parametrize(
    "changes",
    [
        {"gamma": -0.5},
        {"gamma": 1.5},
        {"tau": 2.0},
        {"batch_size": 0},
        {"updates": -1},
        {"start_after": -5},
        {"start_after": 200, "capacity": 100},  # would never train
    ],
)
def test_values_that_cannot_be_meant_are_refused_with_the_value(changes, tmp_path):
    with pytest.raises(InputError, match=next(iter(changes))):
        build(quick_method("lad-ts", tmp_path, **changes), SCENARIO)


@pytest.mark.parametrize("source", ["nothing", "lat", "missing.yaml", "LAD-TS"])
def test_an_unknown_name_is_refused(source):
    with pytest.raises(InputError, match=source):
        make_method(source)


# A method of one's own


def test_a_method_may_be_an_attribute_of_a_module(tmp_path, monkeypatch):
    (tmp_path / "mine_for_test.py").write_text(
        "from diffpolicy.methods import SACMethod\n"
        "from diffpolicy.edge import task_transitions\n"
        "class Box:\n"
        "    method = SACMethod(transitions=task_transitions, learning_rates={'critic': 1e-3}, gamma=0.5)\n"
        "number = 7\n"
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    assert make_method("mine_for_test:Box.method").gamma == 0.5
    with pytest.raises(InputError, match=r"mine_for_test:number.*7"):
        make_method("mine_for_test:number")
    with pytest.raises(InputError, match="nothing"):
        make_method("mine_for_test:nothing")
    with pytest.raises(InputError, match="no_such_module_here"):
        make_method("no_such_module_here:method")


def test_a_method_may_be_a_class_of_ones_own():
    @dataclasses.dataclass(frozen=True, kw_only=True)
    class Mine(OffPolicyMethod):
        def make_policy(self, env, seed):
            return FeedforwardPolicy.from_specs(env, seed=seed)

        def make_objective(self, policy, seed):
            from diffpolicy.networks import CriticEnsemble

            return LatentDiscreteSACLoss(policy, CriticEnsemble(policy.observation_dim, policy.choices))

    method = Mine(transitions=guess_transitions, learning_rates={"actor": 1e-3, "critic": 1e-3, "alpha": 1e-3})
    assert isinstance(method, Method)
    assert method.build(GuessEnv(4), episode_steps=5).policy.choices == 3


def test_a_file_of_an_earlier_version_names_modules_where_they_were(tmp_path):
    text = """
class_path: diffpolicy.training.methods.SACMethod
init_args:
  transitions: diffpolicy.edge.transitions.task_transitions
  learning_rates: {actor: 1.0e-4, critic: 1.0e-3, alpha: 0.0}
"""
    assert parse_method(text, "old.yaml").transitions is task_transitions
