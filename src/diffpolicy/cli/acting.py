"""`--sampler`, `--sampler-steps` and `--guidance`: how a policy with a chain acts, in place of its own way."""

from __future__ import annotations

import argparse
import math

from diffpolicy import _limits
from diffpolicy.cli.parsing import whole

SAMPLERS = ("ddpm", "ddim", "dpm++", "edm-heun", "flow-euler", "flow-heun", "one-step", "ancestral", "tau-leaping")
"""Those of `diffpolicy.diffusion.SAMPLERS`, which help is to tell without torch."""


def add_sampler(parser: argparse.ArgumentParser) -> None:
    """`--sampler` and `--sampler-steps`."""
    names = f"{', '.join(SAMPLERS[:-1])} or {SAMPLERS[-1]}"
    parser.add_argument(
        "--sampler", choices=SAMPLERS, help=f"sampler of diffusion policies, instead of their own: {names}"
    )
    parser.add_argument(
        "--sampler-steps", type=whole(1, _limits.CHAIN), metavar="K", help="denoising steps of --sampler"
    )


GUIDANCES = ("best-of", "q-gradient", "classifier-free")
"""Those of `diffpolicy.policies`, which help is to tell without torch."""


def guidance(text: str) -> tuple[str, float]:
    """`WORD:NUMBER`, or `none`, as `--guidance` takes it."""
    word, _, number = text.partition(":")
    try:
        value = 0.0 if text == "none" else float(number)
    except ValueError:
        value = math.nan
    if (word not in GUIDANCES and text != "none") or not math.isfinite(value) or (word == "best-of" and value % 1):
        raise argparse.ArgumentTypeError(f"must be best-of:K, q-gradient:SCALE, classifier-free:W or none, got {text}")
    return word, value


def add_guidance(parser: argparse.ArgumentParser) -> None:
    """`--guidance`."""
    parser.add_argument(
        "--guidance",
        type=guidance,
        metavar="KIND:NUMBER",
        help="guidance of diffusion policies, instead of their own: best-of:K (of K draws) or q-gradient:SCALE, "
        "by the critic saved with the policy; classifier-free:W, for policies trained with a "
        "condition_drop; or none",
    )
