"""What `Keys` reads off specs, and how observations become features."""

import pytest
import torch
from tensordict import TensorDict
from torchrl.data import Binary, Bounded, Categorical, Composite, MultiCategorical, NonTensor, OneHot, Unbounded
from torchrl.envs import EnvBase

from diffpolicy import ActionMemory, DiffusionPolicy, with_recurrent_state
from diffpolicy.edge import OffloadingEnv
from diffpolicy.errors import InputError
from diffpolicy.policies.keys import Keys, Observed, plain
from toys import GuessEnv, small


class Specs(EnvBase):
    """An environment that has nothing but specs."""

    def __init__(self, observation, action, reward=None, batch=(4,)):
        super().__init__(batch_size=batch)
        self.observation_spec = Composite(observation, shape=batch)
        self.action_spec = action if isinstance(action, Composite) else Composite(action=action, shape=batch)
        self.reward_spec = Unbounded((*batch, 1)) if reward is None else Composite(reward, shape=batch)

    def _reset(self, tensordict=None, **_):
        return self.observation_spec.rand()

    def _step(self, tensordict):
        return self.observation_spec.rand()

    def _set_seed(self, seed):
        pass


def test_plain_keys():
    keys = Keys.of(GuessEnv(4, mask=True))
    assert keys.action.key == "action"
    assert (keys.action.kind, keys.action.nvec, keys.action.shape) == ("categorical", (3,), ())
    assert (keys.mask, keys.valid, keys.reward) == ("action_mask", None, "reward")
    assert (keys.group, keys.agents, keys.items, keys.width) == ((), None, (), 3)


def test_a_group_of_agents():
    keys = Keys.of(GuessEnv(4, 3))
    assert keys.action.key == ("agents", "action")
    assert (keys.group, keys.agents, keys.reward) == (("agents",), 3, ("agents", "reward"))


def test_items_and_validity():
    env = OffloadingEnv(small(3, 5), [2])
    keys = Keys.of(env)
    assert (keys.items, keys.valid, keys.width) == ((5,), ("agents", "valid"), 5)
    assert keys.observe(env.reset()).shape == (2, 3, 5, 5)


@pytest.mark.parametrize(
    ("spec", "kind", "nvec", "shape"),
    [
        (Categorical(5, (4,)), "categorical", (5,), ()),
        (OneHot(5, (4, 5)), "one-hot", (5,), (5,)),
        (MultiCategorical([3, 2], (4, 2)), "multi-categorical", (3, 2), (2,)),
        (Bounded(-2.0, 3.0, (4, 2)), "bounded", (2,), (2,)),
    ],
)
def test_kinds_of_actions(spec, kind, nvec, shape):
    action = Keys.of(Specs({"observation": Unbounded((4, 3))}, spec)).action
    assert (action.kind, action.nvec, action.shape) == (kind, nvec, shape)
    if kind == "bounded":
        assert (action.low, action.high) == ((-2.0, -2.0), (3.0, 3.0))


def test_an_integer_observation_becomes_one_hot_since_its_size_means_nothing():
    keys = Keys.of(Specs({"observation": Categorical(4, (4,))}, Categorical(2, (4,))))
    td = TensorDict(observation=torch.tensor([0, 3, 1, 2]), batch_size=[4])
    assert torch.equal(keys.observe(td), torch.eye(4)[[0, 3, 1, 2]])


def test_scalars_and_pictures_are_flattened():
    keys = Keys.of(Specs({"observation": Unbounded((4,))}, Categorical(2, (4,))))
    assert keys.observations[0] == Observed("observation", (), None)
    assert keys.observe(TensorDict(observation=torch.ones(4, dtype=torch.float64), batch_size=[4])).shape == (4, 1)
    keys = Keys.of(Specs({"observation": Unbounded((4, 2, 2))}, Categorical(2, (4,))))
    assert keys.observe(TensorDict(observation=torch.ones(4, 2, 2), batch_size=[4])).shape == (4, 4)


def test_what_all_items_share_is_repeated():
    env = Specs({"observation": Unbounded((4, 7))}, Categorical(2, (4, 3)))
    keys = Keys.of(env)
    assert keys.items == (3,)
    assert keys.observe(env.reset()).shape == (4, 3, 7)


def test_where_no_key_is_the_observation_all_others_are_by_name():
    assert Keys.of(Specs({"pixels": Unbounded((4, 3))}, Categorical(2, (4,)))).observations[0].key == "pixels"
    seen = {
        "pixels": Unbounded((4, 3, 2)),
        "action_mask": Binary(2, (4, 2), dtype=torch.bool),
        "age": Unbounded((4, 1)),
    }
    keys = Keys.of(Specs(seen, Categorical(2, (4,))))
    assert [o.key for o in keys.observations] == ["age", "pixels"]
    assert (keys.width, keys.mask) == (1 + 6, "action_mask")


def test_what_a_policy_remembers_is_none_of_what_is_observed():
    env = Specs({"sight": Unbounded((4, 2)), "age": Unbounded((4,))}, Categorical(4, (4,)))
    primed = with_recurrent_state(env, DiffusionPolicy.from_specs(env, prior=ActionMemory()))
    assert "latent" in primed.reset()
    assert Keys.of(primed) == Keys.of(env)
    own = Specs({"sight": Unbounded((4, 2)), "latent": Unbounded((4,))}, Categorical(4, (4,)))
    with pytest.raises(InputError, match="observation 'latent' has a key that acting writes too"):
        Keys.of(own)


def test_what_lies_in_dicts_is_observed_only_where_nothing_stands_beside_the_action():
    inner = Composite(
        step=Unbounded((4, 1)), text=NonTensor((4,)), action_mask=Binary(2, (4, 2), dtype=torch.bool), shape=(4,)
    )
    board = Specs({"board": Unbounded((4, 3)), "info": inner}, Categorical(2, (4,)))
    assert [o.key for o in Keys.of(board).observations] == ["board"]
    alone = Specs({"info": inner.clone()}, Categorical(2, (4,)))
    assert [o.key for o in Keys.of(alone).observations] == [("info", "step")]


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (
            lambda: Specs({"action_mask": Binary(2, (4, 2), dtype=torch.bool)}, Categorical(2, (4,))),
            "no observation stands beside",
        ),
        (lambda: Specs({"observation": Unbounded((4, 3))}, Unbounded((4, 2), dtype=torch.int64)), "Unbounded"),
        (
            lambda: Specs(
                {"observation": Unbounded((4, 3))},
                Categorical(2, (4,)),
                {"cost": Unbounded((4, 1)), "tip": Unbounded((4, 1))},
            ),
            "rewards",
        ),
        (
            lambda: Specs(
                {"observation": Unbounded((4, 3))},
                Composite(
                    left=Categorical(2, (4,)), right=Composite(action=Categorical(2, (4,)), shape=(4,)), shape=(4,)
                ),
            ),
            "several actions",
        ),
    ],
)
def test_what_cannot_be_told_is_asked_for(make, words):
    with pytest.raises(InputError, match=words):
        Keys.of(make())


@pytest.mark.parametrize("name", ["action", "next", "latent", "draws", "start", "action_log_prob", "chain"])
def test_an_observation_that_acting_would_overwrite_is_refused_by_its_key(name):
    env = Specs({"x": Unbounded((4, 3)), name: Unbounded((4, 3))}, Categorical(2, (4,)))
    with pytest.raises(InputError, match=f"the observation '{name}' has a key that acting writes too"):
        Keys.of(env)
    with pytest.raises(InputError, match=f"'{name}'"):
        Keys.of(env, observation_keys=[name])
    assert Keys.of(env, observation_keys=["x"]).width == 3


def test_missing_keys_are_named():
    env = GuessEnv(4)
    for given in ({"action_key": "move"}, {"observation_keys": ["pixels"]}, {"mask_key": "allowed"}):
        with pytest.raises(InputError, match=next(iter(given.values()))[0] if isinstance(given, list) else "has no"):
            Keys.of(env, **given)


def test_a_value_of_another_shape_is_named():
    keys = Keys.of(GuessEnv(4))
    with pytest.raises(InputError, match=r"'observation' has shape \[4, 2\]"):
        keys.observations[0].features(torch.ones(4, 2), torch.Size([4]), torch.float32)


def test_keys_in_their_plain_form():
    assert plain(("a",)) == "a"
    assert plain(["a", "b"]) == ("a", "b")
    for bad in ([], 3.5, ("a", 1)):
        with pytest.raises(InputError, match="a key must be"):
            plain(bad)
