"""Chains of tokens: a process and a sampler of them, added from outside, under a policy whose x_0 is the action."""

import math
from dataclasses import dataclass

import pytest
import torch
from tensordict.nn import TensorDictModule
from torchrl.data import Categorical, MultiCategorical, OneHot, Unbounded
from torchrl.envs.utils import ExplorationType, set_exploration_type
from torchrl.objectives import ClipPPOLoss

from diffpolicy import ActionMemory, DiffusionPolicy, InputError
from diffpolicy.diffusion import DDIM, Kernel, MaskedProcess, Sampler, TokenProcess, UniformProcess, over_slots
from diffpolicy.diffusion import Ancestral as Surest
from diffpolicy.diffusion import Categorical as CategoricalKernel
from diffpolicy.environments import check_policy
from diffpolicy.networks import CriticEnsemble
from diffpolicy.objectives import LatentDiscreteSACLoss
from diffpolicy.policies.chain_law import ChainLaw
from diffpolicy.policies.heads import TokenHead, head_from_dict
from test_joint import env_of, seen
from test_keys import Specs


@dataclass(frozen=True)
class Absorbing(TokenProcess):
    """Each token is hidden with probability t / I, by a token of its own after the choices (Austin et al. 2021)."""

    levels: int = 6

    @property
    def steps(self):
        return self.levels

    def vocabulary(self, choices):
        return choices + 1

    def terminal(self, draws, allowed=None):
        return torch.full(allowed.shape[:-1], allowed.shape[-1])

    def kept(self, t):
        return 1 - t / self.levels

    def corrupt(self, x0, t, draws, allowed=None):
        return torch.where(draws < torch.as_tensor(t).unsqueeze(-1) / self.levels, allowed.shape[-1], x0)


@dataclass(frozen=True, kw_only=True)
class Ancestral(Sampler):
    """A hidden token is shown on the way from t to s with probability (t - s) / t, by the law that is predicted."""

    tokens = True

    def noisy_steps(self, process):
        return len(self.grid(process)) - 1

    def kernel(self, model, x, k, cond, process) -> Kernel:
        t, s = self.grid(process)[k : k + 2]
        shown = model(x, t, cond).log_softmax(-1)
        width = shown.shape[-1]
        stays = torch.full_like(shown[..., :1], math.log(s / t) if s else -1e9)
        reveal = torch.cat([shown + math.log((t - s) / t), stays], -1)
        known = torch.nn.functional.one_hot(x, width + 1).to(shown).log().clamp_min(-1e9)
        return CategoricalKernel(torch.where((x == width).unsqueeze(-1), reveal, known))


def policy_of(env, **options):
    return DiffusionPolicy.from_specs(env, schedule=Absorbing(), sampler=Ancestral(), head=TokenHead(), **options)


def test_with_exact_predictions_a_chain_of_tokens_ends_in_its_target():
    # of two slots of three choices each; the law of one given the other is read off the table
    table = torch.tensor([[0.30, 0.02, 0.08], [0.05, 0.25, 0.0], [0.0, 0.1, 0.2]], dtype=torch.float64)

    def model(x, t, cond):
        first, second = x.unbind(-1)
        pad = torch.cat([table, table.sum(0, keepdim=True)], 0)  # the hidden token: the margin
        other = torch.cat([table.T, table.sum(1).unsqueeze(0)], 0)
        return torch.stack([other[second], pad[first]], -2).log()

    process, sampler, rows = Absorbing(20), Ancestral(), 10_000
    x = process.terminal(None, torch.ones(rows, 2, 3, dtype=torch.bool))
    noise = torch.rand(sampler.noisy_steps(process), rows, 2, generator=torch.Generator().manual_seed(0))
    chain = sampler.chain(model, x, None, process, noise.double())
    assert chain.x0.dtype == torch.int64
    found = torch.bincount(chain.x0[:, 0] * 3 + chain.x0[:, 1], minlength=9) / rows
    assert 0.5 * (found - table.flatten()).abs().sum() < 0.05
    each = sampler.log_prob(model, chain.states, None, process)
    assert each.shape == (20, rows, 2)
    assert torch.isfinite(each).all()
    assert (over_slots(each) <= 0).all()


@pytest.mark.parametrize(
    "spec",
    [Categorical(5, (4,)), OneHot(5, (4, 5)), MultiCategorical([3, 2], (4, 2))],
    ids=["categorical", "one-hot", "multi-categorical"],
)
def test_a_policy_of_tokens_acts_and_is_saved(spec, tmp_path):
    env = Specs({"observation": Unbounded((4, 3))}, spec)
    policy = policy_of(env, seed=2)
    check_policy(policy, env)
    td = env.reset()
    action = policy(td.clone())["action"]
    assert env.full_action_spec["action"].is_in(action)
    assert torch.equal(policy.head.mode(policy.head.encode(action)), action)
    policy.save(tmp_path)
    again = DiffusionPolicy.load(tmp_path)
    again.reseed(7)
    policy.eval().reseed(7)
    assert torch.equal(again(td.clone())["action"], policy(td.clone())["action"])
    with set_exploration_type(ExplorationType.DETERMINISTIC):
        first, second = (policy(td.clone())["action"] for _ in range(2))
    assert torch.equal(first, second)


def test_tokens_of_joint_items_keep_to_the_mask_at_each_step():
    env = env_of()
    policy = policy_of(env, items="joint", share_parameters=True)
    td = seen(env)
    for _ in range(20):
        action = policy(td.clone())["action"]
        assert td["action_mask"].gather(-1, action.unsqueeze(-1)).squeeze(-1)[td["valid"]].all()
        assert (action[~td["valid"]] == 0).all()
    assert policy.noise(torch.Size([5])).shape == (policy.draws, 5, 4)


@pytest.mark.parametrize("process", [MaskedProcess(2), UniformProcess(2)], ids=str)
@pytest.mark.parametrize("agents", [None, 2])
def test_recorded_chains_have_ratios_of_which_the_mean_is_one(process, agents):
    env = env_of(agents=agents)
    policy = DiffusionPolicy.from_specs(env, items="joint", schedule=process, denoiser={"kind": "MLPDenoiser"})
    policy.record = True
    td = policy(torch.cat([seen(env)] * 400))
    action, was = td[policy.action_key], td[policy.beside("action_log_prob")]
    assert torch.allclose(policy.get_dist(td).log_prob(action), was, atol=1e-5)
    with torch.no_grad():
        for p in policy.parameters():
            p.add_(0.3 * torch.randn(p.shape, generator=torch.Generator().manual_seed(1)))
        ratio = (policy.get_dist(td).log_prob(action) - was).exp()
    assert ratio.std() > 0.1
    assert ratio.mean().item() == pytest.approx(1, abs=5 * float(ratio.std()) / ratio.numel() ** 0.5)


def test_torchrls_ppo_takes_recorded_chains():
    env = Specs({"observation": Unbounded((4, 3))}, Categorical(5, (4,)))
    policy, critic = policy_of(env), TensorDictModule(torch.nn.Linear(3, 1), ["observation"], ["state_value"])
    policy.record = True
    with torch.no_grad():
        rows = policy(env.reset())
    rows = rows.set("advantage", torch.randn(4, 1)).set("value_target", torch.zeros(4, 1))
    losses = ClipPPOLoss(policy, critic, entropy_bonus=False)(rows)
    assert losses["kl_approx"].item() == pytest.approx(0, abs=1e-6)
    with pytest.raises(NotImplementedError, match=r"one recorded chain; .*give a loss of TorchRL entropy_bonus=False"):
        ClipPPOLoss(policy, critic)(rows)
    with pytest.raises(NotImplementedError, match="one recorded chain"):
        policy.get_dist(rows).mean  # noqa: B018
    losses["loss_objective"].backward()
    assert any(p.grad is not None and p.grad.abs().max() > 0 for p in policy.parameters())


def test_a_token_head_is_described_by_json():
    head = TokenHead(nvec=(3, 2))
    assert head_from_dict(head.to_dict()) == head
    assert (head.x0_is, head.slots, head.width) == ("action", 2, 6)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda env: DiffusionPolicy.from_specs(env, head=TokenHead()), "reads tokens, and .* GaussianProcess"),
        (
            lambda env: DiffusionPolicy.from_specs(env, schedule=Absorbing(), head=TokenHead()),
            "Absorbing defines no posterior",
        ),
        (lambda env: DiffusionPolicy.from_specs(env, sampler=Ancestral()), "numbers, and a Ancestral goes"),
        (lambda env: policy_of(env).with_sampler(DDIM()), "tokens, and a DDIM"),
        (lambda env: policy_of(env, prior=ActionMemory()), "states of a Absorbing are tokens"),
        (lambda env: policy_of(env).get_dist(env.reset()), "'chain' is not there: an action's probability is that of"),
        (lambda env: setattr(policy_of(env).with_start(2), "record", True), "from a state that is not recorded"),
        (
            lambda env: setattr(
                DiffusionPolicy.from_specs(env, schedule=MaskedProcess(2), sampler=Surest(order="confidence")),
                "record",
                True,
            ),
            "use Ancestral",
        ),
        (lambda env: ChainLaw(torch.zeros(2), torch.ones(2).long()).log_prob(torch.tensor([1, 0])), "not the one in"),
        (lambda env: LatentDiscreteSACLoss(policy_of(env), CriticEnsemble(3, 5)), "cannot be enumerated"),
        (lambda env: Absorbing().squares(1), "no levels of signal"),
    ],
)
def test_mistakes_get_a_sentence(make, words):
    with pytest.raises(InputError, match=words):
        make(Specs({"observation": Unbounded((4, 3))}, Categorical(5, (4,))))
