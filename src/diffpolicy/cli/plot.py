"""`diffpolicy plot`: draws again what commands wrote, from the CSV alone."""

from __future__ import annotations

import argparse
from pathlib import Path

from diffpolicy import _files
from diffpolicy.cli import options as opt

HELP = "draw a CSV that compare, evaluate or a benchmark wrote"
EXAMPLES = (
    "diffpolicy plot runs/compare/comparison.csv",
    "diffpolicy plot runs/compare/*.csv --format svg --dark --out pictures",
)
FORMATS = ("png", "svg", "pdf")


def add_options(parser: argparse.ArgumentParser) -> None:
    """What the command takes."""
    parser.add_argument(
        "files",
        nargs="+",
        metavar="FILE",
        help="comparison.csv, learning_curves.csv, evaluation.csv, sweep.csv... ; which it is, its columns say",
    )
    parser.add_argument("--format", choices=FORMATS, help="default: png and svg")
    parser.add_argument("--dark", action="store_true", help="for dark pages; names then end with -dark")
    parser.add_argument("--out", metavar="DIR", help="default: the folder of each file")
    opt.add_common(parser)


def run(options: argparse.Namespace) -> None:
    """Loads matplotlib, and no torch but through what the pictures' own modules need."""
    out = None if options.out is None else Path(_files.writable_folder(options.out))

    from diffpolicy.edge.plots import KINDS
    from diffpolicy.experiments.plots import WRITTEN, draw

    formats = WRITTEN if options.format is None else (options.format,)
    pictures = {file: draw(file, out, formats, dark=options.dark, kinds=KINDS) for file in options.files}
    if options.json:
        opt.print_json({"pictures": {file: [str(path) for path in paths] for file, paths in pictures.items()}}, options)
        return
    for file, paths in pictures.items():
        print(f"{file}: {', '.join(map(str, paths))}")
