"""Distillation: divergences against torch, students that come to their teacher, one step from the same noise."""

import dataclasses

import pytest
import torch
from tensordict import TensorDict
from torchrl.data import Bounded, MultiCategorical, Unbounded

from diffpolicy import DiffusionPolicy, FeedforwardPolicy, InputError
from diffpolicy.diffusion import FlowProcess, MaskedProcess
from diffpolicy.environments import EnvProblem
from diffpolicy.experiments import make_method
from diffpolicy.networks import CriticEnsemble
from diffpolicy.objectives import DistillationLoss, divergence
from diffpolicy.policies import ActionMemory, BestOf
from diffpolicy.policies.heads import BoundedHead, MultiCategoricalHead, TokenHead, VectorHead
from diffpolicy.training import fit
from test_imitation_methods import QUICK, guesses
from test_keys import Specs
from test_off_policy_value import Likes
from toys import GuessEnv

PROBLEM = EnvProblem(guesses, steps=5)
VECTOR = Specs({"observation": Unbounded((4, 3))}, Bounded(0.0, 4.0, (4, 2)))


def test_divergences_are_those_of_torch():
    head = MultiCategoricalHead(nvec=(3, 2))
    p, q = head.law(torch.randn(2, 4, 3, head.width))
    slots = [
        torch.distributions.kl_divergence(*(torch.distributions.Categorical(logits=x[..., a:b]) for x in (p, q)))
        for a, b in ((0, 3), (3, 5))
    ]
    assert torch.allclose(divergence(head, p, q), sum(slots), atol=1e-5)
    head = BoundedHead(low=(0.0, 0.0, -1.0), high=(1.0, 3.0, 1.0))
    p, q = head.law(torch.randn(2, 4, 3, head.width))
    normal = [torch.distributions.Normal(*x.chunk(2, -1)) for x in (p, q)]
    assert torch.allclose(divergence(head, p, q), torch.distributions.kl_divergence(*normal).sum(-1), atol=1e-5)


@pytest.mark.parametrize("prior", [None, ActionMemory()])
@pytest.mark.parametrize("name", ["distill", "distill-plain"])
def test_a_student_comes_to_its_teachers_law(name, prior, tmp_path):
    teacher = DiffusionPolicy.from_specs(GuessEnv(1), steps=3, prediction="x0", prior=prior, seed=2)
    with torch.no_grad():
        for p in teacher.denoiser.parameters():
            p.mul_(1.5)
    teacher.save(tmp_path)
    method = dataclasses.replace(make_method(name), **QUICK, teacher=str(tmp_path), updates=4)
    module = method.build(PROBLEM, environments=16, seed=1)
    fitted = fit(module, episodes=160)
    assert fitted.history[-1]["loss_actor"] < 0.6 * fitted.history[1]["loss_actor"]
    assert not any(name.startswith("teacher") for name in module.objective.state_dict())
    if prior is not None:
        return
    seen = torch.randn(300, 3).repeat_interleave(50, 0)
    mean = [p.eval().law(seen).softmax(-1).view(300, 50, 3).mean(1) for p in (teacher, module.policy)]
    assert 0.5 * (mean[0] - mean[1]).abs().sum(-1).mean() < 0.08


def test_one_step_learns_where_the_flow_leads_from_each_noise(tmp_path):
    flow = {"schedule": FlowProcess(8), "sampler": "flow-euler", "prediction": "velocity", "head": VectorHead()}
    teacher = DiffusionPolicy.from_specs(VECTOR, seed=1, **flow)
    teacher.save(tmp_path)
    method = dataclasses.replace(make_method("distill"), **{**QUICK, "normalize": False}, teacher=str(tmp_path))
    student = method.make_policy(VECTOR, 0)
    loss = DistillationLoss(student, teacher)
    rows = TensorDict({"observation": torch.randn(256, 3), "action": torch.zeros(256, 2)}, [256])
    optimizer = torch.optim.Adam(student.parameters(), 3e-3)
    for _ in range(250):
        value = loss(rows)["loss_actor"]
        optimizer.zero_grad()
        value.backward()
        optimizer.step()
    noise = torch.randn(1, 500, 2)
    ends = [p.law(rows["observation"][:1].expand(500, 3), noise=noise) for p in (teacher, student)]
    assert (ends[0] - ends[1]).square().mean() < 0.05 * ends[0].var()
    assert len(student.path) == 1


def losses_of_first_choices(student, teacher, rows):
    """The loss of a student that always decides 0, 1 or 2."""
    found = []
    for choice in range(3):
        sure = lambda *given, choice=choice: torch.full((64, 3), -20.0).index_fill(-1, torch.tensor([choice]), 0.0)  # noqa: E731
        student.law = sure
        found.append(DistillationLoss(student, teacher)(rows)["loss_actor"].item())
    return found


def test_of_a_teacher_whose_draws_a_critic_chooses_among_the_decisions_are_learned():
    teacher = DiffusionPolicy.from_specs(GuessEnv(1), steps=2, prediction="x0", seed=1)
    teacher = teacher.with_guidance(BestOf(Likes(), draws=64, reads="state"))
    rows = TensorDict({"observation": torch.randn(64, 3), "action": torch.zeros(64).long()}, [64])
    low, _, best = losses_of_first_choices(FeedforwardPolicy.from_specs(GuessEnv(1)), teacher, rows)
    assert best < 1 < 15 < low
    flow = {"schedule": FlowProcess(4), "sampler": "flow-euler", "prediction": "velocity", "head": VectorHead()}
    vectors = DiffusionPolicy.from_specs(VECTOR, **flow)
    chosen = vectors.with_guidance(BestOf(CriticEnsemble(5, 1)))
    with pytest.raises(InputError, match="critic chooses among several"):
        DistillationLoss(vectors.with_sampler("one-step"), chosen)


@pytest.mark.parametrize("draw", ["sample", "argmax"])  # by the law, and by decisions
def test_a_masked_teacher_is_asked_with_its_mask_though_the_student_reads_none(draw):
    teacher = FeedforwardPolicy.from_specs(GuessEnv(1, mask=True), head=draw)
    student = FeedforwardPolicy.from_specs(GuessEnv(1), mask_key=None)
    mask = (torch.arange(3) == 1).expand(64, 3)
    rows = TensorDict({"observation": torch.randn(64, 3), "action": torch.ones(64).long()}, [64])
    with pytest.raises(InputError, match="'action_mask'"):
        DistillationLoss(student, teacher)(rows)
    found = losses_of_first_choices(student, teacher, rows.set("action_mask", mask))
    assert found[1] < 0.1 < 15 < found[0]


def test_of_a_rule_the_decisions_in_the_rows_are_learned_by_their_distance_or_their_likelihood():
    rows = TensorDict({"observation": torch.randn(64, 3), "action": 4 * torch.rand(64, 2)}, [64])
    student = DiffusionPolicy.from_specs(VECTOR, head=VectorHead(), prediction="x0", sampler="one-step")
    found = []
    for law in (None, student.law):
        student.reseed(3)
        if law is None:
            found.append(DistillationLoss(student, torch.nn.Identity())(rows)["loss_actor"])
        else:
            x0 = law(rows["observation"], None, None, student.noise(torch.Size([64])))
            found.append((x0 - student.head.encode(rows["action"])).square().mean())
    torch.testing.assert_close(*found)
    student = FeedforwardPolicy.from_specs(GuessEnv(1))
    rows["action"] = torch.arange(64) % 3
    chances = student.law(rows["observation"]).softmax(-1).gather(-1, rows["action"].unsqueeze(-1))
    likelihood = DistillationLoss(student, torch.nn.Identity())(rows)["loss_actor"]
    torch.testing.assert_close(likelihood, -chances.log().mean())


def test_laws_of_too_many_joint_choices_are_learned_by_what_they_decide():
    few, many = (Specs({"observation": Unbounded((4, 3))}, MultiCategorical([8] * n, (4, n))) for n in (2, 6))
    assert [DistillationLoss(p, p).compares for p in map(FeedforwardPolicy.from_specs, (few, many))] == [True, False]


def test_mistakes_get_a_sentence():
    tokens = DiffusionPolicy.from_specs(GuessEnv(1), schedule=MaskedProcess(2), head=TokenHead())
    with pytest.raises(InputError, match="a student of tokens has no law"):
        DistillationLoss(tokens, tokens)
    noisy = DiffusionPolicy.from_specs(VECTOR, head=VectorHead(), prediction="x0")
    with pytest.raises(InputError, match=r"draws 5 times; give it a sampler such as ddim"):
        DistillationLoss(noisy.with_sampler("one-step"), noisy)
    with pytest.raises(InputError, match="without a memory"):
        DistillationLoss(DiffusionPolicy.from_specs(GuessEnv(1), prior=ActionMemory()), noisy)
    with pytest.raises(InputError, match="neither a rule"):
        dataclasses.replace(make_method("distill"), teacher="nowhere").build(PROBLEM)
