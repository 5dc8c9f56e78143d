"""Text that is not in UTF-8: recognised, read the same, and every wrong byte named by its place in the file."""

import codecs
import random

import pytest

from learning.errors import InvalidDataset
from learning.formats import recognised
from learning.formats.encodings import encoding_of
from learning.ingestion import IngestOptions, ingest

ENCODINGS = {"utf-8": b"", "utf-16-le": codecs.BOM_UTF16_LE, "utf-16-be": codecs.BOM_UTF16_BE, "gb18030": b""}
ROWS = "城市,人口\n北京,二千万\n" + "".join(f"地方{n}🀄,𠮷{n}\n" for n in range(60_000))


def content_of(text: str, encoding: str) -> bytes:
    return ENCODINGS[encoding] + text.encode(encoding)


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_a_file_of_several_blocks_is_read_the_same(tmp_path, encoding):
    source = tmp_path / "upload"
    source.write_bytes(content_of(ROWS, encoding))
    assert source.stat().st_size > 1 << 20
    found = recognised(source, "t.csv", None, tmp_path / "copy")
    assert found.encoding == encoding
    assert found.path.read_bytes() == ROWS.encode()


@pytest.mark.parametrize(
    ("content", "encoding"),
    [
        (b"a,b\n1,2\n", "utf-8"),
        (b"\xef\xbb\xbfa,b\n", "utf-8-bom"),
        ("naïve façade, déjà vu".encode(), "utf-8"),
        ("naïve façade, déjà vu à".encode("latin-1"), "utf-8"),
        ("早上好".encode("gb18030"), "gb18030"),
        ("plain, then 汉字".encode("gb18030"), "gb18030"),
        ("早上好世界".encode() + b"\xff", "utf-8"),
        ("早上好世界。今天天气很好".encode("gb18030") + b"\xff", "gb18030"),
        (b"\x89PNG\r\n\x1a\n" + bytes(40), None),
    ],
    ids=range(9),
)
def test_the_encoding_of_a_file(tmp_path, content, encoding):
    path = tmp_path / "upload"
    path.write_bytes(content)
    assert encoding_of(path) == encoding


@pytest.mark.parametrize("encoding", ["utf-16-le", "utf-16-be", "gb18030"])
@pytest.mark.parametrize(
    ("filename", "before", "row"),
    [
        ("t.csv", '名,b\n"甲\n乙",1\n丙,', 2),
        ("t.csv", "名,", None),
        ("t.jsonl", '{"名": "甲"}\n\n{"名": "', 2),
        ("t.txt", "甲\n\n乙", 3),
        ("t.conll", "甲\tO\n\n乙\tO\n丙\t", 2),
    ],
)
def test_a_wrong_byte_names_row_and_offset(tmp_path, encoding, filename, before, row):
    wrong = {"utf-16-le": b"\x00\xdc", "utf-16-be": b"\xdc\x00", "gb18030": b"\xff"}[encoding]
    start = content_of(before, encoding)
    source = tmp_path / "upload"
    source.write_bytes(start + wrong + "丁\n戊".encode(encoding))
    with pytest.raises(InvalidDataset) as caught:
        ingest(source, filename, tmp_path / "t.arrow", IngestOptions())
    error = caught.value.errors[0]  # what comes after it does not fit its row
    assert (error.rule, error.row) == ("encoding", row)
    assert f"byte 0x{wrong[0]:02X} at byte offset {len(start)}" in error.message
    assert [path.name for path in tmp_path.iterdir()] == ["upload"]


def test_a_nul_in_utf16_names_its_own_offset(tmp_path):
    start = content_of("a,b\n1,2\n汉,", "utf-16-le")
    source = tmp_path / "upload"
    source.write_bytes(start + "\0x\n".encode("utf-16-le"))
    with pytest.raises(InvalidDataset, match=rf"NUL byte at byte offset {len(start)} \(row 2, "):
        ingest(source, "t.csv", tmp_path / "t.arrow", IngestOptions())


def test_wrong_bytes_across_blocks_keep_their_offsets(tmp_path):
    random.seed(3)
    for encoding in ("utf-16-le", "gb18030"):
        text = "x\n" + "".join(random.choice(["汉字", "a", "🀄"]) + "\n" for _ in range(400_000))
        start = content_of(text, encoding)
        source = tmp_path / "upload"
        source.write_bytes(start + b"\xff")
        with pytest.raises(InvalidDataset, match=rf"byte 0xFF at byte offset {len(start)} \(row 400002, "):
            ingest(source, "t.txt", tmp_path / "t.arrow", IngestOptions(format="text"))
