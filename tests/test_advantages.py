"""Generalised advantages against the sums that define them, in double precision."""

import itertools

import pytest
import torch

from diffpolicy.training.advantages import at_once, in_sequence
from diffpolicy.training.minibatches import minibatches


def draws(*shape, seed=0):
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def flags(*shape, p=0.2, seed=1):
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed)) < p


def direct(reward, value, after, terminated, done, gamma, lmbda):
    """A_i = sum over k of (gamma lambda)^k delta_{i+k}, up to the first end."""
    result = []
    for i in range(len(reward)):
        total, weight = 0.0, 1.0
        for j in range(i, len(reward)):
            bootstrap = 0.0 if terminated[j] else gamma * after[j]
            total += weight * (reward[j] + bootstrap - value[j])
            weight *= gamma * lmbda
            if done[j]:
                break
        result.append(total)
    return result


@pytest.mark.parametrize("lmbda", [0.0, 0.9, 1.0])
def test_decisions_in_sequence_are_the_direct_sum_over_those_that_there_are(lmbda):
    shape, gamma = (3, 2, 20), 0.95
    reward, value, after = draws(3, *shape)
    terminated = flags(*shape)
    done = terminated | flags(*shape, seed=2)  # the others are truncated
    valid = flags(*shape, p=0.6, seed=3)
    valid[0, 0] = False  # one who never decides
    advantage, target = in_sequence(reward, value, after, terminated, done, valid, gamma=gamma, lmbda=lmbda)
    for e, b in itertools.product(range(3), range(2)):
        here = valid[e, b]
        columns = [x[e, b][here].tolist() for x in (reward, value, after, terminated, done)]
        assert torch.allclose(advantage[e, b][here], torch.tensor(direct(*columns, gamma, lmbda), dtype=torch.float64))
    assert not advantage[~valid].any()
    assert torch.equal(target, (advantage + value) * valid)


def test_a_truncation_is_worth_what_would_have_come_and_a_terminal_state_nothing():
    one = torch.ones(1, 1, dtype=torch.float64)
    yes, no = torch.ones(1, 1, dtype=torch.bool), torch.zeros(1, 1, dtype=torch.bool)
    options = {"gamma": 0.5, "lmbda": 0.9}
    assert in_sequence(one, 3 * one, 8 * one, no, yes, yes, **options)[0].item() == 1 + 0.5 * 8 - 3
    assert in_sequence(one, 3 * one, 8 * one, yes, yes, yes, **options)[0].item() == 1 - 3


@pytest.mark.parametrize("shared", [False, True])
def test_items_of_one_step_share_its_whole_reward(shared):
    steps, items, gamma, lmbda = 7, 4, 0.9, 0.8
    value, after = draws(2, steps, items)
    valid = flags(steps, items, p=0.7)
    valid[:, 0] = True
    next_valid = torch.cat([valid[1:], valid[:1]])
    reward = draws(steps, 1).expand(steps, items) if shared else draws(steps, items)
    terminated = torch.zeros(steps, items, dtype=torch.bool)
    terminated[-1] = True
    columns = (reward, value, after, terminated, terminated, valid, next_valid)
    advantage, target = at_once(*columns, shared=shared, gamma=gamma, lmbda=lmbda)

    def mean(x, where):
        return [float(row[w].mean()) for row, w in zip(x, where, strict=True)]

    total = [float(r[0] if shared else r[w].sum()) for r, w in zip(reward, valid, strict=True)]
    ends = terminated[:, 0].tolist()
    expected = direct(total, mean(value, valid), mean(after, next_valid), ends, ends, gamma, lmbda)
    assert torch.allclose(advantage, torch.tensor(expected, dtype=torch.float64))
    assert torch.allclose(target - advantage, torch.tensor(mean(value, valid), dtype=torch.float64))


def test_what_comes_while_nothing_is_to_decide_reaches_the_decision_before():
    gamma, steps = 0.9, 4
    valid = torch.tensor([[True], [False], [False], [True]])
    next_valid = torch.cat([valid[1:], torch.zeros(1, 1, dtype=torch.bool)])
    reward, value, after = draws(3, steps, 1)
    no = torch.zeros(steps, 1, dtype=torch.bool)
    advantage, _ = at_once(reward, value, after, no, no, valid, next_valid, shared=True, gamma=gamma, lmbda=0.0)
    come = reward[0, 0] + gamma * reward[1, 0] + gamma**2 * reward[2, 0] + gamma**3 * after[2, 0]
    assert torch.allclose(advantage[0], come - value[0, 0])
    # after the last step nothing is seen, so the last value stands for what comes
    assert torch.allclose(advantage[3], reward[3, 0] + gamma * value[3, 0] - value[3, 0])


def test_lambda_one_is_the_return_whatever_the_critic_says():
    reward, value = draws(2, 1, 9)
    no, yes = torch.zeros(1, 9, dtype=torch.bool), torch.ones(1, 9, dtype=torch.bool)
    over = no.clone()
    over[:, -1] = True
    after = torch.cat([value[:, 1:], value[:, :1]], -1)
    _, target = in_sequence(reward, value, after, over, over, yes, gamma=0.9, lmbda=1.0)
    powers = 0.9 ** torch.arange(9, dtype=torch.float64)
    assert torch.allclose(target[0, 0], (powers * reward[0]).sum())


@pytest.mark.parametrize("size", [1, 3, 100])
def test_an_epoch_visits_every_row_once(size):
    valid = flags(2, 30, p=0.5)
    valid[0, 5:] = False
    parts = list(minibatches(valid, size, torch.Generator().manual_seed(0)))
    assert all(rows.shape[-1] <= size for _, rows in parts)
    order = torch.cat([rows for _, rows in parts], -1)
    most = int(valid.sum(-1).max())
    assert order.shape == (2, most)
    for g in range(2):
        visits = order[g].bincount(minlength=30)
        assert torch.equal(visits > 0, valid[g])
        assert int(visits.max()) - int(visits[valid[g]].min()) <= 1
    alone = torch.cat([rows for (rows,) in minibatches(valid[1], size, torch.Generator().manual_seed(0))])
    assert sorted(alone.tolist()) == valid[1].nonzero().flatten().tolist()
