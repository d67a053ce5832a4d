"""`diffpolicy profile`: what a model's calls take on a server, as a profile."""

from __future__ import annotations

import argparse
import shlex
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from diffpolicy import _files, _limits, _signals
from diffpolicy.cli import options as opt
from diffpolicy.errors import InputError

if TYPE_CHECKING:
    from diffpolicy.edge.hardware.measuring.grid import Grid
    from diffpolicy.edge.hardware.schema.server_profile import ServerProfile
    from diffpolicy.edge.hardware.server_adapter import ServerAdapter

HELP = "measure how long calls of a model take, on this machine or on a server behind a URL"
EXAMPLES = (
    "diffpolicy profile --model tiny --out tiny.json                       # half a minute on a processor",
    "diffpolicy profile --model sd3-medium --grid 'steps=4,10,20;sizes=512,1024;batch=1,2'",
    "diffpolicy profile --url http://127.0.0.1:8000 --concurrency 8 --out remote.json",
)
IN_PROCESS = ("weights", "device", "dtype", "t5", "offload_encoders", "measure_load")
UNTOLD = ("out", "json", "quiet", "verbose", "words", "run", "command", "help")
"""Options that a profile does not repeat: where it is kept, and what argparse keeps beside them."""


def add_options(parser: argparse.ArgumentParser) -> None:
    """What the command takes."""
    parser.add_argument(
        "--model",
        help="sd3-medium, sdxl, sd15, tiny, or a folder or hub id with a diffusers pipeline "
        "(default sd3-medium with a GPU, tiny without)",
    )
    parser.add_argument(
        "--weights",
        default="random",
        metavar="PATH",
        help="weights of --model: random, or a folder or hub id (default random)",
    )
    parser.add_argument("--device", help="cpu or cuda:INDEX (default: cuda:0 if there is one, else cpu)")
    parser.add_argument("--dtype", help="float16, bfloat16 or float32 (default float16 on a GPU, float32 on a CPU)")
    parser.add_argument("--t5", action="store_true", help="keep SD3's third text encoder, T5")
    parser.add_argument(
        "--offload-encoders",
        action="store_true",
        help="keep networks in host memory until their turn, so that text encoders leave the GPU",
    )
    parser.add_argument(
        "--measure-load", action="store_true", help="write random weights to a temporary folder and time loading them"
    )
    grid = parser.add_argument_group("what is measured")
    grid.add_argument(
        "--grid",
        metavar="GRID",
        help="denoising steps, sizes in pixels and images of a call, any of them, as "
        "'steps=4,10,20;sizes=64,96x128;batch=1,2' (default: these steps and batches, with --url batch=1; "
        "the sizes of the model)",
    )
    parser.set_defaults(steps=None, sizes=None, batches=None)
    grid.add_argument("--steps", action=opt.OldSpelling, instead="--grid 'steps=...'")
    grid.add_argument("--sizes", action=opt.OldSpelling, instead="--grid 'sizes=...'")
    grid.add_argument("--batches", action=opt.OldSpelling, instead="--grid 'batch=...'")
    grid.add_argument(
        "--repeats", type=opt.whole(1, _limits.CALLS), default=5, help="timed calls of each point (default 5)"
    )
    grid.add_argument(
        "--warmup",
        type=opt.whole(0, _limits.CALLS),
        default=1,
        help="untimed calls of each size before them (default 1)",
    )
    remote = parser.add_argument_group("a server that runs already")
    remote.add_argument("--url", help="a server that speaks OpenAI's POST /v1/images/generations")
    remote.add_argument("--api-key-env", metavar="NAME", help="environment variable that holds its bearer token")
    remote.add_argument(
        "--concurrency",
        type=opt.whole(1, _limits.PROCESSES),
        default=1,
        help="largest number of requests at once (default 1)",
    )
    parser.add_argument("--name", help="the server's name in the profile (default MODEL-DEVICE)")
    parser.add_argument(
        "--dry-run", action="store_true", help="print parameters, memory and operations; measure nothing"
    )
    parser.add_argument(
        "--out", default="profile.json", metavar="FILE", help="the profile to write (default profile.json)"
    )
    opt.add_common(parser)


def run(options: argparse.Namespace) -> int:
    """Checks what can be checked without torch, then measures."""
    from diffpolicy.edge.hardware.models.architectures import ARCHITECTURES
    from diffpolicy.edge.hardware.models.checkpoints import check_source

    _check_together(options)
    for source in (options.model, None if options.weights == "random" else options.weights):
        if source is not None and source not in ARCHITECTURES and options.url is None:
            check_source(source)
    if options.weights != "random" and options.model not in ARCHITECTURES:
        raise InputError("--weights needs a built-in --model that they fit; name a folder or hub id by --model itself")
    given = _grid_texts(options)
    if options.dry_run:
        opt.set_threads(options.threads)
        return _dry_run(options, given)
    _files.check_writable(options.out)
    grid = _grid(options, given, options.model)

    opt.set_threads(options.threads)
    from diffpolicy.edge.hardware.measuring.profiler import profile

    if options.url is None and options.model is None:
        options.model = _default_model()
        grid = _grid(options, given, options.model)
    warnings: list[str] = []
    interruptions: list[KeyboardInterrupt] = []

    def progress(text: str) -> None:
        if text.startswith("warning: "):
            warnings.append(text.removeprefix("warning: "))
            text = f"diffpolicy: {text}"
        if not options.quiet or text.startswith("diffpolicy: "):
            opt.say(text)

    result = profile(
        _adapter(options),
        grid,
        concurrency=options.concurrency,
        seed=options.seed,
        command=_command(options),
        progress=progress,
        on_interrupt=interruptions.append,
    )
    result.save(options.out)
    if options.json:
        opt.print_json({"out": options.out, "warnings": warnings, "profile": result.to_dict()}, options)
    else:
        _print(result)
        print(f"profile written to {options.out}")
    for stop in interruptions:
        number = getattr(stop, "number", signal.SIGINT)
        print(f"diffpolicy: stopped by {_signals.name(number)}; what was measured is in {options.out}", file=sys.stderr)
        return _signals.exit_status(number)
    return 0


def _check_together(options: argparse.Namespace) -> None:
    if options.grid is not None and (options.steps or options.sizes or options.batches):
        raise InputError("--grid already sets steps, sizes and batches; leave out --steps, --sizes and --batches")
    if options.url is None:
        if options.api_key_env is not None:
            raise InputError("--api-key-env needs --url")
        if options.concurrency > 1:
            raise InputError("--concurrency needs --url: a pipeline in this process runs one call at a time")
        return
    for name in (*IN_PROCESS, "dry_run"):
        if getattr(options, name) not in (None, False, "random"):
            raise InputError(f"--{name.replace('_', '-')} does not apply with --url, to a server that already runs")


def _default_model() -> str:
    import torch

    return "sd3-medium" if torch.cuda.is_available() else "tiny"


def _grid_texts(options: argparse.Namespace) -> dict[str, Any]:
    """What was given of the grid, checked."""
    from diffpolicy.edge.hardware.measuring.grid import parse_grid, parse_numbers, parse_sizes

    texts = {
        name: getattr(options, name) for name in ("steps", "sizes", "batches") if getattr(options, name) is not None
    }
    if options.grid is not None:
        texts = parse_grid(options.grid)
    return {
        name: parse_sizes(text, name) if name == "sizes" else parse_numbers(text, name) for name, text in texts.items()
    }


def _grid(options: argparse.Namespace, given: dict[str, Any], model: str | None) -> Grid:
    from diffpolicy.edge.hardware.measuring.grid import Grid
    from diffpolicy.edge.hardware.models.architectures import ARCHITECTURES

    known = ARCHITECTURES.get(model or "")
    fallback = {
        "steps": (4, 10, 20),
        "sizes": known.sizes if known else ((512, 512),),
        "batches": (1, 2) if options.url is None else (1,),
    }
    return Grid(**{**fallback, **given}, repeats=options.repeats, warmup=options.warmup)


def _adapter(options: argparse.Namespace) -> ServerAdapter:
    if options.url is not None:
        from diffpolicy.edge.hardware.adapters.http_ import HttpAdapter

        return HttpAdapter(
            options.url,
            model=options.model,
            api_key_env=options.api_key_env,
            connections=options.concurrency,
            name=options.name,
        )
    from diffpolicy.edge.hardware.adapters.diffusers_ import DiffusersAdapter

    return DiffusersAdapter(
        options.model,
        **{name: getattr(options, name) for name in IN_PROCESS},
        seed=options.seed,
        name=options.name,
    )


def _command(options: argparse.Namespace) -> str:
    """The command as a profile tells it: no folders, no address."""
    parser = opt.Parser(prog="diffpolicy profile", add_help=False)
    add_options(parser)
    words = ["diffpolicy", "profile"]
    for action in parser._actions:
        value = getattr(options, action.dest)
        if action.dest in UNTOLD or value in (None, action.default):
            continue
        words.append(action.option_strings[0])
        if action.dest == "url":
            words.append("URL")
        elif action.nargs != 0:
            words.append(
                Path(value).name if action.dest in ("model", "weights") and Path(value).exists() else str(value)
            )
    return shlex.join(words)


def _dry_run(options: argparse.Namespace, given: dict[str, Any]) -> int:
    """Parameters, memory and operations, from the architecture alone."""
    from diffpolicy.edge.hardware.models.architectures import ARCHITECTURES, T5_PART, architecture
    from diffpolicy.edge.hardware.models.building import count_parameters, step_flops
    from diffpolicy.edge.hardware.models.checkpoints import count_checkpoint, quiet

    model = options.model or _default_model()
    with quiet():
        if model not in ARCHITECTURES:
            counts = count_checkpoint(model)
            if counts is None:
                raise InputError(f"--dry-run needs a built-in model or a folder of safetensors files, got {model}")
            flops = []
        else:
            chosen = architecture(model, t5=options.t5 or model == "sd3-medium")
            counts = count_parameters(chosen)
            flops = [(*size, step_flops(chosen, *size)) for size in _grid(options, given, model).sizes]
    t5 = counts.pop("text_encoder_3", 0)
    totals = {"total without T5": sum(counts.values()), "total with T5": sum(counts.values()) + t5}
    totals = totals if t5 else {"total": totals["total without T5"]}
    if options.json:
        opt.print_json(
            {
                "model": model,
                "parameters": {**counts, **({"text_encoder_3": t5} if t5 else {})},
                "bytes": {name: {"float16": 2 * count, "float32": 4 * count} for name, count in totals.items()},
                "flops_per_step": [{"width": w, "height": h, "batch": 1, "flops": f} for w, h, f in flops],
            },
            options,
        )
        return 0
    from diffpolicy._text_table import render

    rows = [*counts.items(), *([(f"text_encoder_3 ({T5_PART.kind})", t5)] if t5 else []), *totals.items()]
    cells = [[name, f"{n:,}", f"{2 * n / 2**30:.2f}", f"{4 * n / 2**30:.2f}"] for name, n in rows]
    title = f"{model}: parameters, and GiB of its weights computed from them"
    print(render(title, ["component", "parameters", "float16 GiB", "float32 GiB"], cells))
    for w, h, f in flops:
        print(f"{w}x{h}: {f / 1e12:.4g} TFLOP a step of one image, with guidance")
    return 0


def _print(result: ServerProfile) -> None:
    from diffpolicy.edge.hardware.schema.report import profile_report

    print(profile_report(result))
