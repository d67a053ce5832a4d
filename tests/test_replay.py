"""The packed replay: a ring for each agent, against a model of deques."""

from collections import deque

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tensordict import TensorDict

from diffpolicy import InputError, _limits
from diffpolicy.training import PackedReplay

G = 3


def numbered(valid, first, agent_dim=1):
    """Transitions whose observation says where they stand: (agent, number), numbered in order from `first`."""
    shape = valid.shape
    agent = torch.arange(shape[agent_dim]).view([-1 if d == agent_dim else 1 for d in range(len(shape))]).expand(shape)
    flat = torch.arange(first, first + valid.movedim(agent_dim, 0)[0].numel())
    number = flat.view(valid.movedim(agent_dim, 0).shape[1:]).unsqueeze(0).expand(valid.movedim(agent_dim, 0).shape)
    number = number.movedim(0, agent_dim)
    return TensorDict(
        observation=torch.stack([agent, number], -1).float(),
        action=number.clone(),
        valid=valid,
        next=TensorDict(observation=torch.stack([agent, number + 1], -1).float(), batch_size=shape),
        batch_size=shape,
    )


def contents(replay):
    """What each agent may be given, found by drawing often enough."""
    rows = replay.sample(400)
    return [sorted(set(rows["action"][g].tolist())) for g in range(len(rows["action"]))]


@settings(max_examples=60, deadline=None)
@given(data=st.data(), capacity=st.integers(1, 9))
def test_rings_behave_like_deques(data, capacity):
    replay = PackedReplay(capacity, G)
    model = [deque(maxlen=capacity) for _ in range(G)]
    first = 0
    for _ in range(data.draw(st.integers(1, 5))):
        e, t, n = (data.draw(st.integers(1, 3)) for _ in range(3))
        bits = data.draw(st.lists(st.booleans(), min_size=e * G * t * n, max_size=e * G * t * n))
        valid = torch.tensor(bits).view(e, G, t, n)
        transitions = numbered(valid, first)
        replay.extend(transitions, agent_dim=1)
        for g in range(G):
            model[g].extend(transitions["action"][:, g][valid[:, g]].tolist())
        first += e * t * n
        assert len(replay) == min(len(ring) for ring in model)
    if len(replay):
        assert contents(replay) == [sorted(ring) for ring in model]


@settings(max_examples=30, deadline=None)
@given(counts=st.lists(st.integers(0, 12), min_size=1, max_size=5), capacity=st.integers(1, 9))
def test_a_single_ring_behaves_like_a_deque(counts, capacity):
    replay, model, first = PackedReplay(capacity, None), deque(maxlen=capacity), 0
    for count in counts:
        replay.extend(TensorDict(action=torch.arange(first, first + count), batch_size=[count]))
        model.extend(range(first, first + count))
        first += count
    assert len(replay) == len(model)
    if model:
        assert set(replay.sample(400)["action"].tolist()) == set(model)


def test_where_one_agent_has_every_entry_the_others_gaps_are_still_left_out():
    valid = torch.tensor([[[True, True, True], [False, True, False]]])
    replay = PackedReplay(10, 2)
    replay.extend(numbered(valid, 0), agent_dim=1)
    assert contents(replay) == [[0, 1, 2], [1]]


def test_more_than_the_capacity_at_once_keeps_the_last():
    replay = PackedReplay(4, None)
    replay.extend(TensorDict(action=torch.arange(11), batch_size=[11]))
    assert len(replay) == 4
    assert set(replay.sample(200)["action"].tolist()) == {7, 8, 9, 10}


def test_a_row_stays_together():
    replay = PackedReplay(50, G)
    for k in range(4):
        replay.extend(numbered(torch.rand(2, G, 1, 5, generator=torch.Generator().manual_seed(k)) < 0.6, 100 * k), 1)
    rows = replay.sample(300)
    assert torch.equal(rows["observation"][..., 0], torch.arange(G).unsqueeze(-1).expand(G, 300).float())
    assert torch.equal(rows["observation"][..., 1], rows["action"].float())
    assert torch.equal(rows["next", "observation"][..., 1], rows["action"].float() + 1)


def test_shapes_and_types_come_back():
    lead = (2, G, 4)
    transitions = TensorDict(
        observation=torch.randn(*lead, 5),
        narrow=torch.randn(*lead, 1),
        action=torch.randint(0, 9, lead),
        reward=torch.randn(lead),
        flag=torch.rand(lead) < 0.5,
        next={"agents": {"observation": torch.randn(*lead, 5)}},
        batch_size=lead,
    )
    replay = PackedReplay(100, G)
    replay.extend(transitions, agent_dim=1)
    rows = replay.sample(7)
    assert rows.batch_size == (G, 7)
    assert rows["observation"].shape == (G, 7, 5)
    assert rows["next", "agents", "observation"].shape == (G, 7, 5)
    for name in ("action", "reward", "flag"):
        assert rows[name].shape == (G, 7)
    assert rows["action"].dtype == torch.int64
    assert rows["flag"].dtype == torch.bool
    assert rows["reward"].dtype == torch.float32


def test_a_value_of_width_one_keeps_its_width():
    replay = PackedReplay(10, None)
    replay.extend(TensorDict(observation=torch.randn(6, 1), reward=torch.randn(6), batch_size=[6]))
    rows = replay.sample(4)
    assert rows["observation"].shape == (4, 1)
    assert rows["reward"].shape == (4,)


def test_every_row_is_drawn_about_equally_often():
    replay = PackedReplay(20, None, seed=3)
    replay.extend(TensorDict(action=torch.arange(33), batch_size=[33]))
    count = replay.sample(40_000)["action"].bincount(minlength=33)
    assert (count[:13] == 0).all()
    chi_squared = ((count[13:] - 2000.0) ** 2 / 2000).sum()
    assert chi_squared < 43.8  # the 99.9 % quantile with 19 degrees of freedom


def test_each_agent_draws_for_itself():
    replay = PackedReplay(1000, G)
    replay.extend(numbered(torch.ones(1, G, 1, 1000, dtype=torch.bool), 0), agent_dim=1)
    action = replay.sample(50)["action"]
    assert not torch.equal(action[0], action[1])


def test_the_seed_decides_what_is_drawn():
    def drawn(seed):
        replay = PackedReplay(100, None, seed)
        replay.extend(TensorDict(action=torch.arange(100), batch_size=[100]))
        return replay.sample(30)["action"]

    torch.manual_seed(1)
    first = drawn(4)
    torch.manual_seed(2)
    assert torch.equal(first, drawn(4))
    assert not torch.equal(first, drawn(5))


def test_the_length_is_that_of_the_agent_with_the_fewest():
    replay = PackedReplay(10, 2)
    assert len(replay) == 0
    replay.extend(numbered(torch.tensor([[[True] * 5, [True] * 2 + [False] * 3]]), 0), agent_dim=1)
    assert len(replay) == 2


def test_its_state_goes_through_a_checkpoint():
    replay = PackedReplay(8, G, seed=1)
    replay.extend(numbered(torch.rand(2, G, 1, 5) < 0.7, 0), agent_dim=1)
    replay.sample(3)
    other = PackedReplay(8, G, seed=2)
    other.load_state_dict(replay.state_dict())
    assert len(other) == len(replay)
    for _ in range(2):
        assert (replay.sample(20) == other.sample(20)).all()
        more = numbered(torch.rand(2, G, 1, 5) < 0.7, 50)
        replay.extend(more, agent_dim=1)
        other.extend(more, agent_dim=1)
    assert (replay.sample(20) == other.sample(20)).all()


def test_an_empty_one_goes_through_a_checkpoint_too():
    other = PackedReplay(8, G, seed=2)
    other.load_state_dict(PackedReplay(8, G, seed=1).state_dict())
    assert len(other) == 0
    other.extend(numbered(torch.ones(1, G, 1, 2, dtype=torch.bool), 0), agent_dim=1)
    assert len(other) == 2


def test_nothing_can_be_drawn_of_nothing():
    replay = PackedReplay(8, None)
    replay.extend(TensorDict(action=torch.arange(0), batch_size=[0]))
    with pytest.raises((InputError, RuntimeError), match=r".+"):
        replay.sample(3)


def test_more_than_there_is_room_for_is_refused(monkeypatch):
    monkeypatch.setattr(_limits, "REPLAYED", 2**62)
    with pytest.raises(
        InputError, match=r"1,125,899,906,842,624 transitions of 1 numbers .* GiB, more than there is on"
    ):
        PackedReplay(2**50, None).extend(TensorDict(action=torch.arange(2), batch_size=[2]))


@pytest.mark.parametrize("capacity", [0, -1])
def test_a_capacity_below_one_is_refused(capacity):
    with pytest.raises(InputError, match=f"got {capacity}"):
        PackedReplay(capacity, None)
