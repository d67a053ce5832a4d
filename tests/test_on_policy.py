"""On-policy training: ratios on recorded draws, what is clipped, resuming, and what it learns."""

import copy
import dataclasses

import pytest
import torch
from tensordict import TensorDict
from torchrl.data import Bounded, MultiCategorical
from torchrl.envs.utils import ExplorationType, set_exploration_type

from diffpolicy import DiffusionPolicy, FeedforwardPolicy, GreedyValuePolicy
from diffpolicy.edge import OffloadingEnv, OffloadingProblem
from diffpolicy.environments import EnvProblem
from diffpolicy.errors import InputError
from diffpolicy.experiments import make_method, train
from diffpolicy.methods import PPOMethod
from diffpolicy.networks import CriticEnsemble
from diffpolicy.objectives import ChainPPOLoss
from diffpolicy.policies.heads import CategoricalHead
from diffpolicy.training import OnPolicyModule
from diffpolicy.training.fit import fit
from test_environments import Countdown
from test_faults_identity import Forgetful, Lengths, resumes_bitwise
from toys import GuessEnv, guess_transitions, same_tensors, small

QUICK = {"collect": 10, "epochs": 2, "batch_size": 8, "hidden": [8]}


class Typed(GuessEnv):
    """Another kind of action; the reward is what the first slot or dimension is."""

    def __init__(self, e, spec):
        super().__init__(e)
        self.action_spec = spec

    def _step(self, td):
        first = td["action"][:, 0].float()
        return super()._step(td.clone().set("action", first.long())).set("reward", first.unsqueeze(-1))


def problem_of(make, steps=5, **options):
    return EnvProblem(lambda batch, seed: make(batch), steps=steps, **options)


PROBLEMS = {
    "plain": lambda: problem_of(GuessEnv),
    "agents and masks": lambda: problem_of(lambda batch: GuessEnv(batch, 3, mask=True)),
    "several choices": lambda: problem_of(lambda batch: Typed(batch, MultiCategorical([3, 2], (batch, 2)))),
    "bounded": lambda: problem_of(lambda batch: Typed(batch, Bounded(-1.0, 2.0, (batch, 2)))),
    "items at once": lambda: problem_of(lambda batch: OffloadingEnv(small(3, 5, 8), [batch]), steps=8),
    "items in order": lambda: OffloadingProblem(small(3, 5, 8)),
    "early ends": lambda: EnvProblem(Countdown),
}


def built(name, preset="diffusion-ppo", environments=3, **changes):
    method = dataclasses.replace(make_method(preset), **{**QUICK, **changes})
    return method.build(PROBLEMS[name](), environments=environments, seed=1)


class Looking(OnPolicyModule):
    """Keeps the rows of its first update, and what the objective wrote of them before it."""

    def _learn(self):
        rows = self._rows()
        if "rows" not in self.__dict__:
            kept = rows["valid"]
            self.__dict__["rows"] = rows if kept.ndim > 1 else rows[kept]
            self.__dict__["ratio"] = ratios(self.objective, self.rows).detach()
        super()._learn()


def looking(module):
    module.__class__ = Looking
    return module


def ratios(objective, rows):
    law = objective.actor_network.get_dist(rows)
    return (law.log_prob(rows["action"]) - rows["action_log_prob"]).exp()[rows["valid"]]


# The law


@pytest.mark.parametrize("preset", ["ppo", "diffusion-ppo"])
@pytest.mark.parametrize("name", PROBLEMS)
def test_every_problem_is_trained_and_ratios_begin_at_one(name, preset):
    module = looking(built(name, preset, normalize=True))
    fitted = fit(module, episodes=6)
    assert [row["episode"] for row in fitted.history] == [3, 6]
    assert torch.allclose(module.ratio, torch.ones_like(module.ratio), atol=2e-4)
    moved = ratios(module.objective, module.rows)
    assert torch.isfinite(moved).all()
    assert not torch.allclose(moved, torch.ones_like(moved), atol=1e-4)
    last = fitted.history[-1]
    assert {"loss_objective", "loss_critic", "entropy", "kl_approx", "clip_fraction", "gradient_norm"} <= last.keys()
    assert not module.policy.record


@pytest.mark.parametrize("share", [False, True])
def test_a_memory_and_shared_parameters(share):
    changes = {"prior": {"type": "ActionMemory", "key": "item"}, "share_parameters": share}
    module = looking(built("agents and masks", **changes))
    fit(module, episodes=6)
    assert torch.allclose(module.ratio, torch.ones_like(module.ratio), atol=1e-4)
    assert module.rows["latent"].shape == (*module.rows.batch_size, 3)
    assert module.rows.batch_dims == (1 if share else 2)


# The objective


def loss_and_rows(clip=0.2, agents=None, seed=0):
    """A loss on ten rows of which acting recorded another probability, in double precision."""
    env = GuessEnv(10, agents)
    policy = DiffusionPolicy.from_specs(env, steps=3, prediction="x0", seed=seed).double()
    policy.record = True
    td = policy(env.reset())
    here = td if agents is None else td["agents"].transpose(0, 1)
    rows = here.select("observation", "action", "action_log_prob", "draws").clone()
    rows["observation"], shape = rows["observation"].double(), rows["action"].shape
    generator = torch.Generator().manual_seed(seed)
    rows["advantage"] = torch.randn(*shape, 1, generator=generator, dtype=torch.float64)
    rows["value_target"] = torch.randn(*shape, 1, generator=generator, dtype=torch.float64)
    critic = CriticEnsemble(3, 1, ensemble=1, agents=agents, generator=generator).double()
    return ChainPPOLoss(policy, critic, clip=clip), rows


@pytest.mark.parametrize(("shift", "sign"), [(0.3, 1), (0.3, -1), (-0.3, 1), (-0.3, -1)])
def test_the_gradient_is_zero_where_the_ratio_is_clipped_and_only_there(shift, sign):
    loss, rows = loss_and_rows()
    rows["action_log_prob"] = rows["action_log_prob"] - shift  # the ratio is exp(shift)
    rows["advantage"] = sign * torch.ones_like(rows["advantage"])
    loss(rows)["loss_objective"].backward()
    gradient = torch.cat([p.grad.flatten() for p in loss.parameter_groups()["actor"]])
    clipped = shift * sign > 0  # going on would take the ratio further out
    assert bool((gradient == 0).all()) == clipped


def test_the_objective_is_that_of_the_paper():
    loss, rows = loss_and_rows()
    rows["action_log_prob"] = rows["action_log_prob"] + torch.linspace(-0.5, 0.5, 10, dtype=torch.float64)
    rho, advantage = torch.linspace(0.5, -0.5, 10, dtype=torch.float64).exp(), rows["advantage"].squeeze(-1)
    written = loss(rows)
    expected = -torch.minimum(rho * advantage, rho.clamp(0.8, 1.2) * advantage).mean()
    assert torch.allclose(written["loss_objective"], expected)
    error = loss.values(rows["observation"]) - rows["value_target"].squeeze(-1)
    assert torch.allclose(written["loss_critic"], 0.5 * error.square().mean())
    assert torch.allclose(written["kl_approx"], -rho.log().mean(), atol=1e-12)


def test_at_unchanged_parameters_the_gradient_is_the_policy_gradient_given_the_draws():
    loss, rows = loss_and_rows()
    loss(rows)["loss_objective"].backward()
    mine = [p.grad.clone() for p in loss.parameter_groups()["actor"]]
    policy = copy.deepcopy(loss.actor_network.policy)
    policy.zero_grad()
    log_prob = policy.get_dist(rows).log_prob(rows["action"])
    (-(log_prob * rows["advantage"].squeeze(-1)).mean()).backward()
    for a, b in zip(mine, policy.parameters(), strict=True):
        assert torch.allclose(a, b.grad)


def test_agents_learn_as_if_each_were_alone():
    loss, rows = loss_and_rows(agents=3)
    together = loss(rows)
    for key in ("loss_objective", "loss_critic"):
        parts = []
        for g in range(3):
            critic = CriticEnsemble(3, 1, ensemble=1).double()
            for mine, theirs in zip(critic.parameters(), loss.parameter_groups()["critic"], strict=True):
                mine.data = theirs.data[g].reshape(mine.shape)
            alone = ChainPPOLoss(loss.actor_network.policy.for_agent(g).double(), critic)
            parts.append(alone(rows[g])[key])
        assert torch.allclose(together[key], sum(parts))


def test_what_has_no_law_or_does_not_fit_is_refused_by_name():
    env = GuessEnv(4)
    critic = CriticEnsemble(3, 1, ensemble=1)
    for policy, words in (
        (GreedyValuePolicy.from_specs(env), "has action values, and no law"),
        (FeedforwardPolicy.from_specs(env, head=CategoricalHead("argmax")), "takes the argmax"),
    ):
        with pytest.raises(InputError, match=words):
            ChainPPOLoss(policy, critic)
    with pytest.raises(InputError, match="agents=2, and the policy for None"):
        ChainPPOLoss(FeedforwardPolicy.from_specs(env), CriticEnsemble(3, 1, ensemble=1, agents=2))
    for name, value in (("clip", 1.5), ("entropy", -1), ("critic_weight", 0)):
        with pytest.raises(InputError, match=f"{name} must be .* got {value}"):
            ChainPPOLoss(FeedforwardPolicy.from_specs(env), critic, **{name: value})


# Training


@pytest.mark.parametrize("env", [GuessEnv, Forgetful, Lengths])
def test_any_environment_resumes_bitwise(env, tmp_path):
    def make():
        changes = {**QUICK, "collect": 25, "prior": {"type": "ActionMemory"}, "normalize": True}
        return dataclasses.replace(make_method("diffusion-ppo"), **changes).build(env(2), episode_steps=5, seed=3)

    # transitions that await an update are in the checkpoint
    assert resumes_bitwise(make, tmp_path, 14, 8)


def test_an_update_waits_for_every_agent_and_forgets_what_it_learned_from():
    module = built("plain", environments=1, collect=12)
    fitted = fit(module, episodes=7)
    assert ["loss_objective" in row for row in fitted.history] == [False, False, True, False, False, True, False]
    assert [rows.numel() for rows in module.pending] == [5]


def test_a_target_divergence_ends_an_update():
    updates = []
    for target in (None, 1e-9):
        module = built("plain", collect=60, epochs=8, target_kl=target, learning_rates={"actor": 0.01, "critic": 0.01})
        counted = []
        module.count = lambda losses, counted=counted: counted.append(losses)
        fit(module, episodes=12)
        updates.append(len(counted))
    assert updates[0] == 8 * 8
    assert updates[1] < updates[0]


def test_a_gradient_is_no_longer_than_allowed(monkeypatch):
    module, norms = built("plain", clip_norm=1e-3), []
    original = torch.optim.Adam.step

    def step(self, *args, **kwargs):
        grads = [p.grad for group in self.param_groups for p in group["params"]]
        norms.append(float(torch.cat([g.flatten() for g in grads]).norm()))
        return original(self, *args, **kwargs)

    monkeypatch.setattr(torch.optim.Adam, "step", step)
    fit(module, episodes=3)
    assert norms
    assert max(norms) <= 1e-3 * 1.001


def test_rewards_of_any_unit_give_the_same_policy():
    class Cents(GuessEnv):
        def _step(self, td):
            result = super()._step(td)
            return result.set("reward", 1024 * result["reward"])

    both = []
    for env in (GuessEnv, Cents):
        method = dataclasses.replace(make_method("ppo"), **QUICK)
        module = method.build(problem_of(env), environments=3)
        fit(module, episodes=6)
        both.append(module.policy)
    assert same_tensors(*both)


def test_transitions_without_what_acting_recorded_are_refused():
    method = PPOMethod(learning_rates={"actor": 0.0, "critic": 0.0}, transitions=guess_transitions, **QUICK)
    with pytest.raises(InputError, match="transitions do not give 'action_log_prob', which the objective reads"):
        fit(method.build(problem_of(GuessEnv)), episodes=1)


def test_it_does_not_compile():
    with pytest.raises(InputError, match="updates of OnPolicyModule cannot be compiled"):
        fit(built("plain"), episodes=3, compiled=True)


@pytest.mark.parametrize("preset", ["ppo", "diffusion-ppo"])
@pytest.mark.parametrize("agents", [None, 2])
def test_it_learns_to_guess(preset, agents):
    def make(batch, seed):
        env = GuessEnv(batch, agents)
        env.set_seed(seed)
        return env

    changes = {"collect": 320, "epochs": 8, "batch_size": 160, "hidden": [32], "gamma": 0.0}
    changes["learning_rates"] = {"actor": 0.01, "critic": 0.01}
    run = train(EnvProblem(make, steps=5), preset, episodes=64 * 8, environments=64, changes=changes)
    with set_exploration_type(ExplorationType.DETERMINISTIC):
        played = make(256, 9).rollout(5, run.policy.eval(), break_when_any_done=False)
    key = "reward" if agents is None else ("agents", "reward")
    assert float(played["next", key].mean()) > 0.9


def test_a_saved_policy_decides_as_it_did(tmp_path):
    run = train(problem_of(GuessEnv), "diffusion-ppo", episodes=3, changes=QUICK, out=tmp_path)
    loaded = DiffusionPolicy.load(tmp_path)
    root = GuessEnv(4).reset()
    for policy in (run.policy, loaded):
        policy.reseed(3)
    first, second = (policy.eval()(root.clone()) for policy in (run.policy, loaded))
    assert torch.equal(first["action"], second["action"])
    assert "draws" not in first


def test_the_loss_says_what_it_reads():
    loss, rows = loss_and_rows()
    assert set(loss.in_keys) == {"observation", "draws", "action", "action_log_prob", "advantage", "value_target"}
    assert isinstance(loss(rows), TensorDict)
    assert set(loss(rows).keys()) == set(loss.out_keys)
