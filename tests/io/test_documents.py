"""JSON and YAML are read as their authors meant them, within bounds."""

from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sd4match.documents import parse_json, parse_yaml, read_json, to_yaml
from sd4match.errors import ConfigError, InputError

SCALARS = st.one_of(
    st.none(), st.booleans(), st.integers(-(10**30), 10**30), st.floats(allow_nan=False), st.text(max_size=12),
    st.sampled_from(["yes", "on", "1e3", "0o17", "0123", "null", "~", "1:30", ".5", "2024-01-01", "<<", "=", "0x1f"]),
)  # fmt: skip
VALUES = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3)
)


@given(VALUES)
def test_yaml_is_read_back_equal(value):
    assert parse_yaml(to_yaml(value), what="the text") == value


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("0123", 123), ("0o17", 15), ("0x1f", 31), ("-7", -7), ("1e-3", 0.001), (".5", 0.5), ("~", None), ("", None),
        ("yes", "yes"), ("on", "on"), ("1:30:00", "1:30:00"), ("2024-13-45", "2024-13-45"), ("1_000", "1_000"),
        ("true", True), ("'0123'", "0123"), ("[1, &a x, *a]", [1, "x", "x"]),
    ],
)  # fmt: skip
def test_yaml_means_the_core_schema(text, value):
    parsed = parse_yaml(text, what="the text")
    assert parsed == value
    assert type(parsed) is type(value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: 1\na: 2", "the key 'a' appears twice"), ("[" * 5000, "nests more than 64 deep"),
        ("&a [*a]", "holds itself"), ("9" * 5000, "a number of 5000 digits"), ("!!int x", "the tag"),
        ("!!python/object/apply:os.system [true]", "the tag"), ("a: [", "expected the node content"),
        ("? [a]\n: 1", "a key must be a name"), ("--- 1\n--- 2", "another document"), ("x: \0", "special characters"),
        ("*b", "undefined alias"), ("#" * 2_000_000, "too large"),
    ],
)  # fmt: skip
def test_yaml_that_is_refused(text, message):
    with pytest.raises(ConfigError, match=f"F .*{message}"):
        parse_yaml(text, what="F", error=ConfigError)


def test_a_yaml_bomb_ends_at_once():
    lines = ["a: &a [x, x, x, x, x, x, x, x, x]"]
    for above, name in zip("abcdefghi", "bcdefghij", strict=True):
        lines.append(f"{name}: &{name} [{', '.join([f'*{above}'] * 9)}]")
    started = time.perf_counter()
    with pytest.raises(InputError, match="more than 100,000 values"):
        parse_yaml("\n".join(lines), what="F")
    assert time.perf_counter() - started < 1


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"a": 1, "a": 2}', "the key 'a' appears twice"), ("[NaN]", "NaN is not a finite number"),
        ("[-Infinity]", "-Infinity is not a finite number"), ("[1e999]", "is not a finite number"),
        ("[" * 100_000, "nests"), ("[" * 70 + "]" * 70, "nests more than 64 deep"), ("[1" + "0" * 400 + "]", "digits"),
        ("", "Expecting value"),
    ],
)  # fmt: skip
def test_json_that_is_refused(text, message):
    with pytest.raises(InputError, match=f"F is not valid JSON: .*{message}"):
        parse_json(text, what="F")


def test_json_files(tmp_path):
    file = tmp_path / "a.json"
    file.write_bytes(b'\xef\xbb\xbf{"a": [1, 2.5, null]}')
    assert read_json(file, what="report") == {"a": [1, 2.5, None]}
    file.write_bytes(b"\xff")
    with pytest.raises(InputError, match=r"the report .*a.json is not UTF-8 text: byte 0"):
        read_json(file, what="report")
    file.write_bytes(b" " * 11)
    with pytest.raises(InputError, match="too large: at most 10 bytes"):
        read_json(file, what="report", largest=10)
