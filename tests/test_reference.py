"""What the reference says of every public name, and that its examples are true."""

import ast
import contextlib
import doctest
import enum
import functools
import importlib
import inspect
import io
import re
import sys
import textwrap
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
LONGEST = 10
MAKERS = ("__init__", "__new__", "__post_init__")
# methods, objectives, samplers, processes and rules of a paper: each names it by a link or its arXiv number
OF_A_PAPER = """
    diffusion.DDIM diffusion.FlowProcess diffusion.GaussianProcess diffusion.cosine diffusion.ddim diffusion.ddpm
    diffusion.linear diffusion.reverse_steps diffusion.vp
    diffusion.CosineSchedule diffusion.DPMSolver diffusion.EDMHeun diffusion.EDMSchedule diffusion.FlowEuler
    diffusion.FlowHeun diffusion.FlowSchedule diffusion.VPSchedule
    diffusion.Ancestral diffusion.MaskedProcess diffusion.TauLeaping diffusion.UniformProcess
    networks.RunningNorm networks.TimeEmbedding
    policies.ActionMemory policies.DiffusionPolicy policies.FeedforwardPolicy policies.GaussianPrior
    policies.GreedyValuePolicy policies.SystematicDraws policies.heads.BoundedHead
    policies.heads.SimplexHead
    objectives.ChainPPOLoss objectives.LatentBoundedSACLoss objectives.LatentDiscreteSACLoss objectives.PathwiseLoss
    objectives.DenoisingLoss objectives.ImitationLoss objectives.LikelihoodLoss objectives.denoising_errors
    evaluation.off_policy_value training.TaughtModule methods.ChainImitationMethod methods.ImitationMethod
    objectives.MirrorDescentLoss objectives.OnChainMirrorLoss objectives.ReverseMirrorLoss objectives.QDFMLoss
    methods.MirrorDescentMethod methods.QDFMMethod
    objectives.QVPOLoss objectives.SoftActorCriticLoss objectives.AgentsDQNLoss objectives.TokenImitationLoss
    objectives.DistillationLoss objectives.FQLLoss methods.DistillationMethod methods.OneStepMethod
    methods.FQLMethod methods.PlainFQLMethod methods.FPOMethod objectives.FPOLoss
    training.EvolutionModule training.ImitationModule training.OnPolicyModule training.PathwiseModule
    methods.DQNMethod methods.DiffusionPPOMethod methods.DiffusionSACMethod methods.PPOMethod
    methods.QVPOMethod
    edge.OffloadingEnv edge.OffloadingProblem edge.Workload edge.released_transitions
"""
# what gives Any, beside contents of files, `dict[str, Any]`: nobody knows better
OF_ANY_TYPE = {
    "DiffusersAdapter.pipeline",  # of a library without types
    "PerAgent.prepare",  # what a denoiser of the user's makes
    "RolloutModule.transfer_batch_to_device",  # what Lightning hands it
}
PAPER = re.compile(r"arXiv \d{4}\.\d{4,5}|https?://|doi:10\.")
# examples that need an extra
NEEDS = {
    "environments.gym_problem": "gymnasium",
    "edge.FleetPolicy": "numba",
    "edge.hardware.DiffusersAdapter": "diffusers",
    "edge.hardware.HttpAdapter": "httpx",
    "edge.serving.ComfyUpstream": "httpx",
    "edge.serving.HttpUpstream": "httpx",
    "edge.serving.Service": "httpx",
    "edge.serving.TellsEnd": "httpx",
    "edge.serving.Upstream": "httpx",
    "edge.serving.api.make_app": "fastapi",
    "edge.serving.worker.make_worker_app": "fastapi",
    "export.ExportedDecision": "onnxruntime",
    "export.export_decision": "onnxruntime",
}


def layers():
    """The public packages, without their common prefix."""
    tree = ast.parse((ROOT / "docs" / "_ext" / "checks.py").read_text(encoding="utf-8"))
    wanted = [n for n in tree.body if isinstance(n, ast.Assign) and n.targets[0].id == "LAYERS"]
    return [f"diffpolicy{layer}" for layer in ast.literal_eval(wanted[0].value)]


@functools.cache
def docstrings():
    """The reader of docstrings that the pages are made with."""
    sys.path.insert(0, str(ROOT / "docs" / "_ext"))
    try:
        return importlib.import_module("arguments")
    finally:
        sys.path.pop(0)


@functools.cache
def names():
    """Public classes and functions by their names, each where it belongs: the package of the module that defines it."""
    at_home, elsewhere = {}, {}
    for layer in layers():
        package = importlib.import_module(layer)
        for name in package.__all__:
            thing = getattr(package, name)
            if isinstance(thing, type) or inspect.isroutine(thing):
                home = f"{thing.__module__}.".startswith(f"{layer}.") and layer != "diffpolicy"
                (at_home if home else elsewhere)[f"{layer}.{name}"] = thing
    known = {id(thing) for thing in at_home.values()}
    for name, thing in elsewhere.items():
        if id(thing) not in known:
            at_home[name] = thing
            known.add(id(thing))
    return {name.removeprefix("diffpolicy."): thing for name, thing in sorted(at_home.items())}


def by_short_name():
    """Public things by their last name and by all of it."""
    return {key: thing for name, thing in names().items() for key in (name.rpartition(".")[2], f"diffpolicy.{name}")}


def missing_arguments(thing, args, known):
    """Parameters of which `Args` says nothing, and names in it that are no parameters."""
    told = {name: text for group, text in args for name in group}
    lacks = [name for name in told if name not in known and name != "others"]
    rest = {name for name, p in known.items() if name not in told and p.kind is not p.VAR_KEYWORD}
    if "others" in told:
        things = [by_short_name().get(name) for name in re.findall(r"`([\w.]+)`", told["others"])]
        for other in filter(None, things):
            rest -= set(every_parameter(other))
    elif any(p.kind is p.VAR_KEYWORD and p.name not in told for p in known.values()):
        lacks.append("others")
    return lacks + sorted(rest)


def every_parameter(thing):
    """Parameters of a public function or class, those of a dataclass's or policy's bases among them."""
    bases = thing.__mro__ if isinstance(thing, type) else [thing]
    return {name for base in bases if base is not object for name in docstrings().parameters(base)}


def own_tree(thing):
    """The syntax tree of a function or class."""
    return ast.parse(textwrap.dedent(inspect.getsource(inspect.unwrap(thing)))).body[0]


def refuses(tree, module):
    """Whether code raises something, or asks a check of `_validate` to do so."""
    checks = {
        name
        for name, value in vars(sys.modules[module]).items()
        if getattr(value, "__module__", "") == "diffpolicy._validate" and not name.startswith(("show", "read_"))
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.Raise) and node.exc is not None and "NotImplemented" not in ast.unparse(node.exc):
            return True
        if isinstance(node, ast.Call):
            called = ast.unparse(node.func)
            if called in checks or (called.startswith("_validate.") and not called.endswith(".show")):
                return True
    return False


def silent_about_errors(thing, found):
    """Whether its own code refuses something that no `Raises` tells."""
    tree = own_tree(thing)
    if "Raises" in found:
        return False
    if not isinstance(thing, type):
        return refuses(tree, thing.__module__)
    for part in tree.body:
        if not isinstance(part, ast.FunctionDef) or (part.name.startswith("_") and part.name not in MAKERS):
            continue
        told = docstrings().sections(ast.get_docstring(part) or "")
        if ("Raises" not in told or part.name in MAKERS) and refuses(part, thing.__module__):
            return True
    return False


def gives_something(thing):
    """Whether a function returns a value."""
    annotation = inspect.signature(thing).return_annotation
    return annotation not in (None, "None", "NoReturn")


def example_of(thing):
    """The examples of its docstring's section `Example`, and how many lines they have."""
    found = docstrings().sections(thing.__doc__ or "")
    lines = [line for line in found.get("Example", []) if line.strip()]
    return doctest.DocTestParser().get_examples("\n".join(lines)), len(lines)


def lacks(name, thing):
    """What is missing of a name's reference, a word each."""
    found = docstrings().sections(thing.__doc__ or "")
    known = {} if isinstance(thing, type) and issubclass(thing, enum.Enum) else docstrings().parameters(thing)
    summary = found[""]
    missing = []
    if not summary or not summary[0].rstrip().endswith((".", ":")) or (len(summary) > 1 and summary[1].strip()):
        missing.append("summary")
    missing += [
        f"args {a}" for a in missing_arguments(thing, docstrings().entries(found.get("Args", []), known), known)
    ]
    if not isinstance(thing, type) and gives_something(thing) and not {"Returns", "Yields"} & set(found):
        missing.append("returns")
    if silent_about_errors(thing, found):
        missing.append("raises")
    examples, length = example_of(thing)
    if not any(e.want for e in examples) or length > LONGEST or "SKIP" in (thing.__doc__ or ""):
        missing.append("example")
    if name in OF_A_PAPER.split() and not PAPER.search(thing.__doc__ or ""):
        missing.append("paper")
    return missing


def given_by(thing):
    """The functions, methods and properties of a public thing, and of its bases that are of this library."""
    if not isinstance(thing, type):
        return [inspect.unwrap(thing)]
    kinds = {property: "fget", functools.cached_property: "func", classmethod: "__func__", staticmethod: "__func__"}
    members = [
        inspect.unwrap(getattr(member, kinds.get(type(member), ""), member))
        for base in thing.__mro__
        if base.__module__.startswith("diffpolicy.")
        for name, member in vars(base).items()
        if not name.startswith("_") or name in ("__call__", "__getitem__", "__iter__")
    ]
    # once one is made, tensordict puts properties of its own on the class of a module
    ours = (member for member in members if str(getattr(member, "__module__", "")).startswith("diffpolicy."))
    return [member for member in ours if inspect.isfunction(member)]


def gives_any(function):
    """Whether it says that it gives `Any`, or nothing, apart from what a JSON file holds."""
    said = function.__annotations__.get("return", "Any")
    return "Any" in re.sub(r"\b(dict|Mapping)\[str, Any\]", "", str(said))


def wrong_example(name, thing):
    """What an example prints that it should not; empty where it is true. It may use every public name and `torch`."""
    import torch

    own, _, _ = f"diffpolicy.{name}".rpartition(".")
    known = {last: t for last, t in by_short_name().items() if "." not in last}
    package = importlib.import_module(own)
    known |= {n: getattr(package, n) for n in package.__all__} | {"torch": torch}
    examples, _ = example_of(thing)
    report = io.StringIO()
    test = doctest.DocTest(examples, known, name, None, None, None)
    with contextlib.redirect_stdout(io.StringIO()):
        doctest.DocTestRunner(verbose=False, optionflags=doctest.NORMALIZE_WHITESPACE).run(test, out=report.write)
    return report.getvalue()


def test_the_reference_lacks_nothing():
    missing = {name: what for name, thing in names().items() if (what := lacks(name, thing))}
    assert not missing


def test_what_a_public_function_gives_has_a_type():
    members = [member for thing in names().values() for member in given_by(thing)]
    assert len(members) > 500
    assert {member.__qualname__ for member in members if gives_any(member)} == OF_ANY_TYPE


def words_of(path):
    """Names that a test file uses: variables, attributes and what it imports."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    for node in ast.walk(tree):
        if isinstance(node, ast.Name):
            yield node.id
        elif isinstance(node, ast.Attribute):
            yield node.attr
        elif isinstance(node, ast.alias):
            yield node.name.rpartition(".")[2]


def test_every_public_name_is_used_by_a_test():
    """By its own name, in an example, which is run too, or as a base, an argument or a result of what is."""
    tests = {word for path in (ROOT / "tests").rglob("*.py") for word in words_of(path)}
    code = " ".join(e.source for thing in names().values() for e in example_of(thing)[0])
    used = tests | set(re.findall(r"\w+", code))
    reached = set()
    for name, thing in names().items():
        if name.rpartition(".")[2] in used:
            reached |= {base.__name__ for base in getattr(thing, "__mro__", ())}
            made = [thing.__init__] if isinstance(thing, type) else []
            told = (str(getattr(member, "__annotations__", "")) for member in [*given_by(thing), *made])
            reached |= {word for text in told for word in re.findall(r"\w+", text)}
    public = {name for layer in layers() for name in importlib.import_module(layer).__all__}
    assert len(public) > 300
    unused = sorted(public - used - reached)
    assert unused == []


def test_every_name_of_a_paper_is_public():
    assert set(OF_A_PAPER.split()) | set(NEEDS) <= set(names())


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", [n for n, thing in names().items() if any(e.want for e in example_of(thing)[0])])
def test_the_example_is_true(name, tmp_path, monkeypatch):
    if name in NEEDS:
        pytest.importorskip(NEEDS[name])
    monkeypatch.chdir(tmp_path)
    problem = wrong_example(name, names()[name])
    assert not problem, problem


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (
            ["a, b: of both. c: alone,", "    on two lines."],
            [(["a", "b"], "of both."), (["c"], "alone, on two lines.")],
        ),
        (["a: as here: b. No d: is none."], [(["a"], "as here: b. No d: is none.")]),
        (["**others: of it."], [(["others"], "of it.")]),
    ],
)
def test_arguments_that_share_a_line_are_told_apart(text, told):
    assert docstrings().entries(text, {"a", "b", "c"}) == told


def test_arguments_on_the_first_line_of_a_docstring_become_a_section():
    lines = ["What it is. Args: a: A. b: two.", ""]
    docstrings().one_a_line(None, "function", "f", lambda a, b: None, None, lines)
    assert lines[:5] == ["What it is.", "", "Args:", r"    a: \A.", "    b: two."]  # A. alone would begin a list


def test_what_stands_before_a_colon_in_the_docstring_of_a_property_is_no_type():
    lines = ["the greatest, if there is one.", "", ":type: What is kept", ""]  # as napoleon leaves them
    docstrings().whole(None, "property", "f", None, None, lines)
    assert lines == ["What is kept: the greatest, if there is one.", "", ""]
