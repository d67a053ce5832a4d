"""The action memory: what a step reads is what an earlier one wrote, by each of its switches."""

import itertools
from typing import Any, NamedTuple

import pytest
import torch
from tensordict import TensorDict
from torch import Tensor
from torchrl.envs import TransformedEnv
from torchrl.envs.utils import check_env_specs

from diffpolicy import ActionMemory, DiffusionPolicy, InputError, with_recurrent_state
from diffpolicy.edge import OffloadingEnv, evaluate, play_episodes
from diffpolicy.policies import Prior
from toys import GuessEnv, small

SLOTS, N = 4, 5
SWITCHES = {
    "key": ["item", "step-item"],
    "store": ["x0", "probabilities"],
    "start": ["normal", "uniform"],
    "lifetime": ["run", "episode"],
}
ALL = [dict(zip(SWITCHES, values, strict=True)) for values in itertools.product(*SWITCHES.values())]


class Step(NamedTuple):
    """Latents of one step: what was read and written by the policy, and what the environment had for the next."""

    read: Tensor
    written: Tensor
    valid: Tensor
    following: Tensor


def edge(e=2, tasks=N, slots=SLOTS, stations=3, **options):
    return OffloadingEnv(small(stations, tasks, slots), [e], **options)


def make(env, **switches):
    return DiffusionPolicy.from_specs(env, prior=ActionMemory(**switches), steps=3)


def play(policy, env, steps, root=None):
    """Steps with automatic resets, and the root after them."""
    played, key = [], policy.latent_key
    following = ("next", *key) if isinstance(key, tuple) else ("next", key)
    with torch.no_grad():
        root = env.reset() if root is None else root
        for _ in range(steps):
            td = policy(root)
            valid = td[policy.valid_key] if policy.valid_key else torch.ones_like(td[policy.action_key]).bool()
            read, written = td[key].clone(), td[following].clone()
            step, root = env.step_and_maybe_reset(td)
            played.append(Step(read, written, valid, step[following].clone()))
    return played, root


def is_blank(latent, start):
    if start == "uniform":
        return bool((latent == 1 / latent.shape[-1]).all())
    return bool((latent.abs() > 1).any())  # normal draws exceed what is ever stored


# All switches


@pytest.mark.parametrize("switches", ALL, ids=["-".join(s.values()) for s in ALL])
def test_every_combination_of_switches_plays_episodes(switches):
    env = edge()
    policy = make(env, **switches)
    played, _ = play(policy, with_recurrent_state(env, policy), 3 * SLOTS)
    for step in played:
        assert torch.isfinite(step.read).all()
        assert torch.isfinite(step.written).all()
        stored = step.written[step.valid]
        if switches["store"] == "probabilities":
            torch.testing.assert_close(stored.sum(-1), torch.ones(len(stored)))
            assert (stored >= 0).all()
        else:
            assert (stored.abs() <= 1).all()


@pytest.mark.parametrize("switches", ALL, ids=["-".join(s.values()) for s in ALL])
def test_each_step_reads_what_the_switches_say(switches):
    env = edge()
    policy = make(env, **switches)
    episodes = 3
    played, _ = play(policy, with_recurrent_state(env, policy), episodes * SLOTS)
    for k, t in itertools.product(range(episodes), range(SLOTS)):
        step = played[k * SLOTS + t]
        if switches["key"] == "item":
            source = k * SLOTS + t - 1 if t or switches["lifetime"] == "run" else -1
        else:
            source = (k - 1) * SLOTS + t if switches["lifetime"] == "run" else -1
        if source >= 0:
            assert torch.equal(step.read, played[source].written)
        else:
            assert is_blank(step.read, switches["start"])


@pytest.mark.parametrize("key", SWITCHES["key"])
def test_the_latent_of_the_next_step_is_known_within_the_episode(key):
    env = edge()
    policy = make(env, key=key)
    played, _ = play(policy, with_recurrent_state(env, policy), 2 * SLOTS)
    for t, step in enumerate(played[:-1]):
        if (t + 1) % SLOTS:
            assert torch.equal(step.following, played[t + 1].read)


def test_a_slot_task_memory_knows_the_slot_after_the_last_one_too():
    env = edge()
    policy = make(env, key="step-item", start="uniform")
    last = play(policy, with_recurrent_state(env, policy), SLOTS)[0][-1]
    assert is_blank(last.following, "uniform")


@pytest.mark.parametrize("key", SWITCHES["key"])
def test_tasks_that_do_not_exist_keep_their_memory(key):
    env = edge()
    policy = make(env, key=key)
    played, _ = play(policy, with_recurrent_state(env, policy), 2 * SLOTS)
    assert any(step.valid.logical_not().any() for step in played)
    for step in played:
        assert torch.equal(step.written[~step.valid], step.read[~step.valid])
    assert not all(torch.equal(step.written[step.valid], step.read[step.valid]) for step in played)


def test_what_is_stored_is_the_clipped_end_of_the_chain_or_its_softmax():
    x0 = torch.tensor([[-3.0, 0.5, 2.0]], requires_grad=True)
    assert ActionMemory(store="x0").stored(x0).tolist() == [[-1.0, 0.5, 1.0]]
    torch.testing.assert_close(ActionMemory(store="probabilities").stored(x0), x0.detach().softmax(-1))
    assert not ActionMemory().stored(x0).requires_grad


@pytest.mark.parametrize("start", SWITCHES["start"])
def test_the_start_is_standard_normal_or_uniform(start):
    env = edge(e=40)
    policy = make(env, start=start)
    latent = with_recurrent_state(env, policy).reset()["agents", "latent"]
    assert latent.shape == (40, 3, N, 3)
    if start == "uniform":
        assert torch.equal(latent, torch.full_like(latent, 1 / 3))
    else:
        assert latent.mean().item() == pytest.approx(0, abs=0.1)
        assert latent.std().item() == pytest.approx(1, abs=0.1)


# Resets of some environments only


def half(env, td, e):
    """A reset of environment e alone."""
    reset = torch.zeros(env.batch_size[0], 1, dtype=torch.bool)
    reset[e] = True
    with torch.no_grad():
        return env.reset(td.clone().set("_reset", reset))


@pytest.mark.parametrize("lifetime", SWITCHES["lifetime"])
@pytest.mark.parametrize("key", SWITCHES["key"])
def test_a_partial_reset_leaves_the_other_environments_alone(key, lifetime):
    env = edge()
    policy = make(env, key=key, lifetime=lifetime, start="uniform")
    env = with_recurrent_state(env, policy)
    first, root = play(policy, env, 2)
    before = root["agents", "latent"].clone()
    root = half(env, root, e=1)
    after = root["agents", "latent"]
    assert torch.equal(after[0], before[0])
    if lifetime == "episode":
        assert is_blank(after[1], "uniform")
    else:
        assert torch.equal(after[1], (first[1] if key == "item" else first[0]).written[1])


@pytest.mark.parametrize("lifetime", SWITCHES["lifetime"])
def test_slots_are_counted_for_each_environment(lifetime):
    env = edge()
    policy = make(env, key="step-item", lifetime=lifetime, start="uniform")
    env = with_recurrent_state(env, policy)
    first, root = play(policy, env, 2)  # environment 0 in slot 2, environment 1 back in slot 0
    second, root = play(policy, env, 2, half(env, root, e=1))  # in slots 4 and 2
    root = half(env, root, e=0)  # in slots 0 and 2
    (third,), _ = play(policy, env, 1, root)
    if lifetime == "run":
        assert torch.equal(second[0].read[1], first[0].written[1])
        assert torch.equal(second[1].read[1], first[1].written[1])
        assert torch.equal(third.read[0], first[0].written[0])
    else:
        assert all(is_blank(step.read[1], "uniform") for step in second)
        assert is_blank(third.read[0], "uniform")
    assert all(is_blank(step.read[0], "uniform") for step in second)
    assert is_blank(third.read[1], "uniform")


@pytest.mark.parametrize("agents", [None, 2])
@pytest.mark.parametrize("key", SWITCHES["key"])
def test_environments_that_end_at_different_times_keep_their_memories_apart(key, agents):
    env = GuessEnv(2, agents, horizon=3)
    policy = make(env, key=key, lifetime="run", start="uniform")
    primed = with_recurrent_state(env, policy)
    root = primed.reset()
    env.now = torch.tensor([[0], [1]])  # environment 1 ends its first episode a step earlier
    played, _ = play(policy, primed, 6, root)
    reads = [step.read for step in played]
    writes = [step.written for step in played]
    if key == "item":
        assert all(torch.equal(reads[t + 1], writes[t]) for t in range(5))
    else:
        # slots of environment 0: 0 1 2 0 1 2; of environment 1: 0 1 0 1 2 0
        for e, sources in enumerate([[None, None, None, 0, 1, 2], [None, None, 0, 1, None, 2]]):
            for t, source in enumerate(sources):
                if source is None:
                    assert is_blank(reads[t][e], "uniform")
                else:
                    assert torch.equal(reads[t][e], writes[source][e])


# Evaluation


def remembered(policy, slots=SLOTS, n=N, b=3, a=3):
    t = 1 if policy.prior.key == "item" else slots
    policy.remembered = torch.rand(t, b, n, a, generator=torch.Generator().manual_seed(0))
    return policy.remembered.clone()


@pytest.mark.parametrize("lifetime", SWITCHES["lifetime"])
@pytest.mark.parametrize("key", SWITCHES["key"])
def test_in_eval_mode_every_episode_starts_from_what_was_remembered(key, lifetime):
    env = edge()
    policy = make(env, key=key, lifetime=lifetime).eval()
    known = remembered(policy)
    played, _ = play(policy, with_recurrent_state(env, policy), 2 * SLOTS)
    for k, t in itertools.product(range(2), range(SLOTS)):
        step = played[k * SLOTS + t]
        if key == "step-item":
            assert torch.equal(step.read, known[t].expand_as(step.read))
        elif t == 0:
            assert torch.equal(step.read, known[0].expand_as(step.read))
        else:
            assert torch.equal(step.read, played[k * SLOTS + t - 1].written)
    assert torch.equal(policy.remembered, known)


@pytest.mark.parametrize("key", SWITCHES["key"])
def test_playing_for_evaluation_changes_nothing(key):
    env = edge()
    policy = make(env, key=key).train()
    known = remembered(policy)
    before, state = {k: v.clone() for k, v in policy.tensors().items()}, policy.generator.get_state()
    first = play_episodes(small(3, N, SLOTS), policy, 2)
    second = play_episodes(small(3, N, SLOTS), policy, 2)
    assert (first.cost == second.cost).all()
    assert torch.equal(policy.remembered, known)
    assert all(torch.equal(v, before[k]) for k, v in policy.tensors().items())
    assert torch.equal(policy.generator.get_state(), state)
    assert policy.training


@pytest.mark.parametrize("key", SWITCHES["key"])
@pytest.mark.parametrize("n", [2, 3, 9])
def test_more_or_fewer_tasks_than_were_remembered(key, n):
    policy = make(edge(), key=key, start="uniform").eval()
    known = remembered(policy)
    env = edge(tasks=n)
    played, _ = play(policy, with_recurrent_state(env, policy), SLOTS)
    both = min(n, N)
    read = played[0].read
    assert read.shape == (2, 3, n, 3)
    assert torch.equal(read[..., :both, :], known[0, :, :both].expand(2, -1, -1, -1))
    assert is_blank(read[..., both:, :], "uniform")


def test_more_slots_than_were_remembered():
    policy = make(edge(), key="step-item", start="uniform").eval()
    known = remembered(policy)
    env = edge(slots=SLOTS + 3)
    played, _ = play(policy, with_recurrent_state(env, policy), SLOTS + 3)
    for t, step in enumerate(played):
        expected = known[t] if t < SLOTS else torch.full_like(known[0], 1 / 3)
        assert torch.equal(step.read, expected.expand_as(step.read))


@pytest.mark.parametrize("stations", [2, 4])
def test_a_memory_of_other_stations_is_refused_where_parameters_are_shared(stations):
    env = edge()
    policy = DiffusionPolicy.from_specs(env, prior=ActionMemory(), share_parameters=True).eval()
    remembered(policy)
    # as many servers, and another number of stations
    three = small(3, N, SLOTS)
    other = type(three)(three.slot_s, three.servers, SLOTS, tuple(b % 3 for b in range(stations)), three.workload)
    with pytest.raises(InputError, match="remembered"):
        play_episodes(other, policy, 1)


def test_without_anything_remembered_evaluation_starts_blank():
    policy = make(edge(), start="uniform").eval()
    played, _ = play(policy, with_recurrent_state(edge(), policy), 2 * SLOTS)
    assert all(is_blank(played[t].read, "uniform") for t in (0, SLOTS))


def test_a_policy_with_a_memory_is_evaluated_beside_a_rule():
    policy = make(edge(), key="step-item")
    result = evaluate({"mine": policy, "opt-ts": _rule("opt-ts")}, small(3, N, SLOTS), episodes=2)
    assert result.results["opt-ts"].ratio == 1
    assert result.results["mine"].delays.tasks == result.results["opt-ts"].delays.tasks


def _rule(name: str) -> Any:
    from diffpolicy.edge import make_policy

    return make_policy(name, small(3, N, SLOTS))


# TorchRL's contract


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("key", SWITCHES["key"])
@pytest.mark.parametrize("lifetime", SWITCHES["lifetime"])
def test_the_primed_environment_keeps_torchrls_contract(key, lifetime, training):
    env = edge()
    policy = make(env, key=key, lifetime=lifetime).train(training)
    remembered(policy)
    check_env_specs(with_recurrent_state(env, policy))


@pytest.mark.parametrize("agents", [None, 2])
def test_the_latent_is_in_the_specs_of_any_primed_environment(agents):
    env = GuessEnv(4, agents)
    policy = make(env)
    primed = with_recurrent_state(env, policy)
    check_env_specs(primed)
    assert primed.observation_spec[policy.latent_key].shape == ((4, 3) if agents is None else (4, 2, 3))
    assert "latent" not in env.reset().keys()


def test_a_policy_without_a_memory_leaves_the_environment_as_it_is():
    env = edge()
    assert with_recurrent_state(env, DiffusionPolicy.from_specs(env)) is env


def test_environments_of_a_batch_have_memories_of_their_own():
    env = edge(e=3)
    policy = make(env, key="step-item")
    played, _ = play(policy, with_recurrent_state(env, policy), SLOTS + 1)
    assert torch.equal(played[SLOTS].read, played[0].written)
    assert not torch.equal(played[SLOTS].read[0], played[SLOTS].read[1])


@pytest.mark.parametrize("switch", SWITCHES)
def test_an_unknown_value_of_a_switch_is_refused_with_the_known_ones(switch):
    with pytest.raises(InputError, match=rf"ActionMemory\.{switch} must be {' or '.join(SWITCHES[switch])}, got 'x'"):
        ActionMemory(**{switch: "x"})


def test_a_latent_that_was_put_into_the_root_is_the_one_that_is_read():
    env = edge()
    policy = make(env, store="x0")
    root = with_recurrent_state(env, policy).reset()
    other = root.clone()
    other["agents", "latent"] = -root["agents", "latent"]
    written = []
    for td in (root, other, root.clone()):
        policy.generator.manual_seed(0)
        written.append(policy(TensorDict(td.to_dict(), batch_size=td.batch_size))["next", "agents", "latent"])
    assert torch.equal(written[0], written[2])
    assert not torch.equal(written[0], written[1])


@pytest.mark.parametrize("noted", [False, True])
def test_what_a_policy_writes_for_the_next_step_arrives_as_torchrl_would_merge_it(noted):
    states = []
    for wrap in (with_recurrent_state, lambda env, policy: TransformedEnv(env, policy.primer_for(env))):
        policy = make(edge())
        env = wrap(edge(), policy)
        root, seen = env.reset(), []
        for _ in range(2 * SLOTS + 1):  # over the ends of episodes
            td = policy(root)
            if noted:  # by somebody else, beside what is remembered
                td["next", "note"] = td["agents", "latent"].sum((-1, -2))
            step, root = env.step_and_maybe_reset(td)
            seen.append(step)
        states.append(torch.stack(seen).detach())
    assert ("next", "note") in states[0].keys(True) or not noted
    assert (states[0] == states[1]).all()


@pytest.mark.parametrize(("before", "now"), [("task", "item"), ("slot-task", "step-item")])
def test_the_keys_of_earlier_versions_are_read(before, now):
    assert ActionMemory(key=before) == ActionMemory(key=now)
    assert Prior.from_dict({"type": "ActionMemory", "key": before}).to_dict()["key"] == now
    with pytest.raises(InputError, match="'planet'"):
        ActionMemory(key="planet")


def test_an_environment_that_shows_what_is_remembered_is_refused():
    env = GuessEnv(2)
    policy = DiffusionPolicy.from_specs(env, prior=ActionMemory())
    primed = with_recurrent_state(env, policy)
    assert "latent" in with_recurrent_state(primed, policy).reset().keys()  # its memory is not its own observation
    shown = env.observation_spec.clone()
    env.observation_spec = shown.set("latent", shown["observation"].clone())
    with pytest.raises(InputError, match="remembers 'latent', and the environment shows an observation of that key"):
        with_recurrent_state(env, policy)
