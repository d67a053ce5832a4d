"""Wherever a name is refused, the one that may have been meant stands at the end of the sentence."""

import pytest

from diffpolicy import DiffusionPolicy
from diffpolicy.diffusion import Ancestral
from diffpolicy.edge import OffloadingEnv, Scenario
from diffpolicy.edge.dispatch import RequestLog
from diffpolicy.edge.hardware.models.architectures import architecture
from diffpolicy.edge.pricing.bundled import load_bundled
from diffpolicy.edge.scenario import ModelTimes, ServerService
from diffpolicy.edge.workload.traces.readers import read_csv
from diffpolicy.environments.entrants import make_policy
from diffpolicy.errors import InputError
from diffpolicy.experiments import build, make_method, make_problem
from diffpolicy.training.trainable import check_rates
from toys import GuessEnv

MINE = """
class_path: diffpolicy.methods.SACMethod
init_args:
  updats: 3
"""
LOG = {"arrivals": "arrival_s", "gpu": "server"}


def specs(**options):
    return DiffusionPolicy.from_specs(GuessEnv(1), **options)


REFUSED = {
    "an argument": (lambda: specs(stepz=3), "did you mean steps?"),
    "a schedule": (lambda: specs(schedule="cosin"), "did you mean cosine?"),
    "a sampler": (lambda: specs(sampler="edm-huen"), "did you mean edm-heun?"),
    "a prediction": (lambda: specs(prediction="nois"), "did you mean noise?"),
    "a head": (lambda: specs(head="simplx"), "did you mean simplex?"),
    "an activation": (lambda: specs(denoiser={"act": "mis"}), "did you mean mish?"),
    "an option of a part": (lambda: specs(denoiser={"hiden": [3]}), "did you mean hidden?"),
    "an order of tokens": (lambda: Ancestral(order="chanse"), "did you mean chance?"),
    "a rate": (
        lambda: build("clinic", "sac", changes={"learning_rates": {"actr": 1e-3, "critic": 1e-3, "alpha": 0}}),
        "did you mean actor?",
    ),
    "a key of a method": (lambda: make_method("mine.yaml"), "did you mean updates?"),
    "a file of a method": (lambda: make_method("mine"), "did you mean mine.yaml?"),
    "a file of a problem": (lambda: make_problem("shop"), "did you mean shop:problem?"),
    "a file of another problem": (
        lambda: make_problem("hall"),
        "did you mean hall:NAME, NAME being a name in that file?",
    ),
    "an import of a file": (lambda: make_problem("mall"), "did you mean mall:problem?"),
    "a long import of a file": (lambda: make_problem("fair"), "did you mean fair:problem?"),
    "an import by another name": (
        lambda: make_problem("dock"),
        "did you mean dock:NAME, NAME being a name in that file?",
    ),
    "a thing of a file": (lambda: make_problem("shop:problm"), "did you mean problem?"),
    "a run": (lambda: make_policy("lately", make_problem("clinic")), "did you mean runs/lately?"),
    "a level": (lambda: OffloadingEnv(Scenario.load("lad-ts"), [1], information="papr"), "did you mean paper?"),
    "a knob": (lambda: make_problem("clinic").vary("tasks", 3), "has no 'tasks' to vary"),
    "a column of a log": (lambda: RequestLog.read("log.csv", columns={"arrival": "at"}), "did you mean arrival_s?"),
    "sides of a log": (lambda: RequestLog.read("log.csv", columns={"at": "arrival_s"}), "did you mean arrival_s=at?"),
    "a column of a trace": (lambda: read_csv("log.csv", {"arrival": "at"}), "did you mean arrival_s?"),
    "sides of a trace": (lambda: read_csv("log.csv", {"at": "arrival_s"}), "did you mean arrival_s=at?"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_a_name_that_is_near_is_told(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.yaml").write_text(MINE)
    (tmp_path / "shop.py").write_text("problem = 3\n")
    (tmp_path / "hall.py").write_text("def other():\n    problem = 3\n")
    (tmp_path / "mall.py").write_text("from shop import market as problem\n")
    (tmp_path / "fair.py").write_text("from shop import (\n    other,\n    problem,\n)\n")
    (tmp_path / "dock.py").write_text("import shop.problem\nfrom shop import problem as market\n")
    (tmp_path / "log.csv").write_text("at,server,end_s,cost\n0,0,1,1\n")
    (tmp_path / "runs" / "lately").mkdir(parents=True)
    (tmp_path / "runs" / "lately" / "policy.json").write_text("{}")
    refused, words = REFUSED[name]
    with pytest.raises(InputError) as error:
        refused()
    assert str(error.value).endswith(words)


TIMES = ServerService({"sd3": ModelTimes(text_s=0.1, megapixels=(1.0,), step_s=(0.08,), decode_s=(0.4,))})
LIST = r"^columns must be an object, got \['at'\]"
NO_TEXT = {
    "an architecture": (lambda: architecture(None), "^model must be one of .*, got None"),
    "a bundled policy": (lambda: load_bundled(5), "^pretrained policy 5 is not bundled"),
    "a model of a server": (lambda: TIMES.seconds(5, 1.0, 1.0, 1.0), "^no server times are known for model 5;"),
    "names of rates": (lambda: check_rates(["actor"], {1: 0.1, "a": 0.1}), "^learning_rates must name actor, got 1, a"),
    "a rate": (lambda: check_rates(["actor"], {"actor": "fast"}), "^learning_rates.actor must be a number, got 'fast'"),
    "columns of a log": (lambda: RequestLog.read("log.csv", columns=["at"]), LIST),
    "columns of a trace": (lambda: read_csv("log.csv", ["at"]), LIST),
}


@pytest.mark.parametrize("name", NO_TEXT)
def test_what_is_no_text_is_near_to_no_name_and_is_refused_all_the_same(name):
    refused, words = NO_TEXT[name]
    with pytest.raises(InputError, match=words):
        refused()
