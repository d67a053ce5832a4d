"""Files of deployment: they can be read, and name only options, packages and metrics that there are."""

import configparser
import json
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from diffpolicy.cli.main import parser
from diffpolicy.edge.serving.worker_spec import read_workers

pytest.importorskip("fastapi")
from diffpolicy.edge.serving.api.metrics import Metrics
from serving_fakes import FakeService

ROOT = Path(__file__).parents[1]
FOLDER = ROOT / "examples" / "serving" / "deploy"


def unit():
    """Of systemd, which allows a key twice."""
    read = configparser.RawConfigParser(strict=False, delimiters=("=",), comment_prefixes=("#",))
    read.optionxform = str
    read.read_string((FOLDER / "diffpolicy-serve.service").read_text())
    return read


def compose():
    return yaml.safe_load((FOLDER / "compose.yaml").read_text())["services"]


def commands():
    """The words after `diffpolicy` of all that is started."""
    service = shlex.split(unit()["Service"]["ExecStart"])
    return {"systemd": service[1:], **{name: shlex.split(of["command"]) for name, of in compose().items()}}


@pytest.mark.parametrize("name", sorted(commands()))
def test_what_is_started_has_options_that_there_are(name):
    words = commands()[name]
    options = parser().parse_args(words)
    assert options.command == words[0] in ("serve", "worker")
    if name in compose():
        assert options.token_env in compose()[name]["environment"]
        assert options.host == "0.0.0.0"


def test_the_time_to_stop_is_longer_than_the_grace_and_a_drained_end_is_no_failure():
    service = unit()["Service"]
    grace = parser().parse_args(commands()["systemd"]).grace
    assert int(service["TimeoutStopSec"]) > grace
    assert service["SuccessExitStatus"] == "143"
    assert int(compose()["serve"]["stop_grace_period"].rstrip("s")) > parser().parse_args(commands()["serve"]).grace


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="needs systemd's own check")
def test_systemd_takes_the_unit(tmp_path):
    text = (FOLDER / "diffpolicy-serve.service").read_text()
    file = tmp_path / "diffpolicy-serve.service"
    file.write_text(text.replace("/opt/diffpolicy/bin/diffpolicy", sys.executable))
    done = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", str(file)], capture_output=True, text=True, timeout=60
    )
    about = [line for line in done.stderr.splitlines() if "diffpolicy" in line]
    assert not about
    if done.returncode:
        pytest.skip(f"systemd's check does not run here: {done.stderr.strip()}")


def test_workers_are_those_that_compose_starts():
    services = compose()
    for worker in read_workers(str(FOLDER / "config" / "workers.json")):
        name, _, port = worker.url.removeprefix("http://").partition(":")
        words = shlex.split(services[name]["command"])
        assert words[words.index("--port") + 1] == port
        assert worker.api_key_env in services["serve"]["environment"]


def test_own_servers_need_no_key_of_the_emulated_ones_and_have_theirs_from_a_file():
    """Compose demands what `:?` names in whatever is not started too."""
    services = compose()
    assert services["serve"]["env_file"] == [{"path": "${CONFIG:-./config}/keys.env", "required": False}]
    assert any(of.startswith("${CONFIG:-./config}:") for of in services["serve"]["volumes"])
    demanded = re.findall(r"\$\{(\w+):\?", (FOLDER / "compose.yaml").read_text())
    assert demanded == ["DIFFPOLICY_KEYS"]


def test_the_image_has_the_packages_of_the_extra_and_no_torch():
    text = (ROOT / "pyproject.toml").read_text()
    extra = re.search(r"^serving = (\[.*\])$", text, re.M)
    wanted = {re.split(r"[<>=]", name)[0] for name in json.loads(extra[1])} | {"numpy"}
    listed = {line for line in (FOLDER / "requirements.txt").read_text().split("\n") if line and line[0] != "#"}
    assert listed == wanted
    copied = re.findall(r"^COPY (.*) \S+$", (FOLDER / "Dockerfile").read_text(), re.M)
    let_in = re.findall(r"^!(\S+)$", (FOLDER / "Dockerfile.dockerignore").read_text(), re.M)
    assert sorted(word for line in copied for word in line.split()) == sorted(let_in)
    assert all((ROOT / path).exists() for path in let_in)


def test_the_dashboard_draws_metrics_that_there_are():
    board = json.loads((FOLDER / "grafana.json").read_text())
    shown = set(re.findall(r"diffpolicy_\w+", json.dumps([panel["targets"] for panel in board["panels"]])))
    told = re.findall(r"^# TYPE (\w+) (\w+)$", Metrics(FakeService().snapshot).text().decode(), re.M)
    ends = {"histogram": ("_bucket", "_sum", "_count")}
    there = {name + end for name, kind in told for end in ends.get(kind, ("",))}
    assert shown <= there
    unseen = {name for name, kind in told if kind != "histogram" and not name.endswith("_created")} - shown
    assert not unseen
