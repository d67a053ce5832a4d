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
from diffpolicy.environments import Problem
from diffpolicy.experiments import compare, evaluate, make_method, train
from diffpolicy.methods import DiffusionSACMethod, DQNMethod, Method
from diffpolicy.policies import CategoricalHead, SavedPolicy
from diffpolicy.policies.protocols import Decides
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
