"""Losses of chains whose steps, slots and choices weigh differently, by hand."""

import math
from functools import partial

import pytest
import torch
from tensordict import TensorDict

from diffpolicy.diffusion import MaskedProcess, TauLeaping, UniformProcess
from diffpolicy.networks import CriticEnsemble
from diffpolicy.objectives import (
    DPPOLoss,
    OnChainMirrorLoss,
    QDFMLoss,
    mirror_descent,
)
from diffpolicy.objectives.action_losses import action_losses
from diffpolicy.objectives.token_imitation import token_errors
from test_dppo import NUMBERS, VECTOR, loss_of, played
from test_loss_terms import LEAST, M, Opinions, zeroed
from test_weighted import (
    ACTIONS,
    CHOICES,
    ITEMS,
    MASK,
    POSSIBLE,
    SEEN,
    by_chance,
    chain_policy,
)


def rows_of(policy, td):
    """What a policy of joint items played, as rows."""
    td = policy(td)
    flat = {"observation": td["observation"].flatten(-2), "action_mask": td["action_mask"].flatten(-2)}
    return {**flat, "action": td["action"], "draws": td["draws"]}


def test_the_last_step_of_a_chain_counts_most():
    loss = loss_of(VECTOR, NUMBERS, denoising_gamma=0.5)
    ready = loss.begin(played(loss.policy, lambda a: torch.ones(64)))
    for step, weight in enumerate((0.25, 0.5, 1.0)):
        moved = ready.clone()
        moved["step_log_prob"][:, step] -= 1  # this step's ratio is e, which is clipped, and those of others are 1
        found = loss(moved)
        assert found["loss_objective"].item() == pytest.approx(-(1.75 + 0.2 * weight), rel=1e-5)
        assert found["kl_approx"].item() == pytest.approx(-1, rel=1e-4)
        assert found["clip_fraction"].item() == pytest.approx(1 / 3)


@pytest.mark.parametrize("process", [UniformProcess(4), MaskedProcess(4)])
def test_rates_of_tokens_are_matched_slot_by_slot_and_choice_by_choice(process, monkeypatch):
    policy = chain_policy(process, TauLeaping(), seed=2)
    loss, v = QDFMLoss(policy, Opinions(), beta=1.0), policy.vocabulary
    last = CHOICES if v > CHOICES else 2
    x, t = torch.tensor([[0, 0], [2, last], [1, 2], [last, last]]), torch.tensor([1, 3, 4, 2])
    x0 = torch.tensor([[0, 2], [2, 0], [1, 2], [0, 0]])
    monkeypatch.setattr("diffpolicy.objectives.qdfm.spread", lambda *given: t)
    monkeypatch.setattr(type(process), "corrupt", lambda *given: x)
    seen, mask = SEEN.expand(4, -1), MASK.expand(4, -1)
    found = loss.given(seen, x0, mask)
    allowed = policy.allowed_tokens(mask, torch.Size([4]))
    law = policy.token_logits(x, t, policy.learned(seen), allowed, v).softmax(-1)
    for row in range(4):
        stays, wanted = 1 - process.kept(int(t[row])), 0.0
        for slot in range(ITEMS):
            now, end = int(x[row, slot]), int(x0[row, slot])
            for y in range(CHOICES):
                if y == now or (v > CHOICES and now != CHOICES):  # what is shown of a masked process stays
                    continue
                wanted += (float(law[row, slot, y]) - (y == end)) ** 2 / stays**2
        assert found[row].item() == pytest.approx(wanted, rel=1e-4, abs=1e-7)


def test_what_is_corrupted_is_drawn_by_the_policys_own_generator():
    policy = chain_policy(UniformProcess(4), TauLeaping(), seed=2)
    rows = SEEN.expand(64, -1), ACTIONS[POSSIBLE][torch.arange(64) % 6], MASK.expand(64, -1)
    for lose in (QDFMLoss(policy, Opinions()).given, partial(action_losses, policy)):
        found = []
        for seed in (1, 2):
            torch.manual_seed(seed)
            policy.reseed(3)
            found.append(lose(*rows))
        assert torch.equal(*found)


def test_a_process_that_changes_tokens_asks_for_all_of_them_with_weights_of_one():
    policy = chain_policy(UniformProcess(4), TauLeaping(), seed=2)
    x, x0, t = torch.tensor([[0, 2], [1, 0]]), torch.tensor([[0, 0], [2, 2]]), torch.tensor([1, 4])
    seen, allowed = SEEN.expand(2, -1), policy.allowed_tokens(MASK.expand(2, -1), torch.Size([2]))
    law = policy.token_logits(x, t, policy.learned(seen), allowed, policy.vocabulary).softmax(-1)
    wanted = [-sum(math.log(law[row, slot, x0[row, slot]]) for slot in range(ITEMS)) for row in range(2)]
    assert token_errors(policy, seen, x0, x, t, allowed).tolist() == pytest.approx(wanted, rel=1e-5)


def test_of_a_chain_that_leaves_levels_out_the_weights_are_those_of_its_intervals():
    """Of the last interval, down to what is never hidden, the weight is the number of intervals."""
    policy = zeroed(chain_policy(MaskedProcess(10, "cosine")))
    hidden, x0, five = torch.tensor([[CHOICES, CHOICES]]), torch.tensor([[0, 0]]), torch.tensor([5])
    asked = policy, SEEN, x0, hidden, five, policy.allowed_tokens(MASK, torch.Size([1])), None
    assert token_errors(*asked, (10, 5)).item() == pytest.approx(2 * math.log(6), rel=1e-4)
    kept = policy.process.kept
    whole = 10 * (kept(4) - kept(5)) / (1 - kept(5)) * math.log(6)
    assert token_errors(*asked).item() == pytest.approx(whole, rel=1e-4)
    assert abs(whole / math.log(6) - 2) > 0.1


def test_steps_of_masked_choices_have_the_probability_that_the_mask_leaves_them():
    """Where one choice is left of two slots, each chain ends in it and no step is chosen otherwise."""
    policy = by_chance(4)
    policy.record = "draws"
    only = torch.tensor([[False, True, False], [False, False, True]])
    seen = {"observation": torch.eye(ITEMS).expand(M, -1, -1), "action_mask": only.expand(M, -1, -1)}
    rows = rows_of(policy, TensorDict(seen, [M]))
    assert torch.equal(rows["action"], torch.tensor([[1, 2]]).expand(M, -1))
    loss = DPPOLoss(policy, CriticEnsemble(ITEMS * ITEMS, 1, ensemble=1))
    assert set(loss.in_keys) == {"observation", "action", "draws", "action_mask"}
    rows |= {"advantage": torch.ones(M, 1), "value_target": torch.zeros(M, 1)}
    ready = loss.begin(TensorDict(rows, [M]))
    assert torch.equal(ready["states"][:, -1], rows["action"])
    assert torch.isfinite(ready["step_log_prob"]).all()
    found = loss(ready)
    assert found["loss_objective"].item() == pytest.approx(-len(policy.path), rel=1e-5)
    with torch.no_grad():
        for p in policy.denoiser.parameters():
            p.add_(0.3 * torch.randn(p.shape, generator=torch.Generator().manual_seed(0)))
    assert loss(ready)["kl_approx"].item() == pytest.approx(0, abs=1e-5)  # there is nothing else to choose


def test_on_chain_losses_are_those_of_the_states_that_were_gone_through(monkeypatch):
    policy, samples, temperature = chain_policy(seed=2), 4, 0.7
    loss = OnChainMirrorLoss(policy, Opinions(), samples=samples, temperature=temperature, target_kl=None)
    number = torch.tensor([0, 1, 1, 0, 1, 0, 0, 1])
    told, recorded = [], mirror_descent.recorded
    monkeypatch.setattr(mirror_descent, "spread", lambda *given: number + 1)
    monkeypatch.setattr(
        mirror_descent, "recorded", lambda *given: told.append((recorded(*given), given[2])) or told[-1][0]
    )
    masks = torch.cat([MASK, torch.ones_like(MASK)])
    found = loss.actor_losses(SEEN.expand(2, -1), masks)
    ((states, given),) = told
    each, row = masks.repeat_interleave(samples, 0), torch.arange(2 * samples)
    assert torch.equal(given, each)
    seen, allowed = SEEN.expand(2 * samples, -1), policy.allowed_tokens(each, torch.Size([2 * samples]))
    path = torch.tensor(policy.path)
    cost = token_errors(policy, seen, states[-1], states[number, row], path[number], allowed, None, policy.path)
    value = LEAST[states[-1][:, 0] * CHOICES + states[-1][:, 1]]
    wanted = 0.0
    for state in (slice(0, samples), slice(samples, None)):
        weight = (value[state] / temperature).exp() / (value[state] / temperature).exp().sum()
        wanted += float((weight * cost[state]).sum()) / 2
    assert found["loss_actor"].item() == pytest.approx(wanted, rel=1e-4)
    found["loss_actor"].backward()
    assert loss.log_temperature.grad is None  # lambda follows the divergence alone
