"""Running normalisation: exact however rows are cut, the same in acting, targets and files."""

import pytest
import torch

from diffpolicy import FeedforwardPolicy, Policy
from diffpolicy.edge.training import build
from diffpolicy.networks import RunningNorm
from diffpolicy.training.fit import fit
from toys import quick_method, small

SCENARIO = small(3, 5, 8)


def rows(n=100, seed=0):
    return torch.randn(n, 4, generator=torch.Generator().manual_seed(seed)) * torch.tensor([1.0, 50.0, 0.1, 3.0]) + 7


@pytest.mark.parametrize("cuts", [[100], [1, 99], [30, 0, 50, 20], [1] * 100])
def test_statistics_do_not_depend_on_how_rows_are_cut(cuts):
    x, norm = rows(), RunningNorm(4)
    for part in x.split(cuts):
        norm.update(RunningNorm.moments(part))
    assert norm.count == 100
    assert torch.allclose(norm.mean, x.double().mean(0))
    assert torch.allclose(norm.square / 100, x.double().var(0, correction=0))
    assert torch.allclose(norm(x).mean(0), torch.zeros(4), atol=1e-5)
    assert torch.allclose(norm(x).std(0, correction=0), torch.ones(4), atol=1e-5)


def test_it_changes_nothing_before_it_has_seen_anything_and_cuts_off_what_is_far_away():
    norm = RunningNorm(4)
    assert torch.equal(norm(rows().clamp(-9, 9)), rows().clamp(-9, 9))
    norm.update(RunningNorm.moments(rows()))
    assert norm(torch.full((1, 4), 1e9)).tolist() == [[10.0] * 4]


def test_a_feature_that_never_changes_is_only_shifted():
    norm = RunningNorm(1)
    norm.update(RunningNorm.moments(torch.full((10, 1), 5.0)))
    assert norm(torch.tensor([[5.0], [6.0]])).flatten().tolist() == [0.0, 1.0]


@pytest.mark.parametrize("name", ["lad-ts", "d2sac-ts", "sac-ts", "dqn-ts"])
def test_training_keeps_the_statistics_and_a_saved_policy_has_them(name, tmp_path):
    module = build(quick_method(name, tmp_path, normalize=True), SCENARIO)
    fit(module, episodes=2)
    norm = module.policy.normalizer
    assert norm.count == sum(len(seen) for seen in valid_rows())
    module.policy.save(tmp_path / "policy")
    loaded = Policy.load(tmp_path / "policy").normalizer
    for key in ("count", "mean", "square", "shift", "scale"):
        assert torch.equal(getattr(norm, key), getattr(loaded, key)), key


def valid_rows():
    """What is seen in two training episodes, but for tasks without a successor: counted by another path."""
    from diffpolicy.edge import OffloadingEnv, Stream, task_transitions

    env = OffloadingEnv(SCENARIO, [1], stream=Stream.TRAINING)
    for _ in range(2):
        root = env.reset()
        for _ in range(SCENARIO.slots):
            root["agents", "action"] = torch.zeros_like(root["agents", "valid"], dtype=torch.long)
            step = env.step(root)
            transitions = task_transitions(step.unsqueeze(1))
            yield transitions["observation"][transitions["valid"]]
            root = env.step_mdp(step)


def test_the_target_actor_reads_the_same_statistics(tmp_path):
    objective = build(quick_method("d2sac-ts", tmp_path, normalize=True), SCENARIO).objective
    assert objective.target_policy.normalizer is objective.policy.normalizer


def test_a_policy_acts_on_normalised_observations():
    policy = FeedforwardPolicy(choices=3, observation_dim=4, normalize=True)
    x = rows()
    plain = policy.logits((x - x.mean(0)) / x.std(0, correction=0))
    policy.normalizer.update(RunningNorm.moments(x))
    assert torch.allclose(policy.logits(x), plain, atol=1e-4)
