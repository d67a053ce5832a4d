"""Mutations of files that know their form: bytes, JSON, YAML, CSV, safetensors and zip archives."""

from __future__ import annotations

import hashlib
import io
import json
import struct
import zipfile
import zlib
from collections.abc import Callable
from random import Random
from typing import Any

import yaml

TOKENS = [
    *("1e999999", "-1e999999", "NaN", "nan", "inf", "-Infinity", "-1", "0", "1e308", "1e-320", "1_000", "0x10", "+5"),
    *(
        "18446744073709551616",
        "9" * 5000,
        "null",
        "true",
        "None",
        '"',
        "'",
        '""',
        ",",
        ";",
        "\t",
        ":",
        "{",
        "}",
        "[",
        "]",
    ),
    *("\0", "\r", "\n", "\r\n", "\n\n", "\ufeff", "\u2028", "é", "²", "١٢", "\\ud800", "\\u0000", "&a [*a]", "<<: *a"),
    *("!!python/object/apply:os.getcwd []", "[" * 20_000, '{"a":' * 20_000, "(" * 20_000, "- " * 20_000, "x" * 200_000),
    *("/dev/zero", "../..", "2024-01-01 00:00:00+99:99", "1600-01-01 00:00:00", "9999-12-31 23:59:59Z", "1,5"),
]
VALUES: list[Any] = [
    *(
        None,
        True,
        False,
        0,
        -1,
        1,
        2,
        0.5,
        -0.0,
        1e308,
        -1e308,
        1e-320,
        float("nan"),
        float("inf"),
        2**31,
        2**53,
        2**63,
    ),
    *(
        2**64,
        10**12,
        10**400,
        "",
        "x",
        "nan",
        "1e999999",
        "\0",
        "\ud800",
        "a" * 100_000,
        "/dev/zero",
        ".",
        "é",
        "os:getcwd",
    ),
    *([], [[]], [0] * 1000, [None], [1, "x"], {}, {"": 1}, {"a": {"b": []}}, [1e-9, 1e-9], [0, 2**70]),
]
LARGEST = 2**21
"""Bytes of a damaged file: a long input is slow without being wrong."""
BOMB = "\n".join(["a0: &a0 [x, x]", *(f"a{k + 1}: &a{k + 1} [*a{k}, *a{k}]" for k in range(30))])


def mutate(data: bytes, form: str, random: Random) -> bytes:
    """A file with one to three faults. Args: form: `bytes`, `json`, `yaml`, `csv`, `safetensors` or `zip`."""
    for _ in range(random.randint(1, 3)):
        edit = FORMS[form] if random.random() < 0.7 else _bytes
        try:
            data = edit(data, random)
        except (
            ValueError,
            LookupError,
            TypeError,
            OverflowError,
            yaml.YAMLError,
            zipfile.BadZipFile,
            struct.error,
            zlib.error,
            EOFError,
            RuntimeError,  # of what a damaged archive calls encrypted, or compressed otherwise
        ):
            data = _bytes(data, random)  # an earlier fault left no form to follow
    return data[:LARGEST]


def _bytes(data: bytes, random: Random) -> bytes:
    """Flips, cuts, copies or puts something in."""
    at = random.randrange(len(data) + 1)
    to = min(len(data), at + random.choice((1, 2, 10, 100, 10_000)))
    token = random.choice(TOKENS).encode()
    changed = bytes(b ^ (1 << random.randrange(8)) for b in data[at : at + 1])
    edits: list[Callable[[], bytes]] = [
        lambda: data[:at] + changed + data[at + 1 :],
        lambda: data[:at],
        lambda: data[:at] + data[to:],
        lambda: data[:to] + data[at:to] * random.choice((1, 2, 50)) + data[to:],
        lambda: data[:at] + token + data[at:],
        lambda: data[:at] + token + data[to:],
        lambda: data[:at] + random.randbytes(8) + data[at:],
    ]
    return random.choice(edits)()


def _json(data: bytes, random: Random) -> bytes:
    if random.random() < 0.1:
        name = random.choice([part for part in data.decode().split('"') if part.isidentifier()])
        return data.replace(f'"{name}":'.encode(), f'"{name}": 1, "{name}":'.encode(), 1)
    return json.dumps(_tree(json.loads(data), random)).encode()


def _yaml(data: bytes, random: Random) -> bytes:
    if b"&a" in data:
        return _bytes(data, random)  # to load it would be to fall for it
    if random.random() < 0.05:
        return data + b"\n" + BOMB.encode()
    return yaml.safe_dump(_tree(yaml.safe_load(data), random)).encode("utf-8", "surrogatepass")


def _tree(tree: Any, random: Random) -> Any:
    """A tree with one entry replaced, removed, renamed, added, repeated, wrapped or moved."""
    holder = [tree]
    places: list[tuple[Any, Any]] = []
    pending: list[Any] = [holder]
    while pending:
        node = pending.pop()
        for key in list(node) if isinstance(node, dict) else range(len(node)):
            places.append((node, key))
            if isinstance(node[key], (dict, list)):
                pending.append(node[key])
    node, key = random.choice(places)
    other, name = random.choice(places)
    what = random.randrange(8)
    if what == 0 and node is not holder:
        del node[key]
    elif what == 1 and isinstance(node, dict):
        node[str(random.choice([name, "x", ""]))] = node.pop(key)
    elif what == 2 and isinstance(node, dict):
        node[random.choice(["x", "__class__", "schema"])] = random.choice(VALUES)
    elif what == 3 and isinstance(node[key], list):
        node[key] = node[key] * random.choice((0, 2, 1000))
    elif what == 4:
        for _ in range(random.choice((1, 2, 100))):
            node[key] = [node[key]]
    elif what == 5:
        node[key] = json.loads(json.dumps(other[name]))
    elif what == 6 and isinstance(node[key], (int, float)) and not isinstance(node[key], bool):
        node[key] = random.choice([-node[key], node[key] * 10**9, str(node[key]), [node[key]], node[key] + 0.5])
    else:
        node[key] = random.choice(VALUES)
    return holder[0]


def _csv(data: bytes, random: Random) -> bytes:
    """Cells, rows and columns, their ends and what separates them."""
    text = data.decode()
    rows = [line.split(",") for line in text.split("\n")]
    row = random.randrange(len(rows))
    cell = random.randrange(len(rows[row]))
    what = random.randrange(10)
    if what <= 3:
        rows[row][cell] = random.choice([*TOKENS, random.choice(random.choice(rows))])
    elif what == 4:
        rows[row][cell : cell + 1] = random.choice(
            ([], [""], ["1", "2"], [f'"{rows[row][cell]}"'], [f'"{rows[row][cell]}'])
        )
    elif what == 5:
        rows.insert(row, random.choice(([""], list(rows[0]), list(rows[row]), ['"'], ["x"])))
    elif what == 6:
        rows[row : row + 1] = rows[row : row + 1] * random.choice((0, 2, 300))
    elif what == 7:
        for values in rows:
            values[cell : cell + 1] = (
                random.choice(([], values[cell : cell + 1] * 2)) if random.random() < 0.9 else ["x"]
            )
    elif what == 8:
        rows[0][random.randrange(len(rows[0]))] = random.choice([*rows[0], "", "x", " slot"])
    else:
        marks = (
            (",", ";"),
            (",", "\t"),
            ("\n", "\r"),
            ("\n", "\r\n"),
            ("\n", ""),
            (".", ","),
            ('"', ""),
            ("\n", "\n\n"),
        )
        return text.replace(*random.choice(marks), random.choice((1, -1))).encode()
    return "\n".join(",".join(values) for values in rows).encode("utf-8", "surrogatepass")


def _safetensors(data: bytes, random: Random) -> bytes:
    """The header's JSON, under a length that fits it or does not."""
    (length,) = struct.unpack("<Q", data[:8])
    header = _json(data[8 : 8 + length], random)
    said = len(header) if random.random() < 0.8 else random.choice((0, 1, 2**31, 2**63, len(header) - 1))
    return struct.pack("<Q", said) + header + data[8 + length :]


def _zip(data: bytes, random: Random) -> bytes:
    """One member of an archive, whose checksum then fits again."""
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    name = random.choice([*members, *(name for name in members if name.endswith("data.pkl"))])
    if random.random() < 0.1:
        del members[name]
    else:
        members[name] = _bytes(members[name], random)
    memory = io.BytesIO()
    with zipfile.ZipFile(memory, "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return memory.getvalue()


def with_digest(description: bytes, key: str, data: bytes) -> bytes:
    """A description that names the digest of damaged data, so that a reader goes on to read them."""
    return json.dumps({**json.loads(description), key: hashlib.sha256(data).hexdigest()}).encode()


FORMS: dict[str, Callable[[bytes, Random], bytes]] = {
    "bytes": _bytes,
    "json": _json,
    "yaml": _yaml,
    "csv": _csv,
    "safetensors": _safetensors,
    "zip": _zip,
}
