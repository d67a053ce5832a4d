"""Heads as laws: chances that sum to one, densities that integrate to one, samples that follow them, masks."""

import itertools
import json
import math
from dataclasses import dataclass

import pytest
import torch
from tensordict import TensorDict

from diffpolicy import DiffusionPolicy
from diffpolicy.errors import InputError
from diffpolicy.policies.fitting import check_networks
from diffpolicy.policies.heads import (
    MOST_JOINT,
    BoundedHead,
    CategoricalHead,
    CompositeHead,
    Head,
    JointHead,
    MultiCategoricalHead,
    SimplexHead,
    TokenHead,
    VectorHead,
    head_for,
    head_from_dict,
)
from diffpolicy.policies.heads.bounded import LOG_STD
from diffpolicy.policies.keys import Action
from diffpolicy.policies.law import HeadLaw

CATEGORICAL = CategoricalHead(choices=4)
MULTI = MultiCategoricalHead(nvec=(3, 2, 4))
BOUNDED = BoundedHead(low=(-2.0, 0.0), high=(2.0, 3.0))
SIMPLEX = SimplexHead(choices=4)
ONE_HOTS = MultiCategoricalHead(nvec=(3, 2, 4), one_hot=True)
HEADS = [CATEGORICAL, CategoricalHead(choices=4, one_hot=True), MULTI, ONE_HOTS, BOUNDED, SIMPLEX]


def draw(seed=0):
    return torch.Generator().manual_seed(seed)


def x0_of(head, *rows, seed=0):
    return torch.randn(*rows, head.width, generator=draw(seed), dtype=torch.float64)


@pytest.mark.parametrize("head", HEADS, ids=str)
def test_shapes_on_rows_and_on_stacks(head):
    for rows in ((), (5,), (2, 5)):
        law = head.law(x0_of(head, *rows))
        numbers = head.draws(torch.Size(rows), draw())
        for action in (head.sample(law, numbers), head.sample(law, None), head.mode(law)):
            assert action.shape == (*rows, *head.event)
        assert head.log_prob(law, head.mode(law)).shape == rows


@pytest.mark.parametrize("head", HEADS, ids=str)
def test_without_draws_a_sample_is_the_mode(head):
    law = head.law(x0_of(head, 50))
    assert torch.equal(head.sample(law, None), head.mode(law))
    still = type(head)(**{**vars(head), "draw": "argmax"})
    assert still.draws(torch.Size([50]), draw()) is None
    assert torch.equal(still.sample(law, torch.rand(50)), head.mode(law))


@pytest.mark.parametrize("head", [CATEGORICAL, MULTI], ids=str)
def test_joint_chances_sum_to_one_and_are_those_of_single_actions(head):
    law = head.law(x0_of(head, 7))
    joint = head.joint_log_prob(law)
    assert joint.shape == (7, head.joint)
    assert torch.allclose(joint.exp().sum(-1), torch.ones(7, dtype=torch.float64))
    nvec = (4,) if head is CATEGORICAL else head.nvec
    for number, choice in enumerate(itertools.product(*map(range, nvec))):
        action = torch.tensor(choice[0] if head is CATEGORICAL else choice).expand(7, *head.event)
        assert (head.joint_index(action) == number).all()
        assert torch.allclose(head.log_prob(law, action), joint[:, number])
    assert torch.allclose(head.entropy(law), -(joint.exp() * joint).sum(-1))


def test_so_many_joint_choices_are_enumerated_and_no_more():
    most = MultiCategoricalHead(nvec=(2, MOST_JOINT // 2))
    assert most.joint_log_prob(most.law(torch.zeros(most.width))).exp().sum().item() == pytest.approx(1.0, abs=1e-5)
    with pytest.raises(InputError, match=f"more than the {MOST_JOINT} enumerated"):
        _ = MultiCategoricalHead(nvec=(2, MOST_JOINT // 2 + 1)).joint


@pytest.mark.parametrize("rows_last", [False, True])
def test_of_equal_logits_the_first_is_the_mode(rows_last):
    law = torch.randint(0, 3, (5, 4, 7), generator=draw()).float()
    law = law.mT if rows_last else law.mT.contiguous()
    mode = CategoricalHead(choices=4).mode(law)
    assert mode.tolist() == [[row.index(max(row)) for row in agent] for agent in law.tolist()]


def test_a_categorical_head_agrees_with_torch():
    law = CATEGORICAL.law(x0_of(CATEGORICAL, 9))
    law_of_torch = torch.distributions.Categorical(logits=law)
    action = CATEGORICAL.sample(law, CATEGORICAL.draws(torch.Size([9]), draw()))
    assert torch.allclose(CATEGORICAL.log_prob(law, action), law_of_torch.log_prob(action))
    assert torch.allclose(CATEGORICAL.entropy(law), law_of_torch.entropy())


def test_samples_follow_the_law():
    x0 = x0_of(MULTI, 1).expand(200_000, -1)
    law = MULTI.law(x0)
    index = MULTI.joint_index(MULTI.sample(law, MULTI.draws(torch.Size([200_000]), draw(1))))
    seen = torch.bincount(index, minlength=MULTI.joint) / len(index)
    assert 0.5 * (seen - MULTI.joint_log_prob(law[0]).exp()).abs().sum() < 0.01


def test_masks_forbid():
    mask = torch.tensor([True, False, True, True, False, False, True, True, False])
    flat = MULTI.read_mask(mask.expand(1000, 9))
    assert flat.shape == (1000, MULTI.width)
    law = MULTI.law(x0_of(MULTI, 1000), flat)
    action = MULTI.sample(law, MULTI.draws(torch.Size([1000]), draw()))
    for k, allowed in enumerate(([0, 2], [0], [1, 2])):
        assert set(action[:, k].tolist()) <= set(allowed)
    joint = MULTI.joint_mask(flat)
    assert int(joint[0].sum()) == 4
    assert (MULTI.joint_log_prob(law).exp()[~joint] == 0).all()
    assert torch.isfinite(MULTI.entropy(law)).all()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_laws_are_finite_in_their_type_under_masks_and_on_bounds(dtype):
    for head in (CATEGORICAL, MULTI):
        mask = torch.ones(3, head.width, dtype=torch.bool)
        mask[:, 0] = False
        law = head.law(x0_of(head, 3).to(dtype), mask)
        assert torch.isfinite(law).all()
        assert torch.isfinite(head.entropy(law)).all()
    bounded = BoundedHead(low=(-2.0,), high=(3.0,))
    law, action = bounded.law(torch.zeros(3, 2, dtype=dtype)), torch.tensor([[-2.0], [0.0], [3.0]], dtype=dtype)
    assert torch.isfinite(bounded.log_prob(law, action)).all()


def test_parts_side_by_side_tell_what_data_may_not_hold():
    """A data set that holds such an action is refused; it was learned, as another action."""
    head = CompositeHead((CategoricalHead(choices=3), BoundedHead(low=(0.0,), high=(1.0,))), (True, False))
    mask = head.read_mask(torch.tensor([True, False, True])).expand(4, 5)
    action = torch.tensor([[0.0, 0.5], [1.0, 0.5], [0.5, 0.5], [2.0, 1.5]])
    assert head.forbidden(action, mask).tolist() == [False, True, False, False]
    assert head.impossible(action, mask).tolist() == [False, False, True, False]
    assert head.beyond(action, 1e-4).tolist() == [False, False, False, True]
    bounded = BoundedHead(low=(-2.0,), high=(2.0,))
    assert JointHead(bounded, (2,)).beyond(torch.tensor([[[0.0], [9.0]]]), 1e-4).tolist() == [True]
    law = HeadLaw(bounded, torch.tensor([[0.0, 1.0]]), draw())
    assert law.log_prob(torch.tensor([[-1]])) == law.log_prob(torch.tensor([[-1.0]]))  # a number, and no choice


def test_whole_numbers_of_a_part_within_bounds_are_no_choices():
    """Of whole numbers, [1, -1] had the chance of [1, 0]."""
    head = CompositeHead((CategoricalHead(choices=3), BoundedHead(low=(-2.0,), high=(2.0,))))
    parameters, action = head.law(x0_of(head, 3)), torch.tensor([[1, -1], [1, 0], [-1, -2]])
    assert torch.equal(head.log_prob(parameters, action), head.log_prob(parameters, action.double()))
    law = HeadLaw(head, parameters, draw())
    assert torch.equal(law.log_prob(action), law.log_prob(action.double()))


def test_items_side_by_side_tell_what_a_mask_forbids_one_part_of_them():
    each = CompositeHead((CategoricalHead(choices=3), BoundedHead(low=(0.0,), high=(1.0,))), (True, False))
    head = JointHead(each, (2,))
    mask = head.read_mask(torch.tensor([True, True, True, True, False, True])).expand(2, head.width)
    action = torch.tensor([[[1.0, 0.0], [2.0, 0.0]], [[1.0, 0.0], [1.0, 0.0]]])
    assert head.forbidden(action, mask).tolist() == [False, True]


def test_a_bounded_density_integrates_to_one_and_stays_within_bounds():
    head = BoundedHead(low=(-2.0,), high=(3.0,))
    law = head.law(torch.tensor([0.3, -0.2], dtype=torch.float64))
    grid = torch.linspace(-2, 3, 400_001, dtype=torch.float64)[1:-1]
    density = head.log_prob(law.expand(len(grid), 2), grid.unsqueeze(-1)).exp()
    assert float(torch.trapezoid(density, grid)) == pytest.approx(1.0, abs=1e-4)
    numbers = head.draws(torch.Size([50_000]), draw()).double()
    action, log_prob = head.with_log_prob(law.expand(50_000, 2), numbers)
    assert float(action.min()) > -2
    assert float(action.max()) < 3
    assert torch.allclose(log_prob, head.log_prob(law.expand(50_000, 2), action), atol=1e-3)
    assert float(action.mean()) == pytest.approx(float(torch.trapezoid(grid * density, grid)), abs=0.03)


def test_a_bounded_law_has_gradients_and_is_finite_at_the_bounds():
    x0 = x0_of(BOUNDED, 6).requires_grad_()
    law = BOUNDED.law(x0)
    action, log_prob = BOUNDED.with_log_prob(law, torch.randn(6, 2, generator=draw()).double())
    (action.sum() + log_prob.sum()).backward()
    assert torch.isfinite(x0.grad).all()
    assert (x0.grad != 0).all()
    assert torch.isfinite(BOUNDED.log_prob(law.detach(), torch.tensor([2.0, 0.0]).expand(6, 2))).all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_entropy_of_one_draw_has_its_gradient_however_near_the_bound(dtype):
    head = BoundedHead(low=(-1.0,), high=(1.0,))
    for mean, raw, z in itertools.product((0.5, 3.0, 8.0, 30.0), (-0.5, 0.0, 0.5), (-1.0, 0.3)):
        x0 = torch.tensor([mean, raw], dtype=dtype, requires_grad=True)
        found = head.spread(head.law(x0), torch.tensor([z], dtype=dtype))
        own = torch.tensor([mean, raw], dtype=torch.float64, requires_grad=True)
        log_std = LOG_STD[0] + (LOG_STD[1] - LOG_STD[0]) * (own[1].tanh() + 1) / 2
        u = own[0] + log_std.exp() * z
        # -log N(u) is z^2 / 2 + log std + log(2 pi) / 2, and log da/du is log sech^2(u)
        slope = 2 * (math.log(2) - u.abs() - torch.log1p((-2 * u.abs()).exp()))
        right = z**2 / 2 + log_std + 0.5 * math.log(2 * math.pi) + slope
        assert found.item() == pytest.approx(right.item(), rel=1e-5)
        (mine,), (true,) = torch.autograd.grad(found, x0), torch.autograd.grad(right, own)
        torch.testing.assert_close(mine.double(), true, rtol=1e-4, atol=1e-4)


def test_the_spread_of_items_that_take_the_likeliest_is_that_of_their_mode():
    head = JointHead(each=BoundedHead(low=(-1.0, -2.0), high=(1.0, 3.0), draw="argmax"), items=(2, 3))
    law = HeadLaw(head, head.law(x0_of(head, 5)), draw())
    torch.testing.assert_close(law.spread(), -law.log_prob(law.mode))


def test_several_one_hot_choices_are_the_same_law_written_otherwise():
    law = MULTI.law(x0_of(MULTI, 30))
    draws = MULTI.draws(torch.Size([30]), draw())
    action, hot = MULTI.sample(law, draws), ONE_HOTS.sample(law, draws)
    assert hot.dtype == torch.bool
    assert torch.equal(ONE_HOTS.choices(hot), action)
    assert torch.equal(ONE_HOTS.log_prob(law, hot), MULTI.log_prob(law, action))
    assert torch.equal(ONE_HOTS.joint_index(hot), MULTI.joint_index(action))


# Shares


def test_a_density_of_shares_integrates_to_one_over_the_triangle():
    head = SimplexHead(choices=4)
    mask = head.read_mask(torch.tensor([True, True, False, True]))
    law = head.law(torch.tensor([0.3, -0.5, 9.0, 0.1, -0.3, 0.2, 0.0, 0.4], dtype=torch.float64), mask)
    grid = (torch.arange(700, dtype=torch.float64) + 0.5) / 700
    a, b = (x.flatten() for x in torch.meshgrid(grid, grid, indexing="ij"))
    inside = a + b < 1
    shares = torch.stack([a, b, torch.zeros_like(a), 1 - a - b], -1)[inside]
    density = head.log_prob(law.expand(len(shares), -1), shares).exp()
    assert float(density.sum()) / 700**2 == pytest.approx(1.0, abs=2e-3)
    # the same whichever share is left out: a permutation of choices permutes law and action alike
    turn = torch.tensor([3, 2, 0, 1])
    turned = torch.cat([law[:4][turn], law[4:][turn]]).expand(len(shares), -1)
    torch.testing.assert_close(head.log_prob(turned, shares[:, turn]), density.log())
    # and so is the mean of a sample
    rows = torch.Size([100_000])
    drawn, log_prob = head.with_log_prob(law.expand(*rows, -1), head.draws(rows, draw()).double())
    torch.testing.assert_close(drawn.mean(0), (density @ shares) / density.sum(), atol=5e-3, rtol=0)
    torch.testing.assert_close(log_prob, head.log_prob(law.expand(*rows, -1), drawn), atol=1e-9, rtol=1e-9)


def test_two_shares_are_a_logistic_function_of_a_normal_number():
    head = SimplexHead(choices=2)
    law = head.law(torch.tensor([0.4, -0.2, 0.1, -0.6], dtype=torch.float64))
    mean, std = law.chunk(2)
    share = torch.tensor([0.1, 0.5, 0.97], dtype=torch.float64)
    normal = torch.distributions.Normal(mean[0] - mean[1], std.square().sum().sqrt())
    expected = normal.log_prob(share.logit()) - (share * (1 - share)).log()
    found = head.log_prob(law.expand(3, 4), torch.stack([share, 1 - share], -1))
    torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_forbidden_shares_are_zero_and_the_only_allowed_one_is_all(dtype):
    mask = torch.tensor([[True, False, True, False], [False, False, True, False], [True, True, True, True]])
    read = SIMPLEX.read_mask(mask)
    law = SIMPLEX.law((20 * x0_of(SIMPLEX, 3)).to(dtype), read).requires_grad_()
    draws = SIMPLEX.draws(torch.Size([3]), draw())
    action, log_prob = SIMPLEX.with_log_prob(law, draws)
    for shares in (action, SIMPLEX.sample(law, draws), SIMPLEX.mode(law)):
        assert (shares[~mask] == 0).all()
        assert torch.allclose(shares.sum(-1).float(), torch.ones(3), atol=1e-2)
    assert log_prob[1].item() == pytest.approx(0, abs=1e-2)  # nothing is free
    assert SIMPLEX.freedom(law).tolist() == [1, 0, 3]
    (action.square().sum() + log_prob.sum()).backward()
    assert torch.isfinite(law.grad).all()
    far = SIMPLEX.log_prob(law.detach().float(), SIMPLEX.mode(law).detach())
    assert torch.isfinite(far).all()
    none = torch.zeros(3, SIMPLEX.width, dtype=torch.bool)
    assert (SIMPLEX.refuse(action, none) == -1).all()
    assert torch.isfinite(SIMPLEX.with_log_prob(SIMPLEX.law(x0_of(SIMPLEX, 3), none), draws)[1]).all()


def test_where_no_share_is_allowed_the_law_is_that_of_all():
    mask = torch.zeros(3, SIMPLEX.width, dtype=torch.bool)
    mask[1] = True
    x0, draws = x0_of(SIMPLEX, 3), SIMPLEX.draws(torch.Size([3]), draw())
    assert torch.equal(SIMPLEX.law(x0, mask), SIMPLEX.law(x0))
    action, log_prob = SIMPLEX.with_log_prob(SIMPLEX.law(x0, mask), draws)
    assert torch.allclose(SIMPLEX.log_prob(SIMPLEX.law(x0, mask), action), log_prob, atol=1e-3)


@pytest.mark.parametrize("head", [MULTI, CompositeHead((CategoricalHead(choices=3), CategoricalHead(choices=2)))])
def test_a_part_without_a_choice_makes_it_no_joint_choice(head):
    size = head.event[0]
    action = torch.zeros(size + 1, size, dtype=torch.int64)
    action[torch.arange(size), torch.arange(size)] = -1
    action[:, 0] += torch.arange(size + 1) > 0  # (1, -1) were (0, 1)
    assert head.joint_index(action).tolist() == [-1] * size + [head.joint_index(action[-1:]).item()]
    assert head.joint_index(action[-1:]).item() > 0


def test_the_volume_of_shares_is_that_of_a_uniform_law():
    # n - 1 exponential numbers over their sum are uniform: density (n - 1)!, and its logarithm is minus the entropy
    law = SIMPLEX.law(x0_of(SIMPLEX, 1))
    uniform = torch.distributions.Dirichlet(torch.ones(4, dtype=torch.float64))
    whole = float(SIMPLEX.log_volume(law) + SIMPLEX.freedom(law) * torch.tensor(2.0).log())
    assert whole == pytest.approx(float(uniform.entropy()))


@pytest.mark.parametrize("each", [BOUNDED, SIMPLEX], ids=lambda head: type(head).__name__)
def test_joint_vectors_have_draws_densities_and_volumes_that_add_up(each):
    head = JointHead(each, (2, 3))
    law = head.law(0.2 * x0_of(head, 5))  # far from the bounds, where a density of the action itself is cut off
    numbers = torch.randn(5, *head.event, generator=draw(), dtype=torch.float64)
    action, log_prob = head.with_log_prob(law, numbers)
    assert action.shape == (5, *head.event)
    torch.testing.assert_close(log_prob, head.log_prob(law, action))
    own = each.with_log_prob(law.unflatten(-1, (6, -1)), numbers.flatten(1, 2))[1].sum(-1)
    torch.testing.assert_close(log_prob, own)
    for name in ("freedom", "log_volume"):
        total, one = getattr(head, name)(law), getattr(each, name)(law[..., : each.width])
        assert torch.as_tensor(total).expand(5).tolist() == pytest.approx((6 * torch.as_tensor(one)).expand(5).tolist())


def test_heads_are_made_for_actions_and_refuse_others():
    bounded = Action("action", "bounded", (2,), (2,), (-1.0, -1.0), (1.0, 1.0))
    multi = Action("action", "multi-categorical", (3, 2), (2,))
    plain = Action(("agents", "action"), "categorical", (5,), ())
    assert head_for(bounded) == BoundedHead(low=(-1.0, -1.0), high=(1.0, 1.0))
    assert head_for(multi, "argmax") == MultiCategoricalHead("argmax", nvec=(3, 2))
    assert head_for(plain).width == 5
    with pytest.raises(InputError, match="BoundedHead decides bounded actions, and 'action' is multi-categorical"):
        BoundedHead().sized(multi)


@pytest.mark.parametrize("head", [MULTI, ONE_HOTS, BOUNDED, SIMPLEX, CategoricalHead("argmax")], ids=str)
def test_heads_are_described_by_json(head):
    assert head_from_dict(json.loads(json.dumps(head.to_dict()))) == head


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: head_from_dict({"kind": "GammaHead"}), "GammaHead"),
        (lambda: head_from_dict({"kind": "BoundedHead", "width": 3}), "'width'"),
        (lambda: CategoricalHead("mean"), "'mean'"),
        (lambda: BoundedHead(low=(1.0,), high=(1.0,)), "rise"),
        (lambda: BOUNDED.joint, "cannot be enumerated"),
        (lambda: MultiCategoricalHead(nvec=(100, 100)).joint, "10000 joint choices"),
        (lambda: MULTI.read_mask(torch.ones(3, 5)), r"9 choices is needed, got shape \[3, 5\]"),
        (lambda: BOUNDED.law(torch.zeros(4), torch.ones(4, dtype=torch.bool)), "mask"),
        (lambda: BOUNDED.entropy(torch.zeros(4)), "closed form"),
        (lambda: SIMPLEX.entropy(torch.zeros(8)), "closed form"),
        (lambda: SIMPLEX.read_mask(torch.ones(3, 5)), r"4 choices is needed, got shape \[3, 5\]"),
        (
            lambda: SimplexHead().sized(Action("split", "bounded", (2,), (2,), (0.0, 0.0), (1.0, 0.5))),
            "'split' takes 0 to 0.5",
        ),
        (lambda: head_for(Action("split", "unbounded", (2,), (2,))), "say head='simplex'"),
    ],
)
def test_mistakes_get_a_sentence(make, words):
    with pytest.raises(InputError, match=words):
        make()


def test_a_critic_reads_choices_as_one_hot_numbers_and_vectors_in_units_of_their_bounds():
    actions = torch.tensor([[2, 0, 1], [0, 0, 2]])
    for head in (MultiCategoricalHead(nvec=(3, 1, 3)), TokenHead(nvec=(3, 1, 3))):
        features = head.features(actions)
        assert features.shape == (2, head.feature_width)
        assert torch.equal(features.unflatten(-1, (3, 3)).argmax(-1), actions)
        assert torch.equal(features.sum(-1), torch.full((2,), 3.0))
    joint = JointHead(CategoricalHead(choices=4), (3,))
    assert torch.equal(joint.features(actions).unflatten(-1, (3, 4)).argmax(-1), actions)
    assert torch.equal(BOUNDED.features(torch.tensor([-2.0, 3.0])), torch.tensor([-1.0, 1.0]))
    one_hot = CategoricalHead(choices=3, one_hot=True)
    assert torch.equal(one_hot.features(torch.tensor([False, False, True])), torch.tensor([0.0, 0.0, 1.0]))
    assert torch.equal(CATEGORICAL.features(torch.tensor(-1)), CATEGORICAL.features(torch.tensor(0)))


def test_a_vector_that_is_the_action_is_encoded_and_had_again_and_never_leaves_its_bounds():
    head = VectorHead(low=(-2.0, 0.0), high=(2.0, 3.0))
    action = torch.tensor([[-2.0, 0.0], [1.0, 2.5]])
    assert torch.allclose(head.mode(head.encode(action)), action)
    assert torch.equal(head.mode(torch.tensor([9.0, -9.0])), torch.tensor([2.0, 0.0]))
    assert head_from_dict(head.to_dict()) == head
    with pytest.raises(InputError, match="VectorHead's bounds must be finite and rise, got 1 and 1"):
        VectorHead(low=(1.0,), high=(1.0,))
    with pytest.raises(InputError, match="no choices that a mask could forbid"):
        head.law(torch.zeros(2), torch.ones(2, dtype=torch.bool))


def test_a_chain_of_numbers_ends_in_the_action_itself():
    head = VectorHead(low=(-2.0, 0.0), high=(2.0, 3.0))
    policy = DiffusionPolicy(choices=2, observation_dim=3, head=head, seed=1)
    check_networks(policy)
    td = policy(TensorDict({"observation": torch.randn(64, 3, generator=draw())}, [64]))
    assert td["action"].shape == (64, 2)
    assert ((td["action"] >= torch.tensor([-2.0, 0.0])) & (td["action"] <= torch.tensor([2.0, 3.0]))).all()
    with pytest.raises(InputError, match="draws nothing, so that it has no density"):
        policy.get_dist(td)


def test_actions_drawn_alike_from_all_that_are_allowed():
    rows, flat = torch.Size([60_000]), torch.tensor([True, False, True, True, False, False, True, True, False])
    tokens = TokenHead(nvec=MULTI.nvec)
    allowed = MULTI.joint_mask(MULTI.read_mask(flat))
    several = CompositeHead(tuple(CategoricalHead(choices=n) for n in MULTI.nvec), (True, True, True))
    for head in (MULTI, tokens, JointHead(tokens, (1,)), several):
        mask = head.read_mask(flat.expand(*rows, 9))
        index = MULTI.joint_index(head.uniform(rows, mask, draw()).reshape(-1, 3).long())
        seen = torch.bincount(index, minlength=MULTI.joint) / len(index)
        assert 0.5 * (seen - allowed / allowed.sum()).abs().sum() < 0.01
    shares = SimplexHead(choices=3).uniform(rows, torch.tensor([True, False, True]).repeat(2).expand(*rows, 6), draw())
    assert torch.allclose(shares.sum(-1), torch.ones(rows))
    assert (shares[:, 1] == 0).all()
    assert shares[:, 0].square().mean().sub(1 / 3).abs() < 0.01
    for head in (BOUNDED, VectorHead(low=BOUNDED.low, high=BOUNDED.high)):
        action = head.features(head.uniform(rows, None, draw()))
        assert (action.abs() <= 1).all()
        assert action.square().mean(0).sub(1 / 3).abs().max() < 0.01


def test_what_an_action_memory_keeps_of_several_is_what_it_keeps_of_each():
    several, joint = CompositeHead((CategoricalHead(choices=3),) * 2), JointHead(CategoricalHead(choices=3), (2,))
    x0 = 2 * x0_of(joint, 5)
    for name in ("probabilities", "remember"):
        each = torch.cat([getattr(joint.each, name)(part) for part in x0.split(3, -1)], -1)
        assert torch.equal(getattr(joint, name)(x0), each)
    assert torch.equal(several.probabilities(x0), joint.probabilities(x0))
    law = joint.law(x0)
    assert torch.equal(several.spread(law, torch.rand(5, 2)), several.entropy(law))  # in closed form
    torch.testing.assert_close(several.entropy(law), joint.entropy(law))
    vectors = CompositeHead((BOUNDED, SIMPLEX))
    law = vectors.law(x0_of(vectors, 5))
    volume = sum(part.log_volume(own) for part, own in zip(vectors.parts, vectors._laws(law), strict=True))
    assert torch.equal(torch.as_tensor(vectors.log_volume(law)), torch.as_tensor(volume))


def test_slots_and_items_without_a_choice_are_marked_alone():
    flat = torch.tensor([[False, False, True, False, True, False, False, True, True]])
    action, marked = torch.tensor([[1, 0, 2]]), [[1, 0, 2]]
    for head in (MULTI, TokenHead(nvec=MULTI.nvec)):
        assert head.refuse(action, None) is action
        assert head.refuse(action, head.read_mask(flat)).tolist() == marked
        none = flat.clone()
        none[0, 3:5] = False
        assert head.refuse(action, head.read_mask(none)).tolist() == [[1, -1, 2]]
    joint = JointHead(CategoricalHead(choices=2), (2,))
    assert joint.refuse(action[:, :2], None).tolist() == [[1, 0]]
    assert joint.refuse(action[:, :2], torch.tensor([[True, True, False, False]])).tolist() == [[1, -1]]
    several = CompositeHead((CategoricalHead(choices=3), CategoricalHead(choices=2)), (True, True))
    assert several.maskable
    for head, first in ((several, [1, 0, 0, 1, 0]), (joint, [1, 0, 1, 0])):  # of what does not exist
        assert head.first().tolist() == [bool(x) for x in first]
        with pytest.raises(InputError, match=rf"of {len(first)} choices"):
            head.read_mask(torch.ones(len(first) + 1, dtype=torch.bool))


@dataclass(frozen=True)
class Fixed(Head):
    """A head that gives no more than it must: always 0."""

    kinds = ("categorical",)
    width, event = 2, ()

    def sized(self, action):
        return self

    def sample(self, law, draws):
        return self.mode(law)

    def mode(self, law):
        return torch.zeros(law.shape[:-1], dtype=torch.int64)


LAW, NUMBERS = torch.zeros(3, 2), torch.zeros(3, dtype=torch.int64)


@pytest.mark.parametrize(
    ("ask", "words"),
    [
        (lambda head: head.mask_width, "has no choices that a mask could forbid"),
        (lambda head: head.encode(NUMBERS), "holds a law's parameters"),
        (lambda head: head.uniform(torch.Size([3]), None, draw()), "how an action is drawn alike"),
        (lambda head: head.feature_width, "how a critic reads"),
        (lambda head: head.features(NUMBERS), "how a critic reads"),
        (lambda head: head.log_prob(LAW, NUMBERS), "no log-probability"),
        (lambda head: head.spread(LAW, NUMBERS), "no closed form"),
        (lambda head: head.probabilities(LAW), "store x0"),
        (lambda head: head.joint, "cannot be enumerated"),
        (lambda head: head.joint_log_prob(LAW), "cannot be enumerated"),
        (lambda head: head.joint_mask(LAW > 0), "cannot be enumerated"),
        (lambda head: head.joint_index(NUMBERS), "cannot be enumerated"),
        (lambda head: head.with_log_prob(LAW, NUMBERS), "has no gradient"),
        (lambda head: head.freedom(LAW), "has no gradient"),
        (lambda head: head.log_volume(LAW), "has no gradient"),
    ],
)
def test_what_a_head_of_ones_own_does_not_give_is_refused_by_its_name(ask, words):
    with pytest.raises(InputError, match=f"Fixed.*{words}"):
        ask(Fixed())
