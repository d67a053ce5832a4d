"""The load generator: what is asked when, and how delays are counted."""

import asyncio
import json
import subprocess
import sys
import time

import httpx
import numpy as np
import pytest

from diffpolicy import InputError
from diffpolicy.cli.main import main
from diffpolicy.edge.serving.load import Ask, LoadReport, Outcome, mix_of, plan, send
from diffpolicy.edge.serving.load.plan import MIXED, read_plan

PICTURE = {"data": [{"b64_json": "iVBORw0KGgo="}]}


def test_arrivals_have_the_rate_the_spread_and_the_mix_that_were_asked_for() -> None:
    for cv in (1.0, 2.0):
        asks = plan(20_000, rate=4.0, cv=cv, seed=1)
        gaps = np.diff([ask.at_s for ask in asks])
        assert gaps.mean() == pytest.approx(0.25, rel=0.05)
        assert gaps.std() / gaps.mean() == pytest.approx(cv, rel=0.05)
        share = np.mean([ask.width == 1024 for ask in asks])
        assert share == pytest.approx(MIXED[2].weight, abs=0.02)
    assert plan(5, rate=1.0, seed=3) == plan(5, rate=1.0, seed=3)
    assert [a.width for a in plan(9, rate=1.0)] == [a.width for a in plan(9)]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[]", "not empty"),
        ("{", "not JSON"),
        ("[" * 20_000, "nested too deeply"),
        ('[{"width": 1, "width": 2, "height": 1, "num_inference_steps": 1}]', "'width' twice"),
        ('[{"width": 1, "height": 1, "num_inference_steps": 1, "weight": 1e308}]', "weight must be at most"),
        ('[{"width": 512, "height": 512, "num_inference_steps": 0}]', "num_inference_steps must be at least 1"),
        ('[{"width": 512, "num_inference_steps": 1}]', "height must be a whole number"),
        ('[{"width": 1, "height": 1, "num_inference_steps": 1, "steps": 2}]', "no option 'steps'"),
        ('[{"width": 1, "height": 1, "num_inference_steps": 1, "weight": 0}]', "a weight above 0"),
        ("[3]", "must be an object"),
    ],
)
def test_a_mix_that_is_none_is_refused_by_a_sentence(tmp_path, text, said) -> None:
    path = tmp_path / "mix.json"
    path.write_text(text)
    with pytest.raises(InputError, match=r"mix .*mix\.json") as caught:
        mix_of(path)
    assert said in str(caught.value)


def test_a_trace_is_sorted_and_begins_with_its_first_arrival(tmp_path) -> None:
    path = tmp_path / "t.csv"
    path.write_text("arrival_s,width,height,steps,model\n7,512,512,20,sd3\n5,,,,\n")
    assert read_plan(path) == [Ask(0.0), Ask(2.0, 512, 512, 20, model="sd3")]
    path.write_text("arrival_s,width\n7,0\n")
    with pytest.raises(InputError, match="line 2, column 'width' must be from 1"):
        read_plan(path)
    path.write_text("arrival_s\n1700000000.5\n0\n1700000001\n")
    with pytest.raises(InputError, match=r"line 2, column 'arrival_s' must be at most 366 days after .* '0' in line 3"):
        read_plan(path)


def test_delays_count_from_the_intended_arrival_and_a_slow_service_is_asked_no_less_often() -> None:
    async def slow(request: httpx.Request) -> httpx.Response:
        await asyncio.sleep(0.2)
        return httpx.Response(200, json=PICTURE)

    async def main() -> tuple[LoadReport, float]:
        begun = time.perf_counter()
        asks = [Ask(0.01 * k) for k in range(20)]
        report = await send("http://a:1", asks, transport=httpx.MockTransport(slow))
        return report, time.perf_counter() - begun

    report, took = asyncio.run(main())
    assert report.row()["ok"] == 20
    assert took < 3.0  # one after the other would take four
    assert report.delay_s.min() >= 0.19


def test_a_closed_loop_keeps_so_many_under_way() -> None:
    state = {"now": 0, "most": 0}

    async def counts(request: httpx.Request) -> httpx.Response:
        state["now"] += 1
        state["most"] = max(state["most"], state["now"])
        await asyncio.sleep(0.01)
        state["now"] -= 1
        return httpx.Response(200, json=PICTURE)

    asyncio.run(send("http://a:1", [Ask(0.0)] * 12, at_once=3, transport=httpx.MockTransport(counts)))
    assert state["most"] == 3


class Endless(httpx.AsyncByteStream):
    """A body of 16 MiB and more, which nobody may read to its end."""

    async def __aiter__(self):
        for _ in range(16):
            yield b" " * 2**20
        pytest.fail("all of it was read")


def test_what_fails_is_counted_by_why_and_an_answer_without_images_fails() -> None:
    deep = httpx.Response(200, content=b'{"data": ' + b"[" * 50_000)
    hollow = [{"data": []}, {"data": [{"b64_json": "aGk="}]}, {"data": [{"url": 1}]}]
    odd_ones = [*(httpx.Response(200, json=each) for each in hollow), httpx.Response(200, text="no"), deep]
    endless = httpx.Response(200, stream=Endless())
    answers = iter([httpx.Response(503), *odd_ones, endless, None])

    async def odd(request: httpx.Request) -> httpx.Response:
        answer = next(answers)
        if answer is None:
            raise httpx.ConnectError("no")
        return answer

    report = asyncio.run(
        send("http://a:1", [Ask(0.01 * k, 64, 64) for k in range(8)], transport=httpx.MockTransport(odd))
    )
    assert report.errors == {"no images": 5, "503": 1, "dropped": 1, "no connection": 1}
    assert report.row()["mean_s"] is None


def test_the_row_has_the_keys_that_it_should_and_goodput_counts_what_came_in_time() -> None:
    outcomes = [Outcome(Ask(0.0), delay, 0.0) for delay in (1.0, 2.0, 9.0)] + [Outcome(Ask(0.0), 1.0, 0.0, "503")]
    row = LoadReport(outcomes, duration_s=10.0, within_s=2.0).row()
    assert list(row) == [
        "requests",
        "ok",
        "failed",
        "duration_s",
        "mean_s",
        "p50_s",
        "p95_s",
        "p99_s",
        "max_s",
        "goodput",
    ]
    assert (row["requests"], row["ok"], row["failed"], row["mean_s"], row["max_s"]) == (4, 3, 1, 4.0, 9.0)
    assert row["goodput"] == 0.2


def test_the_command_ends_by_one_where_nobody_answers_and_by_two_where_options_contradict(capsys, tmp_path) -> None:
    assert main(["bench-service", "http://127.0.0.1:9", "--requests", "2", "--json", "--quiet"]) == 1
    out = capsys.readouterr()
    assert json.loads(out.out)["failed"] == 2
    assert "no request was answered: 2 x no connection" in out.err
    assert main(["bench-service", "http://127.0.0.1:9", "--cv", "2"]) == 2
    assert "--cv works only with --rate" in capsys.readouterr().err
    assert main(["bench-service", "127.0.0.1:9"]) == 2


@pytest.mark.slow
def test_the_demonstration_runs_and_leaves_no_process_behind(capsys) -> None:
    """Four processes serve twenty requests, and are gone afterwards; the means are near the simulator's."""
    from diffpolicy.edge.serving.demo import FLEET, Contender, demonstrate, load_of

    asks = load_of(20, 0.6, warm=5, seed=0, fleet=FLEET[:2])
    rows = asyncio.run(
        demonstrate([Contender("held", "least-finish", "free")], asks, scale=0.3, warm=5, fleet=FLEET[:2])
    )
    assert rows[0].report.row()["ok"] == 20
    assert rows[0].report.row()["mean_s"] == pytest.approx(rows[0].simulated_s, rel=0.3)


def test_a_command_of_another_process_ends_in_order_when_its_stdin_does() -> None:
    words = [
        sys.executable,
        "-m",
        "diffpolicy.cli.attended",
        *["worker", "--model", "emulate:tiny-cpu", "--port", "0", "--json"],
    ]
    process = subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    assert json.loads(process.stdout.readline())["model"] == "tiny"
    process.stdin.close()
    assert process.wait(60) == 143


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="signals of POSIX")
def test_children_end_when_their_parent_is_killed() -> None:
    """Two processes, some seconds: kill -9 of the parent leaves it no time to end anything."""
    parent = """
import asyncio
from diffpolicy.edge.serving.children import Children

async def main():
    async with Children() as children:
        _, ready = await children.start("worker", "--model", "emulate:tiny-cpu", "--port", "0")
        print(ready["url"], flush=True)
        await asyncio.sleep(600)

asyncio.run(main())
"""
    started = subprocess.Popen([sys.executable, "-c", parent], stdout=subprocess.PIPE)
    live = started.stdout.readline().decode().strip() + "/live"
    assert httpx.get(live).status_code == 200
    started.kill()
    started.wait()
    assert gone(live, time.monotonic() + 60)


def gone(url, until_s):
    """Whether nobody listens there any more, before a time of the clock."""
    while time.monotonic() < until_s:
        try:
            httpx.get(url)
        except httpx.ConnectError:
            return True
        time.sleep(0.1)
    return False
