"""Files and tables that are not what they should be: each is refused in one sentence, and no row is lost."""

import json
import os
import stat

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from diffpolicy import InputError
from diffpolicy._read import read_bytes, read_text
from diffpolicy._tables import read_table
from diffpolicy._validate import show
from diffpolicy.edge import Scenario, TaskList
from diffpolicy.edge.hardware.schema.published import from_mlenergy
from diffpolicy.edge.workload.mix import RequestType
from diffpolicy.edge.workload.recorded import TraceWorkload
from diffpolicy.edge.workload.task_file import TaskTable
from diffpolicy.edge.workload.traces.readers import azure_sample, read_alibaba, read_azure, read_csv, read_vllm_omni
from diffpolicy.experiments.plots import draw

HEAD = "arrival_s,origin,input_mbit,result_mbit,gcycles_per_step,steps,width,height,images,model"
ROW = "{},0,1,1,1,1,512,512,1,m"
OMNI = "Request(request_id='1', width={}, height=512, num_inference_steps=20)"
AT = {"arrival_s": "at"}


@pytest.fixture
def write(tmp_path):
    """`write(*lines)`: the path of a file of these lines, texts or bytes."""

    def write(*lines, end=b"\n"):
        path = tmp_path / "table.csv"
        path.write_bytes(end.join(x if isinstance(x, bytes) else x.encode() for x in lines) + end)
        return path

    return write


def said(read, *arguments, **options):
    with pytest.raises(InputError) as error:
        read(*arguments, **options)
    message = str(error.value)
    assert "\n" not in message
    assert len(message) < 700
    return message


# Files


@pytest.mark.parametrize("read", [read_text, Scenario.load, TaskTable.read], ids=["text", "scenario", "tasks"])
@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("a\0b.json", r"a\x00b.json"),
        ("\ud800.json", r"\ud800.json"),
        ("line\nbreak.json", r"line\nbreak.json does not exist"),
        ("pipe.json", "pipe.json is a device, a pipe or a socket, not a file"),
        ("zero.json", "zero.json is a device, a pipe or a socket, not a file"),
        ("folder.json", "folder.json is a folder, not a file"),
        ("latin.json", "latin.json is not UTF-8 text: line 3 holds the byte 0xe9"),
    ],
)
def test_what_is_no_file_of_text_is_refused_without_waiting(tmp_path, read, name, says):
    os.mkfifo(tmp_path / "pipe.json")
    (tmp_path / "zero.json").symlink_to("/dev/zero")
    (tmp_path / "folder.json").mkdir()
    (tmp_path / "latin.json").write_bytes(b"a\r\nb\rcaf\xe9\n")
    arguments = ("file",) if read is read_text else ()
    with pytest.raises(InputError) as error:
        read(tmp_path / name, *arguments)
    assert says in str(error.value)
    assert "\n" not in str(error.value)
    assert str(error.value).encode()


def test_a_file_is_read_to_its_bound_and_no_further(tmp_path):
    path = tmp_path / "file"
    path.write_bytes(b"x" * 10)
    assert read_bytes(path, "file", 10) == b"x" * 10
    with pytest.raises(InputError, match="file is larger than 9 bytes, the most that is read"):
        read_bytes(path, "file", 9)
    with path.open("wb") as file:
        file.truncate(2**40)  # a hole: nothing is stored
    with pytest.raises(InputError, match="larger than 16 MiB"):
        read_text(path, "file")


@pytest.mark.skipif(not os.path.exists("/proc/self/maps"), reason="needs /proc")
def test_a_file_whose_size_is_not_told_is_bounded_too():
    assert stat.S_ISREG(os.stat("/proc/self/maps").st_mode)
    with pytest.raises(InputError, match="larger than 100 bytes"):
        read_bytes("/proc/self/maps", "file", 100)


def test_a_byte_order_mark_is_no_text(tmp_path):
    (tmp_path / "bom").write_bytes(b"\xef\xbb\xbfa\r\n")
    assert read_text(tmp_path / "bom", "file") == "a\r\n"


# Rows


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ('1,"x', "a quote is opened and not closed"),
        ('1,"x"y', "text follows a closing quote"),
        ('1,x"y"', "a quote stands in a value that does not begin with one"),
        ("1,x\0", "holds a null character"),
        ("1", "1 values for 2 columns"),
        ("1,2,3", "3 values for 2 columns; decimals take a point (.), and a value that holds a comma stands in quotes"),
        ("1;2", "1 values for 2 columns; they are separated by semicolons (;), and commas (,) are expected"),
        ("1," + "x" * 2**20, "is longer than 1,048,576 characters"),
    ],
)
def test_a_broken_row_is_one_line_with_its_reason(write, line, says):
    table = read_table(write("a,b", "1,2", line, "3,4", "5,6"), "table")
    assert table.rows == (("1", "2"), ("3", "4"), ("5", "6"))
    assert table.lines == (2, 4, 5)
    assert table.broken == ((3, says),)
    assert says in said(TaskTable.read, write("a,b", "1,2", line))


@pytest.mark.parametrize("text", ['{"a": 1, "b": 2}', "{", "[", '[{"a": 1}]', "{}"])
def test_json_is_told_as_such(write, tmp_path, text):
    (tmp_path / "outcome.json").write_text(text)
    assert "outcome.json is JSON, and pictures are drawn of CSV files" in said(draw, tmp_path / "outcome.json")
    assert "is JSON, and a CSV with a header in line 1 is expected" in said(read_table, write(text, "}"), "table")
    assert read_table(write("[s],{x}", "1,2"), "table").header == ("[s]", "{x}")


def test_an_open_quote_swallows_no_rows(write):
    rows = [f"{k},x" for k in range(10)]
    path = write("at,net", *rows[:3], '3,"x', *rows[4:7], '7,x"', *rows[8:])
    trace = read_csv(path, {**AT, "model": "net"}, max_broken=0.5)
    assert trace.arrival_s.tolist() == [0, 1, 2, 4, 5, 6, 8, 9]
    assert trace.broken.count == 2
    # closed where a closing quote may stand, with whole rows between
    path = write("at,net", *rows[:3], '3,"x', *rows[4:7], 'x"', *rows[8:])
    trace = read_csv(path, {**AT, "model": "net"}, max_broken=0.5)
    assert trace.arrival_s.tolist() == [0, 1, 2, 4, 5, 6, 8, 9]
    assert trace.broken.first[0] == "line 5: a quote is opened that closes in line 9, with rows in between"


def test_a_quoted_value_may_hold_commas_quotes_and_line_breaks(write):
    table = read_table(write("a,b", '"x, ""y""",1', '"two\r\nlines",""', '"",2', "", '"z",'), "table")
    assert table.rows == (('x, "y"', "1"), ("two\r\nlines", ""), ("", "2"), ("z", ""))
    assert (table.lines, table.blank, table.broken) == ((2, 3, 5, 7), 1, ())


@pytest.mark.parametrize("end", [b"\n", b"\r\n", b"\r"])
def test_each_end_of_a_line_is_one(write, end):
    table = read_table(write("\ufeffa,b", "1,x\u2028\x0cy", "2,3", end=end), "table")
    assert table.header == ("a", "b")
    assert table.rows == (("1", "x\u2028\x0cy"), ("2", "3"))


@settings(max_examples=150, deadline=None)
@given(st.lists(st.text('01,;"\n\r\0 é', max_size=8), max_size=12), st.integers(0, 3))
def test_every_line_is_in_exactly_one_count(tmp_path_factory, lines, more):
    path = tmp_path_factory.mktemp("rows") / "table.csv"
    text = "\n".join(["a,b", *lines, *["1,2"] * more])
    path.write_bytes(text.encode())
    table = read_table(path, "table")
    starts = sorted([*table.lines, *(line for line, _ in table.broken)])
    assert len(set(starts)) == len(starts)
    physical = len(text.replace("\r\n", "\n").replace("\r", "\n").removesuffix("\n").split("\n"))
    spans = sum(1 + value.replace("\r\n", "\n").replace("\r", "\n").count("\n") for row in table.rows for value in row)
    assert 1 + table.blank + len(table.broken) + spans - len(table.rows) == physical


def test_lines_of_every_reader_are_read_left_out_or_broken(write):
    head = "gmt_create,predict_type,predict_status,exec_time_seconds,num_images_per_prompt,num_inference_steps,"
    row = "2030-01-01 00:00:{:02},{},{},1,1,20,X"
    rows = [
        row.format(0, "TXT_2_IMG", "SUCCEED"),
        row.format(1, "IMG_2_IMG", "SUCCEED"),
        row.format(2, "TXT_2_IMG", "PENDING"),
        row.format(3, "TXT2IMG", "SUCCEED"),
        row.format(4, "TXT_2_IMG", "succeed"),
        "",
    ]
    trace = read_alibaba(write(head + "checkpoint_model_version_id", *rows), max_broken=0.5)
    assert len(trace) == 1
    assert trace.skipped == {"predict_type IMG_2_IMG": 1, "predict_status PENDING": 1, "blank line": 1}
    assert trace.broken.first == (
        "line 5: predict_type must be one of TXT_2_IMG, IMG_2_IMG, INPAINTING, got 'TXT2IMG'",
        "line 6: predict_status must be one of SUCCEED, FAILED, PENDING, PROCESSING, got 'succeed'",
    )
    omni = write(OMNI.format(512).replace("'1'", "'a\u2028b\x0cc'"), "", "x")
    trace = read_vllm_omni(omni, max_broken=0.5)
    assert (len(trace), trace.broken.count, trace.skipped) == (1, 1, {"blank line": 1})


@pytest.mark.parametrize("share", [float("nan"), -0.1, 1.5, "x"])
def test_a_share_of_broken_rows_is_a_share(write, share):
    assert "max_broken must be" in said(read_csv, write("at", "x", "1"), AT, max_broken=share)


# Headers and separators


def test_a_column_is_named_once(write):
    assert "has the column 'at' twice" in said(read_csv, write("at,at", "1,2"), AT)
    assert "has the column 'at' twice" in said(read_csv, write("at, at ", "1,2"), AT)
    assert "has the column 'TIMESTAMP' twice" in said(read_azure, write("TIMESTAMP,TIMESTAMP", "1,2"))
    says = said(read_csv, write("at,n", "1,2"), {"arrival_s": "at", "exec_s": "at"})
    assert says == "columns names the column 'at' twice, for arrival_s and exec_s"
    square = read_csv(write("at,side", "1,64"), {"arrival_s": "at", "width": "side", "height": "side"})
    assert (square.width[0], square.height[0]) == (64, 64)
    columns = "commit,gpu,model,batch_size,denoising_steps,batch_latency_s,energy_per_image_j"
    assert "has the column 'gpu' twice" in said(from_mlenergy, write(columns + ",gpu", "a,b,c,1,1,1,1,b"))
    omni = write(OMNI.format("1, width=2"))
    assert "width appears twice" in said(read_vllm_omni, omni)


def test_names_of_columns_stay_on_one_line(write):
    assert r"it has at, n\x0bm" in said(read_csv, write("at,n\x0bm", "1,2"), {**AT, "steps": "n"})
    assert r"has the column 'a\u2028b' twice" in said(read_csv, write("at,a\u2028b,a\u2028b", "1,2,3"), AT)


def test_a_column_named_twice_on_the_command_line_is_refused(refused, write, tmp_path):
    words = ["tasks", write("a,b", "1,2"), "--format", "csv", "--out", tmp_path / "out.csv", "--steps", 3]
    refused(*words, "--columns", "arrival_s=a,arrival_s=b", says=["must name each NAME once"])


@pytest.mark.parametrize(
    ("mark", "word"), [(";", "semicolons (;)"), ("\t", "tabs"), ("|", "bars (|)"), (" ", "spaces")]
)
def test_another_separator_is_named(write, mark, word):
    expected = f"separates its columns by {word}; commas (,) are expected, and points (.) for decimals"
    rows = [HEAD.replace(",", mark), ROW.format("0,5").replace(",", mark)]
    scenario = Scenario.load("lad-ts")
    assert expected in said(TaskList.read, write(*rows), scenario)
    assert expected in said(read_csv, write(*rows), {"arrival_s": "arrival_s"})
    assert expected in said(TraceWorkload, str(write(*rows)))
    assert expected in said(read_azure, write(f"TIMESTAMP{mark}ContextTokens", f"1{mark}2"))
    assert expected in said(from_mlenergy, write(mark.join(("commit", "gpu", "model"))))


def test_decimal_commas_are_named(write):
    says = said(read_csv, write("at,n", '"1,5",2'), AT)
    assert "line 2: at must be a number in s with a point (.) for its decimals, got '1,5'" in says
    task = said(TraceWorkload, str(write(HEAD, ROW.format('"0,5"'))))
    assert "must be a number with a point (.) for its decimals, got '0,5'" in task


# Times


@pytest.mark.parametrize(
    "time", ["1600-01-01 00:00:00", "1677-01-01 00:00:00", "2262-12-31 00:00:00", "9999-12-31 23:59:59Z"]
)
def test_dates_that_nanoseconds_do_not_reach_are_broken_rows(write, time):
    zone = time[19:]
    trace = read_csv(
        write("at", *[f"2024-01-01 00:00:0{k}{zone}" for k in (1, 2)], time), AT, unit="datetime", max_broken=0.5
    )
    assert trace.arrival_s.tolist() == [0, 1]
    assert trace.broken.first == (f"line 4: at must lie between the years 1678 and 2262, got '{time}'",)


@pytest.mark.parametrize(
    "zone", ["+99:99", "+24:00", "+14:01", "-15:00", "+05:60", "+5:00", "+05", " +05:00", "z", "+٠٥:٠٠"]
)
def test_what_is_no_zone_is_refused(write, zone):
    assert "at must" in said(read_csv, write("at", "2024-01-01 00:00:00" + zone), AT, unit="datetime")


@pytest.mark.parametrize(
    "time",
    [
        "0000-01-01 00:00",
        "2023-02-29 00:00",
        "2024-01-01 24:00",
        "2024-01-01 00:00:60",
        "٢٠٢٤-01-01 00:00",
        "2024-1-1 0:00",
    ],
)
def test_what_is_no_date_is_refused(write, time):
    assert "at must be a date and time" in said(read_csv, write("at", time), AT, unit="datetime")


def test_zones_count(write):
    times = [
        "2024-01-01 12:00:00+14:00",
        "2023-12-31T22:00:01Z",
        "2023-12-31 16:30:02-0530",
        "2023-12-31 22:00:03.5+00:00",
    ]
    assert read_csv(write("at", *times), AT, unit="datetime").arrival_s.tolist() == [0, 1, 2, 3.5]


def test_times_with_and_without_zones_do_not_mix(write):
    path = write("at", "2024-01-01 00:00:00", "2024-01-01 00:00:01", "2024-01-01 00:00:02+01:00")
    says = said(read_csv, path, AT, unit="datetime")
    assert "times with a zone (line 4: '2024-01-01 00:00:02+01:00')" in says
    assert "without one (line 2: '2024-01-01 00:00:00')" in says
    assert "with a zone" in said(read_azure, write("TIMESTAMP", "2024-01-01 00:00:00Z", "2024-01-01 00:00:01"))


@pytest.mark.parametrize(
    ("unit", "times", "wrong"),
    [
        ("s", ["1700000000", "0", "1700000001"], "'0' in line 3"),
        ("ms", ["1700000000000", "1700000000", "1700000000001"], "'1700000000' in line 3"),
        ("s", ["0", "1", "1700000000"], "'1700000000' in line 4"),
        ("datetime", ["2024-01-01 00:00", "1970-01-01 00:00"], "'1970-01-01 00:00' in line 3"),
    ],
)
def test_a_time_far_from_all_others_is_refused_by_row_and_value(write, unit, times, wrong):
    says = said(read_csv, write("at", *times), AT, unit=unit)
    assert wrong in says
    assert "more than 366: one of them or its unit is wrong" in says


def test_times_of_a_finer_unit_are_told(write):
    says = said(read_csv, write("at", "1700000000000"), AT)
    assert "at must be a number in s of at most 292 years; it may be in ms, got '1700000000000'" in says


def test_a_gap_of_years_in_a_task_file_is_refused(write):
    path = str(write(HEAD, ROW.format(0), ROW.format(1_700_000_000)))
    says = "line 3, column 'arrival_s' must not be more than 366 days after the row before (0.0), got '1700000000'"
    assert says in said(TraceWorkload, path)
    assert says in said(TaskList.read, path, Scenario.load("lad-ts"))
    assert len(TraceWorkload(str(write(HEAD, ROW.format(1_700_000_000), ROW.format(1_700_000_001))))) == 2


def test_a_task_file_that_could_not_be_read_is_not_written(tmp_path):
    trace = azure_sample().with_steps(20)
    out = tmp_path / "out.csv"
    assert "must have a request at least every 366 days" in said(trace.rescaled(1e9).to_tasks, out, 3)
    assert "factor must leave all times finite" in said(trace.rescaled, 1e306)
    assert "gcycles_per_step times images and steps must be finite" in said(trace.to_tasks, out, 3, 1e308)
    assert not out.exists()


# Numbers

NUMBERS = [
    "1e999999",
    "-1e999999",
    "1e-999999",
    "9" * 5000,
    "nan",
    "inf",
    "-inf",
    "0x10",
    "1_000",
    "١٢",
    "²",
    "--1",
    "1e",
    ".",
]
NUMBERS += ["1 000", "1d3", "None", "true", "1+1j", "½", "1e99999999999999999999999"]


@pytest.mark.parametrize("value", NUMBERS, ids=lambda x: x[:12])
def test_what_is_no_number_is_one_sentence_everywhere(write, value):
    assert "at must be a number in s" in said(read_csv, write("at", value), AT)
    columns = {"arrival_s": "at", "steps": "n"}
    assert "n must be a whole number of at least 1" in said(read_csv, write("at,n", f"1,{value}"), columns)
    assert "n must be a time of at least 0 s" in said(read_csv, write("at,n", f"1,{value}"), {**AT, "exec_s": "n"})
    assert "must be a" in said(TraceWorkload, str(write(HEAD, ROW.format(value), ROW.format(1))))
    head = "commit,gpu,model,batch_size,denoising_steps,batch_latency_s,energy_per_image_j"
    row = f"a,NVIDIA H100 80GB HBM3,segmind/SSD-1B,1,25,{value},1"
    assert "batch_latency_s must be" in said(from_mlenergy, write(head, row))


@pytest.mark.parametrize(
    "value", ["1e999999", "9" * 5000, "0" * 5000, "-" * 5000 + "1", "(" * 5000, "nan", "1" + "0" * 400, "...", "b'1'"]
)
def test_a_literal_that_is_no_number_is_one_sentence(write, value):
    assert "line 1: " in said(read_vllm_omni, write(OMNI.format(value)))


@pytest.mark.parametrize("value", ["+5", " 5 ", "5.", "5.0", ".5e1", "50e-1", "05"])
def test_ways_to_write_five(write, value):
    columns = {"arrival_s": "at", "steps": "n"}
    assert read_csv(write("at,n", f"{value},{value}"), columns).steps.tolist() == [5]
    assert TraceWorkload(str(write(HEAD, ROW.format(value), ROW.format(6))))._arrival_s.tolist() == [5, 6]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("images", 2**64),
        ("images", 1_000_001),
        ("width", 2**32),
        ("height", 2**32),
        ("steps", 10**9),
        ("steps", 2**53 - 1),
    ],
)
def test_counts_of_a_request_have_bounds_wherever_they_stand(write, name, value):
    good = {"width": 512, "height": 512, "steps": 20, "images": 1}
    amounts = {"gcycles_per_step": 1.0, "input_mbit": 1.0, "result_mbit": 1.0}
    assert f"{name} must be at most" in said(RequestType, **{**good, **amounts, name: value})
    columns = dict(zip(HEAD.split(","), ROW.format(0).split(","), strict=True))
    rows = [",".join({**columns, "arrival_s": str(k), name: str(value)}.values()) for k in range(2)]
    says = said(TraceWorkload, str(write(HEAD, *rows)))
    assert f"line 2, column '{name}' must be" in says
    assert str(value) in says
    says = said(read_csv, write("at,n", f"1,{value}"), {"arrival_s": "at", name: "n"})
    assert "n must be" in says


def test_the_largest_image_does_not_wrap(write):
    row = ROW.replace("512,512", "100000,100000")
    work = TraceWorkload(str(write(HEAD, row.format(0), row.format(1))))
    assert work._table.megapixels.tolist() == [1e4, 1e4]
    for size in ((0, 1), (1, 100_001), (1,), (1.5, 2), "ab", (2**64, 1)):
        assert "size" in said(read_csv, write("at", "1"), AT, size=size)


def test_a_mix_whose_work_overflows_is_refused():
    sizes = {"width": 1, "height": 1, "steps": 20, "input_mbit": 1.0, "result_mbit": 1.0}
    assert "gcycles_per_step must be at most 1e+12, got 1e+308" in said(RequestType, **sizes, gcycles_per_step=1e308)


# Options of readers


def test_kinds_and_rates_are_checked(write):
    assert "kinds must be a list of" in said(read_alibaba, write("x"), kinds="TXT_2_IMG")
    assert "kinds must be a list of" in said(read_alibaba, write("x"), kinds=("TXT",))
    assert "rate_per_s must be at least one in" in said(read_vllm_omni, write("x"), rate_per_s=1e-300)
    assert "columns, steps must be the name of a column" in said(read_csv, write("a"), {**AT, "steps": 3})


# Files named in files


@pytest.mark.parametrize(
    "text", ["root:SECRET:0:0\nSECRET\n", "SECRET,SECRET\n1,2\n", "SECRET;b\n", '"SECRET\n', "a\0SECRET"]
)
def test_a_scenario_quotes_nothing_of_a_file_that_is_no_task_file(tmp_path, text):
    (tmp_path / "secret").write_text(text)
    lad_ts = Scenario.load("lad-ts").to_dict()
    file = tmp_path / "scenario.json"
    file.write_text(json.dumps({**lad_ts, "workload": {"kind": "trace", "file": "secret"}}))
    says = said(Scenario.load, file)
    assert "SECRET" not in says
    assert f"workload.file: tasks file {tmp_path / 'secret'}" in says


@pytest.mark.parametrize("file", ["/dev/zero", "pipe", "a\0b", "\ud800", ".", "x" * 5000])
def test_a_scenarios_file_must_be_one(tmp_path, file):
    os.mkfifo(tmp_path / "pipe")
    says = said(TraceWorkload.from_dict, {"kind": "trace", "file": file}, tmp_path)
    assert says.startswith("workload.file: tasks file ")
    assert says.encode()


# Sizes


def test_tables_have_bounds(tmp_path):
    path = tmp_path / "table.csv"
    path.write_bytes(b"at\n" + b"\n" * 1_000_001)
    assert "has more than 1,000,000 lines" in said(read_csv, path, AT)
    assert "has more than 1,000,000 lines" in said(read_vllm_omni, path)
    with path.open("wb") as file:
        file.truncate(2**34)
    assert "is larger than 128 MiB" in said(read_csv, path, AT)
    path.write_text("at," + ",".join(map(str, range(1000))) + "\n")
    assert "has 1001 columns; at most 1000 are read" in said(read_csv, path, AT)
    path.write_text("at," + ",".join(map(str, range(999))) + ("\n" + "1," * 999 + "1") * 10_001)
    assert "has more than 10,000,000 values" in said(read_csv, path, AT)


def test_quotes_that_are_all_open_take_no_longer_than_others(write):
    table = read_table(write("a,b", *['1,"x'] * 3001, *["1,2"] * 3000), "table")
    assert len(table.broken) + len(table.rows) == 6001
    assert len(table.rows) == 3000
    np.testing.assert_array_equal(table.lines[-2:], [6001, 6002])


# Messages


def test_a_value_is_shown_briefly_whatever_it_is():
    bomb: list[object] = ["x"]
    for _ in range(60):
        bomb = [bomb, bomb]
    deep: list[object] = []
    for _ in range(100_000):
        deep = [deep]
    assert show(bomb) == "[" * 57 + "..."
    assert show(deep) == "[" * 57 + "..."
    assert show(10**5000).startswith("0x")
    assert show("x" * 10**6) == "'" + "x" * 56 + "..."
    for value in (
        [],
        (),
        {},
        [1],
        (1,),
        (1, 2),
        {"a": [1, None], 2: ("x", 1.5)},
        "it's",
        True,
        float("nan"),
        {1},
        10**20,
    ):
        assert show(value) == repr(value)
