"""From slots to the transitions of the paper, task by task of each station, against loops."""

import pytest
import torch

from diffpolicy import ActionMemory, DiffusionPolicy, with_recurrent_state
from diffpolicy.edge import OffloadingEnv, make_policy, released_transitions, task_transitions

KEYS = ["observation", "action", "reward", "valid", ("next", "observation")]


def play(scenario, steps, name="slot-greedy", batch=2, **options):
    """Slots of an environment under a policy, `[E, T]`, and what continues them."""
    env = OffloadingEnv(scenario, [batch], information="stale", dtype=torch.float64, **options)
    policy = make_policy(name, scenario) if isinstance(name, str) else name
    env = with_recurrent_state(env, policy)
    td, slots = env.reset(), []
    for _ in range(steps):
        step, td = env.step_and_maybe_reset(policy(td))
        slots.append(step)
    return torch.stack(slots, 1)


def memory_policy(scenario):
    env = OffloadingEnv(scenario, [1])
    return DiffusionPolicy.from_specs(env, prior=ActionMemory(), steps=2)


def seen(rollout, e, t):
    """What the agents of environment e see in slot t, the slot after the last one included."""
    steps = rollout.shape[1]
    return rollout[e, t]["agents"] if t < steps else rollout[e, -1]["next", "agents"]


def by_hand(rollout, e, b):
    """The transitions of a station: (t, n) -> (t', n') of its next task, or None where nothing follows."""
    steps = rollout.shape[1]
    tasks = [(t, n) for t in range(steps + 1) for n in seen(rollout, e, t)["valid"][b].nonzero().flatten().tolist()]
    return {a: (tasks[i + 1] if i + 1 < len(tasks) else None) for i, a in enumerate(tasks) if a[0] < steps}


@pytest.mark.parametrize("make", [task_transitions, released_transitions])
@pytest.mark.parametrize("steps", [1, 2, 5])
@pytest.mark.parametrize("stations", [(0, 1, 2), (2, None, 2, 0, 1)])
def test_every_transition_is_the_one_of_the_loop(scenario, make, steps, stations):
    scenario = type(scenario)(0.5, scenario.servers, slots=5, stations=stations, workload=scenario.workload)
    rollout = play(scenario, steps)
    result = make(rollout)
    b_count = len(stations)
    assert result.shape == (2, b_count, steps, 4)
    crossed = 0
    for e in range(2):
        for b in range(b_count):
            following = by_hand(rollout, e, b)
            for t in range(steps):
                for n in range(4):
                    row = result[e, b, t, n]
                    assert bool(row["valid"]) == (following.get((t, n)) is not None)
                    if not row["valid"]:
                        continue
                    step = rollout[e, t]
                    assert torch.equal(row["observation"], step["agents", "observation"][b, n])
                    assert row["action"] == step["agents", "action"][b, n]
                    assert row["reward"] == step["next", "agents", "reward"][b, n]
                    t2, n2 = following[t, n]
                    expected = seen(rollout, e, t2)["observation"][b, n2].clone()
                    if t2 != t:
                        crossed += 1
                        if make is released_transitions:
                            expected[2:] = 0
                    assert torch.equal(row["next", "observation"], expected)
    assert crossed > 0


def test_the_last_task_of_a_slot_sees_the_queues_as_updated(scenario):
    rollout = play(scenario, 2)
    result = task_transitions(rollout)
    found = 0
    for e in range(2):
        for b in range(3):
            valid = rollout[e, 0]["agents", "valid"][b]
            if not valid.any() or not rollout[e, 1]["agents", "valid"][b].any():
                continue
            found += 1
            last = int(valid.sum()) - 1
            after = result[e, b, 0, last]["next", "observation"]
            assert torch.equal(after[2:], rollout[e, 0]["next", "queue_gcycles"])
            assert float(after[0]) == float(rollout[e, 1]["agents", "input_mbit"][b, 0])
            if last > 0:
                inside = result[e, b, 0, 0]["next", "observation"]
                assert torch.equal(inside[2:], rollout[e, 0]["queue_gcycles"])
    assert found > 0


def test_the_released_code_zeroes_queues_between_slots_and_nothing_else(scenario):
    rollout = play(scenario, 5)
    ours, theirs = task_transitions(rollout), released_transitions(rollout)
    for key in KEYS[:-1]:
        assert torch.equal(ours[key], theirs[key])
    a, b = ours["next", "observation"], theirs["next", "observation"]
    assert torch.equal(a[..., :2], b[..., :2])
    different = (a != b).any(-1) & ours["valid"]
    assert different.any()
    assert (b[..., 2:][different] == 0).all()


def test_a_station_without_tasks_in_the_next_slot_has_no_last_transition(scenario):
    rollout = play(scenario, 1, batch=12)
    result = task_transitions(rollout)
    here, there = rollout[:, 0]["agents", "valid"], rollout[:, 0]["next", "agents", "valid"]
    alone = here.any(-1) & ~there.any(-1)
    assert alone.any()
    for e, b in alone.nonzero().tolist():
        count = int(here[e, b].sum())
        assert result["valid"][e, b, 0].tolist() == [n < count - 1 for n in range(4)]


def test_a_longer_rollout_looks_over_empty_slots(scenario):
    rollout = play(scenario, 5, batch=12)
    whole = task_transitions(rollout)
    parts = torch.cat([task_transitions(rollout[:, t : t + 1]) for t in range(5)], 2)
    assert (whole["valid"] >= parts["valid"]).all()
    assert (whole["valid"] & ~parts["valid"]).any()
    for key in KEYS:
        assert torch.equal(whole[key][parts["valid"]], parts[key][parts["valid"]])


@pytest.mark.parametrize("make", [task_transitions, released_transitions])
@pytest.mark.parametrize("cut", [1, 2, 4])
def test_rollouts_end_to_end_are_one_rollout_where_no_slot_is_empty(scenario, make, cut):
    workload = type(scenario.workload)(
        (1, 4), (2.0, 5.0), scenario.workload.gcycles_per_step, scenario.workload.steps, scenario.workload.result_mbit
    )
    busy = type(scenario)(0.5, scenario.servers, slots=5, workload=workload)
    rollout = play(busy, 5, memory_policy(busy))
    whole = make(rollout)
    parts = torch.cat([make(rollout[:, :cut]), make(rollout[:, cut:])], 2)
    for key in [*KEYS, "latent", ("next", "latent")]:
        mask = whole["valid"]
        assert torch.equal(whole[key][mask], parts[key][mask])
    assert torch.equal(whole["valid"], rollout["agents", "valid"].transpose(1, 2))


def test_latents_go_with_the_observations(scenario):
    rollout = play(scenario, 4, memory_policy(scenario))
    result = task_transitions(rollout)
    count = 0
    for e in range(2):
        for b in range(3):
            for (t, n), after in by_hand(rollout, e, b).items():
                if after is None:
                    continue
                count += 1
                row = result[e, b, t, n]
                assert torch.equal(row["latent"], rollout[e, t]["agents", "latent"][b, n])
                assert torch.equal(row["next", "latent"], seen(rollout, e, after[0])["latent"][b, after[1]])
    assert count > 20


def test_without_a_memory_there_are_no_latents(scenario):
    assert "latent" not in task_transitions(play(scenario, 2)).keys()


def test_the_rollout_is_left_as_it_was(scenario):
    rollout = play(scenario, 3)
    before = rollout.clone()
    released_transitions(rollout)
    assert (rollout == before).all()


def test_rewards_are_those_of_the_environment_and_none_is_lost(scenario):
    rollout = play(scenario, 5)
    result = task_transitions(rollout)
    ending = rollout["agents", "valid"].transpose(1, 2) & ~result["valid"]
    assert (ending.flatten(2).sum(-1) <= 1).all()
    total = (result["reward"] * (result["valid"] | ending)).sum()
    torch.testing.assert_close(total, rollout["next", "agents", "reward"].sum())
