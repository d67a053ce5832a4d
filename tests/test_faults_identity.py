"""Runs are told apart by content, end where nothing is lost, and are resumed only as what they were."""

import functools
import signal
import threading
from dataclasses import dataclass, replace

import pytest
import torch

from diffpolicy import InputError
from diffpolicy._signals import Stopped, StopRequests, exit_status, terminated_at_once
from diffpolicy.edge import make_method
from diffpolicy.training.identity import check_same, content_digest, describe, difference

# One identity, by content


@dataclass(frozen=True)
class Part:
    size: int = 3
    rates: tuple = (1e-3, 2e-3)


def half(x, *, by=2):
    return x / by


def test_a_description_holds_the_content_and_nothing_of_the_process():
    method = make_method("lad-ts")
    first, second = describe(method), describe(make_method("lad-ts"))
    assert first == second
    assert first["class"] == "diffpolicy.training.methods:DiffusionSACMethod"
    assert ":" in first["transitions"]
    assert describe(Part()) == {"class": f"{__name__}:Part", "size": 3, "rates": [1e-3, 2e-3]}


def test_a_partial_is_its_function_and_arguments_however_deep():
    a, b = (functools.partial(functools.partial(half, 1), by=by) for by in (2, 3))
    assert describe(a) == describe(functools.partial(half, 1, by=2))
    assert difference(describe({"f": a}), describe({"f": b})) == ("f.keywords.by", 2, 3)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"learning_rates": {"actor": 3e-4, "critic": 1e-3, "alpha": 3e-4}}, "learning_rates"),
        ({"gamma": 0.5}, "gamma 0.95, and this run has 0.5"),
        ({"hidden": [7]}, "hidden"),
        ({"prior": {"type": "GaussianPrior"}}, "prior.type ActionMemory, and this run has GaussianPrior"),
        ({"transitions": functools.partial(half, by=3)}, "transitions"),
    ],
)
def test_the_field_that_differs_is_named_with_both_values(changes, says):
    method = make_method("lad-ts")
    with pytest.raises(InputError, match=f"^checkpoint x was trained with .*{says}"):
        check_same(describe(method), describe(replace(method, **changes)), "checkpoint x")
    check_same(describe(method), describe(replace(method)), "checkpoint x")


def test_a_function_without_a_name_is_told_by_its_code():
    def make(by, more=1):
        def scaled(x, y=more):
            return [x / by + y for _ in range(2)]

        return scaled

    assert describe(make(2)) == describe(make(2)) != describe(make(3))
    assert describe(make(2)) != describe(make(2, 5))
    assert describe(lambda x: x + 1) != describe(lambda x: x + 2)
    assert describe(lambda x: x.a) != describe(lambda x: x.b)


@pytest.mark.parametrize("value", [object(), functools.partial(half, object()), [{"a": object()}]])
def test_what_has_no_name_and_no_content_is_refused(value):
    with pytest.raises(InputError, match=r"^transitions.* could not be resumed"):
        describe(value, "transitions")


def test_a_digest_changes_with_every_part():
    def make():
        return {"a": torch.arange(3.0), "b": [1, "x", None, {"c": True}], "n": float("nan"), "e": torch.empty(0, 2)}

    first = content_digest(make())
    assert content_digest(make()) == first
    others = [make() for _ in range(6)]
    others[0]["a"][0] = 1e-30
    others[1]["b"][0] = 1.0
    others[2]["b"][3]["c"] = 1
    others[3]["d"] = None
    others[4]["a"] = others[4]["a"].double()
    others[5]["e"] = torch.empty(2, 0)
    assert len({first, *map(content_digest, others)}) == 7


# Signals


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_first_signal_asks_and_the_second_stops_at_once(number):
    before = [signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM)]
    with StopRequests() as stop:
        signal.raise_signal(number)
        assert stop.number == number
        with pytest.raises(Stopped) as error:
            signal.raise_signal(signal.SIGINT)
    assert (error.value.number, stop.at_once) == (signal.SIGINT, True)
    assert [signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM)] == before
    assert [exit_status(n) for n in (signal.SIGINT, signal.SIGTERM)] == [130, 143]


def test_other_threads_leave_the_handlers_alone():
    seen = []

    def listen():
        with StopRequests(), terminated_at_once():
            seen.append([signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM)])

    before = [signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM)]
    thread = threading.Thread(target=listen)
    thread.start()
    thread.join()
    assert seen == [before]


def test_sigterm_can_stop_at_once():
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(Stopped) as error, terminated_at_once():
        signal.raise_signal(signal.SIGTERM)
    assert error.value.number == signal.SIGTERM
    assert signal.getsignal(signal.SIGTERM) is before
