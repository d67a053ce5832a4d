"""One dispatcher takes over from another behind a proxy, as `docs/serving/running.md` says, and no client notices."""

import collections
import os
import re
import shutil
import signal
import socket
import subprocess
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest

pytest.importorskip("fastapi")

from test_serving_serve import PATH, SMALL, soon, started, two_workers

PAGE = Path(__file__).parents[1] / "docs" / "serving" / "running.md"
NGINX = shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin")


def free_port():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


@pytest.mark.skipif(NGINX is None or not Path("/proc/self/cmdline").exists(), reason="needs nginx and Linux")
def test_a_restart_behind_nginx_as_the_page_tells_it_loses_no_request(tmp_path):
    location = re.search(r"```nginx\n(.*?)```", PAGE.read_text(), re.S)[1]
    port, config = free_port(), tmp_path / "nginx.conf"
    user = "user root;" if os.geteuid() == 0 else ""
    paths = " ".join(f"{name}_temp_path {tmp_path}/{name};" for name in ("client_body", "proxy"))

    def point_to(url):
        assert "http://127.0.0.1:8000" in location
        own = f"listen 127.0.0.1:{port}; {location.replace('http://127.0.0.1:8000', url)}"
        config.write_text(
            f"{user} daemon off; pid {tmp_path}/pid; error_log {tmp_path}/error.log; events {{}}"
            f" http {{ access_log off; {paths} server {{ {own} }} }}"
        )

    def nginx(*words):
        return [NGINX, "-c", str(config), "-e", str(tmp_path / "error.log"), *words]

    def workers_that_end():
        """Old processes of nginx that finish what they have taken."""
        of = Path(f"/proc/{proxy.pid}/task/{proxy.pid}/children").read_text().split()
        return [child for child in of if b"is shutting down" in Path(f"/proc/{child}/cmdline").read_bytes()]

    def ask(stream):
        # each by a connection of its own: a proxy that is reloaded closes idle ones
        own = {"connection": "close"}
        answer = httpx.post(
            f"http://127.0.0.1:{port}{PATH}", json={**SMALL, "stream": stream}, headers=own, timeout=60, trust_env=False
        )
        return answer.status_code, "b64_json" in answer.text

    enough = threading.Event()

    def load():
        with ThreadPoolExecutor(16) as pool:
            asked = []
            while not enough.is_set():
                asked.append(pool.submit(ask, len(asked) % 2 == 0))
                time.sleep(0.04)
            return [each.result() for each in asked]

    with two_workers() as urls, ThreadPoolExecutor() as pool:
        argv = ("serve", "--workers", ",".join(urls), "--port", "0", "--log", tmp_path / "log.csv")
        with started(*argv) as (old, told):
            point_to(told["url"])
            proxy = subprocess.Popen(nginx())
            try:
                soon(lambda: (tmp_path / "pid").exists())
                loaded = pool.submit(load)
                time.sleep(0.5)
                with started(*argv) as (new, told):
                    soon(lambda: httpx.get(f"{told['url']}/health", trust_env=False).status_code == 200)
                    point_to(told["url"])
                    subprocess.run(nginx("-s", "reload"), check=True)
                    time.sleep(1)
                    soon(lambda: not workers_that_end(), within_s=60)
                    old.send_signal(signal.SIGTERM)
                    assert old.wait(30) == 143
                    time.sleep(0.5)
                    enough.set()
                    answers = collections.Counter(loaded.result())
                    assert new.poll() is None
            finally:
                enough.set()
                proxy.send_signal(signal.SIGQUIT)
                proxy.wait(30)
    assert set(answers) == {(200, True)}, answers
    lines = (tmp_path / "log.csv").read_text().splitlines()
    assert len(lines) == 1 + answers.total()
