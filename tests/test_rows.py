"""Rows that losses read: what lacks or has another shape is named, and masks come as the head reads them."""

import pytest
import torch
from tensordict import TensorDict
from torchrl.data import Binary, Categorical, Unbounded

from diffpolicy import FeedforwardPolicy, InputError
from diffpolicy.objectives.rows import check_given, check_possible, check_rows, row_masks
from diffpolicy.policies.heads import CategoricalHead, SimplexHead
from test_keys import Specs

SEEN = {"observation": Unbounded((4, 3)), "action_mask": Binary(3, (4, 3), dtype=torch.bool)}
POLICY = FeedforwardPolicy.from_specs(Specs(SEEN, Categorical(3, (4,))))
KEYS = ("observation", ("next", "observation"))


def rows(now=(5, 3), after=(5, 3), batch=(5,)):
    return TensorDict({"observation": torch.zeros(now), "next": {"observation": torch.zeros(after)}}, batch)


def test_keys_that_lack_are_all_named_and_shapes_with_the_one_that_was_wanted():
    check_given(rows(), KEYS)
    check_rows(rows(), KEYS, "observation", POLICY)
    check_rows(rows((7, 3), (7, 3), ()), KEYS, "observation", POLICY)  # rows without a batch
    with pytest.raises(InputError, match=r"do not give 'reward', \('next', 'x'\), which the objective reads"):
        check_given(rows(), ("observation", "reward", ("next", "x")))
    with pytest.raises(InputError, match=r"'observation' must have shape \[5, 3\], got \[5, 4\]"):
        check_rows(rows(now=(5, 4)), KEYS, "observation", POLICY)
    with pytest.raises(InputError, match=r"\('next', 'observation'\) must have shape \[5, 3\], got \[5, 2, 3\]"):
        check_rows(rows(after=(5, 2, 3)), KEYS, "observation", POLICY)
    with pytest.raises(InputError, match=r"'observation' must have shape \[rows, 3\], got \[7, 2\]"):
        check_rows(rows((7, 2), (7, 2), ()), KEYS, "observation", POLICY)


def test_actions_that_no_policy_decides_are_named_with_their_place_and_why():
    head, simplex = CategoricalHead(choices=3), SimplexHead(choices=2)
    check_possible(head, torch.tensor([0, 2]))
    with pytest.raises(InputError, match=r"imitate at \[1\] is 3, which is no choice of the policy"):
        check_possible(head, torch.tensor([0, 3, 4]))
    shares, allowed = torch.tensor([[1.0, 0.0], [0.5, 0.5]]), torch.tensor([[True, False], [True, False]])
    check_possible(simplex, shares)
    check_possible(simplex, shares[:1], allowed[:1])
    with pytest.raises(InputError, match=r"imitate at \[1\] is \[0.5, 0.5\], whose shares the mask forbids"):
        check_possible(simplex, shares, allowed)


def test_masks_of_rows_and_of_what_follows_come_as_bool_or_not_at_all():
    size = torch.Size([5])
    assert row_masks(rows(), "action_mask", POLICY, size) == (None, None)
    one = rows().set("action_mask", torch.ones(5, 3, dtype=torch.int8))
    now, after = row_masks(one, "action_mask", POLICY, size)
    assert now.dtype == torch.bool
    assert now.all()
    assert after is None
    with pytest.raises(
        InputError, match=r"mask \('next', 'action_mask'\) of the rows must have shape \[5, 3\], got \[5, 2\]"
    ):
        row_masks(one.set(("next", "action_mask"), torch.ones(5, 2)), "action_mask", POLICY, size)
