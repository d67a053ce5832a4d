"""Servers that come and go: their outages, what is sent again, and that delays are counted once and wholly."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from diffpolicy import with_recurrent_state
from diffpolicy.edge import OffloadingEnv, Scenario, Server, TaskList, evaluate, make_policy, play_episodes, replay
from diffpolicy.edge.scenario.availability import Availability, Timeline
from diffpolicy.edge.training import build, train
from diffpolicy.edge.workload.seeds import Stream
from diffpolicy.errors import InputError

DOWN = Availability(((2.0, 10.0),))


def pair(first=DOWN, second=None, rate=1e9):
    return Scenario(
        1.0, (Server(1.0, rate, availability=first), Server(1.0, rate, availability=second)), stations=(None,)
    )


def tasks(tmp_path, fleet, rows, decisions=False):
    path = tmp_path / "tasks.csv"
    head = "arrival_s,origin,input_mbit,result_mbit,gcycles_per_step,steps,server\n"
    path.write_text(head + "".join(f"{t},,0,0,{w},1,{a}\n" for t, w, a in rows))
    return TaskList.read(path, fleet, decisions=decisions)


def test_a_struck_task_is_sent_again_and_its_delay_counts_from_its_arrival(tmp_path):
    fleet = pair()
    played = replay(fleet, tasks(tmp_path, fleet, [(0, 4, 0), (3, 4, 0)]), make_policy("opt-ts", fleet), name="opt-ts")
    # the first is lost at 2, sent again to server 1 when the next one arrives at 3, and done at 7
    assert played.server.tolist() == [1, 1]
    assert played.delay_s == pytest.approx([7.0, 8.0])


def test_a_task_that_is_done_in_time_is_not_struck(tmp_path):
    fleet = pair()
    played = replay(fleet, tasks(tmp_path, fleet, [(0, 2, 0), (3, 4, 0)]), make_policy("opt-ts", fleet), name="opt-ts")
    assert played.server.tolist() == [0, 1]
    assert played.delay_s == pytest.approx([2.0, 4.0])


def test_who_is_sent_to_a_server_that_is_down_waits_for_its_repair(tmp_path):
    fleet = pair()
    rows = [(3, 4, 0), (4, 4, 0), (11, 1, 0)]
    assert replay(fleet, tasks(tmp_path, fleet, rows, decisions=True)).delay_s == pytest.approx([11.0, 14.0, 8.0])


def test_all_may_be_down(tmp_path):
    fleet = pair(DOWN, Availability(((2.0, 5.0),)))
    played = replay(fleet, tasks(tmp_path, fleet, [(3, 1, 0), (6, 1, 0)]), make_policy("opt-ts", fleet), name="opt-ts")
    assert played.delay_s.tolist() == pytest.approx([8.0, 1.0])
    assert played.server.tolist() == [0, 1]


def test_down_servers_are_masked_and_rules_avoid_them():
    base = Scenario.load("lad-ts").override(tasks=6, stations=5, slots=40)
    fleet = replace(
        base, servers=tuple(replace(s, availability=Availability(mtbf_s=8.0, mttr_s=4.0)) for s in base.servers)
    )
    for name in ("opt-ts", "slot-greedy", "least-work-own", "random", "round-robin", "weighted-round-robin",
                 "capacity-proportional", "least-work"):  # fmt: skip
        policy = make_policy(name, fleet)
        env = OffloadingEnv(fleet, [4], information=policy.information)
        td = with_recurrent_state(env, policy).rollout(40, policy)
        mask = td["agents", "action_mask"]
        assert 0.4 < float(mask.float().mean()) < 0.9
        chosen = mask.gather(-1, td["agents", "action"])
        assert chosen[td["agents", "valid"]].all(), name


def test_every_task_counts_once_and_outages_cost_time():
    base = Scenario.load("lad-ts").override(tasks=6, stations=5, slots=40)
    fleet = replace(
        base, servers=tuple(replace(s, availability=Availability(mtbf_s=40.0, mttr_s=5.0)) for s in base.servers)
    )
    calm, rough = (evaluate(["opt-ts"], s, episodes=3).results["opt-ts"].delays for s in (base, fleet))
    assert calm.tasks == rough.tasks
    assert rough.mean_delay_s > calm.mean_delay_s
    assert fleet.load_factor() == pytest.approx(base.load_factor() * 45 / 40)
    a, b = (play_episodes(fleet, make_policy("random", fleet), 2).cost for _ in range(2))
    assert np.array_equal(a, b)


def test_servers_that_never_fail_change_nothing():
    base = Scenario.load("lad-ts").override(tasks=6, stations=5, slots=20)
    never = replace(base, servers=tuple(replace(s, availability=Availability(((1e9, 2e9),))) for s in base.servers))
    for name in ("opt-ts", "round-robin", "weighted-round-robin"):
        a, b = (play_episodes(s, make_policy(name, s), 2).cost for s in (base, never))
        assert np.array_equal(a, b), name


def test_drawn_outages_have_their_means_and_are_a_function_of_seed_and_episode():
    law = Availability(mtbf_s=90.0, mttr_s=10.0)
    line = Timeline(law, 0, Stream.EVALUATION, 0, 0)
    down = np.mean([line.back_s(t) > t for t in np.arange(0, 200_000, 7.0)])
    assert down == pytest.approx(0.1, abs=0.01)
    again = Timeline(law, 0, Stream.EVALUATION, 0, 0)
    assert [again.back_s(t) for t in (5e4, 1e3)] == [line.back_s(t) for t in (5e4, 1e3)]
    assert Timeline(law, 0, Stream.EVALUATION, 1, 0).failure_s(0, 1e9) != line.failure_s(0, 1e9)
    assert line.failure_s(line.failure_s(0, 1e9), 1e9) > line.failure_s(0, 1e9)


def test_an_environment_goes_on_from_its_saved_state():
    base = Scenario.load("lad-ts").override(tasks=6, stations=5, slots=40)
    fleet = replace(
        base, servers=tuple(replace(s, availability=Availability(mtbf_s=6.0, mttr_s=3.0)) for s in base.servers)
    )
    first, second = (OffloadingEnv(fleet, [2]) for _ in range(2))
    first.rollout(9, make_policy("random", fleet, seed=4), break_when_any_done=False)
    second.reset()
    second.set_extra_state(first.get_extra_state())
    a, b = first.observe(), second.observe()
    for _ in range(6):
        assert all(torch.equal(x, b[k]) for k, x in a.items(True, True))
        action = a["agents", "action_mask"].float().argmax(-1, keepdim=True).expand(a["agents", "valid"].shape).clone()
        a["agents", "action"], b["agents", "action"] = action, action.clone()
        a, b = first._step(a), second._step(b)
    for system in (fleet, base):  # nothing is under way yet, or nothing ever fails
        first, second = (OffloadingEnv(system, [2]) for _ in range(2))
        first.reset()
        second.set_extra_state(first.get_extra_state())
        again = second.observe()
        assert all(torch.equal(x, again[k]) for k, x in first.observe().items(True, True))


def test_a_method_trains_with_masks_and_its_policy_never_chooses_a_server_that_is_down(tmp_path):
    base = Scenario.load("lad-ts").override(tasks=6, stations=3, slots=20)
    fleet = replace(
        base, servers=tuple(replace(s, availability=Availability(mtbf_s=8.0, mttr_s=4.0)) for s in base.servers)
    )
    module = build("lad-ts-plus", fleet)
    assert module.policy.mask_key == ("agents", "action_mask")
    train("lad-ts-plus", fleet, episodes=8, module=module)
    assert module.history[-1]["delay_s"] > 0
    assert "loss_actor" in module.history[-1]
    env = OffloadingEnv(fleet, [4])
    td = with_recurrent_state(env, module.policy).rollout(20, module.policy)
    chosen = td["agents", "action_mask"].gather(-1, td["agents", "action"])
    assert chosen[td["agents", "valid"]].all()


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ([[0, 1]], "availability must be an object"),
        ({"mtbf_s": 3}, "availability lacks the key 'mttr_s'"),
        ({"mtbf_s": 0, "mttr_s": 1}, "availability.mtbf_s must be greater than 0, got 0"),
        ({"down_s": [[3, 2]]}, r"availability.down_s\[0\] must be \[from, to\]"),
        ({"down_s": [[1, 5], [4, 6]]}, r"availability.down_s\[1\] must be \[from, to\] after the interval before it"),
    ],
)
def test_bad_availability_is_refused(value, words):
    data = pair().to_dict()
    data["servers"][0]["availability"] = value
    with pytest.raises(InputError, match=words):
        Scenario.from_dict(data)
