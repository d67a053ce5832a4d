"""`diffpolicy plot`: draws again what commands wrote, from the CSV alone."""

from __future__ import annotations

import argparse
from pathlib import Path

from diffpolicy._read import show_path
from diffpolicy.cli import options as opt
from diffpolicy.errors import InputError

HELP = "draw a CSV that compare, evaluate, train or a benchmark wrote"
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
        help="comparison.csv, learning_curves.csv, training.csv, sweep.csv... ; its columns say which kind it is",
    )
    parser.add_argument("--format", choices=FORMATS, help="format of the pictures (default: png and svg)")
    parser.add_argument("--dark", action="store_true", help="for dark pages; file names then end with -dark")
    parser.add_argument("--out", metavar="DIR", help="folder for the pictures (default: that of each file)")
    opt.add_common(parser)


def run(options: argparse.Namespace) -> None:
    """Loads matplotlib, and no torch but through what the pictures' own modules need."""
    out = None if options.out is None else Path(options.out)
    if out is not None and out.suffix[1:] in FORMATS and not out.is_dir():
        raise InputError(
            f"--out is the folder of the pictures, which have the names of their files, and {show_path(out)} is named "
            f"as a picture; --format {out.suffix[1:]} draws that format alone"
        )
    places = [(out or Path(file).parent) / Path(file).stem for file in options.files]
    for k, place in enumerate(places):
        if place in places[:k]:
            raise InputError(
                f"{options.files[k]} and {options.files[places.index(place)]} would be written to the same picture, "
                f"{place}"
            )

    from diffpolicy.experiments.plots import WRITTEN, draw

    formats = WRITTEN if options.format is None else (options.format,)
    pictures = {file: draw(file, out, formats, dark=options.dark) for file in options.files}
    if options.json:
        opt.print_json({"pictures": {file: [str(path) for path in paths] for file, paths in pictures.items()}}, options)
        return
    for file, paths in pictures.items():
        print(f"{file}: {', '.join(map(str, paths))}")
