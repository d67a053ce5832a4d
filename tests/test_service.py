"""Measured service models against a plain event-by-event account, and what policies see of them."""

import json
import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from diffpolicy.edge import OffloadingEnv, Scenario, Server, TaskList, make_policy, replay
from diffpolicy.edge.physics.queueing import ServerSpeeds
from diffpolicy.edge.physics.service import Measured, MeasuredService, ServiceState
from diffpolicy.edge.scenario.service_times import ModelTimes, ServerService
from diffpolicy.edge.workload.mix import RequestType
from diffpolicy.edge.workload.requests import RequestWorkload
from diffpolicy.errors import InputError

SMALL = ModelTimes(0.1, (0.25, 1.0), (0.02, 0.1), (0.05, 0.2))
FAST = ServerService({"a": SMALL, "b": SMALL}, switch_s=3.0, cold_s=5.0, batch=(1.0, 0.8, 0.7), joins=True)
SLOW = ServerService({"*": ModelTimes(0.2, (1.0,), (0.4,), (0.5,))}, switch_s=7.0)


def requests(mix_steps=(10, 20), models=("a", "b"), **others):
    mix = tuple(
        RequestType(model=m, width=1000, height=1000, steps=n, gcycles_per_step=0.1, input_mbit=1.0, result_mbit=2.0)
        for m in models
        for n in mix_steps
    )
    return RequestWorkload("poisson", 0.3, mix, **others)


def scenario(services=(FAST, SLOW), slots=40, stations=(None,), **others):
    servers = tuple(Server(c, 100.0, service=s) for c, s in zip((1.0, 0.25), services, strict=True))
    return Scenario(1.0, servers, slots=slots, stations=stations, workload=requests(**others))


def test_times_are_text_steps_and_decoding_linear_between_sizes_and_in_proportion_beyond():
    got = SMALL.seconds(np.array([0.25, 0.625, 1.0, 2.0, 0.125]), np.array([10.0] * 5))
    assert got == pytest.approx([0.1 + 0.2 + 0.05, 0.1 + 0.6 + 0.125, 0.1 + 1 + 0.2, 0.1 + 2 + 0.4, 0.1 + 0.1 + 0.025])


def test_images_of_a_request_are_batches_and_long_ones_several():
    assert FAST.batch_factor(np.arange(1.0, 8)) == pytest.approx([1, 1.6, 2.1, 3.1, 3.7, 4.2, 5.2])


class Account:
    """One environment's servers, told request by request in plain Python."""

    def __init__(self, services, models):
        self.services, self.models = services, models
        self.free = [0.0] * len(services)
        self.loaded = [None] * len(services)
        self.tail = [(None, 0, -math.inf)] * len(services)

    def send(self, now, a, model, megapixels, steps, images, luck):
        service = self.services[a]
        one = service.seconds(self.models[model], *(np.array([float(x)]) for x in (megapixels, steps, images)))[0]
        kind, queued, begins = self.tail[a]
        mine = (model, megapixels, steps)
        begin = max(self.free[a], now)
        if service.joins and kind == mine and begins > now and queued + images <= len(service.batch):
            factor = service.batch_factor(np.array([float(queued), float(queued + images), float(images)]))
            run = one * (factor[1] - factor[0]) / factor[2]
            self.tail[a] = (kind, queued + images, begins)
        else:
            load = 0.0
            if self.loaded[a] != model:
                load = service.cold_s if self.loaded[a] is None else service.switch_s
            run = one + load
            self.tail[a] = (mine, images, begin)
        run *= math.exp(service.scatter * luck)
        self.loaded[a] = model
        self.free[a] = begin + run
        return self.free[a] - now


@pytest.mark.parametrize("scatter", [0.0, 0.3])
@pytest.mark.parametrize("rate", [0.3, 3.0])
def test_the_environment_agrees_with_a_plain_account(scatter, rate):
    services = [
        ServerService({"*": SMALL}, switch_s=0.3, cold_s=0.5, batch=(1, 0.8, 0.7), joins=True, scatter=scatter),
        ServerService({"*": SMALL}, switch_s=0.7, scatter=scatter),
    ]
    workload = requests(model_persistence=0.5)
    servers = tuple(Server(c, 100.0, service=s) for c, s in zip((1.0, 0.25), services, strict=True))
    fleet = Scenario(1.0, servers, slots=60, stations=(None,), workload=workload.with_load(rate, 1.25))
    env = OffloadingEnv(fleet, [2], dtype=torch.float64, information="stale")
    accounts = [Account(services, fleet.workload.models) for _ in range(2)]
    drawn = [fleet.workload.draw(0, 0, k, 61, 1) for k in range(2)]
    generator = torch.Generator().manual_seed(3)
    td, joined = env.reset(), 0
    for t in range(60):
        action = torch.randint(2, (2, 1, 1), generator=generator)
        known = td["agents", "service_s"][:, 0, 0].gather(-1, action[:, 0])
        td["agents", "action"] = action
        td = env.step(td)
        for e in range(2):
            r, a = drawn[e], int(action[e])
            facts = (int(r.model[t]), r.megapixels[t], int(r.steps[t]), int(r.images[t]), r.luck_normal[t])
            before = accounts[e].tail[a]
            expected = accounts[e].send(r.arrival_s[t], a, *facts) + 3.0 / 100.0
            joined += accounts[e].tail[a][1] > before[1] > 0
            assert -float(td["next", "agents", "reward"][e]) == pytest.approx(expected, rel=1e-9)
            if scatter == 0:
                idle = expected - float(known[e]) - 0.03
                assert idle >= -1e-9  # what was seen is the run itself, without waiting
        td = env.step_mdp(td)
    assert joined > 0 or rate < 1


def test_a_batch_that_has_begun_takes_nobody_in():
    service = MeasuredService([FAST], ["a"], torch.float64)
    task = Measured(
        torch.full((1, 1), 2.0, dtype=torch.float64),
        torch.zeros(1, dtype=torch.int64),
        torch.zeros(1, dtype=torch.int64),
        torch.ones(1, dtype=torch.float64),
        torch.zeros(1, dtype=torch.float64),
    )
    for begins, expected in ((1.0, 2.0 * 0.6), (0.0, 2.0), (-1.0, 2.0)):
        state = ServiceState(
            torch.zeros(1, 1, dtype=torch.int64),
            torch.zeros(1, 1, dtype=torch.int64),
            torch.ones(1, 1, dtype=torch.float64),
            torch.full((1, 1), begins, dtype=torch.float64),
        )
        assert float(service.present_s(task, state)) == pytest.approx(expected)


def test_a_slot_of_several_tasks_is_played_in_their_order():
    service = MeasuredService([SLOW, SLOW], ["a", "b"], torch.float64)
    k = 4
    tasks = Measured(
        torch.ones(1, k, 2, dtype=torch.float64),
        torch.tensor([[0, 1, 1, 0]]),
        torch.tensor([[0, 1, 1, 0]]),
        torch.ones(1, k, dtype=torch.float64),
        torch.zeros(1, k, dtype=torch.float64),
    )
    fleet = ServerSpeeds(torch.ones(2, dtype=torch.float64), torch.ones(2, dtype=torch.float64))
    state = ServiceState.fresh(1, 2, torch.float64)
    valid = torch.tensor([[True, True, True, False]])
    queue = torch.zeros(1, 2, dtype=torch.float64)
    through, sent, after = service.play(torch.tensor([[0, 0, 1, 0]]), tasks, valid, queue, state, fleet)
    assert through[0, :3].tolist() == pytest.approx([1.0, 9.0, 1.0])
    assert sent.tolist() == [pytest.approx([9.0, 1.0])]
    assert after.loaded.tolist() == [[1, 1]]


@pytest.mark.parametrize(("queue", "batches"), [(10.0, [3, 1]), (0.5, [3, 1]), (0.0, [1, 3])])
def test_a_batch_takes_in_what_comes_before_it_begins_until_it_is_full(queue, batches):
    """Of four alike: at an idle server the first begins at once, and the others wait for it together."""
    service, base = MeasuredService([FAST], ["a"], torch.float64), 2.0
    numbers, real = torch.zeros(1, 4, dtype=torch.int64), torch.ones(1, 4, dtype=torch.float64)
    tasks = Measured(base * real.unsqueeze(-1), numbers, numbers, real, 0 * real)
    state = replace(ServiceState.fresh(1, 1, torch.float64), loaded=torch.zeros(1, 1, dtype=torch.int64))
    fleet = ServerSpeeds(torch.ones(1, dtype=torch.float64), torch.ones(1, dtype=torch.float64))
    start = torch.full((1, 1), queue, dtype=torch.float64)
    through, _, after = service.play(numbers, tasks, real > 0, start, state, fleet)
    took = [base * x for n in batches for x in (1.0, 0.6, 0.5)[:n]]  # (1, 2 * 0.8, 3 * 0.7): what each adds
    assert through[0].tolist() == pytest.approx(np.cumsum([queue + took[0], *took[1:]]).tolist())
    assert float(after.images) == batches[-1]
    assert float(after.begins_s) == pytest.approx(queue + sum(took[: batches[0]]))


def test_environments_are_played_as_each_alone():
    service, draws = MeasuredService([FAST, SLOW], ["a", "b"], torch.float64), torch.Generator().manual_seed(0)

    def whole(most, *shape):
        return torch.randint(most, shape, generator=draws)

    tasks = Measured(
        1 + torch.rand(3, 12, 2, generator=draws, dtype=torch.float64),
        whole(2, 3, 12),
        whole(2, 3, 12),
        1.0 + whole(2, 3, 12).double(),
        torch.randn(3, 12, generator=draws, dtype=torch.float64),
    )
    server, valid = whole(2, 3, 12), torch.rand(3, 12, generator=draws) < 0.8
    queue = 3 * torch.rand(3, 2, generator=draws, dtype=torch.float64)
    fleet = ServerSpeeds(torch.tensor([1.0, 0.25]).double(), torch.ones(2, dtype=torch.float64))
    state = ServiceState.fresh(3, 2, torch.float64)
    *found, after = service.play(server, tasks, valid, queue, state, fleet)
    for e in range(3):
        row = slice(e, e + 1)
        one = Measured(*(x[row] for x in vars(tasks).values()))
        alone = ServiceState(*(x[row] for x in vars(state).values()))
        *expected, then = service.play(server[row], one, valid[row], queue[row], alone, fleet)
        for a, b in zip([*found, *vars(after).values()], [*expected, *vars(then).values()], strict=True):
            assert torch.equal(a[row], b)


def test_a_greedy_rule_stays_with_the_model_that_is_loaded():
    table = ModelTimes(0.0, (1.0,), (0.1,), (0.0,))
    services = [ServerService({"*": table}, switch_s=30.0), ServerService({"*": table}, switch_s=30.0)]
    servers = tuple(Server(1.0, 1000.0, service=s) for s in services)
    fleet = Scenario(1.0, servers, slots=60, stations=(None,), workload=requests((10,)).with_load(0.3, 2.0))
    env = OffloadingEnv(fleet, [1], information="live")
    rollout = env.rollout(60, make_policy("opt-ts", fleet))
    models = rollout["agents", "model"].flatten()
    servers_of = [set(rollout["agents", "action"].flatten()[models == m].tolist()) for m in (0, 1)]
    assert servers_of == [{0}, {1}] or servers_of == [{1}, {0}]


def test_policies_see_what_is_loaded_and_what_a_task_would_take():
    env = OffloadingEnv(scenario(), [3], information="live")
    td = env.rollout(5, make_policy("slot-greedy", scenario()))
    assert td["servers", "loaded"].shape == (3, 5, 2)
    assert td["servers", "loaded"][:, 0].eq(-1).all()
    assert (td["servers", "loaded"][:, 1] >= 0).any(-1).all()
    assert td["agents", "observation"].shape == (3, 5, 1, 1, 2 + 2 * 2)
    assert torch.equal(td["agents", "observation"][..., 4:], td["agents", "service_s"])


def test_the_file_form_keeps_everything_and_the_load_is_the_asked_one():
    made = scenario()
    again = Scenario.from_dict(json.loads(json.dumps(made.to_dict())))
    assert again == made
    assert again.servers[0].service == FAST
    assert scenario().workload.with_load(0.8, 1.25).mean_work_gcycles_per_s() == pytest.approx(0.8 * 1.25)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"models": {}}, "service.models must be an object with at least one model"),
        ({"colour": 1}, "unknown key 'colour'"),
        ({"switch_s": -1}, "service.switch_s must be at least 0, got -1"),
        ({"batch": [0.9]}, "service.batch must begin with 1"),
        ({"batch": [1, 0.4]}, "must not let a larger batch end sooner"),
        ({"joins": 1}, "service.joins must be true or false, got 1"),
        ({"models": {"a": {"text_s": 0, "sizes": []}}}, "models.a.sizes must hold at least one size"),
    ],
)
def test_bad_services_are_refused(change, words):
    data = scenario().to_dict()
    data["servers"][0]["service"] |= change
    with pytest.raises(InputError, match=words):
        Scenario.from_dict(data)


def test_a_server_without_service_or_without_the_model_is_refused():
    data = scenario().to_dict()
    del data["servers"][1]["service"]
    with pytest.raises(InputError, match=r"servers\[1\] lacks the key 'service'"):
        Scenario.from_dict(data)
    only_a = ServerService({"a": SMALL})
    with pytest.raises(InputError, match=r"servers\[0\].service.models lacks 'b'"):
        scenario((only_a, SLOW))


def test_task_files_bring_model_and_size_or_fall_back_on_work(tmp_path):
    fleet = Scenario(1.0, scenario().servers, stations=(None,))
    path = tmp_path / "tasks.csv"
    head = "arrival_s,origin,input_mbit,result_mbit,gcycles_per_step,steps"
    path.write_text(f"{head},server,model,width,height\n0,,1,2,.1,10,0,a,1000,1000\n100,,1,2,.1,10,0,b,500,500\n")
    got = replay(fleet, TaskList.read(path, fleet, decisions=True)).delay_s
    assert got == pytest.approx([5 + 1.3 + 0.03, 3 + 0.1 + 10 * 0.02 + 0.05 + 0.03])
    path.write_text(f"{head},server\n0,,1,2,.1,10,1\n100,,1,2,.1,10,0\n")
    got = replay(fleet, TaskList.read(path, fleet, decisions=True)).delay_s
    assert got == pytest.approx([1 / 0.25 + 0.03, 1 + 0.03])
    fleet = Scenario(1.0, (Server(1.0, 1.0, service=ServerService({"a": SMALL})),), stations=(None,))
    path.write_text(f"{head},server,model,width,height\n0,,1,2,.1,10,0,z,1000,1000\n")
    with pytest.raises(InputError, match="line 2, column 'model' names 'z', which server 0 has no times of"):
        TaskList.read(path, fleet, decisions=True)


def test_an_environment_goes_on_from_its_saved_state():
    first, second = OffloadingEnv(scenario(), [2]), OffloadingEnv(scenario(), [2])
    policy = make_policy("random", scenario(), seed=4)
    first.rollout(7, policy, break_when_any_done=False)
    second.reset()
    second.set_extra_state(first.get_extra_state())
    td = first.observe()
    td["agents", "action"] = torch.zeros(2, 1, 1, dtype=torch.int64)
    a, b = first._step(td), second._step(td)
    assert all(torch.equal(x, b[k]) for k, x in a.items(True, True))


def test_requests_need_an_end():
    with pytest.raises(InputError, match="no 'slots'"):
        OffloadingEnv(scenario(slots=None), [1])
