"""Methods on joint items: which denoiser they make, that they learn what single items cannot, and what is counted."""

import dataclasses
import runpy
from pathlib import Path

import pytest
import torch
from tensordict import TensorDict
from torchrl.data import Binary, Categorical, Unbounded

from diffpolicy import DiffusionPolicy, InputError, Policy
from diffpolicy.edge import OffloadingProblem
from diffpolicy.environments import Cost, EnvProblem, step_transitions
from diffpolicy.environments.tally import Tally
from diffpolicy.evaluation import evaluate
from diffpolicy.experiments import build, make_method, train
from diffpolicy.experiments.changes import changed
from diffpolicy.networks import ItemDenoiser, MLPDenoiser
from diffpolicy.policies.keys import Keys
from test_joint import Apart, env_of, seen
from test_keys import Specs
from toys import small

ROOT = Path(__file__).resolve().parent.parent
QUICK = {
    "ppo": {"collect": 160, "batch_size": 80, "epochs": 5},
    "d2sac": {
        "start_after": 20,
        "batch_size": 64,
        "updates": 2,
        "entropy_share": 0.05,
        "reward_scale": 1.0,
        "alpha": 0.05,
        "learning_rates": {"actor": 3e-3, "critic": 3e-3, "alpha": 1e-3},
    },
    "diffusion-ppo": {
        "collect": 320,
        "batch_size": 80,
        "entropy": 0.0,
        "learning_rates": {"actor": 3e-3, "critic": 3e-3},
    },
}


def problem():
    return EnvProblem(Apart, steps=10)


def reward_of(policy, rows=400):
    """The mean over decisions drawn in `Apart`, where 1 is the best and 1/2 the best of items that are independent."""
    action = policy.eval()(Apart(rows).reset())["action"]
    return float((action[:, 0] != action[:, 1]).float().mean())


@pytest.mark.parametrize(
    ("name", "episodes"),
    [
        ("ppo", 96),
        pytest.param("d2sac", 64, marks=pytest.mark.slow),
        pytest.param("diffusion-ppo", 320, marks=pytest.mark.slow),
    ],
)
@pytest.mark.filterwarnings("ignore:problem Apart shows the same")
def test_methods_on_joint_items_learn_what_they_cannot_on_independent_ones(name, episodes):
    found = {}
    for items in ("joint", "independent"):
        for seed in (0, 1):
            changes = {"items": items, "gamma": 0.0, **QUICK[name]}
            run = train(problem(), name, episodes=episodes, environments=16, seed=seed, changes=changes)
            found[items, seed] = reward_of(run.policy)
    assert min(found["joint", seed] for seed in (0, 1)) > 0.85, found
    assert max(found["independent", seed] for seed in (0, 1)) < 0.65, found


@pytest.mark.slow
def test_a_preset_learns_a_masked_joint_problem_past_the_rule_of_single_items():
    """As a user writes it, without a number of his own: random costs 30.6, the rule 20.8 and the best pairs 11.0."""
    names = runpy.run_path(str(ROOT / "examples" / "extending" / "robots.py"))
    run = train(names["problem"], "d2sac-plus", episodes=192, environments=4, changes={"items": "joint"})
    results = evaluate(names["problem"], {"learned": run.policy, "nearest": names["nearest"]}, episodes=32).results
    assert results["learned"].costs.mean < 0.85 * results["nearest"].costs.mean


def test_items_that_become_joint_bring_a_faster_temperature_unless_its_rate_is_told():
    for name in ("d2sac", "sac-plus"):
        made = make_method(name)
        rates = dict(made.learning_rates)
        assert changed(made, {"items": "joint"}).learning_rates == {**rates, "alpha": pytest.approx(1e-2)}
        assert changed(made, {"items": "joint", "learning_rates.alpha": 2e-3}).learning_rates["alpha"] == 2e-3
        assert changed(made, {"learning_rates": rates, "items": "joint"}).learning_rates == rates
        assert changed(made, {"items": "independent"}).learning_rates == rates
        still = changed(made, {"learning_rates.alpha": 0.0})
        assert changed(still, {"items": "joint"}) == dataclasses.replace(still, items="joint")


def test_a_method_makes_an_item_denoiser_of_joint_items_and_an_mlp_by_name(tmp_path):
    env = env_of()
    made = {"denoiser.heads": 2, "denoiser.hidden": 8, "denoiser.blocks": 1}
    policy = build(env, "d2sac", changes={"items": "joint", **made}).policy
    assert isinstance(policy.denoiser, ItemDenoiser)
    assert (policy.denoiser.heads, policy.denoiser.hidden, policy.denoiser.blocks) == (2, 8, 1)
    whole = build(env, "diffusion-ppo", changes={"items": "joint", "denoiser.kind": "MLPDenoiser"}).policy
    assert isinstance(whole.denoiser, MLPDenoiser)
    assert whole.denoiser.hidden == [64, 64]
    for each in (policy, whole):
        again = Policy.load(each.save(tmp_path / type(each.denoiser).__name__))
        assert type(again.denoiser) is type(each.denoiser)
        td = seen(env)
        for p in (again.eval(), each.eval()):
            p.reseed(3)
        assert torch.equal(again(td.clone())["action"], each(td.clone())["action"])
    assert isinstance(build(env, "d2sac").policy.denoiser, MLPDenoiser)


@pytest.mark.parametrize("trailing", [(), (1,)])
def test_a_joint_row_gets_the_sum_of_its_items_rewards(trailing):
    lead, n = (3,), 4
    shown = {"observation": Unbounded((*lead, n, 2)), "valid": Binary(n, (*lead, n), dtype=torch.bool)}
    env = Specs(shown, Categorical(3, (*lead, n)), batch=lead)
    keys, batch = Keys.of(env, items="joint"), (3, 2)
    generator = torch.Generator().manual_seed(0)
    valid = torch.rand(*batch, n, generator=generator) < 0.5
    reward = torch.randn(*batch, n, generator=generator)
    state = {"observation": torch.zeros(*batch, n, 2), "valid": valid}
    ends = {name: torch.zeros(*batch, 1, dtype=torch.bool) for name in ("done", "terminated")}
    after = {**state, **ends, "reward": reward.reshape(*batch, n, *trailing)}
    rollout = TensorDict({**state, "action": torch.zeros(*batch, n).long(), "next": after}, batch_size=batch)
    rows = step_transitions(rollout, keys)
    assert rows.batch_size == batch
    assert torch.allclose(rows["reward"], (reward * valid).sum(-1))
    tally = Tally(Cost("waiting", per="item"), keys.reward, keys.valid)
    tally.add(rollout)
    assert tally.take(1)[1] == int(valid.sum())  # what is paid is still counted by item


@pytest.mark.filterwarnings("ignore:problem Apart shows the same")
def test_a_joint_row_is_one_transition_of_the_replay():
    module = build(problem(), "d2sac", environments=2, changes={"items": "joint", "start_after": 5})
    rollout = next(iter(module.stream))
    rows = module.transitions(rollout)
    assert rows.batch_size == rollout.batch_size
    module.replay.extend(rows)
    assert len(module.replay) == rollout.numel()


@pytest.mark.parametrize("name", ["ppo", "diffusion-ppo"])
def test_a_slot_of_offloading_may_be_one_decision(name):
    changes = {"items": "joint", "collect": 8, "epochs": 1}
    run = train(OffloadingProblem(small(2, 3, 6)), name, episodes=4, environments=2, changes=changes)
    assert run.policy.head.count == 3
    assert torch.isfinite(torch.tensor(run.history[-1]["loss_objective"]))


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"denoiser.kind": "ItemDenoiser"}, "reads joint items"),
        ({"denoiser.kind": "UNet"}, "denoiser.kind must be one of MLPDenoiser, ItemDenoiser, got 'UNet'"),
        ({"items": "joint", "denoiser.wide": 3}, "no option 'wide'; there are kind, hidden, heads, blocks"),
        ({"denoiser.heads": 2}, "no option 'heads'; there are hidden, act, output, time"),
    ],
)
def test_denoisers_that_a_method_cannot_make_get_a_sentence(changes, words):
    with pytest.raises(InputError, match=words):
        build(env_of(), "d2sac", changes=changes)


def test_options_of_an_mlp_on_joint_items_are_refused_with_what_to_say():
    with pytest.raises(InputError, match=r"\[32, 32\].*'kind': 'MLPDenoiser'"):
        DiffusionPolicy.from_specs(env_of(), items="joint", denoiser={"hidden": [32, 32]})


def test_a_memory_on_joint_items_is_refused_by_the_method_too():
    with pytest.raises(InputError, match=r"its items are joint.*GaussianPrior"):
        build(env_of(), "lad", changes={"items": "joint"})


def test_soft_actor_critic_refuses_more_joint_choices_than_it_enumerates():
    env = Specs({"observation": Unbounded((2, 9, 3))}, Categorical(3, (2, 9)), batch=(2,))
    with pytest.raises(InputError, match="19683 joint choices of 9 items, 3 each, are more than the 4096"):
        build(env, "d2sac", changes={"items": "joint"})
    assert build(env, "diffusion-ppo", changes={"items": "joint"}).policy.head.count == 9
