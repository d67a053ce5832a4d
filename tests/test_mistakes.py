"""Mistakes of users: each meets one sentence that names the key and the value, before anything is played."""

import warnings
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from tensordict import TensorDict
from tensordict.nn import TensorDictModule, TensorDictModuleBase
from torch import nn
from torchrl.data import Binary, Bounded, Categorical, Composite, MultiCategorical, Unbounded

from diffpolicy import (
    ActionMemory,
    DiffusionPolicy,
    FeedforwardPolicy,
    GreedyValuePolicy,
    NoiseSchedule,
    Policy,
    check_policy,
    check_problem,
)
from diffpolicy.diffusion.categorical import MaskedProcess
from diffpolicy.diffusion.continuous import CosineSchedule
from diffpolicy.diffusion.processes import FlowProcess, GaussianProcess
from diffpolicy.edge import OffloadingEnv
from diffpolicy.edge.hardware.measuring.grid import Grid
from diffpolicy.edge.hardware.models.architectures import architecture
from diffpolicy.edge.serving.limits import Limits
from diffpolicy.edge.serving.settings import Settings
from diffpolicy.environments import Cost, EnvProblem, read_data
from diffpolicy.errors import InputError
from diffpolicy.experiments import Plan, build, evaluate, make_method, make_problem, train
from diffpolicy.experiments.sweep import Sweep
from diffpolicy.methods import PPOMethod, SACMethod
from diffpolicy.networks import CriticEnsemble
from diffpolicy.networks.denoiser import MLPDenoiser
from diffpolicy.objectives import (
    AgentsDQNLoss,
    ChainPPOLoss,
    LatentBoundedSACLoss,
    LatentDiscreteSACLoss,
    PathwiseLoss,
    choice_probabilities,
)
from diffpolicy.policies import BestOf
from diffpolicy.policies.heads import (
    BoundedHead,
    CategoricalHead,
    CompositeHead,
    JointHead,
    MultiCategoricalHead,
    TokenHead,
)
from diffpolicy.policies.systematic import SystematicDraws
from diffpolicy.problems.clinic import Clinic
from diffpolicy.training import (
    EvolutionModule,
    ImitationModule,
    OffPolicyModule,
    OnPolicyModule,
    PackedReplay,
    PathwiseModule,
    RolloutStream,
)
from diffpolicy.training.fit import fit
from test_keys import Specs
from toys import GuessEnv, guess_transitions, small

RATES = {"actor": 1e-3, "critic": 1e-3, "alpha": 0.0}


def specs(action=None, reward=None, **observed):
    """An environment of nothing but specs, batch [4]."""
    observed = {"observation": Unbounded((4, 3)), **observed}
    return Specs(observed, Categorical(3, (4,)) if action is None else action, reward)


def made(cls=DiffusionPolicy, **options):
    return cls.from_specs(specs(), **options)


def guesses(**options):
    return EnvProblem(lambda batch, seed: GuessEnv(batch), steps=2, **options)


def of_states():
    return FeedforwardPolicy(choices=3, observation_dim=4, observation_values=[4], observation_shapes=[[]])


def checked(env, policy=None):
    check_policy(made() if policy is None else policy, env)


class Narrow(DiffusionPolicy):
    def embed(self, td):
        return super().embed(td)[..., :2]


class Broken(DiffusionPolicy):
    def embed(self, td):
        return super().embed(td) @ torch.ones(7, 3)


class Outputs(nn.Module):
    """A denoiser of another width."""

    def __init__(self, width):
        super().__init__()
        self.layer = nn.Linear(width, width)

    def forward(self, x, t, cond):
        return self.layer(x)


class Carrying(TensorDictModuleBase):
    """A policy with a recurrent state of its own."""

    in_keys = ("observation", "hidden")
    out_keys = ("action", ("next", "hidden"))

    def forward(self, td):
        return td


def no_reward():
    env = specs()
    env.reward_spec = Composite(shape=(4,))
    return env


def other_normalizer():
    policy = made(normalize=True)
    policy.normalizer.mean = torch.zeros(5, dtype=torch.float64)
    policy.normalizer.shift, policy.normalizer.scale = torch.zeros(5), torch.ones(5)
    return policy


def module(env=None, policy=None, **options):
    env = GuessEnv(4) if env is None else env
    policy = FeedforwardPolicy.from_specs(env) if policy is None else policy
    return OffPolicyModule(
        policy,
        LatentDiscreteSACLoss(policy, CriticEnsemble(3, 3)),
        RolloutStream(env, policy, episode_steps=5),
        PackedReplay(100, None),
        guess_transitions,
        **{"learning_rates": RATES, "start_after": 10, **options},
    )


def elsewhere(env, result=None):
    """A module whose stream plays in another environment than its policy was made for."""
    result = module() if result is None else result
    result.stream.env = env
    return result


def on_policy(env=None, policy=None, **options):
    env = GuessEnv(4) if env is None else env
    policy = FeedforwardPolicy.from_specs(env) if policy is None else policy
    critic = CriticEnsemble(policy.observation_dim, 1, ensemble=1, agents=policy.agents)
    options = {"learning_rates": {"actor": 1e-3, "critic": 1e-3}, **options}
    stream = RolloutStream(env, policy, episode_steps=5)
    return OnPolicyModule(policy, ChainPPOLoss(policy, critic), stream, guess_transitions, **options)


def pathwise(env, policy=None, **options):
    """A module that plays in an environment, by default with a policy made for another one."""
    policy = made(FeedforwardPolicy) if policy is None else policy
    return PathwiseModule(policy, PathwiseLoss(policy, lambda td: td["cost"]), Played(env), **options)


class Played(SimpleNamespace):
    """What plays an environment, and tells its cost alone."""

    def __init__(self, env):
        super().__init__(env=env)

    def __call__(self, policy):
        return TensorDict(cost=torch.zeros(()))


VECTORS = specs(Bounded(-1.0, 1.0, (4, 2)))


def rounds(kind, policy=None, env=None, **options):
    """A module of rounds, by default with a policy made for another environment."""
    policy = made(FeedforwardPolicy) if policy is None else policy
    if kind is EvolutionModule:
        options = {"cost": lambda thetas, generation: thetas[..., 0], "generations": 2, **options}
    else:
        options = {"collect": lambda number: (torch.zeros(3),), "loss": torch.sum, "rounds": 2, **options}
    return kind(policy, env=GuessEnv(4, choices=5) if env is None else env, **options)


def unsound(method=None):
    """What a method makes of a problem whose steps give no reward."""
    method = PPOMethod(learning_rates={"actor": 1e-3, "critic": 1e-3}) if method is None else method
    return method.build(EnvProblem(lambda batch: Wrong(batch, "reward", None), steps=5))


CONSTRUCTING = {
    "a misspelt argument": (lambda: made(stepz=3), "no argument 'stepz'; did you mean steps"),
    "an argument that specs tell": (lambda: made(choices=3), "choices of a DiffusionPolicy is read from"),
    "an argument of another class": (lambda: made(GreedyValuePolicy, prior=None), "takes no argument 'prior'"),
    "steps of a half": (lambda: made(steps=2.5), "steps must be a whole number, got 2.5"),
    "no steps": (lambda: made(steps=0), "steps must be at least 1, got 0"),
    "a word for a prior": (lambda: made(prior="ActionMemory"), "prior must be a Prior, .* got 'ActionMemory'"),
    "a word for a head": (lambda: made(head="softmax"), "sample or argmax, got 'softmax'"),
    "a number for a head": (lambda: made(head=3), "head must be a Head, simplex, sample or argmax, got 3"),
    "a head of another kind": (
        lambda: made(head=BoundedHead()),
        "decides bounded actions, and 'action' is categorical",
    ),
    "a word for a denoiser": (lambda: made(denoiser="mlp"), "denoiser must be options or a module, got 'mlp'"),
    "a misspelt option of the denoiser": (lambda: made(denoiser={"hiden": [3]}), "denoiser has no option 'hiden'"),
    "a word for widths": (lambda: made(denoiser={"hidden": "32"}), "hidden must be a list, got '32'"),
    "an unknown activation": (lambda: made(denoiser={"act": "gelu"}), "activation must be one of .* got 'gelu'"),
    "an unknown schedule": (lambda: made(schedule="sigmoid"), "schedule must be one of .* got 'sigmoid'"),
    "an unknown sampler": (lambda: made(sampler="euler"), "sampler must be one of .* got 'euler'"),
    "more sampler steps than steps": (lambda: made(steps=3, sampler_steps=9), "9"),
    "half a sampler step": (lambda: made(sampler_steps=2.5), "sampler_steps must be a whole number, got 2.5"),
    "an unknown prediction": (lambda: made(prediction="v"), "prediction must be one of .* got 'v'"),
    "a negative seed": (lambda: made(seed=-1), "seed must be at least 0, got -1"),
    "a word for a flag": (lambda: made(normalize="yes"), "normalize must be true or false, got 'yes'"),
    "a word for another flag": (
        lambda: made(share_parameters="no"),
        "share_parameters must be true or false, got 'no'",
    ),
    "an unknown observation": (lambda: made(observation_keys=["obs"]), "no observation 'obs'"),
    "an unknown mask": (lambda: made(mask_key="mask"), "no mask 'mask'"),
    "an unknown action": (lambda: made(action_key="act"), "no action 'act'"),
    "a denoiser of another width": (
        lambda: made(denoiser=MLPDenoiser(5, 3, 5)),
        "denoiser is of 5 actions, and the policy of 3",
    ),
    "epsilon of two": (lambda: made(GreedyValuePolicy, epsilon=2), "epsilon must be at most 1, got 2"),
    "time without steps": (lambda: NoiseSchedule.named("vp", 0), "steps must be at least 1, got 0"),
    "a mask of other choices": (
        lambda: FeedforwardPolicy.from_specs(specs(action_mask=Binary(2, (4, 2), dtype=torch.bool))),
        r"mask 'action_mask' must have shape \[4, 3\], got \[4, 2\]",
    ),
    "an action without bounds": (
        lambda: FeedforwardPolicy.from_specs(specs(Unbounded((4, 2)))),
        "'action' is a vector without bounds",
    ),
    "no observation": (lambda: made(observation_keys=[]), "observation_keys name none"),
    "one observation as its letters": (lambda: made(observation_keys="state"), "must be a list of keys, got 'state'"),
    "a list for a sampler": (lambda: made(sampler=[]), r"sampler must be one of .* got \[\]"),
    "no policies": (lambda: evaluate(guesses(), []), "policies must name at least one, got none"),
    "one policy as its letters": (lambda: evaluate(guesses(), "random"), "must be a list of names, got 'random'"),
    "a policy that decides nothing": (
        lambda: evaluate(guesses(), {"mine": 3}),
        "policy mine: a policy must be .* got 3",
    ),
    "methods as letters": (lambda: guesses(methods="dqn"), "methods must be a list of names, got 'dqn'"),
    "a list for a method": (lambda: make_method([]), r"or the name of one, got \[\]"),
    "a list for a problem": (lambda: make_problem([]), r"must be a text, got \[\]"),
    "a list for a model": (lambda: architecture([]), r"model must be one of sd3-medium, .*, got \[\]"),
    "a list for a policy's folder": (lambda: Policy.load([]), r"must be a path, got \[\]"),
    "a list for data": (lambda: read_data([]), r"data must be a path, got \[\]"),
    "a list for a folder": (lambda: train(guesses(), "dqn", episodes=1, out=[]), r"out must be a path, got \[\]"),
    "a list for a checkpoint": (
        lambda: train(guesses(), "dqn", episodes=1, resume=[]),
        r"resume must be a path, got \[\]",
    ),
    "changes as pairs": (lambda: build(guesses(), "dqn", changes=[("gamma", 1)]), "changes must be values by field"),
    "bounds of two lengths": (lambda: BoundedHead(low=(0, 0), high=(1,)), "numbers of low as of high, got 2 and 1"),
    "bounds that are numbers": (lambda: BoundedHead(low=0, high=1), "BoundedHead.low must be a list of numbers, got 0"),
    "a count for counts": (lambda: TokenHead(nvec=3), "TokenHead.nvec must be a list of whole numbers .* got 3"),
    "a slot without choices": (
        lambda: MultiCategoricalHead(nvec=(3, 0)),
        "MultiCategoricalHead.nvec must be a list of",
    ),
    "a count for items": (lambda: JointHead(CategoricalHead(), 4), "JointHead.items must be a list of .* got 4"),
    "a part of a choice": (lambda: TokenHead(nvec=(2.7, 3)), r"TokenHead.nvec must be a list of .* got \(2.7, 3\)"),
    "digits for counts": (lambda: TokenHead(nvec="23"), "TokenHead.nvec must be a list of .* got '23'"),
    "a dictionary of counts": (lambda: TokenHead(nvec={3: 1}), "TokenHead.nvec must be a list of .* got {3: 1}"),
    "choices without end": (lambda: TokenHead(nvec=(float("inf"),)), "TokenHead.nvec must be a list of .* got .inf,"),
    "yes for a count": (lambda: TokenHead(nvec=(True, 2)), "TokenHead.nvec must be a list of .* got .True, 2"),
    "a head for heads": (lambda: CompositeHead(CategoricalHead()), "a CompositeHead takes heads"),
    "a schedule of words": (lambda: NoiseSchedule(["a"]), "alpha_bar must be a list of numbers, got"),
    "nothing observed": (
        lambda: made()(TensorDict({}, [4])),
        "reads the observation 'observation', which it is not given",
    ),
    "a state beyond the last": (
        lambda: of_states()(TensorDict(observation=torch.tensor([1, 4]), batch_size=[2])),
        "'observation' must hold whole numbers from 0 to 3, got 4",
    ),
    "a value for a sweep's": (lambda: Sweep("discount", 5), "the values of a sweep must be a list, got 5"),
    "an array for a sweep's": (
        lambda: Sweep("discount", np.array([0.5, 0.9])),
        "the values of a sweep must be a list, got array",
    ),
    "yes for episodes": (
        lambda: fit(build(guesses(), "dqn"), episodes=True),
        "episodes must be a whole number, got True",
    ),
    "yes for seconds": (
        lambda: fit(build(guesses(), "dqn"), max_seconds=True),
        "max_seconds must be a number greater than 0, got True",
    ),
    "bytes for a method": (lambda: make_method(b"sac"), "a method must be a Method or the name of one, got b'sac'"),
    "a path that is no method": (lambda: make_method(Path("sax.yaml")), "method file sax.yaml does not exist"),
    "no value of a sweep": (lambda: Sweep("discount", ()), "a sweep needs values"),
    "no key of a sweep": (
        lambda: Sweep("gama", (1,)).apply(Plan(guesses(), ["dqn"], "runs"), 1),
        "the key of a sweep must be one of .* got 'gama'",
    ),
}

FITTING = {
    "no environment": (lambda: checked("CartPole-v1"), "TorchRL EnvBase, got 'CartPole-v1'"),
    "no policy": (lambda: check_policy(3, specs()), "policy must be a module or a function .* got 3"),
    "no reward": (lambda: checked(no_reward()), "Specs has no reward"),
    "a reward of integers": (
        lambda: checked(specs(reward={"reward": Categorical(2, (4, 1))})),
        "reward 'reward' of Specs must be a real number, got int64",
    ),
    "another key": (
        lambda: checked(Specs({"state": Unbounded((4, 3))}, Categorical(3, (4,)))),
        "reads 'observation', which the environment does not show",
    ),
    "another width": (
        lambda: checked(specs(observation=Unbounded((4, 5)))),
        "made for 3 observed features, and the environment has 5",
    ),
    "other choices": (lambda: checked(specs(Categorical(5, (4,)))), "made for 3 choices, and the environment has 5"),
    "another action": (lambda: checked(specs(Bounded(-1.0, 1.0, (4, 2)))), "CategoricalHead decides"),
    "other agents": (
        lambda: check_policy(FeedforwardPolicy.from_specs(GuessEnv(4, 2)), GuessEnv(4, 3)),
        "made for 2 agents, and the environment has 3",
    ),
    "a mask that is gone": (
        lambda: check_policy(FeedforwardPolicy.from_specs(GuessEnv(4, mask=True)), GuessEnv(4)),
        "reads 'action_mask', which the environment does not show",
    ),
    "a forgotten recurrent state": (
        lambda: check_policy(made(prior=ActionMemory()), specs()),
        r"carries 'latent' .* with_recurrent_state\(env, policy\)",
    ),
    "a forgotten recurrent state of one's own": (
        lambda: check_policy(Carrying(), specs()),
        r"carries 'hidden' .* with_recurrent_state\(env, policy\)",
    ),
    "embed of another width": (
        lambda: checked(specs(), Narrow.from_specs(specs())),
        r"embed of Narrow must give condition_dim=3 .* got \[2, 2\]; .* from_specs\(env, condition_dim=",
    ),
    "embed that cannot read": (lambda: checked(specs(), Broken.from_specs(specs())), "embed of Broken cannot read 3"),
    "a module of another width": (
        lambda: checked(specs(), made(denoiser=Outputs(5))),
        "network of DiffusionPolicy cannot read a condition of 3 and x of 3",
    ),
    "a normaliser of another width": (lambda: checked(specs(), other_normalizer()), "embed of DiffusionPolicy cannot"),
    "a policy on meta": (lambda: checked(specs(), made().to("meta")), "on the device meta"),
    "a policy that writes nothing": (lambda: check_policy(lambda td: td, specs()), "writes no action 'action'"),
    "a policy that gives back a tensor": (
        lambda: check_policy(lambda td: torch.zeros(4), specs()),
        "must give back a tensordict, got tensor",
    ),
    "a policy that writes floats": (
        lambda: check_policy(lambda td: td.set("action", torch.zeros(4)), specs()),
        "'action' of the policy must be int64, got float32",
    ),
    "a policy that writes columns": (
        lambda: check_policy(lambda td: td.set("action", torch.zeros(4, 1).long()), specs()),
        r"must have shape \[4\], got \[4, 1\]",
    ),
    "a policy that reads another key": (
        lambda: check_policy(lambda td: td.set("action", td["obs"].argmax(-1)), specs()),
        "reads what the environment does not show: .*obs",
    ),
    "a module that reads another key": (
        lambda: check_policy(TensorDictModule(nn.Linear(3, 1), ["obs"], ["action"]), specs()),
        "reads 'obs', which the environment does not show",
    ),
}


class Wrong(GuessEnv):
    """An environment with a fault in what it gives. Args: key: of it. value: instead, or None: nothing."""

    def __init__(self, e, key, value, **options):
        super().__init__(e, **options)
        self.wrong = key, value

    def _step(self, td):
        key, value = self.wrong
        result = super()._step(td)
        return result.exclude(key) if value is None else result.set(key, value)


def problem(make=lambda batch: GuessEnv(batch), **options):
    check_problem(EnvProblem(make, steps=5, **options))


def faulty(key, value, **options):
    return problem(lambda batch: Wrong(batch, key, value, **options))


PROBLEMS = {
    "no problem": (lambda: check_problem(GuessEnv(4)), "must be a Problem"),
    "a factory that is none": (lambda: EnvProblem("Clinic"), "make_env must be a function .* got 'Clinic'"),
    "a factory of something else": (
        lambda: problem(lambda batch: 3),
        "must give an environment of TorchRL or Gymnasium, got 3",
    ),
    "a factory that ignores the batch": (lambda: problem(lambda batch: GuessEnv(3)), r"batch \[3\]"),
    "half a step": (lambda: EnvProblem(GuessEnv, steps=2.5), "steps must be a whole number, got 2.5"),
    "a cost per slot": (lambda: Cost("cost", per="slot"), "got 'slot'"),
    "rewards that are no numbers": (
        lambda: faulty("reward", torch.full((2, 1), torch.nan)),
        "'reward' of a step of Wrong must be finite, got nan",
    ),
    "a step without a reward": (lambda: faulty("reward", None), "step of Wrong does not give 'reward'"),
    "a reward of another shape": (lambda: faulty("reward", torch.zeros(2, 3)), r"\[2, 1\], got \[2, 3\]"),
    "an observation of another width": (lambda: faulty("observation", torch.zeros(2, 5)), r"\[2, 3\], got \[2, 5\]"),
    "an observation of another type": (
        lambda: faulty("observation", torch.zeros(2, 3).double()),
        "'observation' of a step of Wrong must be float32, got float64",
    ),
    "an observation that is infinite": (
        lambda: faulty("observation", torch.full((2, 3), torch.inf)),
        "'observation' of a step of Wrong must be finite, got inf",
    ),
    "a step without an observation": (lambda: faulty("observation", None), "step of Wrong.*observation"),
    "a mask of integers": (
        lambda: faulty("action_mask", torch.ones(2, 3).int(), mask=True),
        "'action_mask' of a step of Wrong must be bool, got int32",
    ),
    "an end of another batch": (lambda: faulty("done", torch.zeros(2, 3, dtype=torch.bool)), r"'done'.*\[2, 3\]"),
    "a rule that writes nothing": (lambda: problem(rules={"idle": lambda td: td}), "rule 'idle' writes no action"),
    "a rule that writes floats": (
        lambda: problem(rules={"floats": lambda td: td.set("action", torch.zeros(td.batch_size))}),
        "'action' of rule 'floats' must be int64, got float32",
    ),
    "a rule that writes columns": (
        lambda: problem(rules={"wide": lambda td: td.set("action", torch.zeros(2, 1).long())}),
        r"rule 'wide' must have shape \[2\], got \[2, 1\]",
    ),
    "a rule that is no function": (lambda: EnvProblem(GuessEnv, rules={"longest": 3}), "rule 'longest' must be"),
    "transitions of something else": (lambda: problem(transitions=lambda rollout: 3), "must give a TensorDict, got 3"),
    "transitions without a reward": (
        lambda: problem(transitions=lambda rollout: guess_transitions(rollout).exclude("reward")),
        "do not give 'reward'",
    ),
    "transitions of another batch": (
        lambda: problem(transitions=lambda rollout: guess_transitions(rollout).reshape(-1)),
        r"must have batch \[lanes, steps\], \[2, 2\] of 2 steps, got \[4\]",
    ),
    "transitions that fail": (
        lambda: problem(transitions=lambda rollout: TensorDict(observation=rollout["obs"], batch_size=[2])),
        "transitions of problem .* failed: KeyError",
    ),
}

TRAINING = {
    "a critic of other agents": (
        lambda: LatentDiscreteSACLoss(made(FeedforwardPolicy), CriticEnsemble(3, 3, agents=2)),
        "critic has networks for agents=2, and the policy for None",
    ),
    "a critic of other choices": (
        lambda: LatentDiscreteSACLoss(made(FeedforwardPolicy), CriticEnsemble(3, 5)),
        r"critic must give 3 values of a row, \[K, 2, 3\], got \[2, 2, 5\]",
    ),
    "a critic of another width": (
        lambda: LatentDiscreteSACLoss(made(FeedforwardPolicy), CriticEnsemble(5, 3)),
        "critic cannot read inputs of width 3",
    ),
    "a critic elsewhere": (
        lambda: LatentDiscreteSACLoss(made(FeedforwardPolicy), CriticEnsemble(3, 3).to("meta")),
        "critic is on meta, and the policy on cpu",
    ),
    "a loss of another head": (
        lambda: LatentBoundedSACLoss(made(FeedforwardPolicy), CriticEnsemble(4, 1)),
        "needs a BoundedHead or a SimplexHead, got a CategoricalHead",
    ),
    "more joint choices than are enumerated": (
        lambda: LatentDiscreteSACLoss(
            FeedforwardPolicy.from_specs(specs(MultiCategorical([100, 100], (4, 2)))), CriticEnsemble(3, 3)
        ),
        "10000 joint choices",
    ),
    "no tau": (lambda: LatentDiscreteSACLoss(made(FeedforwardPolicy), CriticEnsemble(3, 3), tau=0), "tau .* got 0"),
    "a discount of two, of a loss": (
        lambda: LatentDiscreteSACLoss(made(FeedforwardPolicy), CriticEnsemble(3, 3), gamma=2),
        "gamma must be at most 1, got 2",
    ),
    "a discount of two, of action values": (
        lambda: AgentsDQNLoss(made(GreedyValuePolicy), gamma=2),
        "gamma must be at most 1, got 2",
    ),
    "a word for a reward's scale": (
        lambda: LatentDiscreteSACLoss(made(FeedforwardPolicy), CriticEnsemble(3, 3), reward_scale="big"),
        "reward_scale must be a number, got 'big'",
    ),
    "systematic draws of a vector": (
        lambda: SystematicDraws(FeedforwardPolicy.from_specs(VECTORS), "observation"),
        "one choice an item, a CategoricalHead's, got a BoundedHead",
    ),
    "systematic draws among which a critic chooses": (
        lambda: SystematicDraws(made(head="sample").with_guidance(BestOf(CriticEnsemble(6, 1))), "observation"),
        "a critic chooses among several draws of this policy",
    ),
    "a word for the entropy of vectors": (
        lambda: LatentBoundedSACLoss(
            FeedforwardPolicy.from_specs(VECTORS), CriticEnsemble(5, 1), target_entropy="share"
        ),
        "target_entropy must be a number, got 'share'",
    ),
    "a target interval of zero": (
        lambda: AgentsDQNLoss(made(GreedyValuePolicy), target_interval=0),
        "target_interval must be at least 1, got 0",
    ),
    "gamma of two": (
        lambda: SACMethod(transitions=guess_transitions, learning_rates=RATES, gamma=2),
        "gamma must be at most 1, got 2",
    ),
    "learning rates of another group": (
        lambda: module(learning_rates={"policy": 1e-3}),
        "learning_rates must name actor, critic, alpha, got policy",
    ),
    "a learning rate below zero": (lambda: module(learning_rates={**RATES, "actor": -1}), "learning_rates.actor"),
    "a batch of nothing": (lambda: module(batch_size=0), "batch_size must be at least 1, got 0"),
    "half a batch": (lambda: module(batch_size=2.5), "batch_size must be a whole number, got 2.5"),
    "half a replay": (lambda: PackedReplay(2.5, None), "the replay's capacity must be a whole number, got 2.5"),
    "a word for a temperature": (
        lambda: LatentDiscreteSACLoss(made(FeedforwardPolicy), CriticEnsemble(3, 3), alpha="warm"),
        "alpha must be a number, got 'warm'",
    ),
    "a word for an entropy": (
        lambda: LatentDiscreteSACLoss(made(FeedforwardPolicy), CriticEnsemble(3, 3), target_entropy="half"),
        "target_entropy must be a number, got 'half'",
    ),
    "more than all of the entropy": (
        lambda: LatentDiscreteSACLoss(
            made(FeedforwardPolicy), CriticEnsemble(3, 3), target_entropy="share", entropy_share=2
        ),
        "entropy_share must be at most 1, got 2",
    ),
    "no chains for an entropy": (
        lambda: LatentDiscreteSACLoss(made(FeedforwardPolicy), CriticEnsemble(3, 3), entropy="marginal", samples=0),
        "samples must be at least 1, got 0",
    ),
    "half an interval": (
        lambda: AgentsDQNLoss(made(GreedyValuePolicy), target_interval=1.5),
        "target_interval must be a whole number, got 1.5",
    ),
    "a word for a norm": (lambda: pathwise(GuessEnv(4), clip_norm="one"), "clip_norm must be a number, got 'one'"),
    "chances of a vector": (
        lambda: choice_probabilities(FeedforwardPolicy.from_specs(VECTORS), VECTORS.reset()),
        "needs a CategoricalHead, of one choice an item, and this is a BoundedHead",
    ),
    "a normaliser that is shown nothing": (
        lambda: fit(pathwise(GuessEnv(4), FeedforwardPolicy.from_specs(GuessEnv(4), normalize=True)), episodes=4),
        "the rollout must give 'observation' and 'valid', of which the policy's normaliser learns, and gives cost",
    ),
    "a word for a clip": (
        lambda: ChainPPOLoss(made(FeedforwardPolicy), CriticEnsemble(3, 1), clip="some"),
        "clip must be a number, got 'some'",
    ),
    "transitions that are no function": (
        lambda: SACMethod(transitions="mine", learning_rates=RATES),
        "transitions must be a function, got 'mine'",
    ),
    "start_after beyond the replay": (
        lambda: fit(module(start_after=100), episodes=4),
        "start_after must be below the replay's capacity 100, got 100",
    ),
    "another environment": (
        lambda: fit(elsewhere(GuessEnv(4, choices=5)), episodes=4),
        "made for 3 choices, and the environment has 5",
    ),
    "another environment, on policy": (
        lambda: fit(elsewhere(GuessEnv(4, choices=5), on_policy()), episodes=4),
        "made for 3 choices, and the environment has 5",
    ),
    "another environment, pathwise": (
        lambda: fit(pathwise(GuessEnv(4, choices=5)), episodes=4),
        "made for 3 choices, and the environment has 5",
    ),
    "another environment, by imitation": (
        lambda: fit(rounds(ImitationModule)),
        "made for 3 choices, and the environment has 5",
    ),
    "another environment, by evolution": (
        lambda: fit(rounds(EvolutionModule)),
        "made for 3 choices, and the environment has 5",
    ),
    "a forgotten recurrent state, by evolution": (
        lambda: fit(rounds(EvolutionModule, made(prior=ActionMemory()), GuessEnv(4))),
        r"carries 'latent' .* with_recurrent_state\(env, policy\)",
    ),
    "an unsound problem": (
        lambda: fit(unsound(SACMethod(learning_rates=RATES)), episodes=4),
        "step of Wrong does not give 'reward'",
    ),
    "an unsound problem, on policy": (lambda: fit(unsound(), episodes=4), "step of Wrong does not give 'reward'"),
    "nothing to train": (lambda: rounds(EvolutionModule, nn.Identity()), "module must be a module with parameters"),
    "a cost that is no function": (lambda: rounds(EvolutionModule, cost=3), "cost must be a function, got 3"),
    "labels that are no function": (lambda: rounds(ImitationModule, collect="rows"), "collect must be a function"),
    "a loss that is no function": (lambda: rounds(ImitationModule, loss=None), "loss must be a function, got None"),
    "rates of another group, pathwise": (
        lambda: pathwise(GuessEnv(4), learning_rates={"policy": 1e-3}),
        "learning_rates must name actor, got policy",
    ),
    "rates of another group, on policy": (
        lambda: on_policy(learning_rates=RATES),
        "learning_rates must name actor, critic, got actor, critic, alpha",
    ),
    "a critic of other agents, on policy": (
        lambda: ChainPPOLoss(made(FeedforwardPolicy), CriticEnsemble(3, 1, agents=2)),
        "critic has networks for agents=2, and the policy for None",
    ),
    "a critic of actions, on policy": (
        lambda: ChainPPOLoss(made(FeedforwardPolicy), CriticEnsemble(3, 3)),
        r"critic must give 1 values of a row, \[K, 2, 1\], got \[2, 2, 3\]",
    ),
    "a policy of action values, on policy": (
        lambda: on_policy(policy=made(GreedyValuePolicy)),
        "GreedyValuePolicy has action values, and no law of actions",
    ),
    "the argmax, on policy": (
        lambda: on_policy(policy=made(head="argmax")),
        "PPO needs a head that draws its action, and this CategoricalHead takes the argmax",
    ),
    "nothing to collect": (lambda: on_policy(collect=0), "collect must be at least 1, got 0"),
    "half an epoch": (lambda: on_policy(epochs=2.5), "epochs must be a whole number, got 2.5"),
    "lambda of two": (lambda: on_policy(lmbda=2), "lmbda must be at most 1, got 2"),
    "no divergence": (lambda: on_policy(target_kl=0), "target_kl must be greater than 0, got 0"),
    "a word for a scale": (lambda: on_policy(reward_scale="big"), "reward_scale must be a number, got 'big'"),
    "a clip of one": (
        lambda: PPOMethod(learning_rates={"actor": 1e-3, "critic": 1e-3}, clip=1),
        "clip must be at most 0.99, got 1",
    ),
    "no episodes": (lambda: fit(module(), episodes=0), "episodes must be at least 1, got 0"),
    "half an episode": (lambda: fit(module(), episodes=2.5), "episodes must be a whole number, got 2.5"),
    "seconds in words": (
        lambda: fit(module(), max_seconds="3"),
        "max_seconds must be a number greater than 0, got '3'",
    ),
    "a policy to fit": (lambda: fit(made(), episodes=1), "fit trains a Trainable, .* got DiffusionPolicy"),
    "no such logger": (lambda: fit(module(), episodes=1, logger="cvs"), "did you mean csv"),
}

ALL = {**CONSTRUCTING, **FITTING, **PROBLEMS, **TRAINING}


@pytest.mark.parametrize("name", ALL)
def test_a_mistake_meets_one_sentence(name, monkeypatch):
    mistake, words = ALL[name]
    monkeypatch.setattr(RolloutStream, "rollout", lambda self: pytest.fail("something was played"))
    with pytest.raises(InputError, match=words) as refused:
        mistake()
    assert len(str(refused.value).splitlines()) == 1
    assert len(str(refused.value)) < 400


def test_there_are_more_than_fifty_mistakes():
    assert len(ALL) > 50


def test_what_is_right_passes_and_nothing_is_drawn():
    for env, prior in ((GuessEnv(4, mask=True), None), (OffloadingEnv(small(3, 5, 8), [2]), None)):
        policy = DiffusionPolicy.from_specs(env, prior=prior)
        before, world = policy.generator.get_state(), torch.get_rng_state()
        check_policy(policy, env)
        assert torch.equal(before, policy.generator.get_state())
        assert torch.equal(world, torch.get_rng_state())
    check_policy(lambda td: td.set("action", td["observation"].argmax(-1)), GuessEnv(4))


def test_a_sound_problem_passes():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        check_problem(EnvProblem(lambda batch: GuessEnv(batch), steps=5))
        check_problem(EnvProblem(lambda batch: GuessEnv(batch, 2, mask=True), steps=5))


class Seedless(GuessEnv):
    def _set_seed(self, seed):
        pass


class Global(GuessEnv):
    def _observe(self):
        return {**super()._observe(), "observation": torch.rand(*self.lead, self.choices)}


@pytest.mark.parametrize(("env", "words"), [(Seedless, "does its seed do nothing"), (Global, "generator of its own")])
def test_a_seed_that_does_nothing_is_warned_of(env, words):
    with pytest.warns(UserWarning, match=words):
        check_problem(EnvProblem(lambda batch: env(batch), steps=5))


def test_heads_say_which_draw_they_know():
    with pytest.raises(InputError, match="'mean'"):
        CategoricalHead("mean")


def test_whole_numbers_written_with_a_point_are_kept_whole():
    """`levels=5.0` passed its check, and was a `TypeError` of `range` where a chain was made."""
    env = EnvProblem(Clinic, steps=4).make_env(2)
    for process in (FlowProcess(levels=2.0), MaskedProcess(levels=2.0), GaussianProcess(CosineSchedule(), levels=2.0)):
        policy = DiffusionPolicy.from_specs(env, schedule=process)
        assert policy(env.reset())["action"].shape == (2,)
    plan = Plan(
        EnvProblem(Clinic, steps=4.0), ["dqn"], "o", episodes=2.0, seeds=1.0, seed=0.0, eval_episodes=3.0, processes=1.0
    )
    counts = (plan.episodes, plan.seeds, plan.seed, plan.eval_episodes, plan.processes, plan.problem.steps)
    grid = Grid(steps=(4.0,), sizes=((64.0, 64),), batches=(1.0,), repeats=2.0, warmup=0.0)
    counts += (Limits(steps=50.0).steps, Settings(keep=2.0).keep, grid.repeats, grid.warmup, *grid.points()[0])
    assert all(type(count) is int for count in counts)


def test_counts_may_be_of_numpy_and_a_method_a_path():
    counts = (
        TokenHead(nvec=np.array([3, 2])).nvec,
        TokenHead(nvec=torch.tensor([3, 2])).nvec,
        TokenHead([3.0, 2]).nvec,
    )
    assert counts == ((3, 2),) * 3
    assert make_method(Path("sac")) == make_method("sac")
