"""Whether a source distribution holds what the repository holds, and a wheel what its package holds, byte for byte.

And whether the package's page shows all that its text names.

python .ci/check_release.py FOLDER SDIST WHEEL [CSV], where FOLDER is a copy of the files that git knows, and of no
others; CSV is where the sizes are written, `docs/_static/release.csv` for the page of releases.
"""

import csv
import re
import sys
import tarfile
import zipfile
from collections.abc import Mapping
from pathlib import Path

WRITTEN = ("PKG-INFO", "setup.cfg", "src/diffpolicy.egg-info/")
"""What setuptools adds to a source distribution."""


def held(folder: Path) -> dict[str, bytes]:
    """What each file of a folder holds, by its path there."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def in_sdist(path: Path) -> dict[str, bytes]:
    """What each file of a source distribution holds, without the folder that they lie in and what setuptools adds."""
    with tarfile.open(path) as archive:
        members = {m.name.partition("/")[2]: archive.extractfile(m) for m in archive.getmembers() if m.isfile()}
        return {name: file.read() for name, file in members.items() if file and not name.startswith(WRITTEN)}


def in_wheel(path: Path) -> dict[str, bytes]:
    """What each file of a wheel holds, without its metadata."""
    with zipfile.ZipFile(path) as archive:
        return {name: archive.read(name) for name in archive.namelist() if ".dist-info/" not in name}


def unshown(path: Path) -> list[str]:
    """What the text of a wheel's package page names that the page could not show: pictures, and links to files."""
    with zipfile.ZipFile(path) as archive:
        name = next(name for name in archive.namelist() if name.endswith(".dist-info/METADATA"))
        text = archive.read(name).decode().partition("\n\n")[2]
    return re.findall(r"<img[^>]*>|\]\((?!https?:)[^)]*\)", text) if text.strip() else ["a text, having none"]


def differences(wanted: Mapping[str, bytes], got: Mapping[str, bytes]) -> list[str]:
    """A line for each file that is missing, is there and should not be, or holds something else."""
    return [
        *(f"lacks {name}" for name in sorted(wanted.keys() - got.keys())),
        *(f"has {name}, which it should not" for name in sorted(got.keys() - wanted.keys())),
        *(f"has another {name}" for name in sorted(wanted.keys() & got.keys()) if wanted[name] != got[name]),
    ]


def main(folder: str, sdist: str, wheel: str, written: str = "") -> int:
    """Prints what differs and the sizes, and writes these if `written` names a file. Returns: the exit status."""
    if written and not written.endswith(".csv"):  # as where a pattern names two wheels, of which one would be lost
        raise SystemExit(f"{written} is no CSV; name one source distribution and one wheel")
    wanted = held(Path(folder))
    package = {name.removeprefix("src/"): data for name, data in wanted.items() if name.startswith("src/diffpolicy/")}
    wrong = [f"the source distribution {line}" for line in differences(wanted, in_sdist(Path(sdist)))]
    wrong += [f"the wheel {line}" for line in differences(package, in_wheel(Path(wheel)))]
    wrong += [f"the package's page cannot show {found}" for found in unshown(Path(wheel))]
    for line in wrong:
        print(line)
    sizes = {name: f"{Path(path).stat().st_size / 1e6:.2f}" for name, path in (("sdist", sdist), ("wheel", wheel))}
    print(f"source distribution {sizes['sdist']} MB, {len(wanted)} files of the repository")
    print(f"wheel {sizes['wheel']} MB, {len(package)} files of the package")
    if written:
        rows = [("wheel", sizes["wheel"], len(package)), ("source distribution", sizes["sdist"], len(wanted))]
        with Path(written).open("w", newline="") as file:
            csv.writer(file, lineterminator="\n").writerows([("file", "MB", "files of the repository"), *rows])
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
