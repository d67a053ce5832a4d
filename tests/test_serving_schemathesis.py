"""A schema-driven fuzz run over HTTP: no 500, and no status, type or body that the descriptions do not name."""

import json
import subprocess
import sys

import pytest
from hypothesis import HealthCheck, Phase, given, settings

schemathesis = pytest.importorskip("schemathesis")
from schemathesis import GenerationMode  # noqa: E402
from schemathesis.specs.openapi import checks  # noqa: E402

SEEN = [
    checks.status_code_conformance,
    checks.content_type_conformance,
    checks.response_schema_conformance,
]
EXAMPLES = 150
"""Of each operation and mode."""
HOW = settings(
    max_examples=EXAMPLES,
    deadline=None,
    database=None,
    derandomize=True,
    phases=[Phase.explicit, Phase.generate, Phase.shrink],
    suppress_health_check=list(HealthCheck),
)


@pytest.fixture(scope="module")
def urls():
    """Of a worker whose images take no time, and of a dispatcher before it."""
    processes = []

    def start(*words):
        command = [sys.executable, "-m", "diffpolicy", *words, "--port", "0", "--json"]
        processes.append(subprocess.Popen(command, stdout=subprocess.PIPE, text=True))
        return json.loads(processes[-1].stdout.readline())["url"]

    worker = start("worker", "--model", "emulate:tiny-cpu@1000000")
    yield {"worker": worker, "dispatcher": start("serve", "--workers", worker, "--binding", "free")}
    for process in reversed(processes):
        process.terminate()
        process.wait(60)


@pytest.mark.slow
@pytest.mark.parametrize("mode", [GenerationMode.POSITIVE, GenerationMode.NEGATIVE], ids=["as-described", "against-it"])
@pytest.mark.parametrize("which", ["worker", "dispatcher"])
def test_no_request_makes_a_server_fail_or_answer_what_its_description_does_not_name(urls, which, mode):
    """Minutes: some hundred requests to each path, as its description has them, and as it has them not."""
    schema = schemathesis.openapi.from_url(f"{urls[which]}/openapi.json")
    tried = 0
    for found in schema.get_all_operations():
        operation = found.ok()
        if mode is GenerationMode.NEGATIVE and not operation.body:
            continue  # nothing in it could be wrong

        @HOW
        @given(operation.as_strategy(generation_mode=mode))
        def answers(case):
            assert case.call_and_validate(checks=SEEN, timeout=30).status_code != 500

        answers()
        tried += 1
    assert tried >= 2
