"""Imitation as a method: its losses in closed form, both modes of a law, a teacher's play, its level and its seeds."""

import dataclasses

import pytest
import torch
from tensordict import TensorDict
from torch import nn
from torchrl.data import Bounded, Categorical, Unbounded

from diffpolicy import DiffusionPolicy, FeedforwardPolicy, InputError
from diffpolicy.diffusion import FlowProcess, GaussianProcess, MaskedProcess, TauLeaping, UniformProcess
from diffpolicy.edge import OffloadingProblem
from diffpolicy.environments import EnvProblem
from diffpolicy.experiments import make_method
from diffpolicy.experiments.changes import changed
from diffpolicy.objectives import DenoisingLoss, DistillationLoss, LikelihoodLoss, TokenImitationLoss
from diffpolicy.policies import ActionMemory
from diffpolicy.policies.heads import (
    CategoricalHead,
    CompositeHead,
    JointHead,
    MultiCategoricalHead,
    SimplexHead,
    TokenHead,
    VectorHead,
)
from diffpolicy.training import ImitationModule, fit
from test_joint import env_of, seen
from test_keys import Specs
from test_tokens import policy_of
from toys import GuessEnv, same_tensors, small

QUICK = {"start_after": 20, "capacity": 500, "batch_size": 64, "hidden": [32]}


class Exact(nn.Module):
    """What there is to predict where every action is the same: scaled it is c."""

    def __init__(self, process, prediction, c):
        super().__init__()
        self.process, self.prediction, self.c = process, prediction, c
        self.scale = nn.Parameter(torch.ones(()))

    def forward(self, x, t, cond):
        x0 = torch.full_like(x, self.c)
        return self.scale * self.process.convert(x0, x, t, given="x0", wanted=self.prediction)


VECTOR = Specs({"observation": Unbounded((4, 3))}, Bounded(0.0, 4.0, (4, 2)))


def vector_policy(process, prediction, **options):
    return DiffusionPolicy.from_specs(
        VECTOR, head=VectorHead(), schedule=process, prediction=prediction, sampler="ddim", **options
    )


@pytest.mark.parametrize(
    ("process", "prediction"),
    [(FlowProcess(8), "velocity"), (GaussianProcess("vp", 5), "noise"), (GaussianProcess("cosine", 7), "x0")],
)
def test_where_all_actions_are_one_the_exact_prediction_loses_nothing_and_leads_there(process, prediction):
    policy = vector_policy(process, prediction, denoiser=Exact(process, prediction, 0.25))
    loss = DenoisingLoss(policy)
    action = torch.full((50, 2), 2.5)
    assert float(loss.imitate(torch.zeros(50, 3), action).detach()) < 1e-8
    # another action, at a distance of 0.5 where bounds are -1 and 1: its x_0 is told wrongly by that at each step
    other = loss.imitate(torch.zeros(5000, 3), torch.full((5000, 2), 3.5))
    t = torch.arange(1, process.steps + 1)
    at = torch.zeros(process.steps, 1)
    wrong = [process.convert(x0 * torch.ones_like(at), at, t, given="x0", wanted=prediction) for x0 in (0.0, 0.5)]
    assert float(other.detach()) == pytest.approx(float((wrong[1] - wrong[0]).square().mean()), rel=1e-3)
    assert policy.eval()(TensorDict({"observation": torch.zeros(4, 3)}, [4]))["action"].allclose(
        torch.tensor(2.5), atol=2e-2
    )


def test_a_chain_keeps_both_modes_of_what_it_imitates_and_a_normal_law_lies_between_them():
    draws = torch.Generator().manual_seed(0)

    def collect(number):
        side = torch.randint(2, (2000, 1), generator=draws).float()
        return torch.zeros(2000, 3), torch.cat([1 + 2 * side, 3 - 2 * side], -1)

    chain = vector_policy(FlowProcess(10), "velocity", denoiser={"hidden": [32, 32]})
    plain = FeedforwardPolicy.from_specs(VECTOR, hidden=[32])
    share = {}
    for policy, loss in ((chain, DenoisingLoss(chain)), (plain, LikelihoodLoss(plain))):
        module = ImitationModule(policy, collect, loss.imitate, rounds=1, updates=800, batch_size=256)
        fit(module)
        td = policy.eval()(TensorDict({"observation": torch.zeros(1000, 3)}, [1000]))
        off = (td["action"] - torch.tensor([1.0, 3.0])).abs().amax(-1) < 0.5
        on = (td["action"] - torch.tensor([3.0, 1.0])).abs().amax(-1) < 0.5
        share[policy] = float(torch.minimum(off.float().mean(), on.float().mean()))
    assert share[chain] > 0.35
    assert share[plain] < 0.2


def test_the_likelihood_is_the_cross_entropy_of_the_networks_logits_within_the_mask():
    policy = FeedforwardPolicy.from_specs(GuessEnv(4, mask=True), seed=1)
    observation, action = torch.randn(9, 3), torch.arange(9) % 3
    mask = torch.ones(9, 3, dtype=torch.bool)
    mask[torch.arange(9), (action + 1) % 3] = False
    logits = policy.network(observation).masked_fill(~mask, -torch.inf)
    assert torch.allclose(
        LikelihoodLoss(policy).imitate(observation, action, mask), nn.functional.cross_entropy(logits, action)
    )
    with pytest.raises(InputError, match=r"action to imitate at \[2\] is one that the mask forbids"):
        LikelihoodLoss(policy).imitate(observation, torch.where(torch.arange(9) == 2, 0, action), mask)


@pytest.mark.parametrize(
    "head", [CategoricalHead(choices=3), MultiCategoricalHead(nvec=(3, 3)), SimplexHead(choices=3)]
)
@pytest.mark.parametrize("joint", [False, True])
def test_what_is_no_choice_is_refused_by_its_row_and_value(head, joint):
    head = JointHead(head, (2,)) if joint else head
    policy = FeedforwardPolicy(choices=head.width, observation_dim=3, head=head)
    action = head.mode(head.law(torch.zeros(4, head.width)))
    LikelihoodLoss(policy).imitate(torch.zeros(4, 3), action)
    wrong = [-1] if isinstance(head, SimplexHead) or (joint and isinstance(head.each, SimplexHead)) else [-1, 3]
    for value in wrong:
        action[2] = value
        with pytest.raises(InputError, match=rf"the action to imitate at \[2\] is .*{value}.*, which is no choice"):
            LikelihoodLoss(policy).imitate(torch.zeros(4, 3), action)
        with pytest.raises(InputError, match="which is no choice"):
            DistillationLoss(policy, lambda td: td).imitate(torch.zeros(4, 3), action)


def test_one_hot_choices_and_tokens_are_none_unless_one_of_each_is_taken():
    one, two = CategoricalHead(choices=2, one_hot=True), MultiCategoricalHead(nvec=(2, 1), one_hot=True)
    assert one.impossible(torch.tensor([[0, 1], [0, 0], [1, 1]])).tolist() == [0, 1, 1]
    assert two.impossible(torch.tensor([[0, 1, 1], [0, 1, 0]])).tolist() == [0, 1]
    assert TokenHead(nvec=(2,), single=True).impossible(torch.tensor([1, -1, 2])).tolist() == [0, 1, 1]
    assert VectorHead(low=(-1.0,), high=(1.0,)).impossible(torch.tensor([[-1.0]])).tolist() == [0]
    both = CompositeHead((CategoricalHead(choices=2), SimplexHead(choices=2)), (False, True))
    mask = both.read_mask(torch.tensor([True, False]))
    action = torch.tensor([[1, 1.0, 0.0], [2, 1.0, 0.0], [1, 0.5, 0.5]])
    assert both.impossible(action, mask.expand(3, -1)).tolist() == [0, 1, 1]


def test_shares_that_a_mask_forbids_are_refused():
    head = SimplexHead(choices=3)
    loss = LikelihoodLoss(FeedforwardPolicy(choices=6, observation_dim=3, head=head))
    mask, shares = torch.tensor([[True, False, True]]), torch.tensor([[0.4, 0.0, 0.6]])
    assert loss.imitate(torch.zeros(1, 3), shares, mask).isfinite()
    with pytest.raises(InputError, match=r"at \[0\] is \[0.1.*\], whose shares the mask forbids"):
        loss.imitate(torch.zeros(1, 3), torch.tensor([[0.1, 0.8, 0.1]]), mask)


def test_what_a_teacher_says_of_items_that_do_not_exist_is_not_imitated():
    env = env_of()
    policy = policy_of(env, items="joint", seed=3)
    td = seen(env)
    rows = TensorDict(
        {
            "observation": policy.reading.gathered(td),
            "action": policy(td.clone())["action"],
            "action_mask": policy.reading.allowed(td, policy.rows(td), policy.head),
        },
        batch_size=[5],
    )
    loss, exists = TokenImitationLoss(policy), td["valid"]
    assert not exists.all()
    state = policy.get_extra_state()
    told = loss(rows)["loss_actor"]
    policy.set_extra_state(state)
    rows["action"] = torch.where(exists, rows["action"], 1)
    assert torch.equal(loss(rows)["loss_actor"], told)


def best(td):
    return td.set("action", td["observation"].argmax(-1))


def guesses(batch, seed):
    env = GuessEnv(batch)
    env.set_seed(seed)
    return env


GUESS = EnvProblem(guesses, steps=5, rules={"best": best})


@pytest.mark.parametrize("name", ["bc", "bc-plain"])
def test_a_teacher_plays_and_is_imitated(name):
    shorter = {"steps": 3} if name == "bc" else {}
    method = dataclasses.replace(make_method(name), **QUICK, updates=8, **shorter)
    module = method.build(GUESS, environments=16, seed=1)
    fitted = fit(module, episodes=480)
    assert fitted.history[-1]["cost"] == -5  # the teacher's
    rows = module.replay.sample(100)
    assert torch.equal(rows["action"], rows["observation"].argmax(-1))
    td = module.policy.eval()(TensorDict({"observation": torch.randn(500, 3)}, [500]))
    assert (td["action"] == td["observation"].argmax(-1)).float().mean() > 0.85


def test_a_resumed_run_goes_on_bitwise_with_the_teachers_draws(tmp_path):
    method = dataclasses.replace(make_method("bc"), **QUICK, teacher="random")

    def run(episodes, **options):
        module = method.build(GUESS, environments=2, seed=3)
        fit(module, episodes=episodes, **options)
        return module.policy

    run(10, out=tmp_path)
    again = run(20, out=tmp_path, resume=tmp_path / "checkpoint.ckpt")
    assert same_tensors(again, run(20))


def test_a_teacher_may_see_more_than_who_imitates_it():
    method = dataclasses.replace(make_method("bc"), **QUICK, teacher="opt-ts")
    module = method.build(OffloadingProblem(small(slots=4)), environments=2)
    assert module.teacher.information == "live"
    assert module.policy.information == "paper"
    fit(module, episodes=2)


def plain(**changes):
    return dataclasses.replace(make_method("bc"), **QUICK, **changes)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: plain(teacher="bset").build(GUESS), "policy 'bset' is neither a rule .*best"),
        (lambda: plain(teacher=3), "teacher must be a string, got 3"),
        (lambda: plain(process="flaw"), "process must be one of noise, flow, got 'flaw'"),
        (lambda: plain(prior=ActionMemory().to_dict()).build(GUESS), "ActionMemory"),
        (
            lambda: LikelihoodLoss(FeedforwardPolicy.from_specs(GuessEnv(1)))(
                TensorDict({"observation": torch.zeros(2, 4), "action": torch.zeros(2).long()}, [2])
            ),
            "'observation' must hold 3 features of each, got 4",
        ),
        (lambda: DenoisingLoss(FeedforwardPolicy.from_specs(VECTOR)), "FeedforwardPolicy has no chain"),
        (
            lambda: DenoisingLoss(policy_of(Specs({"observation": Unbounded((4, 3))}, Categorical(5, (4,))))),
            "Absorbing to a TokenHead; use a VectorHead",
        ),
        (
            lambda: LikelihoodLoss(vector_policy(FlowProcess(3), "velocity")),
            "VectorHead is the action itself, so it has no law",
        ),
    ],
)
def test_mistakes_get_a_sentence(make, words):
    with pytest.raises(InputError, match=words):
        make()


def test_a_chain_that_ends_in_the_action_may_act_under_another_sampler_unwarned(recwarn):
    module = plain().build(GUESS)
    assert isinstance(module.policy.process, MaskedProcess)
    module.policy.with_sampler("tau-leaping", 4)
    assert not recwarn.list


def test_a_file_says_how_tokens_are_noised_and_by_which_sampler_they_come_back():
    changes = {"tokens": "uniform", "token_sampler": {"kind": "TauLeaping", "steps": 2}, "steps": 4}
    method = changed(make_method("bc"), {**QUICK, **changes})
    module = method.build(EnvProblem(lambda batch, seed: GuessEnv(batch), steps=5), environments=4)
    assert module.policy.process == UniformProcess(4)
    assert module.policy.sampling == TauLeaping(steps=2)
    assert fit(module, episodes=16).history[-1]["loss_actor"] > 0
    sure = changed(make_method("bc"), {"token_sampler.order": "confidence"})
    assert sure.token_sampler == {"kind": "Ancestral", "order": "confidence"}
    with pytest.raises(InputError, match="token_sampler must go through tokens, and a DDIM goes through numbers"):
        changed(make_method("bc"), {"token_sampler": {"kind": "DDIM"}})
