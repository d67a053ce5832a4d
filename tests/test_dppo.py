"""Diffusion policy policy optimisation: ratios that begin at 1, the score function by enumeration, what it learns."""

import dataclasses
import itertools

import pytest
import torch
from tensordict import TensorDict
from torch.distributions import Normal
from torchrl.data import Bounded, Categorical, Unbounded

from diffpolicy import DiffusionPolicy, InputError
from diffpolicy.diffusion import DDIM, Ancestral, MaskedProcess
from diffpolicy.experiments import make_method
from diffpolicy.networks import CriticEnsemble
from diffpolicy.objectives import DPPOLoss
from diffpolicy.objectives.recorded import step_log_probs
from diffpolicy.policies import FeedforwardPolicy, NetworkPrior
from diffpolicy.policies.heads import TokenHead, VectorHead
from test_keys import Specs

VECTOR = Specs({"observation": Unbounded((4, 3))}, Bounded(0.0, 4.0, (4, 2)))
CHOICE = Specs({"observation": Unbounded((4, 3))}, Categorical(3, (4,)))
NUMBERS = {"head": VectorHead(), "sampler": DDIM(eta=1.0, min_std=0.3, prediction="x0"), "prediction": "x0", "steps": 3}
TOKENS = {"head": TokenHead(), "schedule": MaskedProcess(2)}
KINDS = pytest.mark.parametrize(("env", "chain"), [(VECTOR, NUMBERS), (CHOICE, TOKENS)], ids=["numbers", "tokens"])


def loss_of(env, chain, **options):
    policy = DiffusionPolicy.from_specs(env, **chain, seed=1)
    return DPPOLoss(policy, CriticEnsemble(3, 1, ensemble=1, generator=torch.Generator().manual_seed(0)), **options)


@torch.no_grad()
def played(policy, advantage, m=64):
    """Rows that a policy played, with an advantage of each action."""
    policy.record = "draws"
    rows = policy(TensorDict({"observation": torch.ones(m, 3)}, [m]))
    assert "action_log_prob" not in rows.keys()
    return rows.update({"advantage": advantage(rows["action"]).unsqueeze(-1), "value_target": torch.ones(m, 1)})


@KINDS
def test_ratios_are_one_at_unchanged_parameters_and_clipped_step_by_step(env, chain):
    loss = loss_of(env, chain, denoising_gamma=0.5)
    rows = played(loss.policy, lambda a: torch.arange(64.0) - 30)
    ready = loss.begin(rows)
    n, policy = len(loss.policy.path), loss.policy
    end = ready["states"][:, -1]
    assert torch.allclose(policy.head.mode(end if policy.process.discrete else end.flatten(-2)), rows["action"])
    discounts = sum(0.5**k for k in range(n))
    found, advantage = loss(ready), rows["advantage"].squeeze(-1)
    assert found["loss_objective"].item() == pytest.approx(-discounts * float(advantage.mean()), rel=1e-5)
    assert found["kl_approx"].item() == pytest.approx(0, abs=1e-5)
    assert found["clip_fraction"] == 0
    value = loss.values(torch.ones(1, 3))
    assert found["loss_critic"].item() == pytest.approx(0.5 * float((value - 1) ** 2), rel=1e-4)
    ready["step_log_prob"] = ready["step_log_prob"] - 1  # every ratio is e, and clipped where the advantage is above 0
    gain = torch.where(advantage > 0, 1.2 * advantage, torch.e * advantage).mean()
    assert loss(ready)["loss_objective"].item() == pytest.approx(-discounts * float(gain), rel=1e-5)


def test_steps_of_numbers_have_the_density_of_the_kernel():
    loss = loss_of(VECTOR, NUMBERS)
    policy, ready = loss.policy, loss.begin(played(loss.policy, lambda a: a[:, 0]))
    x1, x0 = ready["states"][:, -2].flatten(-2), ready["states"][:, -1].flatten(-2)
    mean = policy.denoise(x1, 1, policy.prepared(torch.ones(64, 3)))  # what is predicted at level 1 is x_0 itself
    by_hand = Normal(mean, 0.3).log_prob(x0).sum(-1)
    assert torch.allclose(ready["step_log_prob"][:, -1], by_hand, atol=1e-5)


def test_the_gradient_is_that_of_the_score_function_by_enumeration():
    """Of all chains of two steps, sum of p(chain) grad log p(chain) A(action) is the gradient of the expected A."""
    loss = loss_of(CHOICE, TOKENS)
    policy, worth = loss.policy.double(), torch.tensor([1.0, -2.0, 0.5], dtype=torch.float64)
    hidden = 3
    chains = [c for c in itertools.product(range(4), range(3)) if c[0] in (hidden, c[1])]
    states = torch.tensor([(hidden, *chain) for chain in chains]).T.unsqueeze(-1)  # [3 states, chains, 1 slot]
    seen = torch.ones(len(chains), 3, dtype=torch.float64)
    chance = step_log_probs(policy, seen, None, states).sum(0).exp()
    assert chance.sum().item() == pytest.approx(1)
    parameters = list(policy.parameters())
    expected = (chance * worth[states[-1, :, 0]]).sum()
    exact = torch.autograd.grad(expected, parameters, allow_unused=True)
    # each chain as a row of its own, weighted by its chance
    rows = {"observation": seen, "states": states.movedim(0, 1)}
    rows |= {"step_log_prob": step_log_probs(policy, seen, None, states).detach().T}
    advantage = len(chains) * chance.detach() * worth[states[-1, :, 0]]
    rows |= {"advantage": advantage.unsqueeze(-1), "value_target": torch.zeros(len(chains), 1, dtype=torch.float64)}
    loss.critic.double()
    found = torch.autograd.grad(loss(TensorDict(rows, [len(chains)]))["loss_objective"], parameters, allow_unused=True)
    for a, b in zip(exact, found, strict=True):
        assert (a is None) == (b is None)
        assert a is None or torch.allclose(a, -b, atol=1e-12)
    assert any(a is not None and a.abs().max() > 1e-3 for a in exact)


@KINDS
def test_it_improves_on_a_bandit(env, chain):
    """The reward is the first number, of which 4 is the most, or that the choice is the second."""
    loss = loss_of(env, chain)
    policy = loss.policy
    worth = (lambda a: a[:, 0]) if env is VECTOR else lambda a: (a == 1).float()
    before = worth(played(policy, worth, 400)["action"]).mean()
    optimizer = torch.optim.Adam(loss.parameters(), 1e-2)
    for _ in range(12):
        rows = played(policy, worth, 256)
        value = rows["advantage"]
        ready = loss.begin(rows.set("advantage", (value - value.mean()) / value.std().clamp_min(1e-3)))
        for _ in range(5):
            optimizer.zero_grad()
            loss(ready)["loss_objective"].backward()
            optimizer.step()
    after = worth(played(policy, worth, 400)["action"]).mean()
    assert after > before + (1.0 if env is VECTOR else 0.5)


def test_mistakes_get_a_sentence():
    with pytest.raises(InputError, match=r"clip must be at most 0\.99, got 2"):
        loss_of(VECTOR, NUMBERS, clip=2)
    with pytest.raises(InputError, match="denoising_gamma must be greater than 0, got 0"):
        loss_of(VECTOR, NUMBERS, denoising_gamma=0)
    with pytest.raises(InputError, match="give it a min_std above 0, got 0"):
        loss_of(VECTOR, {**NUMBERS, "sampler": "ddpm"})
    with pytest.raises(InputError, match="order='chance'"):
        loss_of(CHOICE, {**TOKENS, "sampler": Ancestral(order="confidence")})
    with pytest.raises(InputError, match="denoises parameters of a law"):
        loss_of(CHOICE, {})
    with pytest.raises(InputError, match="a NetworkPrior would learn nothing"):
        loss_of(VECTOR, {**NUMBERS, "prior": NetworkPrior()})
    started = DiffusionPolicy.from_specs(CHOICE, **TOKENS).with_start(1)
    with pytest.raises(
        InputError, match="must begin from noise where actions are learned, got one that begins at level 1"
    ):
        DPPOLoss(started, CriticEnsemble(3, 1, ensemble=1))
    plain = FeedforwardPolicy.from_specs(VECTOR)
    with pytest.raises(InputError, match="the FeedforwardPolicy has none"):
        DPPOLoss(plain, CriticEnsemble(3, 1, ensemble=1))
    with pytest.raises(InputError, match="entropy must be at most 0"):
        dataclasses.replace(make_method("dppo"), entropy=0.1)
