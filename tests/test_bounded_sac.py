"""Soft actor-critic of vectors against torch's own distributions, term by term."""

import math

import pytest
import torch
from torch.distributions import AffineTransform, Normal, TanhTransform, TransformedDistribution

from diffpolicy.networks import CriticEnsemble
from diffpolicy.objectives import LatentBoundedSACLoss
from diffpolicy.policies import FeedforwardPolicy
from diffpolicy.policies.heads import BoundedHead
from diffpolicy.policies.heads.bounded import LOG_STD

LOW, HIGH, FEATURES, ROWS = torch.tensor([0.0, -2.0]).double(), torch.tensor([1.0, 6.0]).double(), 3, 7
GAMMA, ALPHA = 0.9, 0.3


def squashed(outputs):
    """The law that outputs mean, of each dimension. Args: outputs: means, then raw log deviations."""
    mean, raw = outputs.chunk(2, -1)
    log_std = LOG_STD[0] + (LOG_STD[1] - LOG_STD[0]) * (raw.tanh() + 1) / 2
    middle, half = (LOW + HIGH) / 2, (HIGH - LOW) / 2
    return TransformedDistribution(Normal(mean, log_std.exp()), [TanhTransform(), AffineTransform(middle, half)])


def drawn(outputs, z):
    """Actions of given numbers of N(0, 1), and their log-density."""
    law = squashed(outputs)
    action = law.base_dist.mean + law.base_dist.stddev * z
    for transform in law.transforms:
        action = transform(action)
    return action, law.log_prob(action).sum(-1)


@pytest.mark.parametrize("agents", [None, 2])
@pytest.mark.parametrize("target_actor", [False, True])
def test_every_term_is_that_of_soft_actor_critic(agents, target_actor):
    generator = torch.Generator().manual_seed(0)
    lead = (ROWS,) if agents is None else (agents, ROWS)

    def random(*shape):
        return torch.randn(*lead, *shape, generator=generator, dtype=torch.float64)

    policy = FeedforwardPolicy(
        choices=4, observation_dim=FEATURES, head=BoundedHead(low=LOW.tolist(), high=HIGH.tolist()), agents=agents
    ).double()
    critic = CriticEnsemble(FEATURES + 2, 1, agents=agents, generator=generator).double()
    loss = LatentBoundedSACLoss(policy, critic, gamma=GAMMA, alpha=ALPHA, target_actor=target_actor).double()
    with torch.no_grad():  # targets that are no copies any more
        for p in [*loss.target_critic.parameters(), *(loss.target_policy.parameters() if target_actor else ())]:
            p += 0.1 * torch.randn(p.shape, generator=generator, dtype=p.dtype)
    seen, after, reward = random(FEATURES), random(FEATURES), random()
    action = LOW + (HIGH - LOW) * torch.rand(*lead, 2, generator=generator, dtype=torch.float64)
    over, z, next_z = (torch.arange(ROWS) % 3 == 0).expand(lead), random(2), random(2)
    found = loss.losses(
        observation=seen, next_observation=after, latent=None, next_latent=None, mask=None, next_mask=None,
        action=action, reward=reward, terminated=over, next_noise=None, noise=None, next_draws=next_z, draws=z,
    )  # fmt: skip

    def q(critic, seen, action):
        scaled = 2 * (action - LOW) / (HIGH - LOW) - 1
        return critic(torch.cat([seen, scaled], -1)).squeeze(-1)

    with torch.no_grad():
        actor = loss.target_policy if target_actor else policy
        next_action, next_log_p = drawn(actor.network(after), next_z)
        value = q(loss.target_critic, after, next_action).amin(0) - ALPHA * next_log_p
        target = torch.where(over, reward, reward + GAMMA * value)
    of_critics = (q(critic, seen, action) - target).square().mean(-1).sum()
    chosen, log_p = drawn(policy.network(seen), z)
    of_actor = (ALPHA * log_p - q(critic, seen, chosen).amin(0)).mean(-1).sum()
    # the entropy of actions scaled to [-1, 1] is held at minus their dimension, one temperature an agent
    scaled_entropy = -log_p.detach().mean(-1) - ((HIGH - LOW) / 2).log().sum()
    of_alpha = (ALPHA * (scaled_entropy + 2)).sum()

    for mine, right in zip(found, (of_actor, of_critics, of_alpha), strict=False):
        torch.testing.assert_close(mine, right, rtol=1e-6, atol=1e-8)
    assert found[3].item() == pytest.approx(ALPHA)
    torch.testing.assert_close(found[4], scaled_entropy.mean())
    mine = torch.autograd.grad(found[0], list(policy.parameters()), retain_graph=True)
    torch.testing.assert_close(mine, torch.autograd.grad(of_actor, list(policy.parameters())), rtol=1e-6, atol=1e-9)
    (of_log_alpha,) = torch.autograd.grad(found[2], [loss.log_alpha])
    torch.testing.assert_close(of_log_alpha.flatten(), ALPHA * (scaled_entropy + 2).flatten())


def test_the_law_at_an_action_is_that_of_its_draw():
    head = BoundedHead(low=LOW.tolist(), high=HIGH.tolist())
    law = head.law(torch.randn(50, 4, generator=torch.Generator().manual_seed(1), dtype=torch.float64))
    z = torch.randn(50, 2, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    action, log_prob = head.with_log_prob(law, z)
    inside = (head.scaled(action).abs() < 1 - 1e-5).all(-1)
    torch.testing.assert_close(head.log_prob(law, action)[inside], log_prob[inside], rtol=1e-4, atol=1e-6)
    assert inside.sum() > 30
    normal = -0.5 * z.square() - law.chunk(2, -1)[1].log() - 0.5 * math.log(2 * math.pi)
    jacobian = torch.autograd.functional.jacobian(lambda u: head._squashed(u).sum(0), torch.zeros(1, 2).double())
    assert torch.equal(jacobian.squeeze(1), torch.diag((HIGH - LOW) / 2))
    slope = ((HIGH - LOW) / 2 * (1 - head.scaled(action).square())).log()
    torch.testing.assert_close(log_prob[inside], (normal - slope).sum(-1)[inside], rtol=1e-4, atol=1e-6)
