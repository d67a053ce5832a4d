"""Recorded traces: what readers understand and refuse, what is done to a trace, and the command `tasks`."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest

from diffpolicy import InputError
from diffpolicy.cli import main as main_module
from diffpolicy.edge import Scenario, TaskList
from diffpolicy.edge.workload.mix import RequestType
from diffpolicy.edge.workload.recorded import TraceWorkload
from diffpolicy.edge.workload.seeds import Stream
from diffpolicy.edge.workload.traces.readers import azure_sample, read_alibaba, read_azure, read_csv, read_vllm_omni

SHARED = Path(__file__).resolve().parents[2] / "shared" / "traces"
ALIBABA = (
    "gmt_create,predict_type,predict_status,exec_time_seconds,groupId,prompt_length,negative_prompt_length,"
    "num_images_per_prompt,num_inference_steps,checkpoint_model_version_id,num_lora"
)
# made up, in the columns of the record
ALIBABA_ROWS = [
    "2030-01-02 00:00:10,TXT_2_IMG,SUCCEED,12.0,A,5.0,,2.0,30.0,X,0",
    "2030-01-01 23:59:50,TXT_2_IMG,FAILED,,A,5.0,,1.0,40.0,Y,1",
    "2030-01-02 00:00:11,IMG_2_IMG,SUCCEED,3.0,A,5.0,,1.0,20.0,X,0",
    "2030-01-02 00:00:12,TXT_2_IMG,PENDING,0.0,A,,,,,,0",
    "2030-01-02 00:00:30,TXT_2_IMG,SUCCEED,8.0,B,5.0,9.0,8.0,30.0,X,0",
]
MIX = (
    RequestType(model="a", width=512, height=256, steps=20, gcycles_per_step=0.5, input_mbit=0.1, result_mbit=1.0),
    RequestType(
        model="b", width=1024, height=1024, steps=4, images=2, gcycles_per_step=2, input_mbit=0.2, result_mbit=3
    ),
)


@pytest.fixture
def write(tmp_path):
    def write(*lines, name="trace.csv"):
        path = tmp_path / name
        path.write_text("\n".join(lines) + "\n")
        return path

    return write


@pytest.fixture
def trace(write):
    """Four requests at 0, 1, 3 and 7 s."""
    rows = ["100,a,10,1", "101,b,20,2", "103,b,30,1", "107,a,40,4"]
    return read_csv(
        write("t,m,n,i", *rows), {"arrival_s": "t", "model": "m", "steps": "n", "images": "i"}, size=(512, 256)
    )


# Readers


def test_alibaba(write):
    trace = read_alibaba(write(ALIBABA, *ALIBABA_ROWS), size=(640, 480))
    assert trace.arrival_s.tolist() == [0.0, 20.0, 40.0]
    assert trace.model == ("Y", "X", "X")
    assert trace.steps.tolist() == [40, 30, 30]
    assert trace.images.tolist() == [1, 2, 8]
    assert (trace.width.tolist(), trace.height.tolist()) == ([640] * 3, [480] * 3)
    np.testing.assert_array_equal(trace.exec_s, [np.nan, 12.0, 8.0])
    assert trace.broken.count == 0
    assert trace.models() == {"X": 2, "Y": 1}
    assert len(read_alibaba(write(ALIBABA, *ALIBABA_ROWS), kinds=("TXT_2_IMG", "IMG_2_IMG"))) == 4


@pytest.mark.skipif(not (SHARED / "alibaba_gentd26").is_dir(), reason="the record may not be redistributed")
def test_alibaba_as_recorded():
    trace = read_alibaba(SHARED / "alibaba_gentd26" / "lora_request_trace.csv")
    # the full file has 24,438 text-to-image rows, pending ones included; the copy here ends earlier
    assert 12_000 < len(trace) <= 24_438
    assert trace.broken.count == 0
    assert trace.switch_share() == pytest.approx(0.75, abs=0.02)
    assert trace.gap_cv() > 5
    assert np.mean(trace.steps == 30) > 0.85


@pytest.mark.skipif(not (SHARED / "azure_llm_2023").is_dir(), reason="only the sample comes along")
def test_azure_as_recorded():
    trace = read_azure(SHARED / "azure_llm_2023" / "AzureLLMInferenceTrace_conv.csv")
    assert len(trace) == 19_366
    assert trace.rate_per_s() == pytest.approx(5.53, abs=0.01)
    assert trace.gap_cv() == pytest.approx(1.09, abs=0.01)
    np.testing.assert_array_equal(trace.arrival_s[:2000], azure_sample().arrival_s)


def test_azure_times_have_seven_decimals(write):
    head = "TIMESTAMP,ContextTokens,GeneratedTokens"
    trace = read_azure(write(head, "2023-11-16 18:15:46.6805900,374,44", "2023-11-16 18:15:46.6805901,3,4"))
    assert trace.arrival_s.tolist() == [0.0, 1e-7]
    assert trace.steps.tolist() == [0, 0]


def test_vllm_omni(write):
    lines = [
        "Request(request_id='1', prompt='a (b), c=\"d\"', width=512, height=768, num_inference_steps=20, slo_ms=None)",
        "Request(request_id='2', prompt='x', width=1024, height=1024, num_inference_steps=40, slo_ms=900.0)",
    ]
    path = write(*lines, name="trace.txt")
    trace = read_vllm_omni(path, rate_per_s=4.0, seed=1)
    assert trace.steps.tolist() == [20, 40]
    assert (trace.width.tolist(), trace.height.tolist()) == ([512, 1024], [768, 1024])
    assert trace.arrival_s[1] > 0
    np.testing.assert_array_equal(trace.arrival_s, read_vllm_omni(path, rate_per_s=4.0, seed=1).arrival_s)
    assert trace.arrival_s[1] != read_vllm_omni(path, rate_per_s=4.0, seed=2).arrival_s[1]
    timed = write(*(x.replace("width", f"timestamp={t}, width") for x, t in zip(lines, (5.5, 7.25), strict=True)))
    assert read_vllm_omni(timed).arrival_s.tolist() == [0.0, 1.75]


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("Request(width=__import__('os').getpid(), height=1, num_inference_steps=1)", "width must be a plain value"),
        ("print(width=1)", "must be Request(name=value, ...)"),
        ("Request(width=1", "must be Request(name=value, ...)"),
        ("Request(width=512, height=512)", "num_inference_steps must be a whole number of at least 1, got ''"),
        ("Request(**{'width': 1})", "** must be a plain value"),
    ],
)
def test_nothing_in_a_vllm_omni_trace_is_evaluated(write, line, says):
    with pytest.raises(InputError) as error:
        read_vllm_omni(write(line))
    assert f"line 1: {says}" in str(error.value)


@pytest.mark.parametrize(
    ("unit", "times"),
    [
        ("s", ["1700000000.5", "1700000002"]),
        ("ms", ["1700000000500", "1700000002000"]),
        ("us", ["500000", "2e6"]),
        ("ns", ["500000000", "2000000000"]),
        ("datetime", ["2024-11-15T16:57:50.5Z", "2024-11-15 17:57:52+01:00"]),
    ],
)
def test_units_of_time(write, unit, times):
    assert read_csv(write("at", *times), {"arrival_s": "at"}, unit=unit).arrival_s.tolist() == [0.0, 1.5]


def test_rows_may_stand_in_any_order(write):
    trace = read_csv(write("at,net,s", "3,x,1", "1,y,2", "2,x,3"), {"arrival_s": "at", "model": "net", "exec_s": "s"})
    assert trace.arrival_s.tolist() == [0, 1, 2]
    assert trace.model == ("y", "x", "x")
    assert trace.exec_s.tolist() == [2, 3, 1]
    assert trace.out_of_order == "1 row arrives before the row above, in line 3: '1' after '3'"
    assert not read_csv(write("at", *"4321"), {"arrival_s": "at"}).out_of_order  # another order, and no mistake


def test_columns_that_bear_our_names_and_are_not_read_are_told(write):
    trace = read_csv(write("at,model,width,n", "1,x,512,4", "2,,768,5"), {"arrival_s": "at", "steps": "n"})
    assert trace.unread == ("model", "width")
    assert trace.window(0.5, 2.0).unread == trace.unread
    other = read_csv(write("at,model,name", "1,x,a", "2,y,b"), {"arrival_s": "at", "model": "name"})
    assert other.unread == ()
    assert other.model == ("a", "b")


def test_a_few_broken_rows_are_counted_and_many_are_refused(write):
    rows = [f"{k},10" for k in range(100)]
    for k, row in ((4, "x,10"), (9, "9,0"), (20, "20"), (30, "nan,10")):
        rows[k] = row
    path = write("at,n", *rows)
    columns = {"arrival_s": "at", "steps": "n"}
    trace = read_csv(path, columns, max_broken=0.05)
    assert len(trace) == 96
    assert trace.broken.count == 4
    assert trace.broken.first == (
        "line 6: at must be a number in s, got 'x'",
        "line 11: n must be a whole number of at least 1, got '0'",
        "line 22: 1 values for 2 columns",
    )
    with pytest.raises(InputError) as error:
        read_csv(path, columns)
    assert str(error.value) == (
        f"trace file {path} has 4 broken rows of 100, more than the share 0.01; the first: "
        + "; ".join(trace.broken.first)
    )


@pytest.mark.parametrize(
    ("lines", "columns", "says"),
    [
        (["a,b", "1,2"], {"arrival_s": "c"}, "has no column 'c'; it has a, b"),
        (["a,b", "1,2"], {"model": "b"}, "columns lacks the key 'arrival_s'"),
        (["a,b", "1,2"], {"arrival_s": "a", "speed": "b"}, "columns has the unknown key 'speed'"),
        (["a"], {"arrival_s": "a"}, "has no requests to read in its 0 rows"),
        (["a,b", "1,"], {"arrival_s": "a", "model": "b"}, "line 2: b is empty"),
        (["a,b", "1,-3"], {"arrival_s": "a", "exec_s": "b"}, "line 2: b must be a time of at least 0 s, got '-3'"),
    ],
)
def test_what_cannot_be_read_is_refused(write, lines, columns, says):
    with pytest.raises(InputError) as error:
        read_csv(write(*lines), columns)
    assert says in str(error.value)


def test_an_empty_a_missing_file_and_an_unknown_unit_are_refused(write, tmp_path):
    (tmp_path / "empty").write_text("")
    with pytest.raises(InputError, match="is empty"):
        read_azure(tmp_path / "empty")
    with pytest.raises(InputError, match="does not exist"):
        read_azure(tmp_path / "none")
    with pytest.raises(InputError, match="unit must be one of s, ms, us, ns, datetime, got 'h'"):
        read_csv(write("a", "1"), {"arrival_s": "a"}, unit="h")
    with pytest.raises(InputError, match="a must be a date and time, got '2024-13-40 00:00:00'"):
        read_csv(write("a", "2024-13-40 00:00:00"), {"arrival_s": "a"}, unit="datetime")


# What is done to a trace


def test_thinning_keeps_a_share_by_seed():
    trace = azure_sample()
    kept = trace.thin(0.3, seed=1)
    assert len(kept) == pytest.approx(600, rel=0.1)
    np.testing.assert_array_equal(kept.arrival_s, trace.thin(0.3, seed=1).arrival_s)
    assert len(trace.thin(0.3, seed=2)) != len(kept) or (trace.thin(0.3, seed=2).arrival_s != kept.arrival_s).any()
    assert len(trace.thin(1.0)) == 2000


def test_a_window_and_another_pace(trace):
    part = trace.window(1.0, 7.0)
    assert part.arrival_s.tolist() == [0.0, 2.0]
    assert part.model == ("b", "b")
    assert part.steps.tolist() == [20, 30]
    assert trace.rescaled(0.5).arrival_s.tolist() == [0.0, 0.5, 1.5, 3.5]
    assert trace.gap_cv() == pytest.approx(trace.rescaled(0.5).gap_cv())
    assert trace.switch_share() == pytest.approx(2 / 3)


def test_a_load_is_reached_by_stretching_time(trace):
    work = trace.work_gcycles(0.5)
    assert work.tolist() == [5.0, 20.0, 15.0, 80.0]
    assert trace.load(10.0, 0.5) == pytest.approx(3 / 7 * 30 / 10)
    assert trace.to_load(0.7, 10.0, 0.5).load(10.0, 0.5) == pytest.approx(0.7)
    by_function = trace.work_gcycles(lambda t: t.width * t.height / 131072.0)
    assert by_function.tolist() == [10.0, 20.0, 30.0, 40.0]


def test_arrivals_get_the_requests_of_a_mix():
    trace = azure_sample().with_requests(MIX, seed=3)
    assert set(trace.models()) == {"a", "b"}
    assert trace.models()["a"] == pytest.approx(1000, rel=0.1)
    np.testing.assert_array_equal(trace.steps, np.where(np.array(trace.model) == "a", 20, 4))
    np.testing.assert_array_equal(trace.work_gcycles(99.0), np.where(np.array(trace.model) == "a", 10.0, 8.0))
    assert trace.model == azure_sample().with_requests(MIX, seed=3).model
    assert trace.model != azure_sample().with_requests(MIX, seed=4).model
    assert azure_sample().with_requests(MIX, 3, model_persistence=0.9).switch_share() < 0.1


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda t, p: t.thin(0), "keep must be greater than 0, got 0"),
        (lambda t, p: t.thin(1.5), "keep must be at most 1, got 1.5"),
        (lambda t, p: t.window(8.0), "has no request left by the window from 8 to inf s"),
        (lambda t, p: t.window(2.0, 1.0), "a window must end after its start 2 s, got 1 s"),
        (lambda t, p: t.rescaled(0), "factor must be greater than 0, got 0"),
        (lambda t, p: t.to_load(0, 1.0), "load must be greater than 0, got 0"),
        (lambda t, p: t.to_load(1, 1.0, 0.0), "has no work, so its load cannot be set"),
        (lambda t, p: t.window(0.0, 0.5).rate_per_s(), "must span some time, but its 1 requests arrive at once"),
        (lambda t, p: azure_sample().to_tasks(p, 3), "does not say what its requests ask for"),
        (lambda t, p: t.to_tasks(p, 0), "stations must be at least 1, got 0"),
        (lambda t, p: t.to_tasks(p, 3, lambda t: np.ones(2)), "gcycles_per_step must give 4 numbers, got the shape"),
        (lambda t, p: t.to_tasks(p, 3, lambda t: -t.images), "gcycles_per_step must give finite numbers of at least 0"),
        (lambda t, p: t.with_requests([]), "mix must hold at least one type with a weight above 0"),
    ],
)
def test_what_cannot_be_done_is_refused(trace, tmp_path, change, says):
    with pytest.raises(InputError) as error:
        change(trace, tmp_path / "tasks.csv")
    assert says in str(error.value)
    assert not (tmp_path / "tasks.csv").exists()


# Task files


def test_the_task_file_is_read_by_replay_and_by_workloads(trace, scenario, tmp_path):
    path = tmp_path / "tasks.csv"
    trace.rescaled(1 / 3).to_tasks(path, 3, 0.25, input_mbit=0.5, result_mbit=2.0, seed=1)
    tasks = TaskList.read(path, scenario)
    assert tasks.work_gcycles.tolist() == [2.5, 10.0, 7.5, 40.0]
    assert tasks.input_mbit.tolist() == [0.5] * 4
    assert tasks.result_mbit.tolist() == [2.0, 4.0, 2.0, 8.0]
    assert set(tasks.origin.tolist()) <= {0, 1, 2}
    rows = list(csv.DictReader(path.open()))
    assert [float(row["arrival_s"]) for row in rows] == (trace.arrival_s * (1 / 3)).tolist()
    assert rows[1]["model"] == "b"
    assert (rows[1]["width"], rows[1]["height"], rows[1]["images"]) == ("512", "256", "2")
    again = tmp_path / "again.csv"
    trace.rescaled(1 / 3).to_tasks(again, 3, 0.25, input_mbit=0.5, result_mbit=2.0, seed=1)
    assert again.read_bytes() == path.read_bytes()
    r = TraceWorkload(str(path), train_share=0.5).draw(0, Stream.TRAINING, 0, 2, 3)
    assert r.work.tolist() == [2.5, 10.0]
    assert r.station.tolist() == tasks.origin[:2].tolist()


def test_what_a_mix_gave_is_written(tmp_path, scenario):
    path = tmp_path / "tasks.csv"
    trace = azure_sample().with_requests(MIX)
    trace.to_tasks(path, 3, 77.0, input_mbit=77.0, result_mbit=77.0)
    tasks = TaskList.read(path, scenario)
    is_a = np.array(trace.model) == "a"
    np.testing.assert_array_equal(tasks.input_mbit, np.where(is_a, 0.1, 0.2))
    np.testing.assert_array_equal(tasks.result_mbit, np.where(is_a, 1.0, 3.0))
    np.testing.assert_array_equal(tasks.work_gcycles, np.where(is_a, 10.0, 8.0))
    assert np.bincount(tasks.origin, minlength=3).min() > 500


# The command

registered = pytest.mark.skipif(
    "tasks" not in [module.__name__.rsplit(".", 1)[-1] for module in main_module.COMMANDS],
    reason="the command is not registered",
)


@registered
def test_the_command_brings_a_trace_to_a_load(cli, tmp_path, scenario_file, write):
    out = tmp_path / "out.csv"
    path = write(ALIBABA, *ALIBABA_ROWS)
    words = ["tasks", path, "--trace-format", "alibaba", "--scenario", scenario_file, "--load", "0.5", "--out", out]
    run = cli(*words, "--gcycles-per-step", "0.1", "--json")
    assert run.status == 0
    said = json.loads(run.out)
    assert (said["read"], said["broken"], said["written"], said["models"]) == (3, 0, 3, 2)
    assert said["load"] == pytest.approx(0.5)
    assert said["switch_share"] == 0.5
    tasks = TaskList.read(out, Scenario.load(scenario_file))
    assert tasks.work_gcycles.tolist() == pytest.approx([4.0, 6.0, 24.0])
    text = cli(*words, "--start", "10", "--end", "100").out
    assert "2 of 3 requests read, 0 broken" in text
    assert "load 0.5" in text
    assert cli("replay", "--scenario", scenario_file, "--tasks", out, "--policy", "opt-ts").status == 0


@registered
def test_arrivals_alone_take_steps_or_the_mix_of_the_scenario(cli, refused, tmp_path, scenario_file, scenario):
    out = tmp_path / "out.csv"
    words = ["tasks", "azure-sample", "--out", out, "--seed", "1"]
    refused(*words, "--scenario", scenario_file, says=["does not say what its requests ask for; give --request-steps"])
    assert json.loads(cli(*words, "--request-steps", "20", "--keep", "0.5", "--json").out)["written"] == pytest.approx(
        1000, 0.1
    )
    data = scenario.to_dict()
    data["workload"] = {"kind": "poisson", "rate_per_s": 1.0, "mix": [kind.to_dict() for kind in MIX]}
    mixed = tmp_path / "mixed.json"
    mixed.write_text(json.dumps(data))
    said = json.loads(cli(*words, "--scenario", mixed, "--json").out)
    assert (said["read"], said["written"], said["models"]) == (2000, 2000, 2)


@registered
def test_what_the_command_refuses(refused, write, tmp_path):
    path, out = write("at,n", "1,3", "x,3"), tmp_path / "out.csv"
    csv_words = ["tasks", path, "--trace-format", "csv", "--out", out]
    refused("tasks", path, "--out", out, says=["--trace-format must say what", "alibaba, azure, vllm-omni, csv"])
    refused(*csv_words, says=["--trace-format csv needs --columns, at least arrival_s=COLUMN"])
    refused(*csv_words, "--columns", "arrival_s", says=["must be NAME=COLUMN with commas between them"])
    refused(*csv_words, "--columns", "arrival_s=at,steps=n", says=["1 broken rows of 2", "line 3: at must be a number"])
    refused(
        *csv_words, "--columns", "arrival_s=at", "--max-broken", "2", says=["--max-broken must be from 0 to 1, got 2"]
    )
    refused(
        "tasks",
        path,
        "--format",
        "azure",
        "--unit",
        "ms",
        "--out",
        out,
        says=["work only with --trace-format csv, got azure"],
    )
    refused("tasks", tmp_path / "no", "--format", "azure", "--out", out, says=["does not exist"])
    refused("tasks", "azure-sample", "--out", tmp_path / "no" / "out.csv", says=["does not exist"])
