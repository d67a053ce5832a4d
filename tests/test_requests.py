"""Workloads of single requests: what is drawn, that it depends on nothing else, and what is refused."""

import json
from dataclasses import fields, replace

import numpy as np
import pytest

from diffpolicy import InputError
from diffpolicy.edge import Scenario
from diffpolicy.edge.pricing.told import Told
from diffpolicy.edge.workload.mix import RequestType
from diffpolicy.edge.workload.recorded import TraceWorkload
from diffpolicy.edge.workload.requests import REQUEST_KINDS, RequestWorkload
from diffpolicy.edge.workload.seeds import Stream

MIX = (
    RequestType(model="sdxl", width=1024, height=1024, steps=30, gcycles_per_step=2.0, input_mbit=0.5, result_mbit=8.0),
    RequestType(model="flux", width=512, height=768, steps=4, gcycles_per_step=5.0, input_mbit=0.25, result_mbit=4.0),
    RequestType(
        model="sdxl", width=512, height=512, steps=20, images=4, gcycles_per_step=1.0, input_mbit=1.0, result_mbit=2.0,
        weight=2.0,
    ),
)  # fmt: skip
PARAMETERS = {
    "poisson": {},
    "gamma": {"cv": 2.0},
    "on-off": {"on_s": 3.0, "off_s": 9.0},
    "daily": {"period_s": 600.0, "amplitude": 0.5},
}
HEAD = "arrival_s,origin,input_mbit,result_mbit,gcycles_per_step,steps,model,width,height,images"


def workload(kind="poisson", **changes):
    return RequestWorkload(kind, 5.0, MIX, **{**PARAMETERS[kind], **changes})


def same(a, b):
    return all(np.array_equal(getattr(a, f.name), getattr(b, f.name)) for f in fields(a))


# What is drawn


@pytest.mark.parametrize("kind", REQUEST_KINDS)
def test_an_episode_depends_on_its_arguments_alone(kind):
    one, again = workload(kind), RequestWorkload.from_dict(workload(kind).to_dict())
    first = one.draw(3, Stream.EVALUATION, 7, 50, 4)
    one.draw(3, Stream.EVALUATION, 8, 50, 4)
    assert same(first, again.draw(3, Stream.EVALUATION, 7, 50, 4))
    others = [(4, Stream.EVALUATION, 7), (3, Stream.TRAINING, 7), (3, Stream.EVALUATION, 8)]
    for other in others:
        drawn = one.draw(*other, 50, 4)
        assert not np.isin(drawn.arrival_s, first.arrival_s).any()
        assert not np.isin(drawn.luck_normal, first.luck_normal).any()


@pytest.mark.parametrize("kind", REQUEST_KINDS)
def test_a_longer_episode_begins_with_the_shorter_one(kind):
    longer = workload(kind, model_persistence=0.6).draw(0, Stream.TRAINING, 1, 400, 4)
    shorter = workload(kind, model_persistence=0.6).draw(0, Stream.TRAINING, 1, 30, 4)
    for f in fields(shorter):
        np.testing.assert_array_equal(getattr(shorter, f.name), getattr(longer, f.name)[:30])


def test_the_columns_are_those_of_the_types():
    r = workload().draw(0, Stream.EVALUATION, 0, 500, 3)
    assert len(r) == 500
    assert workload().models == ("sdxl", "flux")
    for k in (0, 100, 499):
        kind = MIX[r.type[k]]
        assert (r.steps[k], r.images[k], r.work[k]) == (kind.steps, kind.images, kind.gcycles_per_step * kind.steps)
        assert (r.input_mbit[k], r.result_mbit[k]) == (kind.input_mbit, kind.result_mbit)
        assert workload().models[r.model[k]] == kind.model
        assert r.megapixels[k] == kind.width * kind.height / 1e6
    assert sorted(set(r.station.tolist())) == [0, 1, 2]


def test_shares_stations_and_luck_follow_their_laws():
    r = workload().draw(1, Stream.EVALUATION, 0, 100_000, 4)
    np.testing.assert_allclose(np.bincount(r.type) / len(r), [0.25, 0.25, 0.5], atol=0.01)
    np.testing.assert_allclose(np.bincount(r.station) / len(r), [0.25] * 4, atol=0.01)
    assert r.luck_normal.mean() == pytest.approx(0, abs=0.02)
    assert r.luck_normal.std() == pytest.approx(1, abs=0.02)


def test_models_persist_and_keep_their_shares():
    r = workload(model_persistence=0.8).draw(1, Stream.EVALUATION, 0, 200_000, 4)
    np.testing.assert_allclose(np.bincount(r.type) / len(r), [0.25, 0.25, 0.5], atol=0.015)
    switches = (r.model[1:] != r.model[:-1]).mean()
    assert switches == pytest.approx(0.2 * (1 - 0.75**2 - 0.25**2), rel=0.05)


def test_a_type_without_weight_is_never_drawn():
    from dataclasses import replace

    mix = (replace(MIX[0], weight=0), replace(MIX[1], weight=0), MIX[2])
    for persistence in (0.0, 0.9):
        r = RequestWorkload("poisson", 1.0, mix, model_persistence=persistence).draw(0, Stream.TRAINING, 0, 1000, 1)
        assert set(r.type.tolist()) == {2}


@pytest.mark.parametrize("kind", REQUEST_KINDS)
def test_the_offered_work_is_the_mean_of_what_is_drawn(kind):
    work = workload(kind)
    drawn = [work.draw(0, Stream.EVALUATION, k, 5000, 1) for k in range(40)]
    offered = sum(r.work.sum() for r in drawn) / sum(r.arrival_s[-1] for r in drawn)
    assert offered == pytest.approx(work.mean_work_gcycles_per_s(), rel=0.05)
    assert work.mean_work_gcycles_per_s() == pytest.approx(5.0 * (0.25 * 60 + 0.25 * 20 + 0.5 * 20))
    assert work.with_load(0.8, 50.0).mean_work_gcycles_per_s() == pytest.approx(40.0)


def test_episodes_of_a_day_begin_at_any_time_of_it():
    quiet_first = workload("daily", period_s=1000.0, amplitude=None, hourly_weights=[0.0] * 12 + [1.0] * 12)
    first = [quiet_first.draw(0, Stream.EVALUATION, k, 1, 1).arrival_s[0] for k in range(200)]
    assert 0.4 < np.mean(np.array(first) < 2) < 0.6


# The JSON form


@pytest.mark.parametrize("kind", REQUEST_KINDS)
def test_the_json_form_reads_back(kind):
    work = workload(kind, model_persistence=0.25)
    again = RequestWorkload.from_dict(json.loads(json.dumps(work.to_dict())))
    assert again == work
    assert again.to_dict() == work.to_dict()


def test_hourly_weights_read_back():
    data = {"kind": "daily", "rate_per_s": 1, "mix": [MIX[0].to_dict()], "hourly_weights": [1] * 24}
    work = RequestWorkload.from_dict(data)
    assert work.period_s == 86400
    assert RequestWorkload.from_dict(json.loads(json.dumps(work.to_dict()))) == work


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"kind": "uniform"}, "workload.kind must be one of poisson, gamma, on-off, daily, got 'uniform'"),
        ({"rate_per_s": 0}, "workload.rate_per_s must be greater than 0, got 0"),
        ({"mix": []}, "workload.mix must hold at least one type with a weight above 0"),
        ({"mix": 3}, "workload.mix must be a list, got 3"),
        ({"cv": 2.0}, "workload has the unknown key 'cv'"),
        ({"kind": "gamma"}, "workload of kind 'gamma' lacks the key 'cv'"),
        ({"kind": "gamma", "cv": -1}, "workload.cv must be greater than 0, got -1"),
        ({"kind": "on-off", "on_s": 1.0}, "workload of kind 'on-off' lacks the key 'off_s'"),
        ({"kind": "daily", "amplitude": 2}, "workload.amplitude must be at most 1, got 2"),
        ({"model_persistence": 1}, "workload.model_persistence must be below 1, got 1"),
        ({"burst": 1}, "workload has the unknown key 'burst'"),
        ({"mix": [{**MIX[0].to_dict(), "steps": 0}]}, "workload.mix[0].steps must be at least 1, got 0"),
        ({"mix": [{**MIX[0].to_dict(), "width": 1.5}]}, "workload.mix[0].width must be a whole number, got 1.5"),
        ({"mix": [{**MIX[0].to_dict(), "model": 3}]}, "workload.mix[0].model must be a string, got 3"),
        ({"mix": [{"model": "a"}]}, "workload.mix[0] lacks the key 'width'"),
        ({"mix": [{**MIX[0].to_dict(), "weight": -1}]}, "workload.mix[0].weight must be at least 0, got -1"),
    ],
)
def test_what_is_wrong_is_refused_by_key_and_value(changes, says):
    data = {"kind": "poisson", "rate_per_s": 1.0, "mix": [MIX[0].to_dict()], **changes}
    with pytest.raises(InputError) as error:
        RequestWorkload.from_dict(data)
    assert str(error.value).startswith(says)


def test_a_parameter_of_another_kind_is_refused_in_python_too():
    with pytest.raises(InputError, match=r"workload\.cv does not apply to the kind 'poisson'"):
        RequestWorkload("poisson", 1.0, MIX, cv=2.0)


def test_a_load_needs_work():
    idle = RequestType(width=1, height=1, steps=1, gcycles_per_step=0, input_mbit=0, result_mbit=0)
    with pytest.raises(InputError, match="workload has no work"):
        RequestWorkload("poisson", 1.0, (idle,)).with_load(0.5, 10.0)


# Traces


@pytest.fixture
def trace_file(write_tasks):
    """Ten requests, one every two seconds, work 10 k; the last two at stations 1 and 2, the others at none."""
    rows = [f"{2 * k},{max(k - 7, 0) or ''},{k}.5,1,{k},10,m{k % 2},512,1000,{k + 1}" for k in range(10)]
    return write_tasks(*rows, columns=HEAD, name="trace.csv")


def test_episodes_of_a_trace_are_windows_and_the_streams_share_none(trace_file):
    work = TraceWorkload.from_dict({"kind": "trace", "file": trace_file.name, "train_share": 0.6}, trace_file.parent)
    assert work.models == ("m0", "m1")
    seen = {stream: set() for stream in Stream}
    for stream in Stream:
        for episode in range(60):
            r = work.draw(0, stream, episode, 3, 3)
            assert np.diff(r.type).tolist() == [1, 1]
            seen[stream].update(r.type.tolist())
            first = 0.0 if r.type[0] == 0 else 2.0
            assert r.arrival_s.tolist() == [first, first + 2, first + 4]
            np.testing.assert_array_equal(r.work, 10 * r.type)
            np.testing.assert_array_equal(r.images, r.type + 1)
            np.testing.assert_array_equal(r.model, r.type % 2)
            assert r.megapixels.tolist() == [0.512] * 3
            assert same(r, work.draw(0, stream, episode, 3, 3))
    assert seen[Stream.TRAINING] == set(range(6))
    assert seen[Stream.EVALUATION] == {6, 7, 8, 9}


def test_stations_of_a_trace_are_kept_where_it_names_them(trace_file):
    r = TraceWorkload(str(trace_file), train_share=0.5).draw(0, Stream.EVALUATION, 0, 5, 3)
    assert r.station[3:].tolist() == [1, 2]
    with pytest.raises(InputError, match="names the origin 2, but there are 2 stations"):
        TraceWorkload(str(trace_file)).draw(0, Stream.EVALUATION, 0, 2, 2)


def test_a_trace_is_brought_to_a_rate_or_a_load(trace_file):
    work = TraceWorkload(str(trace_file))
    assert work.recorded_rate_per_s == 0.5
    assert work.mean_work_gcycles_per_s() == 0.5 * 45
    fast = work.with_load(0.9, 100.0)
    assert fast.rate_per_s == pytest.approx(2.0)
    np.testing.assert_allclose(np.diff(fast.draw(0, Stream.TRAINING, 0, 4, 3).arrival_s), 0.5)
    assert fast.mean_work_gcycles_per_s() == pytest.approx(90.0)
    for workload, usual_s in ((work, 2.0), (fast, 0.5)):  # as a task file of the same requests tells it
        scenario = replace(Scenario.load("lad-ts"), workload=workload, slots=4)
        assert Told().of_scenario(scenario).step_s == pytest.approx(usual_s)


def test_the_json_form_of_a_trace_reads_back(trace_file):
    data = {"kind": "trace", "file": trace_file.name, "train_share": 0.5, "rate_per_s": 3.0}
    work = TraceWorkload.from_dict(data, trace_file.parent)
    assert work.to_dict() == data
    assert TraceWorkload.from_dict(work.to_dict(), trace_file.parent) == work


def test_columns_that_a_trace_need_not_have(write_tasks):
    path = write_tasks("0,1,1,2,3", "1,1,1,2,3", columns="arrival_s,input_mbit,result_mbit,gcycles_per_step,steps")
    work = TraceWorkload(str(path), train_share=0.5)
    r = work.draw(0, Stream.TRAINING, 0, 1, 5)
    assert work.models == ("default",)
    assert (r.megapixels[0], r.images[0], r.work[0]) == (1.048576, 1, 6.0)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"train_share": 1}, "workload.train_share must be below 1, got 1"),
        ({"rate_per_s": -1}, "workload.rate_per_s must be greater than 0, got -1"),
        ({"file": 3}, "workload.file must be a path, got 3"),
        ({"file": "none.csv"}, "none.csv does not exist"),
        ({"speed": 2}, "workload has the unknown key 'speed'"),
    ],
)
def test_what_is_wrong_with_a_trace_is_refused(trace_file, changes, says):
    with pytest.raises(InputError) as error:
        TraceWorkload.from_dict({"kind": "trace", "file": trace_file.name, **changes}, trace_file.parent)
    assert says in str(error.value)


@pytest.mark.parametrize(
    ("rows", "says"),
    [
        (["0,0,1,1,1,1,a,1,1,1", "x,0,1,1,1,1,a,1,1,1"], "line 3, column 'arrival_s' must be a number, got 'x'"),
        (["1,0,1,1,1,1,a,1,1,1", "0,0,1,1,1,1,a,1,1,1"], "line 3, column 'arrival_s' must not be smaller"),
        (["0,0,1,1,1,1,a,1,1,1", "1,0,1,1,1,0,a,1,1,1"], "line 3, column 'steps' must be at least 1, got '0'"),
        (["5,0,1,1,1,1,a,1,1,1", "5,0,1,1,1,1,a,1,1,1"], "must span some time, but all its arrival_s are 5.0"),
    ],
)
def test_a_broken_trace_is_refused_by_line_and_column(write_tasks, rows, says):
    with pytest.raises(InputError) as error:
        TraceWorkload(str(write_tasks(*rows, columns=HEAD)))
    assert says in str(error.value)


def test_an_episode_longer_than_the_trace_is_refused(trace_file):
    with pytest.raises(InputError, match="has 2 requests for evaluation, an episode needs 3"):
        TraceWorkload(str(trace_file)).draw(0, Stream.EVALUATION, 0, 3, 3)
