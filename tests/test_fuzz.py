"""Damaged files of every kind; `python tests/fuzz.py --inputs 50000` does the same at length."""

import sys

import pytest
import yaml

from fuzz import attempt, bounded, damaged, run
from fuzz_readers import READERS, cached

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="its bounds on time and memory are Linux's")
INPUTS = 25


@pytest.fixture(scope="module", params=READERS, ids=lambda reader: reader.name.replace(" ", "-"))
def reader(request):
    if request.param.name == "decision":
        pytest.importorskip("onnxruntime")
        pytest.importorskip("onnxscript")
    return cached(request.param)


def test_what_is_damaged_is_the_undamaged_file(reader, tmp_path):
    for k, files in enumerate(reader.samples()):
        folder = tmp_path / str(k)
        folder.mkdir()
        for name, content in files.items():
            (folder / name).write_bytes(content)
        reader.read(folder)


def test_damaged_files_give_a_result_or_one_sentence(reader):
    tally = run(reader, range(INPUTS))
    assert not tally.failures, "\n".join(f"input {number}: {what}" for number, what in tally.failures)
    assert tally.accepted + tally.refused == INPUTS
    assert tally.refused


def test_an_input_is_the_same_whenever_it_is_made():
    reader = READERS[0]
    assert damaged(reader, 7) == damaged(reader, 7) != damaged(reader, 8)


def test_the_bounds_hold():
    with pytest.raises(MemoryError), bounded():
        bytearray(2**31)
    with pytest.raises(BaseException, match="no end after"), bounded(0.05):
        while True:
            try:
                yaml.safe_load("[1]")
            except Exception:
                continue
    assert attempt(READERS[0], 0) in ("accepted", "refused")
