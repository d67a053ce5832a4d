"""The live page in a real browser, where there is one."""

import asyncio
import shutil
import subprocess
import threading

import pytest

pytest.importorskip("fastapi")

from diffpolicy.edge.serving.api import ApiKeys, ApiSettings, make_app
from diffpolicy.edge.serving.events import Answered, Bound, FellBack
from diffpolicy.edge.serving.reach import url_of
from diffpolicy.edge.serving.running import listen, serving
from diffpolicy.edge.serving.trial import Side
from serving_fakes import FakeService, Snapshot

BROWSER = shutil.which("chromium") or shutil.which("google-chrome")


def dom_of(app, folder):
    """What a browser makes of the page within four seconds of its time, and what it complains of."""
    loop, address, ended = asyncio.new_event_loop(), [], asyncio.Event()
    ready = threading.Event()

    async def go():
        listening = listen("127.0.0.1", 0)
        async with serving(app, listening):
            address.append(url_of(*listening.getsockname()))
            ready.set()
            await ended.wait()

    thread = threading.Thread(target=lambda: loop.run_until_complete(go()))
    thread.start()
    assert ready.wait(10)
    words = ["--headless", "--no-sandbox", "--disable-gpu", "--enable-logging=stderr", f"--user-data-dir={folder}"]
    try:
        done = subprocess.run(
            [BROWSER, *words, "--virtual-time-budget=4000", "--dump-dom", address[0]],
            capture_output=True,
            text=True,
            timeout=60,
        )
    finally:
        loop.call_soon_threadsafe(ended.set)
        thread.join()
        loop.close()
    return done.stdout, [line for line in done.stderr.splitlines() if "CONSOLE" in line]


@pytest.mark.slow
@pytest.mark.skipif(BROWSER is None, reason="needs Chromium")
def test_a_browser_shows_servers_decisions_and_delays_and_asks_for_a_key_where_one_is_needed(tmp_path):
    """Its script and style pass its own content security policy, and what a client sent is text, never markup."""
    service = FakeService()
    sides = {"policy": Side(3, 2.5), "other": Side(0, None)}
    service.snapshot = lambda: Snapshot(trial=sides, evidence=12.5, left=7)
    app = make_app(service)
    for event in (
        Bound("<b>r1</b>", 1.0, "a", 0.5, 2.0, 0.001, "least-finish"),
        Answered("<b>r1</b>", 3.0, "a", 200, 1.0, 2.0, 2.5, 2.0),
        FellBack(3.0, "late"),
    ):
        service.listeners[0](event)
    page, complaints = dom_of(app, tmp_path / "a")
    assert not complaints
    for shown in (
        "ready, version",
        "least-finish on arrival",
        "<circle",
        "→ a",
        "✓ a",
        "fell back",
        "tiny",
        "policy 2.50 (3)",
        "evidence that policy is worse: 12.5 of 200; at this rate it is taken back after 7 more of policy",
    ):
        assert shown in page
    assert "&lt;b&gt;r1" in page
    assert "<b>r1" not in page
    page, _ = dom_of(make_app(service, ApiSettings(keys=ApiKeys({"0123456789abcdef": ""}))), tmp_path / "b")
    assert "a key is needed" in page
    assert "tiny" not in page
