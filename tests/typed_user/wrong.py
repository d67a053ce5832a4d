"""A user's slips, which nobody runs.

Each line says which error `mypy --strict` finds in it, and pyright finds one in the same places; where one were not
found, its comment would be an error (`warn_unused_ignores` in pyproject.toml, `reportUnnecessaryTypeIgnoreComment`
beside this file). mypy takes the classes of TorchRL for Any, so two are pyright's alone.
"""

from __future__ import annotations

from diffpolicy import ActionMemory, DiffusionPolicy, EnvProblem, FeedforwardPolicy, GaussianPrior
from diffpolicy import CategoricalPolicy  # type: ignore[attr-defined]
from diffpolicy.edge import OffloadingEnv, OffloadingProblem, Scenario, make_policy
from diffpolicy.edge import OfloadingEnv  # type: ignore[attr-defined]
from diffpolicy.environments import Problem
from diffpolicy.experiments import compare, evaluate, train
from diffpolicy.methods import DiffusionSACMethod, DQNMethod, Method
from diffpolicy.training import fit

scenario = Scenario.load("lad-ts")
env = OffloadingEnv(scenario, batch_size=[8], seed=0)
problem = OffloadingProblem(scenario)

# names of arguments
DiffusionPolicy.from_specs(env, step=5)  # type: ignore[call-arg]
FeedforwardPolicy.from_specs(env, denoiser={})  # type: ignore[call-arg]
ActionMemory(keys="item")  # type: ignore[call-arg]
EnvProblem(lambda batch: env, step=50)  # type: ignore[call-arg]
OffloadingEnv(scenario, batch=8)  # type: ignore[call-arg]
scenario.override(servers=3)  # type: ignore[call-arg]
DiffusionSACMethod(learning_rate=1e-3, learning_rates={})  # type: ignore[call-arg]
DQNMethod()  # type: ignore[call-arg]
train(problem, "d2sac", episode=16)  # type: ignore[call-arg]
evaluate(problem, ["opt-ts"], eval_episodes=8)  # type: ignore[call-arg]
compare(problem, method=["d2sac"])  # type: ignore[call-arg]

# types of arguments
DiffusionPolicy.from_specs(env, steps="5")  # type: ignore[arg-type]
DiffusionPolicy.from_specs(env, prior="gaussian")  # type: ignore[arg-type]
DiffusionPolicy.from_specs("lad-ts")  # pyright: ignore[reportArgumentType]
FeedforwardPolicy.from_specs(env, head="greedy")  # type: ignore[arg-type]
ActionMemory(key="agent")  # type: ignore[arg-type]
EnvProblem("mine:problem")  # type: ignore[arg-type]
EnvProblem(lambda batch: env, steps="50")  # type: ignore[arg-type]
scenario.override(capacity=50)  # type: ignore[arg-type]
OffloadingProblem(3)  # type: ignore[arg-type]
DQNMethod(learning_rates={"critic": "fast"})  # type: ignore[dict-item]
train(problem, "d2sac", episodes="16")  # type: ignore[arg-type]
train(problem, DQNMethod)  # type: ignore[arg-type]
evaluate(problem, {"mine": 3})  # type: ignore[dict-item]
evaluate(problem, "opt-ts", episodes=None)  # type: ignore[arg-type]
fit(problem, episodes=16)  # type: ignore[arg-type]

# what comes back
text: str = train(problem, "d2sac").episodes  # type: ignore[assignment]
plain: FeedforwardPolicy = DiffusionPolicy.from_specs(env, prior=GaussianPrior())  # pyright: ignore[reportAssignmentType]
level = make_policy("opt-ts", scenario).information  # type: ignore[attr-defined]
problem.prepare("opt-ts")  # type: ignore[arg-type]
of_scenario: int = problem.subject  # type: ignore[assignment]
mean = evaluate(problem, ["opt-ts"]).mean  # type: ignore[attr-defined]


class OwnMethod(Method):
    """A method that builds a policy."""

    def build(self, problem: Problem) -> DiffusionPolicy:  # type: ignore[override]
        """It ought to give a `Trainable`, and to take more."""
        return DiffusionPolicy.from_specs(problem.make_env(4))
