"""What a method, an objective and a policy of a user's own meet: sentences instead of tracebacks, and sweeps."""

import math
import sys
from dataclasses import dataclass, field
from types import ModuleType, SimpleNamespace
from typing import ClassVar, Optional, Union

import pytest
import torch
from tensordict import TensorDict
from tensordict.nn import TensorDictModule
from torchrl.data import Categorical
from torchrl.modules import QValueActor
from torchrl.objectives import DQNLoss
from torchrl.objectives.common import LossModule

from diffpolicy.environments import EnvProblem, step_transitions
from diffpolicy.environments.entrants import make_policy
from diffpolicy.errors import InputError
from diffpolicy.evaluation import playing
from diffpolicy.experiments import train
from diffpolicy.experiments.changes import changed
from diffpolicy.experiments.method_names import make_method
from diffpolicy.experiments.plan import Plan
from diffpolicy.experiments.sweep import Sweep
from diffpolicy.methods import SACMethod
from diffpolicy.methods.fields import annotated
from diffpolicy.policies.keys import Keys
from diffpolicy.problems import Clinic
from diffpolicy.problems.clinic import longest_queue

PROBLEM = EnvProblem(Clinic, steps=5)
RATES = {"actor": 1e-3, "critic": 1e-3, "alpha": 0.0}


@dataclass(frozen=True, kw_only=True)
class Own(SACMethod):
    beta: float = 1.0
    rounds: int = 2
    loud: bool = False


class Reads(LossModule):
    """Reads a key that no problem has."""

    in_keys = ("observation", ("next", "tide"))
    out_keys = ("loss_actor",)

    def __init__(self, policy):
        super().__init__()
        self.policy = policy

    def forward(self, tensordict):
        return TensorDict(loss_actor=tensordict["next", "tide"].mean())

    def parameter_groups(self):
        return {"actor": self.policy.parameters()}

    def update_targets(self):
        pass

    def _forward_value_estimator_keys(self, **kwargs):
        pass


class ReadsByBase(Reads):
    """Lists nothing itself: its base does."""


class Lists(LossModule):
    """A base that lists in its constructor what all its losses read."""

    def __init__(self, policy):
        super().__init__()
        self.policy = policy
        self.in_keys, self.out_keys = ["observation", ("next", "tide")], ["loss_actor"]

    parameter_groups, update_targets = Reads.parameter_groups, Reads.update_targets
    _forward_value_estimator_keys = Reads._forward_value_estimator_keys


class ReadsByConstructor(Lists):
    forward = Reads.forward


class OfTorchRL(DQNLoss):
    """Makes TorchRL's rows itself, so TorchRL's `in_keys`, `("next", "reward")` among them, are not of these rows."""

    def __init__(self, policy):
        network = TensorDictModule(policy.network, in_keys=["observation"], out_keys=["action_value"])
        super().__init__(QValueActor(network, spec=Categorical(3), action_space="categorical"), delay_value=False)

    def forward(self, tensordict):
        return TensorDict(loss=sum(each.sum() for each in self.value_network_params.parameters()))

    def parameter_groups(self):
        return {"actor": self.value_network_params.parameters()}

    def update_targets(self):
        pass


@dataclass(frozen=True, kw_only=True)
class Reading(SACMethod):
    loss: ClassVar[type] = Reads

    def make_objective(self, policy, seed):
        return self.loss(policy)


@pytest.fixture
def mine(monkeypatch):
    module = ModuleType("mine_of_tests")
    module.Own, module.own = Own, Own(learning_rates=RATES)
    module.ruled = lambda problem: lambda td: longest_queue(td)
    module.wrong = lambda problem: 3
    monkeypatch.setitem(sys.modules, "mine_of_tests", module)
    return module


@pytest.mark.parametrize(
    ("field", "value", "wanted"), [("beta", "abc", "a number"), ("rounds", 1.5, "whole"), ("loud", 1, "true")]
)
def test_a_field_of_ones_own_takes_what_its_annotation_says(field, value, wanted):
    with pytest.raises(InputError, match=f"{field} must be .*{wanted}"):
        changed(Own(learning_rates=RATES), {field: value})
    assert changed(Own(learning_rates=RATES), {"beta": 2}).beta == 2


@dataclass(frozen=True, kw_only=True)
class Found(SACMethod):
    """Has a field that it finds itself, and defaults that its annotations do not say."""

    twice: float = field(init=False)
    limit: float = math.inf
    seen: int = None

    def __post_init__(self):
        super().__post_init__()
        object.__setattr__(self, "twice", 2 * self.gamma)


def test_a_field_of_ones_own_may_be_found_later_and_its_default_be_none_or_infinite():
    made = Found(learning_rates=RATES)
    assert (made.twice, made.limit, made.seen) == (2 * made.gamma, math.inf, None)
    assert type(changed(made, {"seen": 3.0}).seen) is int
    with pytest.raises(InputError, match="limit must be a finite number, got nan"):
        changed(made, {"limit": math.nan})


def test_a_class_without_defaults_is_refused_by_what_it_lacks(mine):
    with pytest.raises(InputError, match="Own has no default of learning_rates"):
        make_method("mine_of_tests:Own")


@pytest.mark.parametrize("loss", [Reads, ReadsByBase, ReadsByConstructor])
def test_an_objective_that_reads_what_no_problem_gives_is_told_before_the_first_update(loss, monkeypatch):
    monkeypatch.setattr(Reading, "loss", loss)
    method = Reading(learning_rates={"actor": 1e-3}, start_after=1)
    with pytest.raises(InputError, match=r"do not give .*'tide'.*which the objective reads"):
        train(PROBLEM, method, episodes=2, environments=2)


@pytest.mark.parametrize("loss", [Reads, ReadsByBase, ReadsByConstructor])
def test_an_objective_that_reads_what_no_data_set_gives_is_told_before_the_first_update(loss, monkeypatch):
    monkeypatch.setattr(Reading, "loss", loss)
    monkeypatch.setattr(Reading, "learns_from_data", True)
    method = Reading(learning_rates={"actor": 1e-3})
    seen = {"observation": torch.zeros(8, 3), "action_mask": torch.ones(8, 3, dtype=torch.bool)}
    data = TensorDict({**seen, "action": torch.zeros(8, dtype=torch.int64)}, batch_size=[8])
    with pytest.raises(InputError, match=r"do not give .*'tide'.*which the objective reads"):
        train(PROBLEM, method, episodes=1, data=data)


@pytest.mark.filterwarnings("ignore:the networks were updated")
def test_keys_of_a_loss_of_torchrl_are_not_looked_for(monkeypatch):
    monkeypatch.setattr(Reading, "loss", OfTorchRL)
    assert train(PROBLEM, Reading(learning_rates={"actor": 1e-3}, start_after=1), episodes=2, environments=2).updates


def test_a_reward_of_several_numbers_is_told_what_to_do():
    env = Clinic(4)
    rollout = env.rollout(5, lambda td: longest_queue(td))
    rollout["next", "reward"] = rollout["next", "reward"].expand(4, 5, 2)
    with pytest.raises(InputError, match=r"'reward' has shape .4, 5, 2.*one value for each .* add up several"):
        step_transitions(rollout, Keys.of(env))


def test_a_sweep_sets_a_field_of_ones_own(mine, tmp_path):
    sweep = Sweep.parse("beta=0.5,2", PROBLEM, ["mine_of_tests:own"])
    plan = Plan(problem=PROBLEM, methods=["mine_of_tests:own"], out=tmp_path)
    assert sweep.values == (0.5, 2.0)
    assert [dict(sweep.apply(plan, value).changes) for value in sweep.values] == [{"beta": 0.5}, {"beta": 2.0}]
    assert Sweep.parse("rounds=1,2", PROBLEM, ["mine_of_tests:own"]).values == (1, 2)


@dataclass(frozen=True, kw_only=True)
class Maybe(SACMethod):
    """Has numbers that may be none, as annotations write that, and what is none."""

    pull: Optional[float] = None  # noqa: UP045 (as users of older Pythons write)
    push: Union[int, None] = None  # noqa: UP007
    turn: float | None = None
    word: Optional[str] = None  # noqa: UP045
    spans: Optional[list[float]] = None  # noqa: UP045


def test_a_sweep_sets_a_number_that_may_be_none_however_its_annotation_is_written(monkeypatch):
    monkeypatch.setattr(sys.modules[__name__], "maybe", Maybe(learning_rates=RATES), raising=False)
    methods = [f"{__name__}:maybe"]
    for name in ("pull", "turn"):
        assert Sweep.parse(f"{name}=0.5,2", PROBLEM, methods).values == (0.5, 2.0)
    assert Sweep.parse("push=1,2", PROBLEM, methods).values == (1, 2)
    for name in ("word", "spans"):
        with pytest.raises(InputError, match="a field of all methods that is a number"):
            Sweep.parse(f"{name}=1,2", PROBLEM, methods)


@pytest.mark.parametrize(
    ("written", "said"),
    [
        (float, "float"),
        ("Optional[float]", "float | None"),
        ("typing.Optional[int]", "int | None"),
        ("t.Union[int, None]", "int | None"),
        (Optional[float], "float | None"),  # noqa: UP045
        (Optional[list[float]], "list[float] | None"),  # noqa: UP045
        ("dict[str, float]", "dict[str, float]"),
    ],
)
def test_an_annotation_says_the_same_however_it_is_written(written, said):
    assert annotated(SimpleNamespace(type=written)) == said


def test_a_sweep_refuses_a_field_that_some_method_lacks(mine, tmp_path):
    methods = ["mine_of_tests:own", "dqn"]
    plan = Plan(problem=PROBLEM, methods=methods, out=tmp_path)
    with pytest.raises(InputError, match="method dqn has no beta"):
        Sweep.parse("beta=0.5,2", PROBLEM, methods).apply(plan, 0.5)
    with pytest.raises(InputError, match=r"a field of all methods that is a number.*did you mean beta"):
        Sweep.parse("betta=0.5,2", PROBLEM, methods)
    with pytest.raises(InputError, match="a sweep must be"):
        Sweep.parse("hidden=3,4", PROBLEM, methods)


def test_a_function_of_the_problem_may_make_a_plain_function(mine):
    td = Clinic(4).reset()
    assert torch.equal(make_policy("mine_of_tests:ruled", PROBLEM)(td.clone())["action"], longest_queue(td)["action"])
    with pytest.raises(InputError, match="makes a policy, got 3"):
        make_policy("mine_of_tests:wrong", PROBLEM)


def test_the_first_decision_does_not_count_in_the_speed(monkeypatch):
    clock = SimpleNamespace(now=0.0, perf_counter=lambda: clock.now)
    monkeypatch.setattr(playing, "time", clock)

    def compiled_once(td):
        clock.now += 100.0 if clock.now == 0 else 1.0
        return longest_queue(td)

    assert playing.play(Clinic(4), compiled_once, steps=5).seconds == 5.0
    clock.now = 0.0
    assert playing.play(Clinic(4), compiled_once, steps=1).seconds == 100.0
