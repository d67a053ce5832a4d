"""JSON Schemas of the package's JSON files: `python docs/schemas.py` writes them to docs/_static/schemas.

They help editors and programs that write such files. The readers of the package stay the judges: they see more, such
as sizes that must increase. A server profile's schema is read off its records; the others are written here.
"""

from __future__ import annotations

import json
import types
from dataclasses import MISSING, fields
from pathlib import Path
from typing import Any, get_args, get_origin, get_type_hints

from diffpolicy import _limits
from diffpolicy.edge.hardware.schema._record import Record
from diffpolicy.edge.hardware.schema.server_profile import SCHEMA as PROFILE
from diffpolicy.edge.hardware.schema.server_profile import ServerProfile
from diffpolicy.edge.scenario.scenario import SCHEMA as SCENARIO
from diffpolicy.edge.serving.worker_spec import KINDS
from diffpolicy.errors import InputError
from diffpolicy.export.description import DTYPES
from diffpolicy.export.description import SCHEMA as DECISION
from diffpolicy.policies.files import SCHEMA as POLICY

OUT = Path(__file__).resolve().parent / "_static" / "schemas"
Schema = dict[str, Any]

TEXT: Schema = {"type": "string"}
FLAG: Schema = {"type": "boolean"}
POSITIVE: Schema = {"type": "number", "exclusiveMinimum": 0}
AMOUNT: Schema = {"type": "number", "minimum": 0}
WHOLE: Schema = {"type": "integer", "minimum": 1}
COUNT: Schema = {"type": "integer", "minimum": 0}
SHA256: Schema = {"type": "string", "pattern": "^[0-9a-f]{64}$"}


def several(entry: Schema, least: int = 0, most: int | None = None) -> Schema:
    """A list of such entries."""
    return {"type": "array", "items": entry, "minItems": least, **({} if most is None else {"maxItems": most})}


def said(what: Schema, description: str) -> Schema:
    """The same with a sentence for the reader."""
    return {**what, "description": description}


def thing(needed: dict[str, Schema], free: dict[str, Schema] | None = None, *, open_: bool = False) -> Schema:
    """An object with keys that must and keys that may be there, and no others unless it is open."""
    return {
        "type": "object",
        "properties": {**needed, **(free or {})},
        "required": [*needed],
        "additionalProperties": open_,
    }


def document(title: str, what: Schema) -> Schema:
    """A schema of a whole file."""
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", "title": title, **what}


def nullable(what: Schema) -> Schema:
    """The same, or null."""
    return {"anyOf": [what, {"type": "null"}]}


def scenario() -> Schema:
    """Of a scenario file."""
    size = thing({"megapixels": POSITIVE, "step_s": POSITIVE, "decode_s": AMOUNT})
    times = thing({"text_s": AMOUNT, "sizes": several(size, 1)})
    service = thing(
        {"models": {"type": "object", "additionalProperties": times, "minProperties": 1}},
        {
            **dict.fromkeys(("switch_s", "cold_s", "scatter"), AMOUNT),
            "batch": several(POSITIVE, 1),
            "joins": FLAG,
        },
    )
    down = several({"type": "array", "items": AMOUNT, "minItems": 2, "maxItems": 2})
    availability = {"oneOf": [thing({"down_s": down}), thing({"mtbf_s": POSITIVE, "mttr_s": POSITIVE})]}
    server = thing(
        {
            "capacity_gcycles_per_s": said(POSITIVE, "work that it does in a second, Gcycles/s"),
            "rate_mbit_per_s": said(POSITIVE, "rate of the link to it, Mbit/s"),
        },
        {
            "name": nullable(TEXT),
            "power_w": nullable(AMOUNT),
            "price_per_hour": nullable(AMOUNT),
            "models": nullable(several(TEXT)),
            "availability": nullable(availability),
            "service": nullable(service),
        },
    )
    return document(
        "diffpolicy scenario",
        thing(
            {
                "schema": {"const": SCENARIO},
                "slot_s": said(POSITIVE, "length of a slot, s"),
                "servers": several(server, 1, _limits.SERVERS),
            },
            {
                "slots": nullable({**WHOLE, "maximum": _limits.SLOTS}),
                "stations": nullable(several(nullable({"type": "integer", "minimum": 0}), 0, _limits.SERVERS)),
                "workload": nullable({"oneOf": workloads()}),
            },
        ),
    )


def workloads() -> list[Schema]:
    """Of a scenario's workload, one for each kind."""
    pair = {"type": "array", "minItems": 2, "maxItems": 2}
    tables = thing({"gcycles_per_step": several(AMOUNT), "steps": several(WHOLE), "result_mbit": several(AMOUNT)})
    lad_ts = thing(
        {
            "kind": {"const": "lad-ts"},
            "tasks_per_station_and_slot": {**pair, "items": {"type": "integer", "minimum": 0}},
            "input_mbit": {**pair, "items": AMOUNT},
            "by_index": tables,
        }
    )
    by_size = thing(
        {
            **lad_ts["properties"],
            "kind": {"const": "by-size"},
            "by_index": thing({"gcycles_per_mbit": several(AMOUNT), "result_mbit": several(AMOUNT)}),
        }
    )
    amounts = ("gcycles_per_step", "input_mbit", "result_mbit")
    kind = thing(
        {**dict.fromkeys(("width", "height", "steps"), WHOLE), **dict.fromkeys(amounts, AMOUNT)},
        {"model": TEXT, "images": WHOLE, "weight": AMOUNT},
    )
    own: dict[str, tuple[dict[str, Schema], dict[str, Schema]]] = {
        "poisson": ({}, {}),
        "gamma": ({"cv": POSITIVE}, {}),
        "on-off": ({"on_s": POSITIVE, "off_s": AMOUNT}, {}),
        "daily": (
            {},
            {
                "period_s": POSITIVE,
                "amplitude": {"type": "number", "minimum": 0, "maximum": 1},
                "hourly_weights": several(AMOUNT, 24, 24),
            },
        ),
    }
    persistence = {"type": "number", "minimum": 0, "exclusiveMaximum": 1}
    requests = [
        thing(
            {"kind": {"const": name}, "rate_per_s": POSITIVE, "mix": several(kind, 1), **needed},
            {**free, "model_persistence": persistence},
        )
        for name, (needed, free) in own.items()
    ]
    trace = thing(
        {"kind": {"const": "trace"}, "file": TEXT},
        {"train_share": {"type": "number", "minimum": 0, "maximum": 1}, "rate_per_s": nullable(POSITIVE)},
    )
    return [lad_ts, by_size, *requests, trace]


def policy() -> Schema:
    """Of a policy's description; what stands in `config` is the class's to check."""
    tree = {"type": "object"}
    return document(
        "diffpolicy policy",
        thing(
            {"schema": {"const": POLICY}, "version": TEXT, "class": TEXT, "config": tree, "trained": nullable(tree)},
            {"tensors_sha256": SHA256},
            open_=True,
        ),
    )


def decision() -> Schema:
    """Of the description beside an exported decision."""
    size = {"oneOf": [{**WHOLE, "exclusiveMaximum": 2**31}, {"type": "string", "pattern": "^[^\\d\\W]\\w*$"}]}
    entry = thing({"name": TEXT, "shape": several(size, 0, 8), "dtype": {"enum": [*DTYPES]}}, {"meaning": TEXT})
    return document(
        "diffpolicy decision",
        thing(
            {
                "schema": {"const": DECISION},
                "format": {"enum": ["onnx", "aoti"]},
                "inputs": several(entry, 1),
                "outputs": several(entry, 1),
            },
            {
                "version": TEXT,
                "policy": {"type": "object"},
                "largest_difference": AMOUNT,
                "file_sha256": SHA256,
                "signature_sha256": SHA256,
            },
            open_=True,
        ),
    )


def outcome() -> Schema:
    """Of what `compare` writes beside each policy; the cost's column bears the problem's name for it."""
    row = {"type": "object", "additionalProperties": {"type": "number"}, "required": ["episode"]}
    return document(
        "diffpolicy outcome",
        thing(
            {"job": {"type": "object"}, "finished": FLAG, "train_seconds": AMOUNT, "history": several(row)},
            {"updates": said(nullable(COUNT), "of parameters; null: not counted")},
        ),
    )


def workers() -> Schema:
    """Of the file that `diffpolicy serve --workers` reads; what `url` is is the reader's to check."""
    free: dict[str, Schema] = {
        "name": TEXT,
        "kind": {"enum": [*KINDS]},
        "slots": said(nullable({**WHOLE, "maximum": 1024}), "requests that it works on at once"),
        "models": nullable(several({**TEXT, "minLength": 1})),
        "speed": said(nullable(POSITIVE), "in relation to the others', until it has answered"),
        "api_key_env": nullable(TEXT),
        "workflow": said(nullable(TEXT), "of ComfyUI, in its API format"),
        "nodes": {"type": "object", "additionalProperties": TEXT},
    }
    return document("diffpolicy workers", thing({"workers": several(thing({"url": TEXT}, free), 1)}, open_=True))


def refused(rule: Any, value: Any) -> bool:
    """Whether a field's rule refuses a value."""
    try:
        rule(value, "x")
    except InputError:
        return True
    return False


def of_type(kind: Any, rule: Any) -> Schema:
    """Of a record's field: its annotation says what it is, its rule how small it may be."""
    if isinstance(kind, types.UnionType):
        inner = [k for k in get_args(kind) if k is not types.NoneType]
        return nullable(of_type(inner[0], rule))
    if get_origin(kind) is tuple:
        return several(of_type(get_args(kind)[0], lambda value, key: rule([value], key)))
    if get_origin(kind) is dict:
        return {"type": "object", "additionalProperties": {"type": "integer", "minimum": 0}}
    if issubclass(kind, Record):
        return of_record(kind)
    if kind is bool or kind is str:
        return FLAG if kind is bool else TEXT
    bound = {"exclusiveMinimum": 0} if refused(rule, 0) else {"minimum": 0} if refused(rule, -1) else {}
    return {"type": "integer" if kind is int else "number", **bound}


def of_record(record: type[Record]) -> Schema:
    """Of a dataclass whose fields say how they are checked."""
    hints = get_type_hints(record)
    each = {f.name: of_type(hints[f.name], f.metadata["check"]) for f in fields(record)}  # type: ignore[arg-type]
    needed = [f.name for f in fields(record) if f.default is MISSING]  # type: ignore[arg-type]
    return thing({n: each[n] for n in needed}, {n: s for n, s in each.items() if n not in needed})


def profile() -> Schema:
    """Of a server profile."""
    what = of_record(ServerProfile)
    what["properties"] = {"schema": {"const": PROFILE}, **what["properties"]}
    what["required"] = ["schema", *what["required"]]
    return document("diffpolicy server profile", what)


def all_schemas() -> dict[str, Schema]:
    """Every schema by the name of its file."""
    made = {
        "scenario": scenario(),
        "server_profile": profile(),
        "policy": policy(),
        "decision": decision(),
        "outcome": outcome(),
        "workers": workers(),
    }
    return {f"{name}.json": schema for name, schema in made.items()}


def text_of(schema: Schema) -> str:
    """As the file holds it."""
    return json.dumps(schema, indent=1) + "\n"


if __name__ == "__main__":
    OUT.mkdir(parents=True, exist_ok=True)
    for file, schema in all_schemas().items():
        (OUT / file).write_text(text_of(schema), encoding="utf-8")
