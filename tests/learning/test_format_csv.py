"""CSV: types, missing values, dialects, and the exact place of every mistake."""

import csv
import io
import random
from datetime import datetime

import pytest
from format_files import read, refused, types, written

from learning.errors import InvalidDataset, UnknownName


def test_each_column_gets_the_type_that_all_its_values_have(tmp_path):
    path = written(
        tmp_path,
        "id,price,member,day,seen,city,count\n"
        "1,1.5,true,2024-02-29,2024-01-02T03:04:05.25Z,Paris,NA\n"
        "-2,2e3,False,2024-03-01,2024-01-02 03:04,NA,7\n"
        "+03, .5 ,,N/A,2024-01-02T03:04:05+08:00,,null\n",
    )
    table, errors = read(path)
    assert errors.count == 0
    assert types(table) == {
        "id": "int64", "price": "double", "member": "bool", "day": "timestamp[us]",
        "seen": "timestamp[us]", "city": "string", "count": "int64",
    }  # fmt: skip
    assert table.to_pydict() == {
        "id": [1, -2, 3],
        "price": [1.5, 2000.0, 0.5],
        "member": [True, False, None],
        "day": [datetime(2024, 2, 29), datetime(2024, 3, 1), None],
        "seen": [
            datetime(2024, 1, 2, 3, 4, 5, 250000),
            datetime(2024, 1, 2, 3, 4),
            datetime(2024, 1, 1, 19, 4, 5),
        ],
        "city": ["Paris", "NA", None],
        "count": [None, 7, None],
    }


@pytest.mark.parametrize("marker", ["", "NA", "n/a", "NaN", "NULL", "None", "?", "-", " "])
def test_missing_markers_count_as_missing_outside_strings_only(tmp_path, marker):
    table, errors = read(written(tmp_path, f"n,s\n1,a\n{marker},{marker}\n3,c\n"))
    assert errors.count == 0
    assert table.to_pydict() == {"n": [1, None, 3], "s": ["a", marker or None, "c"]}


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (["1", "0", "1"], "int64"),
        (["yes", "no", "yes"], "string"),
        (["9223372036854775807", "-9223372036854775808"], "int64"),
        (["9223372036854775808", "1"], "double"),
        (["0x1F", "0x10"], "string"),
        (["1_000", "2_000"], "string"),
        (["1", "a", "2"], "string"),
        (["2024-01-01", "soon"], "string"),
        (["2024-01-01", "2024-02-31"], "string"),
        (["NA", "?"], "string"),
        (["1", "2.0"], "double"),
        (["true", "TRUE"], "bool"),
        (["true", "false", "mixture"], "string"),
        (["true", "false"] * 40 + ["mixture"] * 15 + ["unproven"] * 3, "string"),
        (["2024-01-01", "2024-01-02", "soon"], "string"),
    ],
)
def test_type_of_a_column(tmp_path, values, expected):
    table, errors = read(written(tmp_path, "a,b\n" + "".join(f"{value},x\n" for value in values)))
    assert errors.count == 0
    assert str(table.schema.field("a").type) == expected


def test_an_empty_column_is_a_string_column_of_nulls(tmp_path):
    table, _ = read(written(tmp_path, "a,b\n,1\n,2\n"))
    assert types(table)["a"] == "string"
    assert table.column("a").null_count == 2


def test_declared_types_override(tmp_path):
    path = written(tmp_path, "zip,n,flag\n02134,1,true\n10001,2,false\nabc,3,true\n99999,4,true\n")
    table, errors = read(path, zip="string", n="number", flag="string")
    assert errors.count == 0
    assert types(table) == {"zip": "string", "n": "double", "flag": "string"}
    assert table.column("zip").to_pylist() == ["02134", "10001", "abc", "99999"]
    _, errors = read(path, flag="integer", zip="string")
    assert errors.count == 4


def test_declared_types_must_name_a_column_and_a_type(tmp_path):
    path = written(tmp_path, "age,label\n1,a\n")
    with pytest.raises(UnknownName, match=r'Column "agee" in column_types not found.*Did you mean "age"'):
        read(path, agee="integer")
    with pytest.raises(UnknownName, match='no type "int"'):
        read(path, age="int")
    with pytest.raises(UnknownName, match=r'"agee" in column_types not found.*no type "text"'):
        read(path, agee="integer", label="text")


def test_every_mistake_of_a_header_is_named(tmp_path):
    with pytest.raises(InvalidDataset) as caught:
        read(written(tmp_path, "a,,a,b,,b\n1,2,3,4,5,6\n"))
    assert caught.value.errors_by_rule == {"empty_column_name": 2, "duplicate_column": 2}
    assert [error.message for error in caught.value.errors] == [
        "Column 2 has no name.",
        "Column 5 has no name.",
        '2 columns are named "a".',
        '2 columns are named "b".',
    ]


# CSV: dialects


@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
@pytest.mark.parametrize("ending", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("start", [b"", b"\xef\xbb\xbf"])
@pytest.mark.parametrize("last", [True, False])
def test_delimiters_line_endings_and_bom(tmp_path, delimiter, ending, start, last):
    rows = [["naïve", "b"], ["1", '"x, ; \t | y"'], ["2", '"line one\nline ""two"""']]
    text = ending.join(delimiter.join(row) for row in rows) + (ending if last else "")
    table, errors = read(written(tmp_path, start + text.encode()))
    assert errors.count == 0
    assert table.to_pydict() == {"naïve": [1, 2], "b": ["x, ; \t | y", 'line one\nline "two"']}


def test_one_column_with_commas_in_quotes(tmp_path):
    table, _ = read(written(tmp_path, 'text\n"a, b"\nplain; text\n""\n\nlast\n'))
    assert table.to_pydict() == {"text": ["a, b", "plain; text", None, "last"]}


def test_decimal_commas_do_not_make_a_comma_file(tmp_path):
    table, _ = read(written(tmp_path, "a;b\n1,5;2,5\n3,5;4,5\n"))
    assert table.to_pydict() == {"a": ["1,5", "3,5"], "b": ["2,5", "4,5"]}


# CSV: mistakes and their places


def test_a_bad_value_is_named_exactly_also_after_quoted_newlines(tmp_path):
    lines = ["age,text"] + [f'{n},"one\n\ntwo ""{n}"""' for n in range(1, 601)]
    lines[3] = "abc,fine"
    table, errors = read(written(tmp_path, "\n".join(lines) + "\n"))
    (error,) = errors.first()
    assert (error.rule, error.row, error.column, error.value) == ("wrong_type", 3, "age", "abc")
    assert error.message == 'Row 3, column "age": "abc" is not an integer. 1 of 600 rows.'
    assert error.remedy == (
        'Fix the row, declare the column as string with column_types={"age": "string"}, or set on_bad_rows="skip".'
    )
    assert table.column("age").to_pylist() == [1, 2, *range(4, 601)]


def test_three_quarters_of_numbers_make_the_rest_mistakes(tmp_path):
    table, errors = read(written(tmp_path, "a,b\n1,1.5\n2,inf\nx,2\n3,4\n"))
    assert [(e.row, e.column, e.value) for e in errors.first()] == [(2, "b", "inf"), (3, "a", "x")]
    assert table.to_pydict() == {"a": [1, 3], "b": [1.5, 4.0]}
    assert '"inf" is not a number' in errors.first()[0].message


def test_a_bad_date_and_a_bad_boolean_are_mistakes_beside_many_good_ones(tmp_path):
    good = "".join(f"2024-01-{n % 28 + 1:02},{'true' if n % 2 else 'FALSE'}\n" for n in range(999))
    for text in (f"day,ok\n{good}2024-02-31,treu\n", f"day,ok\n2024-02-31,treu\n{good}"):
        table, errors = read(written(tmp_path, text))
        assert [(e.rule, e.column, e.value) for e in errors.first()] == [
            ("wrong_type", "day", "2024-02-31"),
            ("wrong_type", "ok", "treu"),
        ]
        assert (types(table), table.num_rows) == ({"day": "timestamp[us]", "ok": "bool"}, 999)


@pytest.mark.parametrize("value", ["inf", "-Infinity", "1e999", "+nan"])
def test_what_is_not_finite_is_no_number(tmp_path, value):
    _, errors = read(written(tmp_path, f"x,y\n1.5,a\n{value},b\n3,c\n4,d\n"))
    assert [(e.row, e.column, e.value) for e in errors.first()] == [(2, "x", value)]


def test_ragged_rows_are_named_with_their_number(tmp_path):
    table, errors = read(written(tmp_path, 'a,b\n"x\ny",1\np\n\nq,2\nr,3,4\ns,5\nt,bad\n'))
    assert [(e.rule, e.row, e.column, e.value) for e in errors.first()] == [
        ("ragged_row", 2, None, "p"),
        ("ragged_row", 4, None, "r,3,4"),
        ("wrong_type", 6, "b", "bad"),
    ]
    assert errors.first()[0].message == "Row 2 has 1 field; the header has 2. 2 of 6 rows."
    assert table.to_pydict() == {"a": ["x\ny", "q", "s"], "b": [1, 2, 5]}


def test_planted_mistakes_are_found_all_and_nothing_else(tmp_path):
    """Twenty thousand rows over several blocks, half of them with newlines, a few hundred wrong."""
    random.seed(5)
    buffer = io.StringIO(newline="")
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(["n", "text", "x"])
    ragged, wrong, clean = [], [], []
    for row in range(1, 20_001):
        text = "é" * random.randrange(1000) + random.choice(["", "\n", '"\n,', "a\r\nb"])
        kind = random.random()
        if kind < 0.01:
            ragged.append(row)
            writer.writerow([row, text, 0.5, "more"][: random.choice([2, 4])])
        elif kind < 0.02:
            wrong.append(row)
            writer.writerow([f"#{row}", text, 0.5])
        else:
            clean.append(row)
            writer.writerow([row, text, row / 8])
    path = written(tmp_path, buffer.getvalue())
    assert path.stat().st_size > 3 * (4 << 20)
    table, errors = read(path, n="integer", text="string", x="number")
    assert table.column("n").to_pylist() == clean
    assert table.column("x").to_pylist() == [row / 8 for row in clean]
    assert errors.by_rule == {"ragged_row": len(ragged), "wrong_type": len(wrong)}
    assert errors.rows_seen == 20_000
    assert [error.row for error in errors.first()] == sorted(ragged + wrong)[:100]
    for error in errors.first():
        assert error.rule == ("ragged_row" if error.row in ragged else "wrong_type")
        assert error.rule == "ragged_row" or error.value == f"#{error.row}"


@pytest.mark.parametrize(
    ("content", "rule", "row", "said"),
    [
        (b"a,b\n", "no_rows", None, "a header and no rows"),
        (b"a,b", "no_rows", None, "a header and no rows"),
        (b"\n\n", "empty_file", None, "no header"),
        (b"a,b,a\n1,2,3\n", "duplicate_column", None, '2 columns are named "a"'),
        (b"a,,c\n1,2,3\n", "empty_column_name", None, "Column 2 has no name"),
        (b"a,b\n1,2\n3,x\0y\n", "nul_byte", 2, "byte offset 11 (row 2)"),
        (b'a,b\n1,"x\n\ny"\n3,caf\xe9\n', "encoding", 2, "byte 0xE9 at byte offset 18 (row 2)"),
        (b"a,b\n1,2\n\xff", "encoding", 2, "byte offset 8 (row 2)"),
        (b"a,b\n1,\xe4\xb8", "encoding", 1, "byte offset 6 (row 1)"),
        (b"caf\xe9,b\n1,2\n", "encoding", None, "byte offset 3 (in the header)"),
        ("a,b\n1,2\n".encode("utf-16"), "nul_byte", None, "NUL byte"),
        (b'a,b\n1,2\n3,"open\n4,5\n6,7\n', "open_quote", 2, "A quote opened in row 2 is never closed"),
        (b'a,b\n1,2\n3,4\n5,"open', "open_quote", 3, "row 3"),
        (b'a,b\n1,2,3\n4,5,"open\n', "open_quote", 2, "row 2"),
        (b"a,b\n1,2\n3," + b"x" * (9 << 20) + b"\n4,5\n", "record_too_large", 2, "larger than 4 MiB"),
        (b'a,b\n1,2\n3,"' + b"x,y\n" * (3 << 20), "record_too_large", 2, "larger than 4 MiB"),
        (b"x" * (2 << 20), "header_too_large", None, "header"),
        (b",".join(b"%d" % n for n in range(20_000)) + b"\n1\n", "too_many_columns", None, "20000 columns"),
    ],
    ids=lambda value: value[:24] if isinstance(value, (bytes, str)) else None,
)
def test_a_csv_that_cannot_be_read_says_why_and_where(tmp_path, content, rule, row, said):
    error = refused(written(tmp_path, content))
    assert (error.errors[0].rule, error.errors[0].row) == (rule, row)
    assert said in error.message


def test_a_table_whose_rows_mostly_have_another_width_is_given_up(tmp_path):
    path = written(tmp_path, "a,b\n1,2\n" + "3\n" * 50_000)
    error = refused(path)
    assert error.error_count == 10_000
    assert error.message.startswith("Reading stopped at row 10001: most rows have not as many fields")


def test_an_open_quote_in_the_header(tmp_path):
    error = refused(written(tmp_path, 'a,"b\n1,2\n'))
    assert (error.errors[0].rule, error.errors[0].row) == ("open_quote", None)
    error = refused(written(tmp_path, 'a,"b\n' + "1,2\n" * 400_000))
    assert error.errors[0].rule == "header_too_large"


def test_a_long_first_row_does_not_disturb_the_header(tmp_path):
    table, errors = read(written(tmp_path, f"a;b\n1;{'x' * (3 << 20)}\n2;y\n"))
    assert errors.count == 0
    assert [len(value) for value in table.column("b").to_pylist()] == [3 << 20, 1]
