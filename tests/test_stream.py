"""The rollout stream: one pass is one episode, nothing is played ahead, and its state continues bitwise."""

import pytest
import torch

from diffpolicy import ActionMemory, DiffusionPolicy, FeedforwardPolicy, InputError
from diffpolicy.edge import OffloadingEnv
from diffpolicy.training import RolloutStream
from toys import GuessEnv, small

SLOTS = 6
POLICIES = {
    "categorical": lambda env: FeedforwardPolicy.from_specs(env),
    "gaussian": lambda env: DiffusionPolicy.from_specs(env, steps=3),
    "task": lambda env: DiffusionPolicy.from_specs(env, prior=ActionMemory("task", "x0"), steps=3),
    "slot-task": lambda env: DiffusionPolicy.from_specs(env, prior=ActionMemory("slot-task", "probabilities"), steps=3),
    "episode": lambda env: DiffusionPolicy.from_specs(env, prior=ActionMemory(lifetime="episode"), steps=3),
    "slots of an episode": lambda env: DiffusionPolicy.from_specs(
        env, prior=ActionMemory("slot-task", lifetime="episode"), steps=3
    ),
}


def make(name="categorical", e=2, steps=1, seed=0):
    env = OffloadingEnv(small(3, 5, SLOTS), [e], seed)
    return RolloutStream(env, POLICIES[name](env), episode_steps=SLOTS, steps=steps)


def same(a, b):
    keys = set(a.keys(True, True))
    return keys == set(b.keys(True, True)) and all(torch.equal(a[k], b[k]) for k in keys)


@pytest.mark.parametrize("steps", [1, 2, SLOTS])
def test_one_pass_is_one_episode(steps):
    stream = make(steps=steps)
    for _ in range(2):
        items = list(stream)
        assert len(items) == len(stream) == SLOTS // steps
        assert all(item.batch_size == (2, steps) for item in items)
        truncated = torch.cat([item["next", "truncated"] for item in items], 1)
        assert not truncated[:, :-1].any()
        assert truncated[:, -1].all()


def test_items_of_several_steps_are_those_of_one_step_put_together():
    single, several = make("task"), make("task", steps=3)
    for _ in range(4):
        expected = torch.stack([single.rollout().squeeze(1) for _ in range(3)], 1)
        assert same(several.rollout(), expected)


def test_the_next_episode_is_another_one_and_starts_with_empty_queues():
    stream = make()
    first, second = torch.cat(list(stream), 1), torch.cat(list(stream), 1)
    key = ("agents", "input_mbit")
    assert not torch.equal(first[key], second[key])
    for episode in (first, second):
        assert (episode["queue_gcycles"][:, 0] == 0).all()
        assert (episode["queue_gcycles"][:, 1:] > 0).any()


def test_the_slot_after_the_last_one_is_seen_before_the_reset():
    last = list(make())[-1]
    assert (last["next", "queue_gcycles"] > 0).any()


def test_an_item_is_played_with_the_parameters_of_its_moment():
    stream = make()
    items = iter(stream)
    next(items)
    with torch.no_grad():
        for p in stream.policy.parameters():
            p.zero_()
        # the last layer's bias decides alone
        list(stream.policy.parameters())[-1][..., 1] = 100.0
    item = next(items)
    assert (item["agents", "action"][item["agents", "valid"]] == 1).all()


@pytest.mark.parametrize("name", POLICIES)
@pytest.mark.parametrize("done", [0, 2, SLOTS, 2 * SLOTS + 3])
def test_its_state_continues_bitwise(name, done):
    stream = make(name)
    for _ in range(done):
        stream.rollout()
    state, generator = stream.state_dict(), stream.policy.get_extra_state()
    # a state that shared memory with the stream would change with it
    expected = [stream.rollout() for _ in range(SLOTS + 2)]
    other = make(name, seed=9)
    other.policy.load_state_dict(stream.policy.state_dict())
    other.load_state_dict(state)
    other.policy.set_extra_state(generator)
    assert all(same(other.rollout(), item) for item in expected)


@pytest.mark.parametrize("name", ["task", "slot-task"])
def test_what_environment_zero_remembers_goes_into_the_policy(name):
    stream = make(name)
    for _ in range(SLOTS + 2):
        stream.rollout()
    stream.remember()
    remembered = stream.policy.remembered
    assert remembered.shape[1:] == (3, 5, 3)
    slot = 0 if name == "task" else 2
    assert torch.equal(remembered[slot], stream.root["agents", "latent"][0])
    kept = remembered.clone()
    for _ in range(SLOTS):
        stream.rollout()
    assert torch.equal(remembered, kept)


def test_policies_without_a_memory_remember_nothing():
    stream = make("gaussian")
    stream.rollout()
    stream.remember()
    assert stream.memory is None
    assert stream.policy.remembered is None


def test_no_gradients_are_recorded():
    assert not any(v.requires_grad for v in make("task").rollout().values(True, True))


@pytest.mark.parametrize("agents", [None, 2])
def test_any_environment_can_be_streamed(agents):
    env = GuessEnv(4, agents, horizon=5)
    stream = RolloutStream(env, DiffusionPolicy.from_specs(env, prior=ActionMemory()), episode_steps=5, steps=5)
    for _ in range(3):
        (item,) = stream
        assert item.batch_size == (4, 5)
        assert item["next", "done"][:, -1].all()


@pytest.mark.parametrize("steps", [0, 4, 7])
def test_items_that_do_not_fill_an_episode_are_refused(steps):
    with pytest.raises(InputError, match=f"divide the 6 steps .* got {steps}"):
        make(steps=steps)
