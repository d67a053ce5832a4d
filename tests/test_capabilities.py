"""What methods say that they can train: each cell of the matrix is trained for two episodes, or refused by name."""

import dataclasses
import json
from functools import cache, partial

import pytest
import torch
from torchrl.data import Binary, Bounded, Categorical, Composite, MultiCategorical, Unbounded
from torchrl.envs import EnvBase

from diffpolicy import check_problem
from diffpolicy.environments import EnvProblem
from diffpolicy.errors import InputError
from diffpolicy.experiments import make_method
from diffpolicy.experiments.method_names import PRESETS
from diffpolicy.methods import Method, OnPolicyMethod
from diffpolicy.methods.capabilities import ACTIONS, SITUATIONS, Capabilities
from diffpolicy.training.fit import fit
from test_tokens import policy_of

FREE = [name for name, package in PRESETS.items() if package == "diffpolicy.methods"]
PLAIN = [name for name in FREE if not name.endswith("-plus")]
QUICK = {"batch_size": 4, "hidden": [4]}
made = cache(make_method)
sound = cache(check_problem)
"""Of a problem that many methods train on, which is checked once."""


@pytest.fixture(autouse=True)
def checked_once(monkeypatch):
    monkeypatch.setattr("diffpolicy.training.trainable.check_problem", sound)


class AnyEnv(EnvBase):
    """Two lanes of whatever kind of problem: the reward is minus the square of the first number that was decided.

    Args: action: of `ACTIONS`. has: of `SITUATIONS`.
    """

    batch_locked = True

    def __init__(self, batch, action, has):
        super().__init__(batch_size=[batch])
        self.group = ("agents",) if "agents" in has else ()
        lead = (batch, *([3] if self.group else []))
        shape = (*lead, *([2] if "items" in has or action == "items together" else []))
        self.ends = "early ends" in has
        observed = {"observation": Unbounded((*shape, 2))}
        choices = {"several choices": 5, "within bounds": 0}.get(action, 3)
        several = action == "several keys"
        if "masks" in has and choices:
            observed["server_mask" if several else "action_mask"] = Binary(choices, (*shape, choices), dtype=torch.bool)
        decided = {
            "several choices": MultiCategorical([3, 2], (*shape, 2)),
            "within bounds": Bounded(-1.0, 2.0, (*shape, 2)),
            "shares of a whole": Bounded(0.0, 1.0, (*shape, 3)),
        }.get(action, Categorical(3, shape))

        def grouped(inside):
            return Composite(agents=Composite(inside, shape=lead), shape=(batch,)) if self.group else inside

        self.observation_spec = grouped(Composite(observed, shape=lead))
        self.key = "share" if several else "action"
        more = {"server": decided, "share": Bounded(-1.0, 2.0, (*shape, 2))}
        self.action_spec = grouped(Composite(more if several else {"action": decided}, shape=lead))
        self.reward_spec = Composite(reward=Unbounded((batch, 1)), shape=(batch,))
        self.draws, self.now = torch.Generator().manual_seed(0), torch.zeros(batch, 1, dtype=torch.long)

    def _observe(self):
        td = self.observation_spec.rand()
        for key in td.keys(True, True):
            fresh = torch.rand(td[key].shape, generator=self.draws)
            td[key] = fresh if td[key].is_floating_point() else fresh < 0.5
            if td[key].dtype == torch.bool:
                td[key][..., 0] = td[key][..., -1] = True
        over = self.now >= 2 + torch.arange(len(self.now)).unsqueeze(-1) if self.ends else self.now >= 4
        return td.update({"done": over, "terminated": over & self.ends, "truncated": over & (not self.ends)})

    def _reset(self, tensordict=None, **_):
        again = None if tensordict is None else tensordict.get("_reset", None)
        self.now = self.now.masked_fill(torch.ones_like(self.now, dtype=torch.bool) if again is None else again, 0)
        return self._observe()

    def _step(self, tensordict):
        self.now = self.now + 1
        action = tensordict[(*self.group, self.key)].float().reshape(len(self.now), -1)[:, :1]
        return self._observe().set("reward", -action.square())

    def _set_seed(self, seed):
        self.draws.manual_seed(seed or 0)


def seeded(action, has, batch, seed):
    env = AnyEnv(batch, action, has)
    env.set_seed(seed)
    return env


@cache
def problem_of(action, has):
    return EnvProblem(partial(seeded, action, has), steps=None if "early ends" in has else 4)


def trained(name, action, has):
    """Trains two episodes with updates in them. Args: has: what the problem has."""
    method = made(name)
    more = {"collect": 4, "epochs": 1} if isinstance(method, OnPolicyMethod) else {"start_after": 2, "capacity": 100}
    more |= {"items": "joint"} if action == "items together" else {}
    more |= {"head": "simplex"} if action == "shares of a whole" else {}
    if action == "tokens":
        more["policy"] = policy_of(AnyEnv(2, action, has))
    method = dataclasses.replace(method, **QUICK, **more)
    module = method.build(problem_of(action, has), environments=2)
    before = [p.detach().clone() for p in module.policy.parameters()]
    fit(module, episodes=2)
    return any(not torch.equal(a, b) for a, b in zip(before, module.policy.parameters(), strict=True))


@pytest.mark.parametrize("action", ACTIONS)
@pytest.mark.parametrize("name", PLAIN)
def test_what_a_method_declares_it_trains_and_the_rest_it_refuses_by_name(name, action):
    check(name, action, SITUATIONS)


@pytest.mark.slow
@pytest.mark.parametrize(
    "has", [(), *((situation,) for situation in SITUATIONS)], ids=lambda has: "".join(has) or "plain"
)
@pytest.mark.parametrize("action", ACTIONS)
@pytest.mark.parametrize("name", FREE)
def test_each_thing_that_a_problem_may_have_alone(name, action, has):
    check(name, action, has)


def check(name, action, has):
    declared = Capabilities.of(made(name))
    assert declared.serves == SITUATIONS
    if not declared.refused[action]:
        assert trained(name, action, has)
        return
    with pytest.raises(InputError, match=rf"{type(ACTIONS[action]).__name__}|items are joint"):
        trained(name, action, has)


def test_normalised_presets_can_what_their_plain_forms_can():
    for name in FREE:
        plain = made(name.removesuffix("-plus"))
        assert Capabilities.of(made(name)) == Capabilities.of(plain)


def test_a_preset_of_the_offloading_problem_says_what_it_makes_of_a_rollout():
    assert Capabilities.of(make_method("lad-ts-released")).transitions.endswith(":released_transitions")
    assert Capabilities.of(make_method("lad")).transitions is None


def test_of_a_method_that_declares_nothing_no_situation_is_claimed():
    class Own(Method):
        def build(self, problem, **options):
            raise NotImplementedError

    own = Capabilities.of(Own())
    assert own.serves == ()
    assert not any(own.refused.values())


def test_the_command_lists_them(cli):
    found = json.loads(cli("list", "methods", "--json").out)
    assert list(found["capabilities"]) == found["methods"]
    assert found["capabilities"]["dqn"]["actions"] == ["one choice"]
    assert "capabilities" not in json.loads(cli("list", "--json").out)
