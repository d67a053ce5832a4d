"""Trained policies, and rules that know more than a moment tells, in front of real servers."""

from dataclasses import replace

import numpy as np
import pytest

from diffpolicy import InputError
from diffpolicy.edge.dispatch import Moment
from diffpolicy.edge.serving.learned import LearnedChoice, finite, speeds
from diffpolicy.edge.serving.rules import LEARNED, make_policy

NAMES = (*LEARNED, "pretrained:live")


def moments(servers, seed=0, count=12):
    """Requests of unlike work on servers of unlike speeds, some of them busy; now and then one that cannot run it."""
    rng = np.random.default_rng(seed)
    for k in range(count):
        row = rng.uniform(1, 5) * 2.0 ** np.arange(servers)
        if k % 3 == 2:
            row[k % servers] = np.inf
        busy = rng.uniform(0, 6, servers) * (rng.random(servers) < 0.6)
        yield Moment.of(service_s=row[None], wait_s=[0.0], starts_s=busy)


@pytest.mark.parametrize("name", NAMES)
def test_it_binds_what_may_be_bound_also_when_servers_come_and_go_and_the_same_seed_the_same(name):
    def decided():
        dispatcher = make_policy(name, servers=3, seed=1).dispatcher
        bindings = []
        for moment in (*moments(3, count=6), *moments(4, count=6), *moments(2, count=6)):
            bindings.append(dispatcher.decide(moment))
            assert moment.runs[0, bindings[-1].server]
        return bindings

    assert decided() == decided()


def test_the_price_takes_the_only_server_that_is_not_drowned():
    choice = LearnedChoice("price", 3)
    for free in range(3):
        starts = np.full(3, 500.0)
        starts[free] = 0.0
        moment = Moment.of(service_s=[[2.0, 2.0, 2.0]], wait_s=[0.0], starts_s=starts)
        assert choice(moment, moment.runs[0]) == free


def test_a_held_request_goes_to_one_of_the_free_servers():
    named = make_policy("price", binding="free", order="first-come:price=none", servers=3)
    assert named.learned
    assert str(named) == "first-come:price=none then price when a server is free"
    service = [[4.0, 2.0, 1.0], [8.0, 4.0, 2.0]]
    binding = named.dispatcher.decide(Moment.of(service_s=service, wait_s=[2.0, 1.0], starts_s=[0.0, 0.0, 3.0]))
    assert binding.request == 0
    assert binding.server in (0, 1)


def test_speeds_are_told_from_times_and_what_cannot_run_is_slow_and_not_endless():
    rows = [np.array([2.0, 4.0, 1.0]) * work for work in (1.0, 3.0, 9.0)]
    assert speeds(rows) == pytest.approx([0.5, 0.25, 1.0])
    assert np.isfinite(finite(np.array([np.inf, 2.0]))).all()
    moment = Moment.of(service_s=[[1.0, np.inf]], wait_s=[0.0], starts_s=[0.0, 0.0])
    assert LearnedChoice("price", 2)(replace(moment, number=np.array([7])), moment.runs[0]) == 0


def test_what_is_no_policy_is_refused_before_anything_is_served(tmp_path):
    with pytest.raises(InputError, match=r"no policy\.json"):
        make_policy(str(tmp_path))
    with pytest.raises(InputError, match="did you mean pretrained:live"):
        make_policy("pretrained:life")
