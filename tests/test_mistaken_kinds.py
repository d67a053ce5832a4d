"""Classes where instances are asked for and the reverse, and actions, rewards and rules that are out of place."""

import sys
from dataclasses import dataclass
from functools import partial
from types import ModuleType

import numpy as np
import pytest
import torch
from tensordict import TensorDict
from torch import nn
from torchrl.data import Binary, Categorical, Composite, Unbounded
from torchrl.envs import EnvBase, GymEnv, SerialEnv

from diffpolicy import DiffusionPolicy, FeedforwardPolicy, check_policy, check_problem, evaluation
from diffpolicy.diffusion import FlowProcess
from diffpolicy.diffusion.solvers import FlowHeun
from diffpolicy.environments import EnvProblem, Problem, gym_problem
from diffpolicy.errors import InputError
from diffpolicy.experiments import build, evaluate, make_problem, train
from diffpolicy.methods import SACMethod
from diffpolicy.policies.guidance import BestOf
from diffpolicy.policies.heads import CategoricalHead
from diffpolicy.policies.priors import ActionMemory
from toys import GuessEnv


class Halls(EnvBase):
    """Two agents who each choose one of three, some of which are forbidden; all of it in the group `agents`."""

    def __init__(self, batch, seed=0):
        super().__init__(batch_size=[batch])
        self.generator = torch.Generator().manual_seed(seed)
        group = {"observation": Unbounded((batch, 2, 3)), "action_mask": Binary(3, (batch, 2, 3), dtype=torch.bool)}
        self.observation_spec = Composite(agents=Composite(group, shape=(batch, 2)), shape=(batch,))
        action = Composite(action=Categorical(3, (batch, 2)), shape=(batch, 2))
        self.action_spec = Composite(agents=action, shape=(batch,))
        self.reward_spec = Unbounded((batch, 1))
        self.done_spec = Composite(done=Binary(1, (batch, 1), dtype=torch.bool), shape=(batch,))

    def _shown(self):
        b, self.count = self.batch_size[0], getattr(self, "count", 0) + 1
        mask = torch.ones(b, 2, 3, dtype=torch.bool)
        mask[..., 0] = self.count < 3  # what forbids the first choice comes later
        observation = torch.rand(b, 2, 3, generator=self.generator)
        group = TensorDict(observation=observation, action_mask=mask, batch_size=[b, 2])
        over = torch.zeros(b, 1, dtype=torch.bool)
        return TensorDict(agents=group, done=over, terminated=over.clone(), batch_size=[b])

    def _reset(self, tensordict=None, **_):
        return self._shown()

    def _step(self, td):
        return self._shown().set("reward", -td["agents", "action"].sum(-1, keepdim=True).float())

    def _set_seed(self, seed):
        self.count = 0
        self.generator.manual_seed(seed or 0)


class Table(Halls):
    """Rows of a table, past whose end nothing can be read."""

    rows = 2

    def _reset(self, tensordict=None, **_):
        self.row = 0
        return self._shown()

    def _step(self, td):
        if self.row == self.rows:
            raise IndexError("the table is at its end")
        self.row += 1
        return super()._step(td)


class OneRow(Table):
    rows = 1


class Uneven(Halls):
    """The first lane ends at its second step, the other goes on."""

    def _step(self, td):
        now = super()._step(td)
        now["terminated"] = now["done"] = torch.tensor([[self.count % 3 == 0], [False]])
        return now


class AtRoot(Halls):
    def __init__(self, batch, seed=0):
        super().__init__(batch, seed)
        self.action_spec = Categorical(3, (batch, 2))


class InGroup(Halls):
    def _step(self, td):
        return super()._step({("agents", "action"): td["action"]})


class RewardInGroup(Halls):
    def _step(self, td):
        now = super()._step(td)
        now["agents", "reward"] = now.pop("reward")[:, None].expand(-1, 2, 1)
        return now


class Global(Halls):
    def _shown(self):
        now = super()._shown()
        now["agents", "observation"] = torch.rand_like(now["agents", "observation"])
        return now


def first(td):
    return td.set(("agents", "action"), torch.zeros_like(td["agents", "action_mask"][..., 0], dtype=torch.long))


def allowed(td):
    return td.set(("agents", "action"), td["agents", "action_mask"].long().argmax(-1))


class Rule:
    def __call__(self, td):
        return allowed(td)


class Priority(Rule):
    def __init__(self, weight):
        self.weight = weight


def halls(env=Halls, rule=allowed):
    return EnvProblem(env, steps=4, rules={"mine": rule}, name="halls")


GUESS = EnvProblem(lambda batch: GuessEnv(batch), steps=3)
HALLS, GUESSING = Halls(2), GuessEnv(1)
MISTAKES = {
    "an environment": (lambda: EnvProblem(Halls(2)), "give the class Halls, or a function that makes one"),
    "the same batch": (lambda: check_problem(halls(lambda batch: HALLS)), "same environment each time"),
    "the same lane": (lambda: check_problem(EnvProblem(lambda: GUESSING)), "same environment each time"),
    "an environment trained on": (lambda: train(Halls(2), "sac", episodes=1), r"such as EnvProblem\(Halls\)"),
    "its class trained on": (lambda: train(Halls, "sac", episodes=1), r"such as EnvProblem\(Halls\)"),
    "its class built on": (lambda: build(Halls, "sac"), "the problem is the class Halls"),
    "a class of methods": (lambda: build(GUESS, SACMethod), "the method is the class SACMethod"),
    "no method": (lambda: build(GUESS, nn.Linear(1, 1)), "a method must be a Method"),
    "no id": (lambda: gym_problem(Halls(1)), "must be a string"),
    "a class of environments": (lambda: DiffusionPolicy.from_specs(Halls), "the environment is the class Halls"),
    "a class of heads": (lambda: FeedforwardPolicy.from_specs(Halls(1), head=CategoricalHead), "head is the class"),
    "a class of heads, by hand": (
        lambda: FeedforwardPolicy(choices=3, observation_dim=2, head=CategoricalHead),
        r"give an instance, such as CategoricalHead\(\.\.\.\)",
    ),
    **{
        f"a class for {name}": (
            lambda name=name, value=value: DiffusionPolicy.from_specs(Halls(1), **{name: value}),
            f"^{name} is the class",
        )
        for name, value in {
            "prior": ActionMemory,
            "schedule": FlowProcess,
            "sampler": FlowHeun,
            "guidance": BestOf,
            "denoiser": nn.Linear,
        }.items()
    },
    "a class of policies": (lambda: evaluate(GUESS, {"x": DiffusionPolicy}, 1), "the class DiffusionPolicy"),
    "a class checked": (lambda: check_policy(DiffusionPolicy, GuessEnv(1)), "the class DiffusionPolicy"),
    "an environment for a policy": (lambda: evaluate(GUESS, {"x": GuessEnv(1)}, 1), "got the environment GuessEnv"),
    "an environment for a rule": (lambda: halls(rule=Halls(1)), "rule 'mine' .* got an environment"),
    "a rule that asks for more": (lambda: halls(rule=Priority), r"rule 'mine' .* got a class of \(weight\)"),
    "a rule of nothing": (lambda: halls(rule=lambda: allowed), r"rule 'mine' .* got a function of \(\)"),
    "an action beside its group": (
        lambda: check_problem(halls(AtRoot)),
        r"reads its action at \('agents', 'action'\), and the action_spec has it at 'action'",
    ),
    "an action in a group": (
        lambda: check_problem(halls(InGroup)),
        r"reads its action at 'action', and the action_spec has it at \('agents', 'action'\)",
    ),
    "a reward in a group": (lambda: check_problem(halls(RewardInGroup)), r"it gives \('agents', 'reward'\)"),
    "a rule's action beside its group": (
        lambda: check_problem(
            halls(rule=lambda td: td.set("action", allowed(td)["agents", "action"]).exclude("agents"))
        ),
        r"writes no action \('agents', 'action'\); it gives 'action'",
    ),
    "a rule that ignores the mask later": (lambda: check_problem(halls(rule=first)), "rule 'mine' is 0 in lane 0"),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_another_kind_of_thing_meets_one_sentence(name):
    mistake, words = MISTAKES[name]
    with pytest.raises(InputError, match=words) as refused:
        mistake()
    assert len(str(refused.value).splitlines()) == 1


def test_a_class_of_rules_that_asks_for_nothing_makes_one():
    check_problem(halls(rule=Rule))
    assert evaluate(halls(rule=Rule), ["mine"], 1).results["mine"].costs.count == 1


RULES = {
    "a copy": lambda td: allowed(td.clone()),
    "the action alone": lambda td: TensorDict(
        agents=TensorDict(action=allowed(td)["agents", "action"], batch_size=[*td.batch_size, 2]),
        batch_size=td.batch_size,
    ),
}


@pytest.mark.parametrize("name", RULES)
def test_a_rule_may_give_back_another_tensordict(name):
    rule = RULES[name]
    check_problem(halls(rule=rule))
    mine, known = (evaluate(problem, ["mine"], 1).results["mine"] for problem in (halls(rule=rule), halls()))
    assert mine.costs == known.costs


@pytest.mark.parametrize(("env", "steps"), [(Table, 2), (OneRow, 1)])
def test_no_step_past_an_episodes_last_is_checked(env, steps):
    problem = EnvProblem(env, steps=steps, rules={"mine": allowed}, name="table")
    check_problem(problem)
    with pytest.raises(InputError, match=r"step of .* failed: IndexError: the table is at its end"):
        check_problem(EnvProblem(env, steps=steps + 1, rules={"mine": allowed}))


@pytest.mark.filterwarnings("ignore:_reset of Uneven resets all lanes:UserWarning")
def test_lanes_that_end_within_the_check_do_not_break_it():
    check_problem(EnvProblem(Uneven, steps=4, rules={"mine": RULES["the action alone"]}))


def test_lanes_that_are_put_together_of_others_are_fresh():
    pytest.importorskip("gymnasium")
    make = partial(SerialEnv, 1, partial(GymEnv, "CartPole-v1", categorical_action_encoding=True))
    assert EnvProblem(lambda: make(), steps=5).make_env(4).batch_size == (4,)


@pytest.fixture
def shop(monkeypatch):
    module = ModuleType("a_shop")
    module.env, module.greedy, module.problem = Halls(2), allowed, halls()
    monkeypatch.setitem(sys.modules, "a_shop", module)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("a_shop:env", "made already; give the class Halls"),
        ("a_shop:greedy", r"asks for td; did you mean a_shop:problem\?"),
    ],
)
def test_another_thing_than_a_problem_is_refused_by_name(shop, text, words):
    with pytest.raises(InputError, match=words):
        make_problem(text)


@dataclass(frozen=True)
class Frozen(Problem):
    steps = 4

    def make_env(self, batch=1, seed=0, **_):
        return Global(batch, seed)


@dataclass(frozen=True)
class Sized(Problem):
    gb: float = 24.0
    steps = 4

    def make_env(self, batch=1, seed=0, **_):
        return Halls(batch, seed)


class Unkept(Sized):
    def __init__(self, gb=24.0, lanes=None):
        object.__setattr__(self, "size", gb)
        object.__setattr__(self, "_lanes", lanes)


class Handed(Sized):
    def __init__(self, *, table=None, **kwargs):
        super().__init__(**kwargs)
        object.__setattr__(self, "table", table)


class Shop(EnvProblem):
    def __init__(self, size):
        self.size = size
        super().__init__(self.make, steps=4)

    def make(self, batch, seed):
        return Halls(batch, seed)


def test_a_problem_is_described_by_what_its_constructor_was_given(shop):
    assert Sized().description()["arguments"] == {"gb": 24.0}
    assert Sized().digest() == Sized(24.0).digest() != Sized(12.0).digest()
    with pytest.warns(UserWarning, match=r"without 'gb' \(no attribute of that name keeps it\), so a run"):
        check_problem(Unkept())
    passed_on, nine = Handed(gb=9.0, table=np.arange(3)), Handed(gb=9.0, table=np.arange(3) * 2)
    assert passed_on.description()["arguments"]["gb"] == 9.0
    assert passed_on.digest() != nine.digest()
    with pytest.warns(UserWarning, match=r"without 'table' \(no file can tell the content of a Generator\)"):
        check_problem(Handed(table=torch.Generator()))
    assert Shop(3).digest() != Shop(9).digest()
    assert Shop(np.float32(3)).digest() == Shop(3.0).digest()
    sized = sys.modules["a_shop"].sized = Sized(12.0)
    assert make_problem("a_shop:sized").reference == "a_shop:sized"  # it is frozen
    assert sized.reference is None


def test_a_vector_of_bits_is_asked_whether_it_is_one_decision():
    env = Halls(2)
    env.action_spec = Binary(5, (2, 5))
    with pytest.raises(InputError, match=r"MultiCategorical\(\[2\] \* 5, shape=\[2, 5\]\) if these are one decision"):
        FeedforwardPolicy.from_specs(env)


def test_a_frozen_problem_that_cannot_be_repeated_is_warned_of():
    with pytest.warns(UserWarning, match="nothing can be repeated"):
        check_problem(Frozen())


def test_episodes_that_cannot_be_repeated_are_not_called_identical():
    assert ": 1 identical episodes" in evaluate(halls(), ["mine"], 1).table()
    for problem, name in ((halls(Global), "mine"), (Frozen(), "random")):  # as no check of it has changed either
        before = torch.get_rng_state()
        found = evaluation.evaluate(problem, [name], 1)
        assert "identical" not in found.table()
        assert "since they cannot be repeated" in found.table()
        assert torch.equal(torch.get_rng_state(), before)
