"""Diffusion-based decision policies, and the edge-AIGC offloading problem of LAD-TS.

The layers, from what is typed down to the mathematics; each imports from those below it alone:

    cli           the command line, a file a command
    edge          the offloading problem: scenario, workload, physics, env, rules, pricing, dispatch, serving, hardware
    problems      other worked problems, a file each
    experiments   train, evaluate, compare and sweep on any problem; the names of problems and methods
    evaluation    episodes on which policies are judged, intervals
    methods       published methods as data, a file a family, a YAML file a preset
    training      what `fit` trains: rollouts, replay, five ways of learning
    objectives    losses, a file each
    environments  what a problem is, made of any environment; the checks of it
    export        policies as files that need none of this
    policies      what decides: keys that are read, heads (what an action is), priors, chains, saving
    networks      modules without a tensordict
    diffusion     schedules, processes, samplers

Where a new head, problem, rule or anything else goes is a table in `docs/extending.md`, "Where things go".
"""

from typing import TYPE_CHECKING

from diffpolicy._lazy import attach

if TYPE_CHECKING:
    from diffpolicy._version import __version__ as __version__
    from diffpolicy.diffusion.schedules import NoiseSchedule as NoiseSchedule
    from diffpolicy.environments.checks import check_policy as check_policy
    from diffpolicy.environments.env_problem import EnvProblem as EnvProblem
    from diffpolicy.environments.problem_checks import check_problem as check_problem
    from diffpolicy.errors import InputError as InputError
    from diffpolicy.policies.diffusion import DiffusionPolicy as DiffusionPolicy
    from diffpolicy.policies.direct import FeedforwardPolicy as FeedforwardPolicy
    from diffpolicy.policies.direct import GreedyValuePolicy as GreedyValuePolicy
    from diffpolicy.policies.heads import CategoricalHead as CategoricalHead
    from diffpolicy.policies.keys import Keys as Keys
    from diffpolicy.policies.policy import Policy as Policy
    from diffpolicy.policies.priors import ActionMemory as ActionMemory
    from diffpolicy.policies.priors import GaussianPrior as GaussianPrior
    from diffpolicy.policies.recurrent import with_recurrent_state as with_recurrent_state

attach(
    __name__,
    {
        "__version__": "diffpolicy._version",
        "NoiseSchedule": "diffpolicy.diffusion.schedules",
        "EnvProblem": "diffpolicy.environments.env_problem",
        "check_policy": "diffpolicy.environments.checks",
        "check_problem": "diffpolicy.environments.problem_checks",
        "InputError": "diffpolicy.errors",
        "DiffusionPolicy": "diffpolicy.policies.diffusion",
        "FeedforwardPolicy": "diffpolicy.policies.direct",
        "GreedyValuePolicy": "diffpolicy.policies.direct",
        "CategoricalHead": "diffpolicy.policies.heads",
        "Keys": "diffpolicy.policies.keys",
        "Policy": "diffpolicy.policies.policy",
        "GaussianPrior": "diffpolicy.policies.priors",
        "ActionMemory": "diffpolicy.policies.priors",
        "with_recurrent_state": "diffpolicy.policies.recurrent",
    },
)
__all__ = (
    "ActionMemory",
    "CategoricalHead",
    "DiffusionPolicy",
    "EnvProblem",
    "FeedforwardPolicy",
    "GaussianPrior",
    "GreedyValuePolicy",
    "InputError",
    "Keys",
    "NoiseSchedule",
    "Policy",
    "__version__",
    "check_policy",
    "check_problem",
    "with_recurrent_state",
)
