"""Files and tables that are not what they should be: each is refused in one sentence, and no row is lost."""

import os
import stat

import pytest

from diffpolicy import InputError
from diffpolicy._read import read_bytes, read_text
from diffpolicy.edge import Scenario
from diffpolicy.edge.task_table import TaskTable

# Files


@pytest.mark.parametrize("read", [read_text, Scenario.load, TaskTable.read], ids=["text", "scenario", "tasks"])
@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("a\0b.json", r"a\x00b.json"),
        ("\ud800.json", r"\ud800.json"),
        ("line\nbreak.json", r"line\nbreak.json does not exist"),
        ("pipe.json", "pipe.json is a device, a pipe or a socket, not a file"),
        ("zero.json", "zero.json is a device, a pipe or a socket, not a file"),
        ("folder.json", "folder.json is a folder, not a file"),
        ("latin.json", "latin.json is not UTF-8 text: line 3 holds the byte 0xe9"),
    ],
)
def test_what_is_no_file_of_text_is_refused_without_waiting(tmp_path, read, name, says):
    os.mkfifo(tmp_path / "pipe.json")
    (tmp_path / "zero.json").symlink_to("/dev/zero")
    (tmp_path / "folder.json").mkdir()
    (tmp_path / "latin.json").write_bytes(b"a\r\nb\rcaf\xe9\n")
    arguments = ("file",) if read is read_text else ()
    with pytest.raises(InputError) as error:
        read(tmp_path / name, *arguments)
    assert says in str(error.value)
    assert "\n" not in str(error.value)
    assert str(error.value).encode()


def test_a_file_is_read_to_its_bound_and_no_further(tmp_path):
    path = tmp_path / "file"
    path.write_bytes(b"x" * 10)
    assert read_bytes(path, "file", 10) == b"x" * 10
    with pytest.raises(InputError, match="file is larger than 9 bytes, the most that is read of one"):
        read_bytes(path, "file", 9)
    with path.open("wb") as file:
        file.truncate(2**40)  # a hole: nothing is stored
    with pytest.raises(InputError, match="larger than 16 MiB"):
        read_text(path, "file")


@pytest.mark.skipif(not os.path.exists("/proc/self/maps"), reason="needs /proc")
def test_a_file_whose_size_is_not_told_is_bounded_too():
    assert stat.S_ISREG(os.stat("/proc/self/maps").st_mode)
    with pytest.raises(InputError, match="larger than 100 bytes"):
        read_bytes("/proc/self/maps", "file", 100)


def test_a_byte_order_mark_is_no_text(tmp_path):
    (tmp_path / "bom").write_bytes(b"\xef\xbb\xbfa\r\n")
    assert read_text(tmp_path / "bom", "file") == "a\r\n"
