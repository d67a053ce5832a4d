"""Where chains start: a running mean of what was decided, and a network that is learned through the chain."""

import dataclasses
import json

import pytest
import torch

from diffpolicy import ActionMemory, DiffusionPolicy, GaussianPrior, InputError, with_recurrent_state
from diffpolicy.diffusion import MaskedProcess
from diffpolicy.environments import check_policy
from diffpolicy.experiments import make_method
from diffpolicy.export.decision import Decision
from diffpolicy.policies import NetworkPrior, Prior
from diffpolicy.policies.heads import TokenHead
from diffpolicy.training import fit
from toys import GuessEnv


def made(agents=None, **options):
    return DiffusionPolicy.from_specs(GuessEnv(6, agents), steps=3, seed=2, **options)


def noise_of(policy, rows=8):
    lead = (rows,) if policy.agents is None else (policy.agents, rows)
    seen = torch.randn(*lead, policy.observation_dim, generator=torch.Generator().manual_seed(4))
    return seen, policy.noise(torch.Size(lead))


@pytest.mark.parametrize("agents", [None, 2])
def test_a_network_begins_as_gaussian_noise_and_then_moves_and_spreads_it(agents):
    policy = made(agents, prior=NetworkPrior(hidden=(8,)))
    observation, noise = noise_of(policy)
    condition = policy.condition(observation)
    torch.testing.assert_close(policy.output(condition, noise=noise), policy.chain(condition, noise[0], noise[1:]))
    given = policy.prior_network(condition)
    assert given.shape == (*noise.shape[1:-1], 2 * policy.choices)
    mean, raw = torch.randn(2, *noise.shape[1:])
    start = policy.prior.begin(torch.cat([mean, raw], -1), noise[0])
    torch.testing.assert_close(start, mean + (2 * (raw / 2).tanh()).exp() * noise[0])
    torch.testing.assert_close(policy.prior.begin(torch.cat([mean, raw], -1), torch.zeros_like(mean)), mean)


@pytest.mark.parametrize("learns", [True, False])
def test_a_start_is_learned_through_the_chain_unless_it_is_fixed(learns):
    policy = made(prior=NetworkPrior(hidden=(16,), learns=learns), prediction="x0", sampler="ddim")
    policy.denoiser.requires_grad_(False)
    before = [p.clone() for p in policy.prior_network.parameters()]
    observation, noise = noise_of(policy, 64)
    wanted = policy.chain(policy.condition(observation), 2 + noise[0], noise[1:]).detach()
    steps = [p for p in policy.parameters() if p.requires_grad]
    assert bool(steps) == learns
    if not learns:
        return
    optimizer, losses = torch.optim.Adam(steps, 0.02), []
    for _ in range(60):
        loss = (policy.output(policy.condition(observation), noise=noise) - wanted).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.3 * losses[0]
    assert any(not torch.equal(a, b) for a, b in zip(before, policy.prior_network.parameters(), strict=True))


@pytest.mark.parametrize("agents", [None, 2])
def test_a_network_prior_is_saved_with_its_parameters(agents, tmp_path):
    env = GuessEnv(6, agents)
    policy = made(agents, prior=NetworkPrior(hidden=(8,), learns=False))
    with torch.no_grad():
        for p in policy.prior_network.parameters():
            p.normal_(generator=torch.Generator().manual_seed(0))
    check_policy(policy, env)
    again = DiffusionPolicy.load(policy.save(tmp_path))
    assert again.prior == policy.prior
    assert not any(p.requires_grad for p in again.prior_network.parameters())
    observation, noise = noise_of(policy)
    found = again.law(observation, noise=noise)
    torch.testing.assert_close(found, policy.law(observation, noise=noise))
    if agents:
        torch.testing.assert_close(again.for_agent(1).law(observation[1], noise=noise[:, 1]), found[1])
    decision = Decision(again)
    numbers = [i.random(5, torch.Generator().manual_seed(1)) for i in decision.inputs]
    torch.testing.assert_close(decision(*numbers)[1], again.law(numbers[0], noise=numbers[1]))


def test_a_method_trains_the_start():
    method = dataclasses.replace(
        make_method("d2sac"), prior={"type": "NetworkPrior"}, hidden=[8], start_after=8, capacity=100, batch_size=8
    )
    module = method.build(GuessEnv(4), episode_steps=5)
    fit(module, episodes=8)
    assert module.policy.prior_network.layers[-1].weight.abs().sum() > 0


def test_a_memory_of_a_rate_is_a_running_mean():
    policy = made(prior=ActionMemory(rate=0.25))
    env = with_recurrent_state(GuessEnv(6), policy)
    td = env.reset()
    before = td["latent"].clone()
    observation = policy.read_observation(td, policy.rows(td))
    torch.manual_seed(0)
    twin = DiffusionPolicy.from_specs(GuessEnv(6), steps=3, seed=2, prior=ActionMemory())
    twin.load_state_dict(policy.state_dict())
    td_twin = td.clone()
    policy(td)
    twin(td_twin)
    expected = 0.75 * before + 0.25 * td_twin["next", "latent"]
    torch.testing.assert_close(td["next", "latent"], expected)
    assert observation.shape[-1] == policy.observation_dim
    assert ActionMemory().to_dict().keys() == {"type", "key", "store", "start", "lifetime"}
    assert Prior.from_dict(json.loads(json.dumps(policy.prior.to_dict()))) == policy.prior
    decision = Decision(policy)
    numbers = {i.name: i.random(5, torch.Generator().manual_seed(1)) for i in decision.inputs}
    out = decision(*numbers.values())
    x0 = policy.output(policy.condition(numbers["observation"]), numbers["latent"], numbers["noise"])
    torch.testing.assert_close(out[2], numbers["latent"] + 0.25 * (x0.clamp(-1, 1) - numbers["latent"]))


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: ActionMemory(rate=0.0), "ActionMemory.rate must be greater than 0, got 0"),
        (lambda: NetworkPrior(act="step"), "activation must be one of"),
        (lambda: NetworkPrior(learns=1), "NetworkPrior.learns"),
        (lambda: Prior.from_dict({"type": "NetworkPrior", "depth": 3}), "'depth'"),
        (
            lambda: made(prior=NetworkPrior(), schedule=MaskedProcess(3), head=TokenHead()),
            "a NetworkPrior starts from numbers, and the states of a MaskedProcess are tokens",
        ),
        (
            lambda: made(prior=ActionMemory(), schedule=MaskedProcess(3), head=TokenHead()),
            "the states of a MaskedProcess are tokens; use a GaussianPrior",
        ),
    ],
)
def test_mistakes_get_a_sentence(make, words):
    with pytest.raises(InputError, match=words):
        make()


def test_other_priors_hold_no_network():
    for prior in (GaussianPrior(), ActionMemory()):
        policy = made(prior=prior)
        assert policy.prior_network is None
        assert not any("prior" in name for name in policy.state_dict())
