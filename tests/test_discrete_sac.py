"""Discrete soft actor-critic: losses against loops, gradients, temperatures, targets, stacks, and a known optimum."""

import copy
import dataclasses
import math

import pytest
import torch
from tensordict import TensorDict

from diffpolicy import ActionMemory, DiffusionPolicy, FeedforwardPolicy, GaussianPrior, InputError, with_recurrent_state
from diffpolicy.methods import DiffusionSACMethod, SACMethod
from diffpolicy.networks import CriticEnsemble
from diffpolicy.objectives import LatentDiscreteSACLoss
from diffpolicy.training.fit import fit
from toys import GuessEnv, copy_slice, guess_transitions, used_index

G, M, F, A = 3, 6, 4, 3
GAMMA = 0.9


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def rows(lead, latent=False, seed=1, terminated=False, mask=False):
    g = generator(seed)
    td = TensorDict(
        observation=torch.randn(*lead, F, generator=g),
        action=torch.randint(0, A, lead, generator=g),
        reward=torch.randn(*lead, generator=g),
        next=TensorDict(observation=torch.randn(*lead, F, generator=g), batch_size=lead),
        batch_size=lead,
    )
    if latent:
        td["latent"] = torch.randn(*lead, A, generator=g)
        td["next", "latent"] = torch.randn(*lead, A, generator=g)
    if terminated:
        td["next", "terminated"] = torch.rand(lead, generator=g) < 0.5
    if mask:
        for part in (td, td["next"]):
            allowed = torch.rand(*lead, A, generator=g) < 0.5
            part["action_mask"] = allowed.scatter(-1, td["action"].unsqueeze(-1), True)
    return td


def plain_policy(agents=None, seed=0):
    return FeedforwardPolicy(choices=A, observation_dim=F, agents=agents, hidden=(8,), act="tanh", seed=seed)


def memory_policy(agents=None, seed=0, sampler="ddim", kind=DiffusionPolicy):
    """Draws nothing: it starts from its latent and follows DDIM."""
    return kind(
        choices=A,
        observation_dim=F,
        agents=agents,
        prior=ActionMemory(),
        steps=3,
        seed=seed,
        sampler=sampler,
        denoiser={"hidden": [8], "act": "tanh"},
    )


def noisy_policy(agents=None, seed=0):
    return memory_policy(agents, seed, sampler="ddpm")


def critic(agents=None, inputs=F, seed=9):
    return CriticEnsemble(inputs, A, hidden=(8,), act="tanh", agents=agents, generator=generator(seed))


def make(policy, **options):
    inputs = F + A if options.get("critic_latent") else F
    loss = LatentDiscreteSACLoss(policy, critic(policy.agents, inputs), gamma=GAMMA, **options)
    # the targets are those of the beginning; the networks have moved on since
    g = generator(4)
    with torch.no_grad():
        for p in [*loss.critic.parameters(), *policy.parameters()]:
            p.add_(0.1 * torch.randn(p.shape, generator=g))
    return loss


def by_hand(loss, td, policy_latent, alpha):
    """The losses with explicit loops over agents, rows, critics and actions. Args: alpha: a list, one an agent."""
    stacked = loss.policy.agents is not None
    agents = range(td.batch_size[0]) if stacked else [None]
    count = td.batch_size[-1]
    actor = loss.policy if loss.target_policy is None else loss.target_policy

    def pick(x, g, m):
        return x[m] if g is None else x[g, m]

    def probabilities(policy, part):
        logits = policy.logits(part["observation"], part["latent"] if policy_latent else None)
        if "action_mask" in part.keys():
            logits = torch.where(part["action_mask"], logits, torch.tensor(-math.inf))
        return logits.softmax(-1)

    def values(network, part):
        x = part["observation"]
        return network(torch.cat([x, part["latent"]], -1) if loss.critic_latent else x)

    with torch.no_grad():
        p, p_next = probabilities(loss.policy, td), probabilities(actor, td["next"])
        q, q_next = values(loss.critic, td), values(loss.target_critic, td["next"])
    total_q = total_actor = total_alpha = 0.0
    entropies = []
    for j, g in enumerate(agents):
        entropy_sum = 0.0
        for m in range(count):
            value = 0.0
            for a in range(A):
                chance = pick(p_next, g, m)[a]
                least = min(pick(q_next[k], g, m)[a] for k in range(len(q_next)))
                if chance > 0:
                    value += chance * (least - alpha[j] * chance.log())
            over = "terminated" in td["next"].keys() and bool(pick(td["next", "terminated"], g, m))
            target = float(pick(td["reward"], g, m)) + (0.0 if over else GAMMA * float(value))
            for k in range(len(q)):
                taken = pick(q[k], g, m)[pick(td["action"], g, m)]
                total_q += (float(taken) - target) ** 2 / count
            entropy = gain = 0.0
            for a in range(A):
                chance = pick(p, g, m)[a]
                least = min(float(pick(q[k], g, m)[a]) for k in range(len(q)))
                gain += chance * least
                if chance > 0:
                    entropy -= chance * chance.log()
            total_actor += (-alpha[j] * entropy - gain) / count
            entropy_sum += float(entropy)
        entropies.append(entropy_sum / count)
        target = loss.target_entropy
        if loss.entropy_share is not None and "action_mask" in td.keys():
            allowed = (td["action_mask"] if g is None else td["action_mask"][g]).sum(-1).tolist()
            target = loss.entropy_share * sum(math.log(n) for n in allowed) / count
        total_alpha += alpha[j] * (entropies[-1] - target)
    return {
        "loss_qvalue": total_q,
        "loss_actor": total_actor,
        "loss_alpha": total_alpha,
        "entropy": sum(entropies) / len(entropies),
        "alpha": sum(alpha) / len(alpha),
    }


def close(value, expected):
    expected = float(torch.as_tensor(expected).detach())
    assert float(value.detach()) == pytest.approx(expected, rel=1e-4, abs=1e-5)


CASES = {
    "plain": (plain_policy, False, {}),
    "memory": (memory_policy, True, {}),
    "critic reads the latent": (memory_policy, True, {"critic_latent": True}),
    "target actor": (memory_policy, True, {"target_actor": True}),
    "share": (plain_policy, False, {"target_entropy": "share", "entropy_share": 0.7}),
}


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("lead", [(M,), (G, M)], ids=["one agent", "stack"])
@pytest.mark.parametrize("extra", [{}, {"terminated": True}, {"mask": True}], ids=["", "terminated", "mask"])
def test_the_losses_equal_explicit_loops(case, lead, extra):
    maker, latent, options = CASES[case]
    agents = None if len(lead) == 1 else G
    loss = make(maker(agents), alpha=0.3, **options)
    alpha = [0.3] if agents is None else [0.1, 0.3, 0.8]
    with torch.no_grad():
        loss.log_alpha.copy_(torch.tensor(alpha).log().view_as(loss.log_alpha))
    td = rows(lead, latent, **extra)
    losses = loss(td)
    for name, expected in by_hand(loss, td, latent, alpha).items():
        close(losses[name], expected)


@pytest.mark.parametrize("case", CASES)
def test_a_stack_is_the_sum_of_separate_learners(case):
    maker, latent, options = CASES[case]
    stack = make(maker(G), alpha=0.2, **options)
    inputs = F + A if stack.critic_latent else F
    td = rows((G, M), latent, terminated=True)
    whole = stack(td)
    totals = dict.fromkeys(("loss_actor", "loss_qvalue", "loss_alpha"), 0.0)
    for g in range(G):
        policy = copy_slice(maker(None), stack.policy, g)
        single = LatentDiscreteSACLoss(policy, critic(None, inputs), gamma=GAMMA, alpha=0.2, **options)
        if stack.target_policy is not None:
            copy_slice(single.target_policy, stack.target_policy, g)
        x = torch.randn(G, M, inputs)
        stack.target_critic.requires_grad_(True)
        for mine, theirs in [(single.critic, stack.critic), (single.target_critic, stack.target_critic)]:
            index = [used_index(member, theirs) for member in theirs(x)[:, g]]
            with torch.no_grad():
                source = dict(theirs.named_parameters())
                for name, value in mine.named_parameters():
                    value.copy_(source[name][index])
        alone = single(td[g])
        for name in totals:
            totals[name] += float(alone[name].detach())
    for name, total in totals.items():
        close(whole[name], total)


# Gradients


@pytest.mark.parametrize("maker", [memory_policy, noisy_policy], ids=["ddim", "ddpm"])
def test_the_actors_gradient_reaches_all_of_the_denoiser_and_nothing_else(maker):
    loss = make(maker(G), target_actor=True)
    loss(rows((G, M), latent=True))["loss_actor"].backward()
    for name, p in loss.policy.named_parameters():
        assert p.grad is not None, name
        assert torch.isfinite(p.grad).all(), name
        assert (p.grad.flatten(1).abs().sum(1) > 0).all(), name
    others = [*loss.critic.parameters(), *loss.target_critic.parameters(), *loss.target_policy.parameters()]
    assert all(p.grad is None for p in [*others, loss.log_alpha])


class Watched(DiffusionPolicy):
    """Keeps what it predicted with gradients."""

    def denoise(self, x, t, cond):
        eps = super().denoise(x, t, cond)
        if eps.requires_grad:
            eps.retain_grad()
            self.__dict__.setdefault("predicted", []).append((t, eps))
        return eps


def test_the_gradient_goes_through_every_step_of_the_chain():
    loss = make(memory_policy(kind=Watched))
    loss(rows((M,), latent=True))["loss_actor"].backward()
    steps = [t for t, eps in loss.policy.predicted if eps.grad is not None and eps.grad.abs().sum() > 0]
    assert steps == [3, 2, 1]


@pytest.mark.parametrize(
    ("name", "part"), [("loss_qvalue", "critic"), ("loss_actor", "actor"), ("loss_alpha", "alpha")]
)
def test_each_loss_moves_the_parameters_of_its_group_alone(name, part):
    loss = make(noisy_policy(G), target_actor=True, critic_latent=True)
    groups = {k: list(v) for k, v in loss.parameter_groups().items()}
    assert groups.keys() == {"actor", "critic", "alpha"}
    loss(rows((G, M), latent=True))[name].backward()
    for group, parameters in groups.items():
        assert all((p.grad is not None) == (group == part) for p in parameters)
    assert all(p.grad is None for p in [*loss.target_critic.parameters(), *loss.target_policy.parameters()])


def test_everything_trainable_is_in_exactly_one_group():
    loss = make(noisy_policy(G), target_actor=True)
    grouped = [id(p) for group in loss.parameter_groups().values() for p in group]
    assert len(grouped) == len(set(grouped))
    assert set(grouped) == {id(p) for p in loss.parameters() if p.requires_grad}


def test_masked_choices_leave_losses_and_gradients_finite():
    loss = make(memory_policy(G))
    td = rows((G, M), latent=True, mask=True)
    losses = loss(td)
    (losses["loss_actor"] + losses["loss_qvalue"] + losses["loss_alpha"]).backward()
    assert all(torch.isfinite(v).all() for v in losses.values())
    assert all(torch.isfinite(p.grad).all() for p in loss.parameters() if p.grad is not None)
    assert float(losses["entropy"]) <= math.log(A)


def test_where_one_choice_is_left_the_entropy_is_zero():
    loss = make(plain_policy())
    td = rows((M,))
    only = torch.nn.functional.one_hot(td["action"], A).bool()
    td["action_mask"], td["next", "action_mask"] = only, only
    assert float(loss(td)["entropy"]) == pytest.approx(0, abs=1e-6)


# Entropies and temperatures


def many(td, copies):
    """Each row many times, so that averages over noise are exact enough."""
    return TensorDict({k: v.repeat_interleave(copies, 0) for k, v in td.items(True, True)}, batch_size=[M * copies])


def test_the_marginal_entropy_is_that_of_the_mean_probability_and_exceeds_the_conditional_one():
    policy = noisy_policy()
    with torch.no_grad():
        for p in policy.parameters():
            p.mul_(1.5)
    td = rows((M,), latent=True)
    conditional = LatentDiscreteSACLoss(policy, critic())(many(td, 2000))["entropy"]
    marginal = LatentDiscreteSACLoss(policy, critic(), entropy="marginal", samples=2000)(td)["entropy"]
    with torch.no_grad():
        logits = policy.logits(td["observation"].repeat(2000, 1), td["latent"].repeat(2000, 1))
        mean = logits.softmax(-1).view(2000, M, A).mean(0)
    of_mean = -(mean * mean.log()).sum(-1).mean()
    assert float(marginal) == pytest.approx(float(of_mean), abs=0.02)
    assert float(marginal) > float(conditional) + 0.05


def test_without_noise_marginal_and_conditional_are_the_same():
    policy, td = memory_policy(), rows((M,), latent=True)
    conditional = LatentDiscreteSACLoss(policy, critic())(td)
    marginal = LatentDiscreteSACLoss(policy, critic(), entropy="marginal", samples=4)(td)
    for name in ("loss_actor", "loss_qvalue", "loss_alpha", "entropy"):
        close(marginal[name], conditional[name])


def test_marginal_losses_work_for_stacks_and_masks():
    loss = make(noisy_policy(G), entropy="marginal", samples=5)
    losses = loss(rows((G, M), latent=True, mask=True))
    losses["loss_actor"].backward()
    assert all(torch.isfinite(v).all() for v in losses.values())
    assert all(torch.isfinite(p.grad).all() for p in loss.policy.parameters())


def fall(loss, td, steps=40):
    optimizer = torch.optim.Adam([loss.log_alpha], lr=0.01)
    seen = [loss.log_alpha.detach().exp().clone()]
    for _ in range(steps):
        optimizer.zero_grad()
        loss(td)["loss_alpha"].backward()
        optimizer.step()
        seen.append(loss.log_alpha.detach().exp().clone())
    return torch.stack(seen)


def test_a_target_entropy_of_minus_one_makes_alpha_fall_without_end():
    alpha = fall(make(plain_policy(G), target_entropy=-1.0, alpha=0.05), rows((G, M)))
    assert torch.isclose(alpha[0], torch.tensor(0.05)).all()
    assert (alpha.diff(dim=0) < 0).all()


def test_a_share_of_the_largest_entropy_is_a_target_that_can_be_reached():
    loss = make(plain_policy(), target_entropy="share", entropy_share=0.7)
    assert loss.target_entropy == pytest.approx(0.7 * math.log(A))
    td = rows((M,))
    entropy = float(loss(td)["entropy"])
    for target, sign in [(entropy - 0.1, -1), (entropy + 0.1, 1)]:
        alpha = fall(make(plain_policy(), target_entropy=target), td)
        assert (sign * alpha.diff(dim=0) > 0).all()


def test_each_agent_has_a_temperature_of_its_own():
    loss = make(plain_policy(G), target_entropy=0.8)
    with torch.no_grad():
        # agent 0 is undecided, agent 2 certain
        for p in loss.policy.parameters():
            p[0] *= 0
            p[2] *= 20
    alpha = fall(loss, rows((G, M))).flatten(1)
    assert alpha.shape[1] == G
    assert alpha[-1, 0] < 0.05
    assert alpha[-1, 2] > 0.05


def test_alpha_is_not_learned_where_its_rate_is_zero():
    loss = make(plain_policy())
    optimizer = torch.optim.Adam([{"params": loss.parameter_groups()["alpha"], "lr": 0.0}])
    before = loss.log_alpha.detach().clone()
    loss(rows((M,)))["loss_alpha"].backward()
    optimizer.step()
    assert torch.equal(loss.log_alpha, before)


# Targets


@pytest.mark.parametrize("target_actor", [False, True])
def test_targets_follow_slowly(target_actor):
    loss = make(noisy_policy(G), target_actor=target_actor, tau=0.25)
    pairs = [(loss.target_critic, loss.critic)]
    if target_actor:
        pairs.append((loss.target_policy, loss.policy))
    before = [[p.clone() for p in target.parameters()] for target, _ in pairs]
    loss.update_targets()
    for (target, source), old in zip(pairs, before, strict=True):
        for now, was, new in zip(target.parameters(), old, source.parameters(), strict=True):
            torch.testing.assert_close(now, 0.75 * was + 0.25 * new)
            assert not torch.equal(was, new)
            assert not now.requires_grad
    assert (loss.target_policy is None) != target_actor


def test_targets_begin_as_copies():
    policy = noisy_policy(G)
    loss = LatentDiscreteSACLoss(policy, critic(G), target_actor=True)
    for target, source in [(loss.target_critic, loss.critic), (loss.target_policy, loss.policy)]:
        for a, b in zip(target.parameters(), source.parameters(), strict=True):
            assert torch.equal(a, b)
            assert a.data_ptr() != b.data_ptr()


def test_a_target_actor_gives_the_next_probabilities():
    loss = make(memory_policy(), target_actor=True)
    td = rows((M,), latent=True)
    other = copy.copy(td)
    before = loss(other)
    with torch.no_grad():
        for p in loss.target_policy.parameters():
            p.add_(0.5)
    after = loss(td)
    assert not torch.isclose(before["loss_qvalue"], after["loss_qvalue"])
    assert torch.equal(before["loss_actor"], after["loss_actor"])


# Keys, and what is refused


def test_keys_can_be_set():
    loss = make(memory_policy())
    td = rows((M,), latent=True, terminated=True)
    names = {"observation": "seen", "latent": "before", "action": ("did", "this"), "reward": "won"}
    loss_named = copy.copy(loss)
    expected = loss(td)
    loss_named.set_keys(**names, terminated="over")
    other = TensorDict(
        {
            "seen": td["observation"],
            "before": td["latent"],
            "did": {"this": td["action"]},
            "won": td["reward"],
            "next": {
                "seen": td["next", "observation"],
                "before": td["next", "latent"],
                "over": td["next", "terminated"],
            },
        },
        batch_size=[M],
    )
    losses = loss_named(other)
    for name in ("loss_actor", "loss_qvalue", "loss_alpha"):
        close(losses[name], expected[name])
    assert set(loss_named.in_keys) == {"seen", "before", ("did", "this"), "won", ("next", "seen"), ("next", "before")}


def test_the_loss_writes_the_keys_that_it_names():
    loss = make(plain_policy(G))
    losses = loss(rows((G, M)))
    assert set(losses.keys()) == set(loss.out_keys)
    assert all(v.shape == () for v in losses.values())


def test_the_batch_is_not_changed():
    td = rows((G, M), latent=True)
    before = td.clone()
    make(noisy_policy(G))(td)
    assert set(td.keys(True, True)) == set(before.keys(True, True))
    assert (td == before).all()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"entropy": "joint"}, "conditional or marginal, got 'joint'"),
        ({"alpha": 0.0}, "alpha must be greater than 0, got 0"),
        ({"critic_latent": True}, "critic_latent"),
    ],
)
def test_options_out_of_range_are_refused(options, message):
    with pytest.raises(InputError, match=message):
        LatentDiscreteSACLoss(plain_policy(), critic(), **options)


# A known optimum


COMMON = {
    "transitions": guess_transitions,
    "learning_rates": {"actor": 3e-3, "critic": 2e-2, "alpha": 0.0},
    "alpha": 0.2,
    "start_after": 20,
    "act": "mish",
}
LEARNERS = {
    "sac": SACMethod(**COMMON),
    "d2sac": DiffusionSACMethod(**COMMON, steps=3, prior=GaussianPrior().to_dict(), target_actor=True),
    "lad-ts": DiffusionSACMethod(**COMMON, steps=2, prior=ActionMemory(store="probabilities").to_dict()),
    "marginal": DiffusionSACMethod(**COMMON, steps=2, entropy="marginal", entropy_samples=2),
}


def right(policy, agents):
    """How often a policy guesses right."""
    env = GuessEnv(500, agents)
    with torch.no_grad():
        td = policy(with_recurrent_state(env, policy.eval()).reset())
    action = td["action"] if agents is None else td["agents", "action"]
    return float((action == env.best()).float().mean())


@pytest.mark.parametrize(
    ("name", "agents"),
    [
        ("sac", 2),
        ("d2sac", None),
        pytest.param("lad-ts", 2, marks=pytest.mark.slow),
        pytest.param("sac", None, marks=pytest.mark.slow),
        pytest.param("d2sac", 2, marks=pytest.mark.slow),
        pytest.param("lad-ts", None, marks=pytest.mark.slow),
        pytest.param("marginal", None, marks=pytest.mark.slow),
        pytest.param("marginal", 2, marks=pytest.mark.slow),
    ],
)
def test_a_contextual_bandit_is_learned(name, agents):
    module = LEARNERS[name].build(GuessEnv(8, agents, horizon=20), episode_steps=20)
    assert right(module.policy, agents) < 0.6
    fit(module, episodes=8 * 12)
    assert right(module.policy, agents) > 0.8


def test_a_temperature_far_too_high_keeps_the_policy_undecided():
    method = dataclasses.replace(LEARNERS["sac"], alpha=50.0)
    module = method.build(GuessEnv(8, horizon=20), episode_steps=20)
    fit(module, episodes=8 * 5)
    assert right(module.policy, None) < 0.6
    assert module.history[-1]["entropy"] > 0.9 * math.log(A)
