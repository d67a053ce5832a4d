"""Bodies drawn from the API's own OpenAPI description, and worse ones: no 500, and no shape that it does not name."""

import asyncio
import json
import string

import jsonschema
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

pytest.importorskip("fastapi")

from diffpolicy.edge.serving.api import ApiSettings, make_app
from diffpolicy.edge.serving.limits import Limits
from serving_fakes import FakeService, client

LIMITS = Limits(prompt=200, body=4000)
PATH = "/v1/images/generations"
FUZZ = settings(
    max_examples=20, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow], database=None
)
SERVICE = FakeService()
APP = make_app(SERVICE, ApiSettings(limits=LIMITS))
DESCRIPTION = APP.openapi()
anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=5,
)


def of_schema(schema):
    """Values that a schema of a field allows."""
    if "enum" in schema:
        return st.sampled_from(schema["enum"])
    kinds = schema["type"] if isinstance(schema["type"], list) else [schema["type"]]
    least, most = schema.get("minimum"), schema.get("maximum")
    by_kind = {
        "null": st.none(),
        "boolean": st.booleans(),
        "integer": st.integers(least, most),
        "number": st.floats(allow_nan=False, allow_infinity=False),
        "string": st.just("auto") | st.builds("{}x{}".format, st.integers(0, 99_999), st.integers(0, 99_999))
        if "pattern" in schema
        else st.text(min_size=schema.get("minLength", 0), max_size=min(schema.get("maxLength", 30), 30)),
        "array": st.lists(st.just("x"), max_size=3),
    }
    return st.one_of(*(by_kind[kind] for kind in kinds))


def body_of(path):
    """The schema of a path's body."""
    return next(iter(DESCRIPTION["paths"][path]["post"]["requestBody"]["content"].values()))["schema"]


def bodies(path, of_field):
    """Objects of some of its fields, and of some that it does not name."""
    fields = body_of(path)["properties"]
    known = st.fixed_dictionaries({"prompt": of_field(fields["prompt"])}, optional={
        name: of_field(field) for name, field in fields.items() if name != "prompt"
    })  # fmt: skip
    return st.builds(
        lambda a, b: {**b, **a}, known, st.dictionaries(st.text(string.ascii_letters), anything, max_size=2)
    )


LOOP = asyncio.new_event_loop()


LOCAL = make_app(SERVICE, ApiSettings(limits=LIMITS, hosts=("localhost",)))


def ask(path, app=APP, **sent):
    async def go():
        async with client(app) as to:
            return await to.post(path, **sent)

    return LOOP.run_until_complete(go())


def is_described(response, path):
    """Whether an answer has a status and a shape that the description names."""
    known = DESCRIPTION["paths"][path]["post"]["responses"]
    assert response.status_code != 500, response.text
    assert str(response.status_code) in known, (response.status_code, response.text)
    kind = response.headers["content-type"].partition(";")[0]
    schema = known[str(response.status_code)]["content"][kind]["schema"]
    if kind == "application/json":
        jsonschema.validate(response.json(), schema)
    return response.status_code


@FUZZ
@given(bodies(PATH, of_schema))
def test_what_the_description_allows_is_taken(body):
    text = json.dumps(body)
    status = is_described(ask(PATH, content=text, headers={"content-type": "application/json"}), PATH)
    # fields that the description does not name may hold what is no JSON, or be too much of it
    if "NaN" not in text and "Infinity" not in text and len(text) < LIMITS.body:
        assert status == 200 or body.get("size") not in (None, "auto"), (status, body)


@FUZZ
@given(bodies(PATH, lambda schema: of_schema(schema) | anything), st.sampled_from([str, bytes]))
def test_fields_of_any_type_are_taken_or_refused(body, kind):
    raw = json.dumps(body, ensure_ascii=kind is str).encode("utf-8", "surrogatepass")
    is_described(ask(PATH, content=raw, headers={"content-type": "application/json"}), PATH)


@FUZZ
@given(st.binary(max_size=300) | st.text(alphabet='{}[]":,0123456789.eE+-tfn\\u ', max_size=100).map(str.encode))
def test_bytes_of_any_kind_are_refused(raw):
    assert is_described(ask(PATH, content=raw, headers={"content-type": "application/json"}), PATH) == 400


@FUZZ
@given(
    st.dictionaries(
        st.sampled_from([*body_of("/v1/images/edits")["properties"], "style", "", 'a"b']),
        st.text(max_size=30) | st.sampled_from(["1", "2.5", "true", "nan", "1e999", "9" * 30, "64x64"]),
    ),
    st.lists(st.tuples(st.sampled_from(["image", "image[]", "mask", "file", ""]), st.binary(max_size=50)), max_size=20),
)
def test_forms_of_any_fields_and_files_are_taken_or_refused(fields, files):
    path = "/v1/images/edits"
    is_described(ask(path, data=fields, files=[(key, ("a.png", content)) for key, content in files]), path)


@FUZZ
@given(st.binary(max_size=400), st.text(string.printable[:90], max_size=30))
def test_forms_that_are_none_are_refused(raw, boundary):
    headers = {"content-type": f"multipart/form-data; boundary={boundary}"}
    assert is_described(ask("/v1/images/edits", content=raw, headers=headers), "/v1/images/edits") == 400


@FUZZ
@given(
    st.dictionaries(
        st.sampled_from(
            ["authorization", "x-request-id", "idempotency-key", "x-diffpolicy-deadline-s", "x-stainless-read-timeout"]
        ),
        st.text(string.printable[:95], max_size=40) | st.sampled_from(["1", "nan", "-1", "1e400", "Bearer x"]),
    )
)
def test_headers_of_any_kind_are_taken_or_refused(headers):
    assert is_described(ask(PATH, json={"prompt": "x"}, headers=headers), PATH) in (200, 400)


addresses = st.builds(
    "{}{}{}".format,
    st.sampled_from(["", "http://", "//"]),
    st.sampled_from(["[", "]", "localhost", ""]),
    st.text(string.printable[:95], max_size=8),
)


@FUZZ
@given(st.just("localhost") | addresses, st.none() | addresses)
@example("[", None)
@example("localhost", "http://[")
@example("localhost", "http://[::1")
def test_a_host_and_an_origin_of_any_kind_are_known_or_foreign(host, origin):
    headers = {"host": host} | ({} if origin is None else {"origin": origin})
    status = is_described(ask(PATH, LOCAL, json={"prompt": "x"}, headers=headers), PATH)
    assert status == 403 or (host.lower().partition(":")[0], status) == ("localhost", 200), (host, origin)
