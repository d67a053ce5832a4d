"""Keys of a file that changes while a service runs: who is let in from then on, and what is said of it."""

import asyncio
import logging
import os

import pytest

pytest.importorskip("fastapi")
from diffpolicy.edge.serving.api import ApiSettings, make_app
from diffpolicy.edge.serving.api.keys import ApiKeys
from diffpolicy.edge.serving.api.keys_source import KeysSource
from diffpolicy.edge.serving.api.metrics import Metrics
from diffpolicy.edge.serving.events import FileChanged
from diffpolicy.errors import InputError
from serving_fakes import FakeService, Snapshot, client, until

OLD, NEW, ADMIN = "old-0123456789abcdef", "new-0123456789abcdef", "adm-0123456789abcdef"


def bearer(token):
    return {"authorization": f"Bearer {token}"}


def status(app, token, path="/v1/models"):
    async def ask():
        async with client(app) as to:
            return (await to.get(path, headers=bearer(token))).status_code

    return asyncio.run(ask())


def test_a_key_that_was_added_lets_in_and_one_that_was_withdrawn_does_not(tmp_path, caplog):
    file = tmp_path / "keys"
    file.write_text(f"shop={OLD}\n")
    source = KeysSource(str(file))
    app = make_app(FakeService(), ApiSettings(keys=source))
    watched = source.watched()[0]
    assert (status(app, OLD), status(app, NEW)) == (200, 401)
    assert watched.changed(False) is None
    file.write_text(f"shop={NEW}\nadmin={ADMIN}\n")
    with caplog.at_level(logging.INFO, "diffpolicy.serving"):
        watched.take(watched.changed(False))
    assert (status(app, OLD), status(app, NEW)) == (401, 200)
    assert (status(app, NEW, "/metrics"), status(app, ADMIN, "/metrics")) == (403, 200)
    assert source.client(f"Bearer {NEW}") == "shop"
    assert "2 (2 added, 1 withdrawn)" in caplog.text
    assert watched.changed(True) is None


@pytest.mark.parametrize(
    "broken", ["", "short\n", f"shop={NEW}\nshop={OLD}\n", "a b c d e f g h i j k\n", None, b"\xff" * 20]
)
def test_a_broken_file_keeps_the_keys_and_says_so_once_without_a_token(tmp_path, broken):
    file = tmp_path / "keys"
    file.write_text(f"shop={OLD}\n")
    source = KeysSource(str(file))
    if broken is None:
        file.unlink()
    else:
        file.write_bytes(broken if isinstance(broken, bytes) else broken.encode())
    with pytest.raises(InputError, match="keys") as said:
        source.changed()
    assert not any(text in str(said.value) for text in (OLD, NEW, "a b c d"))
    assert source.changed() is None  # the same state is not said again
    with pytest.raises(InputError):
        source.changed(True)  # unless somebody asks
    assert source.client(f"Bearer {OLD}") == "shop"
    file.write_text(f"shop={OLD}\n")
    assert source.changed() == source.keys  # whole again, which is told
    assert source.changed() is None
    file.write_text(f"{NEW}\n")
    source.take(source.changed())
    assert source.client(f"Bearer {NEW}").startswith("key-")


def test_the_last_key_of_an_operator_is_not_withdrawn_since_all_others_would_become_operators(tmp_path):
    """One that is replaced is, and at a worker the name is one like others."""
    file = tmp_path / "keys"
    file.write_text(f"shop={OLD}\nadmin={ADMIN}\n")
    source, worker = KeysSource(str(file)), KeysSource(str(file), roles=False)
    app = make_app(FakeService(), ApiSettings(keys=source))
    for without in (f"shop={OLD}\n", f"shop={OLD}\n{ADMIN}\n", f"{NEW}\n"):
        file.write_text(without)
        with pytest.raises(
            InputError, match=r"token file 'keys' has no key named admin any more, .* operator's"
        ) as said:
            source.changed()
        assert source.changed() is None
        assert ADMIN not in str(said.value)
        assert (status(app, OLD, "/metrics"), status(app, ADMIN, "/metrics")) == (403, 200)
        assert worker.changed() is not None
    file.write_text(f"shop={OLD}\nadmin={NEW}\n")
    source.take(source.changed())
    assert (status(app, ADMIN, "/metrics"), status(app, NEW, "/metrics")) == (401, 200)


def test_metrics_tell_of_a_file_that_is_not_followed_until_it_is_whole_again(tmp_path):
    file = tmp_path / "keys"
    file.write_text(f"shop={OLD}\n")
    source, heard, metrics = KeysSource(str(file)), [], Metrics(Snapshot)

    def refused():
        return metrics.registry.get_sample_value("diffpolicy_file_refused", {"file": "token file"})

    def hear(what, taken):
        heard.append(taken)
        metrics(FileChanged(0.0, what, taken))

    async def go():
        watching = asyncio.ensure_future(source.watched()[0].watch(0.001, hear))
        for text, told in (("short\n", 1.0), (f"shop={OLD}\n", 0.0), ("", 1.0), (f"shop={NEW}\n", 0.0)):
            new = tmp_path / "new"
            new.write_text(text)
            new.replace(file)
            await until(lambda told=told: refused() == told)
        watching.cancel()
        await asyncio.gather(watching, return_exceptions=True)

    asyncio.run(go())
    assert heard == [False, True, False, True]
    assert b'diffpolicy_file_refused{file="token file"} 0.0' in metrics.text()


def test_a_file_is_watched_while_requests_come_and_what_is_wrong_with_it_is_one_line(tmp_path, caplog):
    file = tmp_path / "keys"
    file.write_text(f"shop={OLD}\n")
    source = KeysSource(str(file))

    def lets_in(token):
        return token in source.keys.tokens

    def put(text):  # in one piece: a file that is being written is another mistake, and another line
        new = tmp_path / "new"
        new.write_text(text)
        new.replace(file)

    async def go():
        watching = asyncio.ensure_future(source.watched()[0].watch(0.001))
        put("short\n")
        await until(lambda: "stay as they were" in caplog.text)
        await asyncio.sleep(0.02)
        assert lets_in(OLD)
        put(f"shop={NEW}\n")
        await until(lambda: lets_in(NEW))
        assert not lets_in(OLD)
        watching.cancel()
        await asyncio.gather(watching, return_exceptions=True)

    asyncio.run(go())
    assert caplog.text.count("the keys stay as they were") == 1
    assert OLD not in caplog.text
    assert NEW not in caplog.text


def test_keys_of_the_environment_are_read_once_and_none_are_none(monkeypatch):
    monkeypatch.setenv("KEYS", f"shop={OLD}")
    assert KeysSource(variable="KEYS").client(f"Bearer {OLD}") == "shop"
    assert KeysSource(variable="KEYS").watched() == KeysSource().watched() == ()
    assert (KeysSource().needed, KeysSource(variable="KEYS").needed) == (False, True)
    assert KeysSource().keys == ApiKeys()
    with pytest.raises(InputError, match="NOBODY_SET_THIS"):
        KeysSource(variable="NOBODY_SET_THIS")


@pytest.mark.parametrize(("mode", "said"), [(0o600, False), (0o640, False), (0o644, True)])
def test_a_file_that_everybody_can_read_is_told_of(tmp_path, caplog, mode, said):
    file = tmp_path / "keys"
    file.write_text(f"shop={OLD}\n")
    os.chmod(file, mode)
    KeysSource(str(file)).warn_of_readers()
    assert ("every user of this machine" in caplog.text) == said
    assert OLD not in caplog.text
