"""Averaged weights: the rule, who acts by them, what is saved, and what a resumed run goes on with."""

import dataclasses

import pytest
import torch
from tensordict import TensorDict

from diffpolicy import DiffusionPolicy, FeedforwardPolicy, InputError
from diffpolicy.experiments import make_method
from diffpolicy.objectives import LikelihoodLoss
from diffpolicy.training import ImitationModule, OfflineModule, fit
from diffpolicy.training.averaging import averaged
from toys import GuessEnv, same_tensors

QUICK = {"hidden": [8], "start_after": 8, "capacity": 100, "batch_size": 8}


def built(**changes):
    method = dataclasses.replace(make_method("d2sac"), **QUICK, **changes)
    return method.build(GuessEnv(4), episode_steps=5, seed=1)


def test_the_average_follows_by_its_decay():
    line = torch.nn.Linear(2, 1)
    mean = averaged(line, 0.9)
    expected = None
    for k in range(4):
        with torch.no_grad():
            line.weight.fill_(float(k + 1))
        mean.update_parameters(line)
        expected = line.weight.clone() if expected is None else 0.9 * expected + 0.1 * line.weight
    torch.testing.assert_close(mean.module.weight, expected)


def test_of_rows_too_the_average_acts():
    policy = FeedforwardPolicy.from_specs(GuessEnv(1), hidden=[4])
    rows = TensorDict({"observation": torch.randn(20, 3), "action": torch.arange(20) % 3}, [20])
    loss, rates = LikelihoodLoss(policy), {"actor": 0.1}
    module = OfflineModule(policy, loss, rows, learning_rates=rates, batch_size=20, ema=0.75)
    fit(module, episodes=1)
    assert same_tensors(module.policy, policy)  # the first weights are taken as they are
    before = [p.clone() for p in module.policy.parameters()]
    fit(module, episodes=1)
    for was, mean, now in zip(before, module.policy.parameters(), policy.parameters(), strict=True):
        torch.testing.assert_close(mean, 0.75 * was + 0.25 * now)
    for wrong, words in ((rows[:0], "no rows"), (rows.set("valid", torch.zeros(20)), "valid must be bool")):
        with pytest.raises(InputError, match=words):
            OfflineModule(policy, loss, wrong, learning_rates=rates)


def test_the_average_acts_and_shares_draws_and_statistics():
    module = built(ema=0.9, normalize=True)
    acting, learner = module.policy, module.objective.policy
    assert acting is not learner
    assert module.stream.policy is acting
    assert acting.generator is learner.generator
    assert acting.normalizer is learner.normalizer
    fit(module, episodes=12)
    assert acting.normalizer.count > 0
    assert not same_tensors(acting.denoiser, learner.denoiser)
    last = built(ema=0.0, normalize=True)
    fit(last, episodes=12)
    assert same_tensors(last.policy.denoiser, last.objective.policy.denoiser)


def test_a_resumed_run_keeps_both_sets_of_weights(tmp_path):
    whole = built(ema=0.8)
    fit(whole, episodes=16, out=tmp_path / "whole")
    fit(built(ema=0.8), episodes=8, out=tmp_path / "half")
    resumed = built(ema=0.8)
    fit(resumed, episodes=16, out=tmp_path / "half", resume=tmp_path / "half" / "checkpoint.ckpt")
    assert same_tensors(whole, resumed)
    assert not same_tensors(whole.policy.denoiser, whole.objective.policy.denoiser)
    again = DiffusionPolicy.load(resumed.policy.save(tmp_path / "policy"))
    assert same_tensors(again.denoiser, whole.policy.denoiser)


def test_without_an_average_nothing_changes():
    module = built()
    assert module.policy is module.objective.policy
    assert not any("averaged" in name for name in module.state_dict())


def test_imitation_gives_its_average():
    line, x = torch.nn.Linear(1, 1), torch.linspace(-1, 1, 64).unsqueeze(-1)
    module = ImitationModule(
        line,
        lambda _: (x, 3 * x),
        lambda x, y: (line(x) - y).square().mean(),
        rounds=2,
        updates=20,
        learning_rate=0.05,
        batch_size=64,
        ema=0.9,
    )
    first = line.weight.item()
    fit(module)
    assert min(first, line.weight.item()) < module.policy.weight.item() < max(first, line.weight.item())


@pytest.mark.parametrize("decay", [1.0, -0.1])
def test_a_decay_that_never_follows_is_refused(decay):
    with pytest.raises(InputError, match="ema must be"):
        averaged(torch.nn.Linear(1, 1), decay)
