"""TorchRL takes our policies, environments and losses: a test for each of its parts that the README may name."""

import copy
import multiprocessing
from functools import partial

import pytest
import torch
from tensordict import TensorDict
from tensordict.nn import TensorDictModule
from torch import nn
from torchrl.collectors import Collector
from torchrl.data import (
    Bounded,
    Categorical,
    Composite,
    LazyTensorStorage,
    MultiCategorical,
    ReplayBuffer,
    TensorDictReplayBuffer,
    Unbounded,
)
from torchrl.envs import ParallelEnv, SerialEnv
from torchrl.envs.utils import ExplorationType, check_env_specs, set_exploration_type
from torchrl.objectives import ClipPPOLoss, DiscreteSACLoss, SACLoss, SoftUpdate
from torchrl.objectives.value import GAE

from diffpolicy import ActionMemory, DiffusionPolicy, FeedforwardPolicy, GreedyValuePolicy, with_recurrent_state
from diffpolicy.edge import HEURISTICS, OffloadingEnv
from diffpolicy.environments import Lanes, gym_problem
from diffpolicy.errors import InputError
from diffpolicy.export.decision import Decision
from diffpolicy.networks import CriticEnsemble
from diffpolicy.objectives import AgentsDQNLoss, LatentDiscreteSACLoss
from diffpolicy.policies import SystematicDraws
from diffpolicy.policies.heads import CategoricalHead
from test_environments import Countdown
from test_keys import Specs
from toys import GuessEnv, small

SPECS = {
    "categorical": None,
    "multi-categorical": MultiCategorical([3, 2], (4, 2)),
    "bounded": Bounded(-1.0, 2.0, (4, 2)),
}
BOTH = Composite(server=Categorical(3, (4,)), share=Bounded(0.0, 1.0, (4, 2)), shape=(4,))


def env_of(kind):
    """An environment of four lanes whose action is of a kind."""
    spec = BOTH if kind == "composite" else SPECS[kind]
    return GuessEnv(4) if spec is None else Specs({"observation": Unbounded((4, 3))}, spec)


def recorded(env, steps=1, frames=5, **options):
    """A policy and what a collector gives of it, with recorded draws, in rows."""
    policy = DiffusionPolicy.from_specs(env, steps=steps, seed=1, **options)
    policy.record = True
    collector = Collector(
        with_recurrent_state(env, policy), policy, frames_per_batch=frames * env.batch_size.numel(), total_frames=-1
    )
    rollout = next(iter(collector))
    collector.shutdown(close_env=False)
    return policy, rollout


# The law


@pytest.mark.parametrize("kind", SPECS)
def test_a_law_is_what_acting_draws_from(kind):
    env = env_of(kind)
    policy = DiffusionPolicy.from_specs(env, steps=2)
    policy.record = True
    td = policy(env.reset())
    law = policy.get_dist(td)
    assert (law.batch_shape, law.event_shape) == ((4,), policy.head.event)
    assert torch.allclose(law.log_prob(td["action"]), td["action_log_prob"], atol=1e-6)
    assert law.sample((5,)).shape == (5, 4, *policy.head.event)
    assert torch.equal(law.mode, law.deterministic_sample)
    if kind == "bounded":
        assert law.rsample().requires_grad
        with pytest.raises(NotImplementedError, match="closed form"):
            law.entropy()
        for name in ("mean", "variance", "stddev", "support"):  # of torch's own class they are empty exceptions
            with pytest.raises(NotImplementedError, match="the law of a BoundedHead has no"):
                getattr(law, name)
        for ask in (law.cdf, law.icdf, law.expand):
            with pytest.raises(NotImplementedError, match="the law of a BoundedHead has no"):
                ask(td["action"])
    else:
        assert torch.allclose(law.probs.sum(-1), torch.ones(4))
        assert torch.allclose(law.entropy(), -(law.probs * law.logits).sum(-1), atol=1e-6)
        drawn = policy.head.joint_index(law.sample((20_000,)))
        seen = torch.stack([(drawn == a).float().mean(0) for a in range(policy.head.joint)], -1)
        assert torch.allclose(seen, law.probs, atol=0.02)


@pytest.mark.parametrize(
    "make",
    [
        lambda: GuessEnv(4, 3),
        lambda: GuessEnv(4, 3, mask=True),
        lambda: OffloadingEnv(small(3, 5, 8), [4]),
    ],
    ids=["agents", "masks", "offloading"],
)
@pytest.mark.parametrize("prior", [None, ActionMemory()], ids=["gaussian", "memory"])
def test_a_law_of_agents_masks_and_items_that_do_not_exist(make, prior):
    policy, rollout = recorded(make(), steps=2, prior=prior)
    law = policy.get_dist(rollout)
    shape = rollout["agents", "action"].shape
    assert law.batch_shape == shape
    assert rollout["agents", "draws"].shape == (*shape, policy.draws, policy.choices)
    assert torch.isfinite(law.entropy()).all()
    ratio = (law.log_prob(rollout["agents", "action"]) - rollout["agents", "action_log_prob"]).exp()
    assert torch.allclose(ratio, torch.ones(shape), atol=1e-5)


def test_draws_are_recorded_or_fresh():
    env = GuessEnv(6)
    policy, rollout = recorded(env, steps=3)
    first, second = (policy.get_dist(rollout).logits for _ in range(2))
    assert torch.equal(first, second)
    first, second = (policy.get_dist(rollout.exclude("draws")).logits for _ in range(2))
    assert not torch.allclose(first, second)
    with pytest.raises(InputError, match=r"'draws' must have shape \[6, 5, 3, 3\], got \[6, 5, 1, 3\]"):
        policy.get_dist(rollout.clone().set("draws", rollout["draws"][:, :, :1]))


def test_recording_changes_no_draw_and_can_be_undone():
    env = GuessEnv(6)
    root = env.reset()
    plain, recording = (DiffusionPolicy.from_specs(env, steps=3, seed=4) for _ in range(2))
    recording.record = True
    assert torch.equal(plain(root.clone())["action"], recording(root.clone())["action"])
    assert recording.out_keys == ["action", "draws", "action_log_prob"]
    recording.record = False
    assert recording.out_keys == ["action"]
    assert "draws" not in recording(root.clone())


def test_what_has_no_law_says_so():
    env = GuessEnv(6)
    policy = GreedyValuePolicy.from_specs(env)
    for ask in (lambda: policy.get_dist(env.reset()), lambda: setattr(policy, "record", True)):
        with pytest.raises(InputError, match="GreedyValuePolicy has action values"):
            ask()
    with pytest.raises(InputError, match="CategoricalHead takes the argmax"):
        DiffusionPolicy.from_specs(env, head=CategoricalHead("argmax")).record = True


# Losses


def ratios_of(policy, rows):
    """What `ClipPPOLoss` compares: new over old probability of each action."""
    width = rows["observation"].shape[-1]
    critic = TensorDictModule(nn.Linear(width, 1), ["observation"], ["state_value"])
    log_weight, *_ = ClipPPOLoss(policy, critic)._log_weight(rows, rows.batch_size)
    return log_weight.detach().exp()


def test_ppo_ratios_are_one_with_recorded_draws_and_mostly_clipped_with_fresh_ones():
    policy, rollout = recorded(GuessEnv(64, choices=20), steps=5, frames=20)
    rows = rollout.reshape(-1)
    assert torch.allclose(ratios_of(policy, rows), torch.ones(len(rows), 1), atol=1e-5)
    fresh = ratios_of(policy, rows.exclude("draws"))
    assert ((fresh - 1).abs() > 0.2).float().mean() >= 0.95


def collected(kind):
    """A policy, its critic and rows with their advantages."""
    env = env_of(kind)
    critic = TensorDictModule(nn.Linear(3, 1), ["observation"], ["state_value"])
    if kind == "categorical":
        policy, rollout = recorded(env, steps=2, frames=20)
        return policy, critic, GAE(gamma=0.9, lmbda=0.95, value_network=critic)(rollout).reshape(-1)
    # an untrained chain that predicts noise ends far outside the bounds, where log-densities mean nothing
    policy = DiffusionPolicy.from_specs(env, steps=2, prediction="x0", denoiser={"output": "tanh"})
    policy.record = True
    with torch.no_grad():
        rows = policy(env.reset())
    return policy, critic, rows.set("advantage", torch.randn(4, 1)).set("value_target", torch.randn(4, 1))


@pytest.mark.parametrize("kind", ["categorical", "bounded", "composite"])
def test_ppo_trains(kind):
    policy, critic, rows = collected(kind)
    loss = ClipPPOLoss(policy, critic, entropy_bonus=kind == "categorical")
    if kind == "composite":
        with pytest.raises(
            InputError, match=r"the actions \['server', 'share'\] together; .*set_keys\(action=\['server"
        ):
            loss(rows)
        loss.set_keys(action=["server", "share"])
        assert loss(rows)["kl_approx"].item() == pytest.approx(0, abs=1e-6)
    optimizer = torch.optim.Adam(loss.parameters(), lr=1e-2)
    before = [p.clone() for p in policy.parameters()]
    for _ in range(3):
        losses = loss(rows)
        optimizer.zero_grad()
        sum(value for key, value in losses.items() if key.startswith("loss")).backward()
        optimizer.step()
    assert any(not torch.equal(a, b) for a, b in zip(before, policy.parameters(), strict=True))
    assert all(torch.isfinite(p).all() for p in policy.parameters())


class Value(nn.Linear):
    """Q(s, a) of three observed numbers and two of an action."""

    def __init__(self):
        super().__init__(5, 1)

    def forward(self, *parts):
        return super().forward(torch.cat(parts, -1))


@pytest.mark.parametrize("head", [None, "simplex"])
def test_torchrls_sac_trains_vectors(head):
    env = Specs({"observation": Unbounded((4, 3))}, Bounded(0.0, 1.0, (4, 2)))
    policy = DiffusionPolicy.from_specs(env, steps=2, head=head, prediction="x0", denoiser={"output": "tanh"})
    loss = SACLoss(
        policy, TensorDictModule(Value(), ["observation", "action"], ["state_action_value"]), target_entropy=-2
    )
    updater = SoftUpdate(loss, tau=0.1)
    with torch.no_grad():
        rows = policy(env.reset())
    losses = loss(rows.set("next", env.reset().set("reward", torch.ones(4, 1))))
    (losses["loss_actor"] + losses["loss_qvalue"] + losses["loss_alpha"]).backward()
    assert all(torch.isfinite(p.grad).all() for p in loss.parameters() if p.grad is not None)
    assert any((p.grad != 0).any() for p in loss.actor_network_params.parameters())
    updater.step()
    law = policy.get_dist(env.reset())
    action, log_prob = law.rsample_and_log_prob((7,))
    assert torch.allclose(law.log_prob(action), log_prob, atol=1e-3)


def test_torchrls_sac_says_what_it_cannot_train():
    several = Composite(a=Bounded(0.0, 1.0, (4, 2)), b=Bounded(0.0, 1.0, (4, 2)), shape=(4,))
    env = Specs({"observation": Unbounded((4, 3))}, several)
    with pytest.raises(InputError, match=r"takes one, and the law is of \['a', 'b'\] together"):
        DiffusionPolicy.from_specs(env).get_dist(env.reset()).rsample_and_log_prob()
    with pytest.raises(NotImplementedError, match="samples of a CategoricalHead have no gradient"):
        DiffusionPolicy.from_specs(GuessEnv(4)).get_dist(GuessEnv(4).reset()).rsample_and_log_prob()


@pytest.mark.parametrize("cls", [DiffusionPolicy, FeedforwardPolicy])
@pytest.mark.parametrize("masked", [False, True])
def test_torchrls_discrete_sac_trains(cls, masked):
    env = GuessEnv(64, mask=masked)
    policy = cls.from_specs(env)
    rows = env.rollout(5, policy, break_when_any_done=False).reshape(-1)
    critics = [TensorDictModule(nn.Linear(3, 3), ["observation"], ["action_value"]) for _ in range(2)]
    loss = DiscreteSACLoss(policy, critics, action_space="categorical", num_actions=3, num_qvalue_nets=2)
    updater = SoftUpdate(loss, tau=0.1)
    losses = loss(rows)
    (losses["loss_actor"] + losses["loss_qvalue"] + losses["loss_alpha"]).backward()
    assert all(torch.isfinite(p.grad).all() for p in loss.parameters())
    assert any((p.grad != 0).any() for p in loss.actor_network_params.parameters())
    updater.step()


@pytest.mark.parametrize("target_actor", [False, True])
def test_soft_update_moves_our_targets_as_we_do(target_actor):
    policy = DiffusionPolicy.from_specs(GuessEnv(4), steps=2)
    ours = LatentDiscreteSACLoss(policy, CriticEnsemble(3, 3), tau=0.1, target_actor=target_actor)
    state, parts = list(ours.state_dict()), list(ours.children())
    theirs = copy.deepcopy(ours)
    updater = SoftUpdate(theirs, tau=0.1)
    for loss in (ours, theirs):
        with torch.no_grad():
            for parameter in (*loss.critic.parameters(), *loss.policy.parameters()):
                parameter.add_(1)
    ours.update_targets()
    updater.step()
    for (name, a), b in zip(ours.named_parameters(), theirs.parameters(), strict=True):
        assert torch.equal(a, b), name
    assert list(ours.state_dict()) == state
    assert [type(part) for part in ours.children()] == [type(part) for part in parts]


def test_soft_update_moves_dqns_targets():
    loss = AgentsDQNLoss(GreedyValuePolicy.from_specs(GuessEnv(4)))
    updater = SoftUpdate(loss, tau=0.5)
    before = loss.target_value_network_params.clone()
    with torch.no_grad():
        for parameter in loss.parameter_groups()["critic"]:
            parameter.add_(1)
    updater.step()
    moved = loss.target_value_network_params - before
    assert all(torch.allclose(x, torch.full_like(x, 0.5), atol=1e-6) for x in moved.values(True, True))


# Collecting


def test_a_collector_gives_the_same_again_and_moves_no_global_generator():
    before = torch.get_rng_state()
    first, second = (recorded(GuessEnv(4), steps=2)[1] for _ in range(2))
    assert torch.equal(first["draws"], second["draws"])
    assert torch.equal(first["action"], second["action"])
    assert torch.equal(before, torch.get_rng_state())


def offloading():
    return OffloadingEnv(small(3, 5, 8), [2])


def test_a_collector_carries_a_memory():
    env = offloading()
    _, rollout = recorded(env, steps=2, frames=6, prior=ActionMemory())
    now, after = rollout["agents", "latent"][:, 1:], rollout["next", "agents", "latent"][:, :-1]
    assert torch.equal(now, after)


def test_what_a_policy_reads_and_is_not_given_is_named():
    env, streets = GuessEnv(4), offloading()
    policy = DiffusionPolicy.from_specs(env, prior=ActionMemory())
    for act in (policy, policy.get_dist):
        with pytest.raises(InputError, match=r"carries 'latent' .* act in with_recurrent_state\(env, policy\)"):
            act(env.reset())
    with pytest.raises(InputError, match=r"carries \('agents', 'turn'\) .* with_recurrent_state"):
        HEURISTICS["round-robin"](3, 3)(streets.reset())
    with pytest.raises(InputError, match="reads the observation 'observation', which it is not given"):
        policy(env.reset().exclude("observation"))


def worker(policy, stream):
    mine = copy.deepcopy(policy)
    mine.reseed(seed=0, stream=stream)
    return mine


@pytest.mark.slow
def test_workers_of_a_multi_collector_explore_apart():
    policy = DiffusionPolicy.from_specs(GuessEnv(4), steps=2)
    collector = Collector(
        [partial(GuessEnv, 4)] * 2,
        policy_factory=[partial(worker, policy, k) for k in (1, 2)],
        frames_per_batch=40,
        total_frames=40,
        num_collectors=2,
        sync=True,
    )
    rows = next(iter(collector))
    collector.shutdown()
    first, second = rows.chunk(2)
    assert torch.equal(first["observation"], second["observation"])  # both environments have the same seed
    assert not torch.equal(first["action"], second["action"])


@pytest.mark.slow
def test_parallel_environments():
    env = ParallelEnv(2, partial(Countdown))
    policy = DiffusionPolicy.from_specs(env, steps=2)
    try:
        assert env.rollout(3, policy, break_when_any_done=False)["action"].shape == (2, 3)
    finally:
        env.close()


def test_serial_environments():
    env = SerialEnv(3, Countdown)
    policy = DiffusionPolicy.from_specs(env, steps=2)
    assert env.rollout(3, policy, break_when_any_done=False)["action"].shape == (3, 3)


@pytest.mark.parametrize("kind", [ReplayBuffer, TensorDictReplayBuffer])
def test_replay_buffers_keep_what_learning_needs(kind):
    policy, rollout = recorded(GuessEnv(6), steps=2)
    buffer = kind(storage=LazyTensorStorage(100), batch_size=16)
    buffer.extend(rollout.reshape(-1))
    rows = buffer.sample()
    ratio = (policy.get_dist(rows).log_prob(rows["action"]) - rows["action_log_prob"]).exp()
    assert torch.allclose(ratio, torch.ones(16), atol=1e-5)


# Acting


@pytest.mark.parametrize("cls", [DiffusionPolicy, FeedforwardPolicy, GreedyValuePolicy])
def test_a_deterministic_mode_is_deterministic(cls):
    env = GuessEnv(64)
    policy, root = cls.from_specs(env).train(), env.reset()
    with set_exploration_type(ExplorationType.DETERMINISTIC):
        first, second = (policy(root.clone())["action"] for _ in range(2))
        policy.reseed(7)
        third = policy(root.clone())["action"]
    assert torch.equal(first, second)
    assert torch.equal(first, third)
    with set_exploration_type(ExplorationType.RANDOM):
        drawn = [policy(root.clone())["action"] for _ in range(20)]
    assert any(not torch.equal(drawn[0], other) for other in drawn)


ENVS = {
    "offloading": offloading,
    "lanes": lambda: Lanes([Countdown(), Countdown()]),
    "guess": lambda: GuessEnv(3, 2, mask=True),
}


@pytest.mark.parametrize("name", ENVS)
def test_environments_keep_their_specs(name):
    check_env_specs(ENVS[name]())


@pytest.mark.parametrize("name", ["CartPole-v1", "Pendulum-v1"])
def test_gymnasium_environments_keep_their_specs(name):
    pytest.importorskip("gymnasium")
    check_env_specs(gym_problem(name).make_env(2))


# Transformations of the pure decision

POLICIES = {
    "gaussian": lambda env: DiffusionPolicy.from_specs(env, steps=3),
    "memory": lambda env: DiffusionPolicy.from_specs(env, steps=3, prior=ActionMemory()),
    "categorical": FeedforwardPolicy.from_specs,
    "greedy": GreedyValuePolicy.from_specs,
}


def decision_and_inputs(policy, rows=8):
    decision = Decision(policy)
    generator = torch.Generator().manual_seed(0)
    return decision, [i.random(rows, generator) for i in decision.inputs]


@pytest.mark.parametrize("name", POLICIES)
def test_vmap_of_the_decision_given_its_draws(name):
    decision, inputs = decision_and_inputs(POLICIES[name](GuessEnv(4, mask=True)))
    # the noise has its draws first, then the rows
    dims = tuple(1 if i.name == "noise" else 0 for i in decision.inputs)
    together = decision(*inputs)
    alone = torch.func.vmap(
        lambda *row: decision(*(x.unsqueeze(d) for x, d in zip(row, dims, strict=True))), in_dims=dims
    )(*inputs)
    for a, b in zip(together, alone, strict=True):
        assert torch.allclose(a.float(), b.squeeze(1).float(), atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("name", POLICIES)
def test_the_decision_compiles_as_one_graph(name):
    decision, inputs = decision_and_inputs(POLICIES[name](GuessEnv(4, mask=True)))
    compiled = torch.compile(decision, fullgraph=True)
    for a, b in zip(decision(*inputs), compiled(*inputs), strict=True):
        assert torch.allclose(a.float(), b.float(), atol=1e-5)


@pytest.mark.parametrize("name", POLICIES)
def test_the_decision_traces_as_one_graph(name):
    decision, inputs = decision_and_inputs(POLICIES[name](GuessEnv(4, mask=True)))
    compiled = torch.compile(decision, fullgraph=True, backend="eager")
    for a, b in zip(decision(*inputs), compiled(*inputs), strict=True):
        assert torch.equal(a, b)


def test_a_whole_policy_compiles_around_its_draws():
    policy = FeedforwardPolicy.from_specs(GuessEnv(4))  # the law and the draws of every policy
    policy.record, root = True, GuessEnv(4).reset()
    twin = copy.deepcopy(policy)
    compiled = torch.compile(policy, backend="eager")
    for _ in range(2):  # its draws go on
        there, here = compiled(root.clone()), twin(root.clone())
        assert torch.equal(there["action"], here["action"])
        assert torch.equal(there["action_log_prob"], here["action_log_prob"])


@pytest.mark.parametrize("name", ["random", "systematic", pytest.param("price", marks=pytest.mark.slow)])
def test_what_decides_for_offloading_compiles_too(name):
    """Their draws stand outside of the graph, and a fleet policy's decision as a whole."""
    env = OffloadingEnv(small(3, 3, 4), [2], information="live")
    if name == "systematic":
        inner = FeedforwardPolicy.from_specs(env, head="sample", share_parameters=True)
        policy = SystematicDraws(inner, ("agents", "work_gcycles"))
    else:
        policy = HEURISTICS[name](3, 3)
    root, twin = with_recurrent_state(env, policy).reset(), copy.deepcopy(policy)
    compiled = torch.compile(policy, backend="eager")
    for _ in range(2):
        there, here = (act(root.clone())["agents", "action"] for act in (compiled, twin))
        assert torch.equal(there, here)


@pytest.mark.slow
def test_a_collector_compiles_a_policy_with_a_chain():
    """Inductor's code, by TorchRL's own switch: the same actions as without."""
    policies = (DiffusionPolicy.from_specs(GuessEnv(4), steps=2) for _ in range(2))
    actions = []
    for policy, compiles in zip(policies, (True, False), strict=True):
        collector = Collector(GuessEnv(4), policy, frames_per_batch=20, total_frames=-1, compile_policy=compiles)
        actions.append(next(iter(collector))["action"])
        collector.shutdown()
    assert torch.equal(*actions)


# Copies


def test_a_copy_goes_on_as_the_original_and_apart_from_it():
    env = GuessEnv(6)
    policy, root = DiffusionPolicy.from_specs(env), env.reset()
    policy(root.clone())
    policy.record = True
    twin = copy.deepcopy(policy)
    assert torch.equal(policy(root.clone())["draws"], twin(root.clone())["draws"])
    with torch.no_grad():
        next(policy.parameters()).add_(1)
    assert not torch.equal(next(policy.parameters()), next(twin.parameters()))


def act(policy, root, queue):
    queue.put(policy(TensorDict.from_dict(root, batch_size=[6]))["action"].tolist())


@pytest.mark.slow
def test_a_policy_goes_to_a_spawned_process_with_its_draws():
    env = GuessEnv(6)
    policy, root = DiffusionPolicy.from_specs(env), env.reset()
    policy(root.clone())
    context = multiprocessing.get_context("spawn")
    queue = context.Queue()
    process = context.Process(target=act, args=(policy, root.to_dict(), queue))
    process.start()
    there = queue.get(timeout=60)
    process.join()
    assert there == policy(root.clone())["action"].tolist()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
@pytest.mark.parametrize("mask", [False, True])
def test_other_precisions_act_and_have_a_law(dtype, mask):
    env = GuessEnv(6, mask=mask)
    policy = DiffusionPolicy.from_specs(env)
    policy = policy.half() if dtype == torch.float16 else policy.to(dtype)
    policy.record = True
    td = policy(env.reset())
    law = policy.get_dist(td)
    assert law.logits.dtype == dtype
    assert torch.isfinite(law.entropy()).all()
    assert torch.isfinite(td["action_log_prob"]).all()


def test_to_another_device():
    policy = DiffusionPolicy.from_specs(GuessEnv(6)).to("meta")
    assert {p.device.type for p in policy.parameters()} == {"meta"}
