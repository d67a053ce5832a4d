"""When a trial of a share ends: how soon if the policy is worse, how seldom if it is not."""

import numpy as np
import pytest

from diffpolicy.edge.serving.evidence import Evidence
from diffpolicy.edge.serving.trial import LOST, PROOF, Trial

LAWS = {
    "exponential": lambda rng, n: rng.exponential(1.0, n),
    "lognormal": lambda rng, n: np.exp(rng.normal(0.0, 1.0, n)),
    "no variance": lambda rng, n: 1.0 + rng.pareto(1.5, n),
    "a growing queue": lambda rng, n: 1.0 + np.maximum(np.cumsum(rng.normal(0.1, 1.0, n)), 0.0),
}


def ends(law, factor, share, seed, n):
    """Answers of the policy, `factor` times as slow, after which it loses its share; None: not within n of both."""
    slowdowns, trial, ours = law(np.random.default_rng(seed), n), Trial(share, seed), 0
    for k, slowdown in enumerate(slowdowns.tolist()):
        arm = trial.arm(f"r{k}", 0.0)
        ours += arm
        if trial.seen(arm, slowdown * factor if arm else slowdown, 0.0):
            return ours
    return None


@pytest.mark.parametrize("name", LAWS)
@pytest.mark.parametrize(("share", "most"), [(0.1, 45), (0.5, 100)])
def test_a_policy_that_is_twice_as_slow_loses_its_share_within_dozens_of_its_answers(name, share, most):
    after = [ends(LAWS[name], 2.0, share, seed, int(25 + 20 / share) * 10) for seed in range(20)]
    assert None not in after
    assert np.median(after) <= most


@pytest.mark.parametrize("name", LAWS)
def test_a_policy_that_is_like_the_other_keeps_its_share(name):
    after = [ends(LAWS[name], 1.0, 0.1, seed, 1500) for seed in range(30)]
    assert sum(end is not None for end in after) <= 1


@pytest.mark.parametrize("share", [0.1, 0.5, 0.9])
def test_each_bet_is_fair_whatever_the_answer(share):
    """Its mean over the two sides it may be of is what it was: on that rests how seldom a trial ends in vain."""
    for seed in range(20):
        values = {}
        for arm in (True, False):
            rng, evidence = np.random.default_rng(seed), Evidence(share)
            for _ in range(40):
                evidence.seen(bool(rng.random() < share), float(rng.integers(8)))  # with ties
            before, slowdown = evidence.value, float(rng.integers(9))
            evidence.seen(arm, slowdown)
            values[arm] = evidence.value
        assert share * values[True] + (1 - share) * values[False] == pytest.approx(before)


def test_a_policy_that_gets_worse_after_a_long_good_time_is_found():
    rng, trial, ours = np.random.default_rng(0), Trial(0.5, 0), 0
    for k in range(4000):
        arm = trial.arm(f"r{k}", 0.0)
        factor = (0.5 if k < 3000 else 3.0) if arm else 1.0
        ours += arm and k >= 3000
        if trial.seen(arm, factor * rng.exponential(), 0.0):
            break
    assert k >= 3000
    assert ours <= 250


def test_a_policy_whose_mean_is_better_keeps_its_share_though_most_of_its_requests_are_slower():
    rng, trial = np.random.default_rng(0), Trial(0.5, 0)
    for k in range(1000):
        arm = trial.arm(f"r{k}", 0.0)
        slow = 1.5 if arm else 40.0 if k % 10 == 0 else 1.0
        assert not trial.seen(arm, slow + 0.1 * rng.random(), 0.0)
    assert trial.evidence > PROOF
    assert trial.left is None


def test_a_request_that_fails_counts_as_the_slowest_of_late():
    trial = Trial(0.5)
    trial.seen(False, float("inf"), 0.0)
    assert trial.sides["other"].slowdown == LOST
    trial.seen(False, 57.0, 0.0)
    trial.seen(True, float("inf"), 0.0)
    assert trial.sides["policy"].slowdown == 57.0


def test_how_many_answers_are_left_falls_as_the_evidence_grows():
    trial, told = Trial(0.5), []
    assert trial.evidence == 1.0
    assert trial.left is None
    k = 0
    while not trial.seen(k % 2 == 0, 20.0 + k % 7 if k % 2 == 0 else 10.0 + k % 7, 0.0):
        told.append((trial.sides["policy"].answers, trial.left))
        k += 1
    end = trial.sides["policy"].answers
    assert trial.left is None  # it is over
    assert told[-1][1] <= 2 < told[-10][1]
    assert all(0.5 * end <= seen + left <= 2 * end for seen, left in told[-8:])
    assert Trial(1.0).evidence is None


def test_a_turn_counts_once_and_what_is_answered_after_it_counted_changes_nothing():
    trial = Trial(0.5, turn_s=10.0)
    for turn in range(4):
        for slowdown in (1.0, 3.0):
            trial.seen(trial.arm("", 10.0 * turn), slowdown + turn, 10.0 * turn)
    sides = trial.sides.values()
    assert sum(side.answers for side in sides) == 2  # the last two turns do not count yet
    before = trial.evidence
    trial.seen(trial.arm("", 0.0), 900.0, 1.0)
    assert trial.evidence == before
    assert sum(side.answers for side in trial.sides.values()) == 2
