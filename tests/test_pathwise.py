"""Training through a differentiable episode: known optima, the same bits again, and refusals."""

from functools import partial

import pytest
import torch
from tensordict import TensorDict

from diffpolicy import ActionMemory, DiffusionPolicy, FeedforwardPolicy
from diffpolicy.edge import OffloadingEnv, make_policy, play_episodes
from diffpolicy.edge.credit.objectives import mean_delay_s, mean_slowdown
from diffpolicy.edge.fluid.rollout import FluidRollout
from diffpolicy.edge.fluid.size_table import SizeTable, size_edges
from diffpolicy.errors import InputError
from diffpolicy.objectives import PathwiseLoss
from diffpolicy.objectives.pathwise import choice_probabilities
from diffpolicy.training import PathwiseModule
from diffpolicy.training.fit import fit
from toys import GuessEnv, same_tensors, small


class Guess:
    """A rollout of one step of `GuessEnv`: the cost of an item is the chance of a wrong guess."""

    def __init__(self, **options):
        self.env = GuessEnv(32, **options)
        self.env.get_extra_state = lambda: {"draws": self.env.draws.get_state(), "slot": [0] * 32}
        self.env.set_extra_state = lambda state: self.env.draws.set_state(state["draws"])

    def __call__(self, policy):
        td = self.env.reset()
        p = choice_probabilities(policy, td)
        right = p.gather(-1, self.env.best().unsqueeze(-1))
        return TensorDict({"cost": 1 - right, "observation": td["observation"], "valid": torch.ones(32).bool()})


def cost(td):
    return td["cost"].mean()


def wrong(policy, **options):
    """How often a policy's own draws are wrong."""
    env = GuessEnv(256, **options)
    td = policy(env.reset())
    return float((td["action"] != env.best()).double().mean())


@pytest.mark.parametrize("steps", [None, 1, 3])
def test_it_finds_the_best_choice_directly_and_through_a_chain(steps):
    rollout = Guess()
    if steps is None:
        policy = FeedforwardPolicy.from_specs(rollout.env)
    else:
        policy = DiffusionPolicy.from_specs(rollout.env, steps=steps, prediction="x0")
    module = PathwiseModule(policy, PathwiseLoss(policy, cost), rollout, learning_rates={"actor": 0.03})
    fitted = fit(module, episodes=100 * 32)
    assert fitted.episodes == 100 * 32
    assert fitted.history[-1]["cost"] < fitted.history[0]["cost"] / 3
    assert wrong(policy) < 0.15


def test_a_mask_is_kept():
    rollout = Guess(mask=True)
    policy = FeedforwardPolicy.from_specs(rollout.env)
    td = rollout.env.reset()
    assert (choice_probabilities(policy, td)[~td["action_mask"]] == 0).all()


def table_module(seed=0, **options):
    scenario = small()
    rollout = FluidRollout(scenario, 4, seed)
    table = SizeTable.from_specs(rollout.env, edges=size_edges(scenario, 3))
    return scenario, table, PathwiseModule(table, PathwiseLoss(table, mean_delay_s), rollout, **options)


def test_a_table_trained_in_the_fluid_form_is_better_in_the_real_one():
    scenario, table, module = table_module(learning_rates={"actor": 0.3}, anneal=20)
    before = play_episodes(scenario, table, 8).cost.mean()
    fit(module, episodes=80)
    after = play_episodes(scenario, table, 8).cost.mean()
    assert after < 0.85 * before
    assert after < play_episodes(scenario, make_policy("capacity-proportional", scenario), 8).cost.mean()


def test_another_objective_makes_another_policy():
    scenario, table, module = table_module()
    other = SizeTable.from_specs(OffloadingEnv(scenario), edges=size_edges(scenario, 3))
    fit(module, episodes=40)
    rollout = FluidRollout(scenario, 4)
    fit(PathwiseModule(other, PathwiseLoss(other, mean_slowdown), rollout), episodes=40)
    assert not torch.equal(table.table, other.table)
    with torch.no_grad():
        outcomes = [FluidRollout(scenario, 16)(policy) for policy in (table, other)]
    assert mean_slowdown(outcomes[1]) < mean_slowdown(outcomes[0])


def diffusion_module(**options):
    scenario = small(slots=4)
    rollout = FluidRollout(scenario, 2, 5, slots=(2, 4))
    policy = DiffusionPolicy.from_specs(
        rollout.env, steps=2, prediction="x0", share_parameters=True, normalize=True, seed=7
    )
    return policy, PathwiseModule(policy, PathwiseLoss(policy, mean_delay_s), rollout, **options)


@pytest.mark.parametrize("make", [diffusion_module, lambda **options: table_module(**options)[1:]])
def test_a_resumed_run_is_the_run_that_never_stopped(tmp_path, make):
    whole, module = make(anneal=10)
    fit(module, episodes=12)
    again, module_again = make(anneal=10)
    fit(module_again, episodes=12)
    assert same_tensors(whole, again)
    assert module.history == module_again.history

    _, first = make(anneal=10)
    fit(first, episodes=8, out=tmp_path)
    resumed, second = make(anneal=10)
    fit(second, episodes=12, resume=tmp_path / "checkpoint.ckpt")
    assert same_tensors(whole, resumed)
    assert torch.equal(whole.generator.get_state(), resumed.generator.get_state())
    assert module.history == second.history


def test_a_checkpoint_that_calls_the_cost_as_earlier_versions_did_goes_on():
    module = table_module()[2]
    row = {"episode": 4, "cost": 2.5, "gradient_norm": 1.0}
    was = {"episode": 4, "delay_s": 2.5, "gradient_norm": 1.0}
    state = {"env": module.stream.base_env.get_extra_state(), "episodes": 4, "history": [was]}
    module.on_load_checkpoint({"diffpolicy": state})
    assert module.history == [row]


def test_what_networks_read_is_normalised_by_what_was_seen():
    policy, module = diffusion_module()
    fit(module, episodes=6)
    assert int(policy.normalizer.count) > 0
    assert float(policy.normalizer.mean[1]) == pytest.approx(1.5, abs=1.0)  # works of 0.2 to 4 Gcycles


def test_gradients_are_clipped():
    _, table, module = table_module(clip_norm=1e-3)
    fit(module, episodes=4)
    norm = torch.nn.utils.get_total_norm([p.grad for p in table.parameters()])
    assert float(norm) == pytest.approx(1e-3, rel=1e-3)
    assert module.history[0]["gradient_norm"] > 1e-2


def test_the_loss_is_a_torchrl_loss():
    policy = FeedforwardPolicy(choices=3, observation_dim=3)
    loss = PathwiseLoss(policy, cost, in_keys=["cost"])
    assert float(loss(TensorDict({"cost": torch.ones(4)}))["loss_pathwise"]) == 1.0
    assert float(loss(cost=torch.ones(4))) == 1.0
    assert loss.in_keys == ["cost"]
    with pytest.raises(InputError, match=r"scalar, got one of shape \[4\]"):
        PathwiseLoss(policy, lambda td: td["cost"])(TensorDict({"cost": torch.ones(4)}))


def test_what_is_not_finite_is_named():
    _, table, module = table_module()
    module.objective.cost = lambda o: mean_delay_s(o) * torch.inf
    with pytest.raises(FloatingPointError, match="update 1: the cost is inf"):
        fit(module, episodes=4)
    _, table, module = table_module()
    module.objective.cost = lambda o: (table.table * 0).sum().sqrt()
    with pytest.raises(FloatingPointError, match=r"the gradient of policy\.table is not finite"):
        fit(module, episodes=4)


def test_mistakes_are_refused(tmp_path):
    for options, message in (
        ({"learning_rates": {"critic": 0.1}}, "must name actor, got critic"),
        ({"learning_rates": {"actor": -1.0}}, "learning_rates.actor must be at least 0"),
        ({"clip_norm": 0.0}, "clip_norm must be greater than 0"),
        ({"anneal": 0}, "anneal must be at least 1"),
    ):
        with pytest.raises(InputError, match=message):
            table_module(**options)
    _, _, module = table_module()
    with pytest.raises(InputError, match="cannot be compiled"):
        fit(module, episodes=4, compiled=True)
    fit(module, episodes=4, out=tmp_path)
    _, _, other = table_module()
    other.identity = "another"
    with pytest.raises(InputError, match="cannot be resumed"):
        fit(other, episodes=8, resume=tmp_path / "checkpoint.ckpt")
    env = OffloadingEnv(small())
    remembering = DiffusionPolicy.from_specs(env, prior=ActionMemory(), steps=2)
    with pytest.raises(InputError, match="ActionMemory"):
        choice_probabilities(remembering, env.reset())
    with pytest.raises(InputError, match="temperature"):
        choice_probabilities(SizeTable.from_specs(env, edges=[1.0]), env.reset(), temperature=0.0)


def test_costs_of_any_kind_can_be_combined():
    _, table, module = table_module()
    module.objective.cost = lambda o: mean_delay_s(o) + 0.5 * mean_slowdown(o)
    assert len(fit(module, episodes=8).history) == 2
    assert partial(mean_delay_s)(FluidRollout(small(), 1)(table)).requires_grad
