"""Task files: what is read, what is refused and how, and what is written back."""

import csv

import numpy as np
import pytest

from diffpolicy import InputError
from diffpolicy.edge import Scenario, TaskList

HEAD = "slot,origin,input_mbit,result_mbit,gcycles_per_step,steps,server"
TIMED = HEAD.replace("slot", "arrival_s")
GOOD = ["0,0,3.5,1,0.25,4,2", "0,,3,0.5,0.5,2,1", "2,2,0,0,0,1,0"]


def test_columns_become_numbers(read_tasks):
    tasks = read_tasks(*GOOD, decisions=True)
    assert len(tasks) == 3
    assert tasks.slot.tolist() == [0, 0, 1]
    assert tasks.duration_s.tolist() == [1.0, 0.5]
    assert tasks.origin.tolist() == [0, -1, 2]
    assert tasks.work_gcycles.tolist() == [1.0, 1.0, 0.0]
    assert tasks.input_mbit.tolist() == [3.5, 3.0, 0.0]
    assert tasks.result_mbit.tolist() == [1.0, 0.5, 0.0]
    assert tasks.server.tolist() == [2, 1, 0]


def test_decisions_are_not_read_where_a_policy_decides(read_tasks):
    assert read_tasks("0,0,1,1,1,1,nonsense").server is None


def test_columns_may_stand_in_any_order_with_others_between(write_tasks, scenario):
    path = write_tasks("x,4,0,2,y,1,0,3.5", columns="note,steps,slot,server,model,result_mbit,origin,input_mbit")
    path.write_text(path.read_text().replace("note", "note,gcycles_per_step").replace("x,4", "x,0.25,4"))
    tasks = TaskList.read(path, scenario, decisions=True)
    assert (tasks.work_gcycles[0], tasks.input_mbit[0], tasks.server[0]) == (1.0, 3.5, 2)


def test_a_byte_order_mark_crlf_and_blank_lines_do_no_harm(write_tasks, scenario, read_tasks):
    path = write_tasks()
    path.write_bytes(("﻿" + HEAD + "\r\n" + "\r\n\r\n".join(GOOD) + "\r\n").encode())
    assert TaskList.read(path, scenario).input_mbit.tolist() == read_tasks(*GOOD).input_mbit.tolist()


def test_arrival_times_may_stand_in_the_place_of_slots(read_tasks):
    rows = ["0.5,0,1,1,1,1,0", "0.5,1,1,1,1,1,0", "2.75,1,1,1,1,1,0"]
    tasks = read_tasks(*rows, columns=TIMED)
    assert tasks.slot.tolist() == [0, 1, 2]
    assert tasks.duration_s.tolist() == [0.0, 2.25, 0.5]


def test_a_scenarios_slots_do_not_limit_a_file(read_tasks, scenario):
    assert scenario.slots == 5
    assert read_tasks("999,0,1,1,1,1,0").slot.tolist() == [0]


# What is refused

BAD_VALUES = [
    ("slot", "-1"),
    ("slot", "0.5"),
    ("slot", "x"),
    ("slot", ""),
    ("slot", "nan"),
    ("slot", "inf"),
    ("slot", "1e300"),
    ("slot", "9" * 5000),
    ("origin", "3"),
    ("origin", "-1"),
    ("origin", "1.5"),
    ("origin", "x"),
    ("input_mbit", "-0.1"),
    ("input_mbit", "x"),
    ("input_mbit", ""),
    ("input_mbit", "nan"),
    ("input_mbit", "inf"),
    ("input_mbit", "1e999"),
    ("result_mbit", "-1"),
    ("result_mbit", "1,5"),
    ("result_mbit", "nan"),
    ("gcycles_per_step", "-3"),
    ("gcycles_per_step", "None"),
    ("gcycles_per_step", "-inf"),
    ("steps", "0"),
    ("steps", "-2"),
    ("steps", "2.5"),
    ("steps", "x"),
    ("steps", ""),
    ("steps", "nan"),
    ("steps", "²"),
    ("server", "3"),
    ("server", "-1"),
    ("server", "0.5"),
    ("server", "x"),
    ("server", ""),
    ("server", "99999999999999999999"),
]


@pytest.mark.parametrize(("column", "value"), BAD_VALUES, ids=lambda x: x[:20])
def test_a_bad_value_is_refused_with_file_line_column_and_value(write_tasks, scenario, column, value):
    row = dict(zip(HEAD.split(","), GOOD[-1].split(","), strict=True)) | {column: f'"{value}"'}
    path = write_tasks(*GOOD[:2], ",".join(row.values()))
    with pytest.raises(InputError) as error:
        TaskList.read(path, scenario, decisions=True)
    message = str(error.value)
    assert str(path) in message
    assert "line 4" in message
    assert f"'{column}'" in message
    assert repr(value)[1:30] in message
    assert "\n" not in message


def test_a_message_stays_short_whatever_the_value(write_tasks, scenario):
    with pytest.raises(InputError) as error:
        TaskList.read(write_tasks(f"0,0,{'x' * 100_000},1,1,1,0"), scenario)
    assert len(str(error.value)) < 1000


def test_work_that_is_not_finite_is_refused(write_tasks, scenario):
    with pytest.raises(InputError, match=r"line 2, column 'gcycles_per_step'.*1e308"):
        TaskList.read(write_tasks("0,0,1,1,1e308,1000,0"), scenario)


def test_slots_out_of_order_are_refused(write_tasks, scenario):
    path = write_tasks("0,0,1,1,1,1,0", "3,0,1,1,1,1,0", "2,0,1,1,1,1,0")
    with pytest.raises(InputError, match=r"line 4, column 'slot'.*\(3\), got '2'"):
        TaskList.read(path, scenario)


@pytest.mark.parametrize("value", ["-0.1", "nan", "inf", "x", ""])
def test_bad_arrival_times_are_refused(write_tasks, scenario, value):
    with pytest.raises(InputError, match=r"line 2, column 'arrival_s'"):
        TaskList.read(write_tasks(f"{value},0,1,1,1,1,0", columns=TIMED), scenario)


def test_arrival_times_out_of_order_are_refused(write_tasks, scenario):
    path = write_tasks("1.5,0,1,1,1,1,0", "1.25,0,1,1,1,1,0", columns=TIMED)
    with pytest.raises(InputError, match=r"line 3, column 'arrival_s'.*\(1\.5\), got '1.25'"):
        TaskList.read(path, scenario)


@pytest.mark.parametrize("column", ["origin", "input_mbit", "result_mbit", "gcycles_per_step", "steps", "slot"])
def test_a_missing_column_is_refused_by_name(write_tasks, scenario, column):
    path = write_tasks(columns=HEAD.replace(column, "other"))
    path.write_text(path.read_text() + "0,0,1,1,1,1,0\n")
    with pytest.raises(InputError, match=f"no column '{column}'") as error:
        TaskList.read(path, scenario)
    assert str(path) in str(error.value)


def test_decisions_that_are_needed_are_asked_for(write_tasks, scenario):
    path = write_tasks("0,0,1,1,1,1", columns=HEAD.removesuffix(",server"))
    TaskList.read(path, scenario)
    with pytest.raises(InputError, match="no column 'server'"):
        TaskList.read(path, scenario, decisions=True)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "empty"),
        ("\n\n", "empty"),
        (HEAD + "\n", "no tasks"),
        (HEAD, "no tasks"),
        (HEAD + "\n\n\n", "no tasks"),
        (HEAD + "\n0,0,1,1,1,1\n", "line 2: 6 values for 7 columns"),
        (HEAD + "\n0,0,1,1,1,1,0\n0,0,1,1,1,1,0,5\n", "line 3: 8 values for 7 columns"),
        (HEAD + ",slot\n0,0,1,1,1,1,0,0\n", "column 'slot' twice"),
        (HEAD + '\n0,0,"1,1,1,1,0\n', "line 2"),
    ],
)
def test_a_file_of_another_form_is_refused(write_tasks, scenario, text, says):
    path = write_tasks()
    path.write_text(text)
    with pytest.raises(InputError, match=says) as error:
        TaskList.read(path, scenario)
    assert str(path) in str(error.value)


def test_a_file_that_cannot_be_read_is_refused(tmp_path, scenario):
    (tmp_path / "binary.csv").write_bytes(b"\xff\xfe\x00\x80")
    for path, says in (
        (tmp_path / "no.csv", "does not exist"),
        (tmp_path, "folder"),
        (tmp_path / "binary.csv", "UTF-8"),
    ):
        with pytest.raises(InputError, match=says) as error:
            TaskList.read(path, scenario)
        assert str(path) in str(error.value)


# What is written


def rows(text):
    return list(csv.reader(text.splitlines()))


def test_other_columns_and_the_order_of_rows_are_kept(read_tasks):
    columns = HEAD.replace("server", "server,note")
    lines = ['0,0,3.50,1,.25,4,2,"a, b"', "0,,3,5e-1,0.5,2,1,", '0,1,3,0.5,0.5,2,1,"q""q"', "7,2,0,0,0,1,0,é"]
    text = read_tasks(*lines, columns=columns).to_csv([0, 1, 2, 0], [0.5, 0.25, 1.0, 2.0])
    before = rows("\n".join([columns, *lines]))
    after = rows(text)
    assert after[0] == [*before[0], "delay_s"]
    server = before[0].index("server")
    for old, new, a, x in zip(before[1:], after[1:], "0120", ("0.5", "0.25", "1.0", "2.0"), strict=True):
        assert new[server] == a
        assert new[-1] == x
        assert [c for i, c in enumerate(new[:-1]) if i != server] == [c for i, c in enumerate(old) if i != server]


def test_a_recorded_delay_is_replaced_where_it_stands(read_tasks):
    text = read_tasks("9,0,0,1,1,1,1,0", columns="delay_s," + HEAD).to_csv([2], [0.75])
    assert rows(text) == [["delay_s", *HEAD.split(",")], ["0.75", "0", "0", "1", "1", "1", "1", "2"]]


def test_both_columns_are_appended_where_there_are_none(read_tasks):
    text = read_tasks("0,0,1,1,1,1", columns=HEAD.removesuffix(",server")).to_csv(np.array([2]), np.array([0.75]))
    assert rows(text)[0][-2:] == ["server", "delay_s"]
    assert rows(text)[1][-2:] == ["2", "0.75"]


def test_floats_are_written_so_that_they_read_back_bit_for_bit(read_tasks):
    delays = np.random.default_rng(0).uniform(0, 1, 3) / 3
    text = read_tasks(*GOOD).to_csv([0, 0, 0], delays)
    assert [float(row[-1]) for row in rows(text)[1:]] == delays.tolist()
    assert [row[-1] for row in rows(text)[1:]] == [repr(x) for x in delays.tolist()]


def test_what_is_written_is_read_again(write_tasks, scenario, read_tasks):
    tasks = read_tasks(*GOOD, decisions=True)
    path = write_tasks(name="again.csv")
    path.write_text(tasks.to_csv(tasks.server, [0.0] * 3))
    again = TaskList.read(path, scenario, decisions=True)
    for name in ("slot", "duration_s", "origin", "input_mbit", "result_mbit", "work_gcycles", "server"):
        np.testing.assert_array_equal(getattr(again, name), getattr(tasks, name))


def test_the_ranges_come_from_the_scenario(write_tasks, scenario):
    path = write_tasks("0,3,1,1,1,1,2")
    TaskList.read(path, Scenario(1.0, scenario.servers, stations=(None,) * 4), decisions=True)
    with pytest.raises(InputError, match=r"'origin'.*at most 2"):
        TaskList.read(path, scenario, decisions=True)
    with pytest.raises(InputError, match=r"'server'.*at most 1"):
        TaskList.read(path, Scenario(1.0, scenario.servers[:2], stations=(None,) * 4), decisions=True)
