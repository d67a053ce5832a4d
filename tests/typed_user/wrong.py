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
from diffpolicy.edge.dispatch import (
    AdvisedServer,
    CostModel,
    Held,
    OnArrival,
    RequestLog,
    ShortestFirst,
    advise,
    simulate,
)
from diffpolicy.edge.serving import Answer, Limits, Service, Settings, Upstream, WorkerSpec
from diffpolicy.environments import Cost, Problem, read_data
from diffpolicy.evaluation import mean_interval, off_policy_value, play, play_episodes
from diffpolicy.experiments import build, compare, evaluate, train
from diffpolicy.export import DecisionInput, ExportedDecision, export_decision
from diffpolicy.methods import DiffusionSACMethod, DQNMethod, FQLMethod, ImitationMethod, Method, PPOMethod, QVPOMethod
from diffpolicy.problems import Gang, PowerAllocation, ProviderSelection, Split, shares_of, water_filling
from diffpolicy.training import fit

scenario = Scenario.load("lad-ts")
env = OffloadingEnv(scenario, batch_size=[8], seed=0)
problem = OffloadingProblem(scenario)
log = RequestLog.read("log.csv")
plain_policy = FeedforwardPolicy.from_specs(env)

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
build(problem, "d2sac", env=8)  # type: ignore[call-arg]
Cost(name="minutes")  # type: ignore[call-arg]
Gang(server=4)  # type: ignore[call-arg]
PowerAllocation(powers=3.0)  # type: ignore[call-arg]
PPOMethod(learning_rates={}, clips=0.1)  # type: ignore[call-arg]
QVPOMethod(learning_rates={}, sample=4)  # type: ignore[call-arg]
FQLMethod(learning_rates={}, beta=1.0)  # type: ignore[call-arg]
RequestLog.read("log.csv", units="s")  # type: ignore[call-arg]
advise(log, policy=["live"])  # type: ignore[call-arg]
Held(limit=3)  # type: ignore[call-arg]
CostModel(3, first=1.0)  # type: ignore[call-arg]
AdvisedServer("a", slots=2)  # type: ignore[call-arg]
WorkerSpec("http://127.0.0.1:1", seats=2)  # type: ignore[call-arg]
Settings(share=0.5, probes_s=1.0)  # type: ignore[call-arg]
Limits(width=512)  # type: ignore[call-arg]
export_decision(plain_policy, "policy.onnx", kind="onnx")  # type: ignore[call-arg]
ExportedDecision("policy.onnx", thread=2)  # type: ignore[call-arg]
play(env, plain_policy, episodes=8)  # type: ignore[call-arg]
play_episodes(problem, plain_policy, 8, seeds=1)  # type: ignore[call-arg]
off_policy_value(plain_policy, read_data("log.csv"), draws=16)  # type: ignore[call-arg]

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
build("d2sac", problem)  # type: ignore[arg-type]
Cost(per="hour")  # type: ignore[arg-type]
Split(units="5")  # type: ignore[arg-type]
ProviderSelection(providers=None)  # type: ignore[arg-type]
shares_of([0.5, 0.5])  # type: ignore[arg-type]
water_filling([1.0], 3.0)  # type: ignore[arg-type]
PPOMethod(learning_rates=1e-3)  # type: ignore[arg-type]
QVPOMethod(learning_rates={}, items="each")  # type: ignore[arg-type]
ImitationMethod(learning_rates={}, updates="8")  # type: ignore[arg-type]
advise("log.csv")  # type: ignore[arg-type]
advise(log, policies=3)  # type: ignore[arg-type]
simulate(log, OnArrival())  # type: ignore[arg-type]
Held("shortest-first")  # type: ignore[arg-type]
Held(ShortestFirst(), cap="6")  # type: ignore[arg-type]
WorkerSpec("http://127.0.0.1:1", models="sdxl")  # type: ignore[arg-type]
Settings(limits={"queue": 10})  # type: ignore[arg-type]
export_decision(lambda td: td, "policy.onnx")  # type: ignore[arg-type]
ExportedDecision(b"policy.onnx")  # type: ignore[arg-type]
DecisionInput("observation", "rows", "float32", "what is seen")  # type: ignore[arg-type]
mean_interval([1.0, 2.0])  # type: ignore[arg-type]
play_episodes(problem, "opt-ts", 8)  # type: ignore[arg-type]

# what comes back
text: str = train(problem, "d2sac").episodes  # type: ignore[assignment]
plain: FeedforwardPolicy = DiffusionPolicy.from_specs(env, prior=GaussianPrior())  # pyright: ignore[reportAssignmentType]
level = make_policy("opt-ts", scenario).information  # type: ignore[attr-defined]
problem.prepare("opt-ts")  # type: ignore[arg-type]
of_scenario: int = problem.subject  # type: ignore[assignment]
mean = evaluate(problem, ["opt-ts"]).mean  # type: ignore[attr-defined]
half_width: float = mean_interval(play_episodes(problem, plain_policy, 8).episode_means()).half_width  # type: ignore[assignment]
share: str = advise(log).verdicts["live"].gain  # type: ignore[assignment]
winner: str = advise(log).named  # type: ignore[assignment]
where: str = export_decision(plain_policy, "policy.onnx").path  # type: ignore[assignment]
decided: int = ExportedDecision("policy.onnx")(observation=shares_of)  # type: ignore[assignment, arg-type]
rule: str = Gang().rules()["greedy"](0)  # type: ignore[assignment]
told: str = PPOMethod(learning_rates={}).description()  # type: ignore[assignment]


async def called(service: Service, upstream: Upstream) -> Answer:
    """A service is not its upstream, and a request is more than its text."""
    await upstream.call("a cat", timeout_s=5.0)  # type: ignore[arg-type]
    return await service.call("a cat")  # type: ignore[attr-defined, no-any-return]


class OwnMethod(Method):
    """A method that builds a policy."""

    def build(self, problem: Problem) -> DiffusionPolicy:  # type: ignore[override]
        """It ought to give a `Trainable`, and to take more."""
        return DiffusionPolicy.from_specs(problem.make_env(4))
