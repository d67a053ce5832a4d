"""What a review found of losses that weigh own actions: values of nothing, settings that learn nothing, copies."""

import math
from types import SimpleNamespace

import pytest
import torch
from tensordict import TensorDict
from torchrl.data import Bounded, Unbounded
from torchrl.objectives import SoftUpdate

from diffpolicy import DiffusionPolicy, InputError
from diffpolicy.diffusion import Ancestral, FlowProcess, MaskedProcess, TauLeaping, UniformProcess
from diffpolicy.networks import CriticEnsemble
from diffpolicy.objectives import (
    ChainPPOLoss,
    DistillationLoss,
    FPOLoss,
    FQLLoss,
    LatentBoundedSACLoss,
    LatentDiscreteSACLoss,
    LikelihoodLoss,
    MirrorDescentLoss,
    OnChainMirrorLoss,
    PathwiseLoss,
    QDFMLoss,
    QVPOLoss,
    ReverseMirrorLoss,
    action_critic,
    mirror_descent,
)
from diffpolicy.objectives.token_imitation import weights
from diffpolicy.policies import BestOf, ClassifierFree
from diffpolicy.policies.heads import TokenHead, VectorHead
from diffpolicy.training import EvolutionModule, OffPolicyModule, PackedReplay, RolloutStream
from test_keys import Specs
from test_weighted import MASK, SEEN, Known, bandit, by_chance, chain_policy
from toys import GuessEnv, guess_transitions

LOSSES = [QVPOLoss, QDFMLoss, MirrorDescentLoss, OnChainMirrorLoss, ReverseMirrorLoss]


@pytest.mark.parametrize("kind", LOSSES)
def test_a_successor_that_allows_nothing_is_worth_nothing(kind):
    loss = kind(by_chance(0), Known(), gamma=0.5)
    after = torch.cat([MASK, torch.zeros_like(MASK)])
    target = loss.target(SEEN.expand(2, -1), after, torch.zeros(2), None)
    assert target[0] != 0
    assert target[1] == 0


def without_a_choice(count):
    """Rows of nothing to choose: the mask allows nothing, and the action is none."""
    seen = {"observation": SEEN.expand(count, -1), "action_mask": torch.zeros_like(MASK).expand(count, -1)}
    rest = {"action": torch.tensor([[0, -1]]).expand(count, -1), "reward": torch.ones(count)}
    return TensorDict({**seen, **rest, "next": {**seen, "terminated": torch.ones(count, 1).bool()}}, [count])


@pytest.mark.parametrize("leaping", [False, True])
@pytest.mark.parametrize("kind", LOSSES)
def test_of_what_was_no_choice_neither_the_policy_nor_the_critic_learns(kind, leaping):
    """-1 was read as the first choice, whose value the reward of nothing then moved."""
    policy = chain_policy(UniformProcess(3), TauLeaping()) if leaping else by_chance(0)
    loss = kind(policy, action_critic(policy))
    none = without_a_choice(4)
    losses = loss(none)
    sum(value for key, value in losses.items() if key.startswith("loss_") and key != "loss_temperature").backward()
    moved = [p.grad for part in (loss.policy, loss.critic) for p in part.parameters() if p.grad is not None]
    assert moved
    assert not any(bool(grad.any()) for grad in moved)  # nor is one NaN
    assert float(losses.get("kl", torch.zeros(()))) == 0
    some = none.clone()
    some["action"], some["action_mask"] = torch.tensor([[0, 2]]).expand(4, -1), MASK.expand(4, -1)
    both, alone = (loss(rows)["loss_qvalue"].item() for rows in (torch.cat([none, some]), some))
    assert both == pytest.approx(alone / 2, rel=1e-6)


def dropping(process=None, sampler=None, chance=1.0):
    return DiffusionPolicy.from_specs(
        bandit(),
        items="joint",
        schedule=process or MaskedProcess(4),
        sampler=sampler or Ancestral(),
        head=TokenHead(),
        denoiser={"kind": "MLPDenoiser", "hidden": [8]},
        condition_drop=chance,
    )


VECTOR = Specs({"observation": Unbounded((4, 3))}, Bounded(0.0, 4.0, (4, 2)))
FLOW = {"head": VectorHead(), "schedule": FlowProcess(6), "sampler": "flow-euler", "prediction": "velocity"}


def vectors(chance=0.0, **options):
    return DiffusionPolicy.from_specs(VECTOR, **{**FLOW, **options}, condition_drop=chance)


@pytest.mark.parametrize("guidance", [ClassifierFree(2.0), BestOf(CriticEnsemble(1, 1), 2)], ids=["free", "best"])
def test_a_guided_policy_learns_no_actions(guidance):
    guided = dropping(chance=0.3)
    guided.guidance = guidance
    with pytest.raises(InputError, match=f"guidance must be None .*, got {type(guidance).__name__}"):
        QVPOLoss(guided, Known())


@pytest.mark.parametrize("kind", LOSSES[:-1])
def test_what_stands_for_a_condition_is_learned(kind):
    policy = dropping(UniformProcess(4), TauLeaping()) if kind is QDFMLoss else dropping()
    kind(policy, Known(), samples=4).actor_losses(SEEN, MASK)["loss_actor"].backward()
    assert policy.null.grad.abs().sum() > 0


def test_what_stands_for_a_condition_is_learned_of_numbers():
    policy = vectors(1.0)
    QVPOLoss(policy, action_critic(policy), samples=4).actor_losses(torch.randn(5, 3), None)["loss_actor"].backward()
    assert policy.null.grad.abs().sum() > 0


def bounded():
    return DiffusionPolicy.from_specs(VECTOR, condition_drop=0.3)


def guesses():
    return DiffusionPolicy.from_specs(GuessEnv(2), condition_drop=0.3)


ONE = {"sampler": "one-step", "prediction": "x0"}


@pytest.mark.parametrize(
    ("make", "name"),
    [
        (lambda: ReverseMirrorLoss(dropping(chance=0.3), Known()), "a ReverseMirrorLoss"),
        (lambda: FPOLoss(vectors(0.3), CriticEnsemble(3, 1, ensemble=1)), "an FPOLoss"),
        (lambda: FQLLoss(vectors(0.3, **ONE), action_critic(vectors()), vectors()), "an FQLLoss"),
        (lambda: FQLLoss(vectors(**ONE), action_critic(vectors()), vectors(0.3)), "an FQLLoss"),
        (lambda: LikelihoodLoss(guesses()), "a LikelihoodLoss"),
        (lambda: DistillationLoss(vectors(0.3, **ONE), vectors()), "a DistillationLoss"),
        (lambda: LatentDiscreteSACLoss(guesses(), CriticEnsemble(3, 3)), "a LatentDiscreteSACLoss"),
        (lambda: LatentBoundedSACLoss(bounded(), CriticEnsemble(4, 1)), "a LatentBoundedSACLoss"),
        (lambda: ChainPPOLoss(guesses(), CriticEnsemble(3, 1, ensemble=1)), "a ChainPPOLoss"),
        (lambda: PathwiseLoss(guesses(), torch.sum), "a PathwiseLoss"),
        (lambda: EvolutionModule(guesses(), print, generations=1), "an EvolutionModule"),
    ],
)
def test_losses_that_leave_out_no_condition_say_so(make, name):
    with pytest.raises(InputError, match=f"condition_drop must be 0 under {name}, .* got 0.3; imitation .* do$"):
        make()


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: QVPOLoss(chain_policy(), Known(), samples=1), "samples must be at least 2, got 1"),
        (lambda: ReverseMirrorLoss(by_chance(0), Known(), target_actor=False), "target_actor must be true"),
        (lambda: MirrorDescentLoss(chain_policy(), Known(), samples=2, target_kl=0.7), r"log\(samples\) = 0.6931.*0.7"),
        (lambda: OnChainMirrorLoss(chain_policy(), Known(), samples=8, target_kl=2.1), r"below log\(samples\)"),
    ],
)
def test_settings_that_learn_nothing_are_refused(make, words):
    with pytest.raises(InputError, match=words):
        make()


def test_chains_may_go_further_than_weights_could_say():
    assert ReverseMirrorLoss(by_chance(0), Known(), samples=2, target_kl=0.7).target_kl == 0.7
    assert MirrorDescentLoss(chain_policy(), Known(), samples=2, target_kl=0.69).target_kl < math.log(2)


def test_the_copy_that_records_is_renewed_whatever_moves_the_targets():
    loss = ReverseMirrorLoss(by_chance(0), Known(), samples=2, refresh=2)
    updater, now = SoftUpdate(loss, eps=0.5), next(loss.policy.parameters())
    seen = []
    for _ in range(5):
        loss.actor_losses(SEEN, MASK)
        seen.append(float((next(loss.recorder.parameters()) - now).detach().abs().max()))
        with torch.no_grad():
            now += 1
            loss.actor_losses(SEEN, MASK)  # a look, which counts for nothing
        updater.step()
    assert seen == pytest.approx([0, 1, 0, 1, 0], abs=1e-4)


@pytest.mark.parametrize("ema", [None, 0.9])
def test_each_process_takes_up_its_own_draws_in_every_copy_that_shares_them(ema, monkeypatch):
    env = GuessEnv(2)
    policy = DiffusionPolicy.from_specs(env, schedule=MaskedProcess(2), sampler=Ancestral())
    module = OffPolicyModule(
        policy,
        ReverseMirrorLoss(policy, action_critic(policy)),
        RolloutStream(env, policy, episode_steps=5),
        PackedReplay(50, None, 0),
        guess_transitions,
        learning_rates={"actor": 1e-3, "critic": 1e-3, "temperature": 1e-3},
        ema=ema,
    )
    monkeypatch.setattr(module, "_trainer", SimpleNamespace(global_rank=1, world_size=2))
    states = [{"generator": torch.Generator().manual_seed(k).get_state()} for k in range(2)]
    state = {key: states[0] if key.endswith("_extra_state") else x for key, x in module.state_dict().items()}
    shared = [key for key in state if key.endswith("_extra_state") and not key.startswith("replay")]
    assert "objective.recorder._extra_state" in shared
    stream = module.stream.state_dict()
    each = [{"stream": stream, "policy": mine, "replay": dict(module.replay.state_dict())} for mine in states]
    checkpoint = {"state_dict": state, "diffpolicy": {"processes": each, "episodes": 0, "history": []}}
    module.on_load_checkpoint(checkpoint)
    module.load_state_dict(checkpoint["state_dict"])
    assert all(checkpoint["state_dict"][key] is states[1] for key in shared)
    assert torch.equal(policy.generator.get_state(), states[1]["generator"])


def test_weights_of_a_path_are_its_intervals():
    process = MaskedProcess(10, "cosine")
    kept = process.kept
    found = weights(process, (10, 5))
    wanted = 2 * (kept(5) - kept(10)) / (1 - kept(10))
    assert found[[4, 9]].tolist() == pytest.approx([2.0, wanted])
    assert found.count_nonzero() == 2
    assert torch.equal(weights(process), weights(process, range(1, 11)))


def test_a_chain_of_fewer_steps_weighs_its_own_levels(monkeypatch):
    policy = DiffusionPolicy.from_specs(
        bandit(), items="joint", schedule=MaskedProcess(10), sampler=Ancestral(), sampler_steps=2, head=TokenHead()
    )
    asked = []
    whole = mirror_descent.token_errors
    monkeypatch.setattr(mirror_descent, "token_errors", lambda *a: asked.append(a[7]) or whole(*a))
    OnChainMirrorLoss(policy, Known(), samples=4).actor_losses(SEEN, MASK)
    assert asked == [policy.path]
    assert len(policy.path) == 2
