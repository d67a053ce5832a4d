"""Training and comparing any problem from Python: evaluations along the way, loggers, and what is refused by name."""

import csv
import importlib
import inspect

import numpy as np
import pytest

from diffpolicy import EnvProblem, InputError, check_problem
from diffpolicy.environments import RandomRule, gym_problem
from diffpolicy.experiments import build, compare, evaluate, make_problem, train
from diffpolicy.experiments.plan import Plan
from diffpolicy.policies.keys import Keys
from diffpolicy.training import fit, loggers
from toys import GuessEnv, same_tensors


def largest(td):
    """The rule that is right."""
    return td.set("action", td["observation"].argmax(-1))


def guess(batch, seed):
    """The environment."""
    env = GuessEnv(batch)
    env.set_seed(seed)
    return env


# of a lambda, so that `compare` plays it in this process
PROBLEM = EnvProblem(lambda batch, seed: guess(batch, seed), steps=5, rules={"largest": largest}, name="guess")
QUICK = {"start_after": 5, "capacity": 100, "batch_size": 8, "hidden": [8]}


@pytest.mark.parametrize("method", ["sac", "lad"])
def test_evaluations_along_the_way_change_nothing_and_stand_in_the_history(method):
    plain = train(PROBLEM, method, episodes=4, changes=QUICK)
    seen = train(PROBLEM, method, episodes=4, changes=QUICK, evaluate_every=2, eval_episodes=3)
    assert same_tensors(plain.policy, seen.policy)
    assert ["eval_cost" in row for row in seen.history] == [False, True, False, True]
    assert [{k: v for k, v in row.items() if k != "eval_cost"} for row in seen.history] == plain.history
    assert -5 <= seen.history[-1]["eval_cost"] <= 0


def test_a_logger_is_given_every_pass(tmp_path):
    train(PROBLEM, "sac", episodes=4, changes=QUICK, evaluate_every=2, eval_episodes=1, out=tmp_path, logger="csv")
    with (tmp_path / "csv" / "version_0" / "metrics.csv").open() as file:
        logged = list(csv.DictReader(file))
    with (tmp_path / "training.csv").open() as file:
        history = list(csv.DictReader(file))
    assert [float(row["step"]) for row in logged] == [1, 2, 3, 4]
    for a, b in zip(logged, history, strict=True):
        assert all(float(a[key]) == pytest.approx(float(b[key]), rel=1e-6) for key in b if b[key])


def test_tensorboard_reads_every_pass(tmp_path):
    events = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    train(PROBLEM, "sac", episodes=4, changes=QUICK, out=tmp_path, logger="tensorboard")
    read = events.EventAccumulator(str(tmp_path / "tensorboard")).Reload()
    with (tmp_path / "training.csv").open() as file:
        costs = [float(row["cost"]) for row in csv.DictReader(file)]
    assert [x.value for x in read.Scalars("cost")] == pytest.approx(costs, rel=1e-6)


@pytest.mark.parametrize("name", ["tensorboard", "wandb"])
def test_a_logger_that_is_not_installed_is_refused_by_name(name, tmp_path, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(InputError, match=f"logger {name} needs {name}"):
        train(PROBLEM, "sac", episodes=1, changes=QUICK, out=tmp_path, logger=name)


def test_a_logger_needs_a_folder_and_a_name_that_there_is():
    with pytest.raises(InputError, match="`out` is None"):
        loggers.make_logger("csv", None)
    with pytest.raises(InputError, match="csv, tensorboard, wandb"):
        loggers.check_logger("mlflow")
    assert loggers.make_logger(False, None) is False


def test_a_problem_is_compared_in_one_call(tmp_path):
    said, heard = [], []
    made = compare(
        PROBLEM,
        said.append,
        methods=["dqn"],
        episodes=2,
        eval_episodes=2,
        processes=1,
        out=tmp_path,
        heard=lambda name, share: heard.append(share),
    )
    assert {row.name for row in made.rows} == {"dqn", "largest"}
    assert (tmp_path / "comparison.csv").is_file()
    assert sum(heard) == pytest.approx(1.0)
    assert len(said) == 2


def test_a_plan_is_compared_too_and_arguments_replace_its_fields(tmp_path):
    plan = Plan(PROBLEM, [], tmp_path / "a", episodes=2, eval_episodes=2)
    made = compare(plan, eval_episodes=1, out=tmp_path / "b")
    assert made.plan.eval_episodes == 1
    assert made.row("largest").result.costs.count == 1
    assert not (tmp_path / "a").exists()


def test_the_python_surface_of_the_design(tmp_path):
    run = train(PROBLEM, "sac", episodes=2, out=tmp_path / "run", changes=QUICK)
    assert run.policy is not None
    assert len(run.history) == 2
    assert "largest" in evaluate(PROBLEM, [str(tmp_path / "run"), "largest"], episodes=2).table()


def test_a_gymnasium_problem_is_made_by_named_arguments():
    kinds = {p.kind for p in inspect.signature(gym_problem).parameters.values()}
    assert inspect.Parameter.VAR_KEYWORD not in kinds
    pytest.importorskip("gymnasium")
    short = gym_problem("CartPole-v1", steps=7, rules={"mine": largest}, cost="falls", version="2")
    assert (short.steps, short.cost.label, short.version, list(short.rules())) == (7, "falls", "2", ["mine"])
    assert gym_problem("CartPole-v1").cost.label == "minus return"


@pytest.mark.parametrize("method", ["lad", "lad-plus"])
def test_a_memory_of_probabilities_is_refused_for_vectors_by_the_methods_name(method):
    pytest.importorskip("gymnasium")
    with pytest.raises(InputError, match=rf"method {method}: .*prior\.store.* x0"):
        build("gym:Pendulum-v1", method)
    assert build("gym:Pendulum-v1", method, changes={"prior.store": "x0"}).policy.prior.store == "x0"


def test_a_run_that_is_not_there_is_not_gone_on_with(tmp_path):
    for there in (False, True):  # the folder, which a run that was refused may have left
        with pytest.raises(InputError, match="does not exist"):
            train(PROBLEM, "sac", episodes=2, out=tmp_path / "run", resume=tmp_path / "run", changes=QUICK)
        assert (tmp_path / "run").exists() is there
        (tmp_path / "run").mkdir(exist_ok=True)


def test_a_run_without_an_update_says_so_and_how_many_there_were_is_told():
    with pytest.warns(UserWarning, match="the replay holds 5 transitions, and updates begin after start_after, 50;"):
        none = train(PROBLEM, "sac", episodes=1, changes={**QUICK, "start_after": 50})
    assert none.updates == 0
    # an update after each step once there are more than start_after transitions
    with pytest.warns(UserWarning, match="the networks were updated 12 times, and most problems need thousands"):
        some = train(PROBLEM, "sac", episodes=2, changes={**QUICK, "start_after": 6, "updates": 3})
    assert some.updates == 3 * 4


def test_a_second_fit_of_a_module_tells_its_own_updates():
    module = build(PROBLEM, "dqn", changes=QUICK)
    first, second = fit(module, episodes=2), fit(module, episodes=4)
    assert first.updates > 0
    assert first.updates + second.updates == module.updates_made


TILLS = """
import gymnasium as gym
import numpy as np

class Tills(gym.Env):
    observation_space, action_space = gym.spaces.Box(0, np.inf, (2,)), gym.spaces.Discrete(2)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.queue = np.zeros(2, np.float32)
        return self.queue, {}

    def step(self, till):
        work = 3 * np.eye(2)[till] * self.np_random.random()
        self.queue = np.maximum(self.queue + work - [0.5, 1.0], 0).astype(np.float32)
        return self.queue, -self.queue.sum(), False, self.queue.sum() > 9, {}
"""


def test_a_gymnasium_environment_of_ones_own_is_a_problem_without_being_registered(cli, tmp_path, monkeypatch):
    pytest.importorskip("gymnasium")
    (tmp_path / "own_tills.py").write_text(TILLS)
    monkeypatch.syspath_prepend(tmp_path)
    made = make_problem("own_tills:Tills")
    problem = EnvProblem(made.factory, steps=5, cost="waiting")
    both = [problem.make_env(3, 5) for _ in range(2)]
    first, second = (env.rollout(5, RandomRule(env), break_when_any_done=False)["next"] for env in both)
    assert (first["observation"] == second["observation"]).all()
    assert (first["observation"][0] != first["observation"][1]).any()  # lanes draw from streams of their own
    run = train(problem, "dqn", episodes=2, environments=2, changes=QUICK, out=tmp_path / "run")
    assert run.updates == 3
    assert evaluate(problem, [str(tmp_path / "run"), "random"], episodes=2).results["random"].costs.count == 2
    words = ["train", "dqn", "--problem", "own_tills:Tills", "--episodes", 1, "--set", "start_after=1"]
    told = cli(*words, "--out", tmp_path / "told")
    assert told.status == 0
    assert "the networks were updated" in told.err
    assert "the networks were updated" in cli(*words, "--out", tmp_path / "quiet", "-q").err  # warnings stay


def gymnasium_of(**parts):
    """A problem of a Gymnasium environment of three numbers and three choices, other in parts."""
    gymnasium = pytest.importorskip("gymnasium")

    class Own(gymnasium.Env):
        observation_space, action_space = gymnasium.spaces.Box(0, 10, (3,)), gymnasium.spaces.Discrete(3)

        def reset(self, *, seed=None, options=None):
            super().reset(seed=seed)
            self.t = 0
            return self.seen(), {}

        def seen(self):
            return self.np_random.random(3).astype(np.float32)

        def step(self, action):
            self.t += 1
            return self.seen(), self.reward(action), self.t == 6, False, {}

        def reward(self, action):
            return float(np.sum(action))

    return EnvProblem(lambda: type("Own", (Own,), parts)(), steps=6, name="own")


GAME = """
import gymnasium

closed = []


class Game(gymnasium.Env):
    observation_space, action_space = gymnasium.spaces.Box(0, 1, (3,)), gymnasium.spaces.Discrete(3)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        return self.observation_space.sample(), {}

    def step(self, action):
        return self.observation_space.sample(), 0.0, False, False, {}

    def close(self):
        closed.append(self)
"""


def test_an_environment_that_was_made_to_be_looked_at_is_closed(tmp_path, monkeypatch):
    pytest.importorskip("gymnasium")
    (tmp_path / "own_game.py").write_text(GAME)
    monkeypatch.syspath_prepend(tmp_path)
    make_problem("own_game:Game")
    assert len(importlib.import_module("own_game").closed) == 1


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda s: {"reset": lambda self, seed=None: np.zeros(3)}, "own: reset.* failed: ValueError: too many values"),
        (lambda s: {"reset": lambda self: (np.zeros(3), {})}, "own: reset.* failed: TypeError: .*keyword argument 'se"),
        (lambda s: {"seen": lambda self: np.zeros(2)}, "own: reset.* failed: RuntimeError: Shape mismatch"),
        (lambda s: {"step": lambda self, action: (self.seen(), 0.0, False, {})}, "a step of own failed: ValueError"),
        (lambda s: {"action_space": s.Discrete(3, start=1)}, r"Discrete\(3, start=1\) must begin at 0"),
        (
            lambda s: {"action_space": s.Dict(a=s.Discrete(3, start=1), b=s.Discrete(2))},
            r"action_space Dict.*Discrete\(3, start=1\).* must begin at 0",
        ),
        (lambda s: {"action_space": s.MultiBinary((2, 2))}, r"one dimension: give MultiBinary\(4\)"),
        (lambda s: {"action_space": s.Tuple((s.Discrete(2), s.Box(0, 1)))}, "TorchRL cannot take Own with .* Tuple"),
        (lambda s: {"action_space": None}, "Own has no action_space, got None"),
        (lambda s: {"observation_space": s.Discrete(2), "seen": lambda self: 5}, "holds 5, .* from 0 to 1"),
    ],
)
def test_mistakes_in_a_gymnasium_environment_get_one_sentence(make, words):
    spaces = pytest.importorskip("gymnasium").spaces
    with pytest.raises(InputError, match=words):
        check_problem(gymnasium_of(**make(spaces)))


def test_all_of_a_dict_is_observed_and_several_choices_are_one_decision():
    spaces = pytest.importorskip("gymnasium").spaces
    inner = spaces.Dict({"image": spaces.Box(0, 255, (2, 2, 3), np.uint8), "turn": spaces.Discrete(2)})
    shown = {"sight": {"image": np.ones((2, 2, 3), np.uint8), "turn": 1}, "age": np.float32(0.5)}
    seen = {
        "observation_space": spaces.Dict({"sight": inner, "age": spaces.Box(0, 1, ())}),
        "seen": lambda self: shown,
    }
    for space, nvec in ((spaces.MultiDiscrete([3, 3]), (3, 3)), (spaces.MultiBinary(2), (2, 2))):
        keys = Keys.of(gymnasium_of(**seen, action_space=space).make_env(2))
        assert [o.key for o in keys.observations] == [("sight", "image"), ("sight", "turn"), "age"]
        assert (keys.action.nvec, keys.items, keys.width) == (nvec, (), 12 + 2 + 1)


def test_a_goal_beside_the_observation_is_observed_and_a_mask_is_not():
    spaces = pytest.importorskip("gymnasium").spaces
    widths = {"observation": 3, "achieved_goal": 2, "desired_goal": 2}
    shown = {name: np.zeros(width, np.float32) for name, width in widths.items()}
    boxes = {name: spaces.Box(0, 1, (width,)) for name, width in widths.items()}
    may = {"action_mask": np.ones(3, np.int8)}
    for mask in ({}, {"action_mask": spaces.MultiBinary(3)}):
        seen = shown | may if mask else shown
        parts = {"observation_space": spaces.Dict({**boxes, **mask}), "seen": lambda self, seen=seen: seen}
        keys = Keys.of(gymnasium_of(**parts).make_env(2))
        assert [o.key for o in keys.observations] == ["achieved_goal", "desired_goal", "observation"]
        assert (keys.width, keys.mask) == (7, next(iter(mask), None))


def test_a_mask_that_would_mask_nothing_is_told_of():
    spaces, may = pytest.importorskip("gymnasium").spaces, np.ones(3, np.int8)
    inner = spaces.Dict({"sight": spaces.Box(0, 1, (2,)), "action_mask": spaces.MultiBinary(3)})
    shown = {"robot": {"sight": np.zeros(2, np.float32), "action_mask": may}}
    problem = gymnasium_of(observation_space=spaces.Dict({"robot": inner}), seen=lambda self: shown)
    with pytest.raises(InputError, match=r"mask \('robot', 'action_mask'\) lies within a Dict.* at the top"):
        check_problem(problem)
    assert Keys.of(problem.make_env(2), mask_key=("robot", "action_mask")).masked
    spaces_of = spaces.Dict({"robot": inner, "action_mask": spaces.MultiBinary(3)})
    both = gymnasium_of(observation_space=spaces_of, seen=lambda self: {**shown, "action_mask": may})
    assert Keys.of(both.make_env(2)).mask == "action_mask"
    problem = gymnasium_of(reset=lambda self, seed=None: (self.seen(), {"action_mask": may}))
    with pytest.warns(UserWarning, match="Own puts an action_mask into info, where it masks nothing"):
        problem.make_env(1).reset()


@pytest.mark.filterwarnings("ignore:no update")
def test_a_reward_that_is_no_number_ends_a_run_before_anything_is_learned_from_it():
    problem = gymnasium_of(reward=lambda self, action: float("nan") if self.t == 5 else 0.0)
    with pytest.raises(FloatingPointError, match="'reward' adds up to nan"):
        train(problem, "sac", episodes=2, changes={**QUICK, "start_after": 50})
