"""What a user writes, as `mypy --strict` and pyright read it: nothing here is to be found wrong. Nobody runs it."""

from __future__ import annotations

from typing import Any

import torch
from tensordict import TensorDictBase
from torch import Tensor, nn
from torchrl.envs import EnvBase

from diffpolicy import ActionMemory, DiffusionPolicy, EnvProblem, FeedforwardPolicy, GaussianPrior, Policy, check_policy
from diffpolicy.diffusion import NoiseSchedule
from diffpolicy.edge import OffloadingEnv, OffloadingProblem, Scenario, make_policy
from diffpolicy.edge.dispatch import (
    Advice,
    Arrivals,
    Binding,
    Dispatcher,
    FallsBack,
    Held,
    Moment,
    RequestLog,
    WeightedShortest,
    advise,
    make_held,
    simulate,
)
from diffpolicy.edge.serving import (
    Answer,
    Health,
    HttpUpstream,
    ImageRequest,
    Limits,
    Service,
    Settings,
    Upstream,
    WorkerSpec,
    read_workers,
)
from diffpolicy.environments import Problem, read_decisions
from diffpolicy.evaluation import Interval, mean_interval, off_policy_value, play, play_episodes
from diffpolicy.experiments import compare, evaluate, make_method, train
from diffpolicy.export import DecisionInput, ExportedDecision, export_decision
from diffpolicy.methods import DiffusionSACMethod, DQNMethod, FQLMethod, Method, PPOMethod, QVPOMethod
from diffpolicy.policies import CategoricalHead, SavedPolicy
from diffpolicy.policies.protocols import Decides
from diffpolicy.problems import Gang, PowerAllocation, ProviderSelection, Split, shares_of, water_filling
from diffpolicy.training import fit
from diffpolicy.training.trainable import Trainable


class Own(DiffusionPolicy):
    """A subclass with a decision of its own."""

    def embed(self, td: TensorDictBase) -> Tensor:
        """What the chain is conditioned on."""
        return torch.cat([super().embed(td)], -1)


def longest(td: TensorDictBase) -> TensorDictBase:
    """A rule."""
    return td.set("action", td.get("observation").argmax(-1))


def problems(make_env: Any) -> list[Problem]:
    """Problems of one's own and of ours."""
    mine = EnvProblem(make_env, steps=50, rules={"longest": longest}, cost="minutes")
    ours = OffloadingProblem(Scenario.load("lad-ts").override(stations=3, slots=10, capacity=(10, 50)))
    return [mine, ours]


def environments(problem: Problem) -> EnvBase:
    """Environments of both kinds."""
    env = OffloadingEnv(Scenario.load("lad-ts"), batch_size=[8], seed=0)
    scenario: Scenario = env.scenario
    return problem.make_env(scenario.slots or 4, seed=1)


def policies(env: EnvBase) -> list[Policy]:
    """Policies of our classes and of one's own; `from_specs` gives the class that it is called on."""
    own: Own = Own.from_specs(env, prior=GaussianPrior(), steps=5, sampler="ddim", denoiser={"hidden": [64, 64]})
    memory = DiffusionPolicy.from_specs(env, prior=ActionMemory(key="item", lifetime="run"), seed=3)
    plain: FeedforwardPolicy = FeedforwardPolicy.from_specs(env, head=CategoricalHead("argmax"), hidden=[8])
    loaded: Policy = Policy.load("runs/mine")
    schedule: NoiseSchedule = NoiseSchedule.named("vp", 5)
    check_policy(own, env)
    widths: list[int] = [schedule.steps, own.schedule.steps]
    return [own, memory, plain, loaded][: len(widths)]


def methods() -> list[Method]:
    """Methods by their dataclass and by name."""
    sac = DiffusionSACMethod(learning_rates={"actor": 1e-4, "critic": 1e-3}, gamma=0.95, steps=5)
    return [sac, DQNMethod(learning_rates={"critic": 1e-3}), make_method("d2sac")]


def of_any_kind(problem: Problem, chain: DiffusionPolicy) -> list[Decides]:
    """What decides, whoever made it, and what a chain is conditioned on, which only its denoiser knows."""
    named: Decides = make_policy("opt-ts", Scenario.load("lad-ts"))
    told: Decides = problem.prepare(named)
    given: object = problem.subject
    handed_on: list[object] = [given, chain.prepared(torch.zeros(1, 3)), chain.conditioned(torch.zeros(1, 3))]
    player: Decides | None = DQNMethod(learning_rates={"critic": 1e-3}).make_player(problem, seed=len(handed_on))
    return [told, longest, *(make(0) for make in problem.rules().values())] if player is None else [player]


def trainable(module: Trainable, policy: nn.Module) -> bool:
    """What is trained is a module, and `train` gives a policy that saves."""
    trained: nn.Module = module.policy
    saves: SavedPolicy = train("gym:CartPole-v1", "dqn").policy
    return policy in (trained, saves, fit(module, episodes=1).policy)


def job(problem: Problem, method: Method) -> float:
    """The main job from Python, with what it gives back."""
    run = train(problem, method, episodes=16, seed=0, out="runs/mine")
    found = evaluate(problem, {"mine": run.policy, "longest": longest}, episodes=8)
    table: str = found.table()
    compared = compare(problem, methods=["d2sac"], episodes=16, out="runs/all")
    fitted = fit(method.build(problem, seed=0), episodes=16)
    costs = [result.costs.mean for result in found.results.values()]
    return sum(costs) + len(table) + len(compared.rows) + fitted.episodes


def worked(allowed: Tensor) -> Tensor:
    """The problems that come with the library, their rules, and what is known of the best there is."""
    known: list[Problem] = [Gang(servers=4), PowerAllocation(channels=4), ProviderSelection(), Split(units=3)]
    first: Decides = next(iter(known[0].rules().values()))(0)
    played: float = play_episodes(known[0], first, 4).seconds
    best: Tensor = water_filling(torch.ones(4), 3.0)
    return shares_of(best, allowed, least=min(played, 0.1))


def families() -> list[Method]:
    """Methods of the other families."""
    rates = {"actor": 1e-3, "critic": 1e-3}
    ppo = PPOMethod(learning_rates=rates, clip=0.1, entropy=0.01)
    return [ppo, QVPOMethod(learning_rates=rates, samples=8, kept=1), FQLMethod(learning_rates=rates, alpha=3.0)]


def judged(problem: Problem, env: EnvBase, policy: Policy) -> Interval:
    """Evaluation by hand, and of what was never played."""
    played = play(env, policy, 20, per="episode")
    apart: Interval = mean_interval(played.episode_means())
    value = off_policy_value(policy, read_decisions("decisions.csv"), samples=8)
    half: float | None = apart.half_width
    return value.dr if half is None else mean_interval(play_episodes(problem, policy, 4).episode_means())


def exported(policy: Policy) -> dict[str, Tensor]:
    """A policy as a file, and the file as a function."""
    written = export_decision(policy, "policy.onnx", format="onnx")
    decide = ExportedDecision(written.path, threads=2)
    inputs: list[DecisionInput] = list(decide.inputs)
    return decide(**{i.name: torch.zeros(1) for i in inputs}) if written.difference < 1e-5 else {}


class LastServer:
    """A dispatcher of one's own."""

    holds = False

    def begin(self, seed: int) -> None:
        """Nothing is drawn."""

    def decide(self, moment: Moment) -> Binding | None:
        """The last one."""
        return Binding(0, len(moment.free) - 1)


def advised() -> Advice:
    """What a request log says, and the orders that it compares."""
    log = RequestLog.read("log.csv", columns={"arrival": "begun"}, unit="ms")
    arrivals = Arrivals([0.0, 1.0], [[2.0, 3.0], [2.0, 3.0]], weight=[1.0, 2.0])
    orders: list[Dispatcher] = [Held(WeightedShortest(), cap=3), make_held("shortest-first"), LastServer()]
    waits: list[float] = [simulate(arrivals, FallsBack(order), seats=[1, 2]).delay_s.mean() for order in orders]
    advice = advise(log, policies=["live"] if waits else [])
    named: str | None = advice.named
    return advice if named is None or advice.verdicts[named].proven else advise(log)


class Echo:
    """An upstream of one's own."""

    async def call(self, request: ImageRequest, *, timeout_s: float, chunk: Any = None) -> Answer:
        """Nothing."""
        return Answer(200, body=f"{request.model} {timeout_s}".encode())

    async def health(self) -> Health:
        """Always well."""
        return Health(usable=True, slots=1)

    async def aclose(self) -> None:
        """Nothing is open."""


def serves(spec: WorkerSpec) -> Upstream:
    """What a worker is called by."""
    return Echo() if spec.kind == "echo" else HttpUpstream(spec)


async def serving() -> None:
    """A service of one's own workers."""
    workers = read_workers("workers.yaml")
    settings = Settings(limits=Limits(queue=10), share=0.5)
    service = Service(workers, serves, make_held("shortest-first"), settings=settings, otherwise=LastServer())
    await service.start()
    models: tuple[str, ...] = service.models()
    service.submit(ImageRequest("1", {"prompt": "a cat"}, model=models[0]))
    await service.stop(grace_s=1.0)
