"""Damaged files of every kind; `python tests/fuzz.py --inputs 50000` does the same at length."""

import pickle
import sys
from contextlib import suppress
from pathlib import Path

import pytest

from diffpolicy import InputError
from fuzz import HangError, attempt, bounded, damaged, read, run
from fuzz_readers import READERS, cached

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="its bounds on time and memory are Linux's")
INPUTS = 25


@pytest.fixture(scope="module", params=READERS, ids=lambda reader: reader.name.replace(" ", "-"))
def reader(request):
    if request.param.name == "decision":
        pytest.importorskip("onnxruntime")
        pytest.importorskip("onnxscript")
    return cached(request.param)


def test_what_is_damaged_was_a_file_that_can_be_read(reader):
    for files in reader.samples():
        read(reader, files)


def test_damaged_files_give_a_result_or_one_sentence(reader):
    tally = run(reader, range(INPUTS))
    assert not tally.failures, "\n".join(f"input {number}: {what}" for number, what in tally.failures)
    assert tally.accepted + tally.refused == INPUTS
    assert tally.refused


def test_an_input_is_the_same_whenever_it_is_made():
    reader = READERS[0]
    assert damaged(reader, 7) == damaged(reader, 7) != damaged(reader, 8)


def forever():
    while True:
        with suppress(Exception):
            Path("x").exists()


def test_the_bounds_hold():
    with pytest.raises(MemoryError), bounded():
        bytearray(2**31)
    with pytest.raises(HangError, match="no end after"), bounded(0.05):
        forever()
    assert attempt(READERS[0], 0) in ("accepted", "refused")


def test_a_word_of_any_length_in_a_file_is_cut_short_in_the_sentence():
    error = InputError(f"policy run: config: prior must be one of GaussianPrior, ActionMemory, got {'a' * 10**6!r}")
    assert str(error).startswith("policy run: config: prior must be one of GaussianPrior, ActionMemory, got 'aaa")
    assert len(str(error)) == 1000
    assert str(pickle.loads(pickle.dumps(error))) == str(error)


@pytest.mark.parametrize("number", [2277, 2618, 3657, 3872])
def test_inputs_that_failed_once(number):
    assert attempt(next(reader for reader in READERS if reader.name == "policy"), number) == "refused"
