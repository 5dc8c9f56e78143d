"""Plain text and tagged tokens: rows, blank lines, and the exact place of every mistake."""

import pytest
from format_files import read, refused, types, written

from learning.errors import InvalidConfig, UnknownName
from learning.formats import sniff

MANY = 5 << 20


@pytest.mark.parametrize("text", ["a\n\n\nb\n", "\n\na", "a\n \nb\n\n", "one line", "\n", "a\rb\n", "漢\u2028字\n\x0b"])
def test_joining_the_rows_gives_the_text_back(tmp_path, text):
    table, errors = read(written(tmp_path, text, "t.txt"), "text")
    assert errors.count == 0
    assert types(table) == {"text": "string"}
    assert "\n".join(table.column("text").to_pylist()) == text.removesuffix("\n")
    assert table.column("text").null_count == 0


def test_line_ends_and_the_byte_order_mark_are_no_text(tmp_path):
    table, _ = read(written(tmp_path, b"\xef\xbb\xbfa\r\n\r\nb", "t.txt"), "text")
    assert table.column("text").to_pylist() == ["a", "", "b"]


def test_lines_across_blocks_of_reading(tmp_path):
    lines = [f"{n} " + "é" * (n % 997) for n in range(8_000)] + ["x" * (4 << 20), "", "end"]
    path = written(tmp_path, "\n".join(lines), "t.txt")
    assert path.stat().st_size > 3 * (4 << 20) // 2
    table, _ = read(path, "text")
    assert table.column("text").to_pylist() == lines


@pytest.mark.parametrize(
    ("content", "rule", "row", "said"),
    [
        (b"a\n" * 7 + b"x" * MANY + b"\nb\n", "record_too_large", 8, "Line 8 is larger than 4 MiB"),
        (b"a\nb\n" + b"x" * MANY, "record_too_large", 3, "Line 3 is larger than 4 MiB"),
        (b"a\nb\n\nc\0d\n", "nul_byte", 4, "byte offset 6 (row 4)"),
        (b"a\nb\xff\n", "encoding", 2, "Not valid UTF-8: byte 0xFF at byte offset 3 (row 2)"),
        (b"a\n\n\xe4\xb8", "encoding", 3, "byte offset 3 (row 3)"),
    ],
    ids=["long", "long at the end", "nul", "bad byte", "cut character"],
)
def test_a_text_that_cannot_be_read_says_why_and_where(tmp_path, content, rule, row, said):
    error = refused(written(tmp_path, content, "t.txt"), "text")
    assert (error.errors[0].rule, error.errors[0].row) == (rule, row)
    assert said in error.message


def test_a_text_has_one_column(tmp_path):
    with pytest.raises(UnknownName, match='Did you mean "text"'):
        read(written(tmp_path, "a\n", "t.txt"), "text", txt="string")
    table, errors = read(written(tmp_path, "1\n2\nx\n", "t.txt"), "text", text="integer")
    assert table.column("text").to_pylist() == [1, 2]
    assert [(error.row, error.value) for error in errors.first()] == [(3, "x")]


SENTENCES = "# id 1\nAnna\tN\tB-PER\n#\tX\tO\n\n\n#tag\tY\tB-LOC\r\n\n# end\n"


def test_sentences_are_rows(tmp_path):
    table, errors = read(written(tmp_path, SENTENCES, "t.conll"), "conll")
    assert errors.count == 0
    assert types(table) == {"tokens": "list<item: string>", "tags": "list<item: string>"}
    assert table.to_pydict() == {"tokens": [["Anna", "#"], ["#tag"]], "tags": [["B-PER", "O"], ["B-LOC"]]}


def test_a_line_of_another_width_names_its_line_and_row(tmp_path):
    path = written(tmp_path, "a\tO\nb\tO\n\nc\tO\nd\n\te\tO\n\n\nf\tO\n\ng\t\nh i\n", "t.conll")
    table, errors = read(path, "conll")
    assert table.column("tokens").to_pylist() == [["a", "b"], ["f"]]
    assert errors.rows_seen == 4
    assert [(error.rule, error.row, error.value) for error in errors.first()] == [
        ("wrong_fields", 2, "d"),
        ("wrong_fields", 2, "\te\tO"),
        ("wrong_fields", 4, "g\t"),
        ("wrong_fields", 4, "h i"),
    ]
    assert errors.first()[0].message.startswith("Line 5, in row 2, has 1 field; the first line has 2.")
    assert "an empty tag" in errors.first()[2].message


@pytest.mark.parametrize(
    ("content", "rule", "row"),
    [
        (b"# only\n\n", "no_rows", None),
        (b"a\tO\n\nb\tO\nc\t\xff\n", "encoding", 2),
        (b"# x\na\tO\n\n# y\n\nb\t\0\n", "nul_byte", 2),
        (b"a\tO\n\n" + b"b\tO\n" * (2 << 20), "record_too_large", 2),
    ],
    ids=["nothing", "bad byte", "nul", "endless"],
)
def test_tagged_tokens_that_cannot_be_read(tmp_path, content, rule, row):
    error = refused(written(tmp_path, content, "t.conll"), "conll")
    assert (error.errors[0].rule, error.errors[0].row) == (rule, row)


def test_the_columns_of_tagged_tokens_have_one_type(tmp_path):
    with pytest.raises(InvalidConfig, match='Column "tags" of a file of tagged tokens is strings'):
        read(written(tmp_path, "a\tO\n", "t.conll"), "conll", tags="string")
    with pytest.raises(UnknownName, match='Did you mean "tags"'):
        read(written(tmp_path, "a\tO\n", "t.conll"), "conll", tag="strings")


@pytest.mark.parametrize(
    ("filename", "content", "expected", "reason"),
    [
        ("a.txt", "To be, or not\nto be\n", "text", "no equal numbers of comma-separated fields"),
        ("a.txt", "One, two\nthree, four\n", "text", "the name ends in .txt"),
        ("a.txt", "x,y\n1,2\n", "csv", "the first lines all have 2 comma-separated fields"),
        ("a.txt", "x\ty\n1\t2\n", "csv", "the first lines all have 2 tab-separated fields"),
        ("a.txt", "a\tO\nb\tB-X\n\nc\tO\n", "conll", "tags such as O and B-PER"),
        ("a.tsv", "a\tO\nb\tB-X\n\nc\tO\n", "conll", "tags such as O and B-PER"),
        ("a.tsv", "a\tb\nO\tB-X\n", "csv", "the name ends in .tsv"),
        ("a.conll", "a\tNOUN\nb\tVERB\n", "conll", "the name ends in .conll and the first line has 2"),
        ("a.csv", "tokens\ttags\na\tO\n", "csv", "the name ends in .csv"),
    ],
)
def test_text_tokens_and_tables_are_told_apart(tmp_path, filename, content, expected, reason):
    found, why = sniff(written(tmp_path, content, filename), filename)
    assert found.name == expected
    assert reason in why


def test_lists_in_a_table_of_text_are_declared(tmp_path):
    path = written(tmp_path, 'tags,n\n"[""a"",""b""]",1\n[],2\n,3\n"[1]",4\na | c,5\nb,6\na||b,7\n')
    table, errors = read(path, tags="strings")
    assert table.to_pydict() == {"tags": [["a", "b"], [], None, ["a", "c"], ["b"]], "n": [1, 2, 3, 5, 6]}
    assert [(error.row, error.column, error.value) for error in errors.first()] == [
        (4, "tags", "[1]"),
        (7, "tags", "a||b"),
    ]
    assert '"[1]" is not a list of strings' in errors.first()[0].message
