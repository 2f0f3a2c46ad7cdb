"""What YAML would take in silently and wrongly is refused with its line; the rest is YAML's."""

import math
import re

import pytest

from byhand import strict_yaml

pytest.importorskip("yaml")


def test_plain_configurations_are_read():
    text = """
    name: llama-1m            # words
    lr: 1.0e-4
    rates: [.5, 1., -2.5e+3, .inf, -.inf, 1_000, 0x1F, 0, -3]
    quoted: ['1e-4', "010", '1:30']
    flags: {on: 1, off: 2}
    nothing: ~
    base: &base {r: 8, alpha: 16}
    ours: {<<: *base, r: 4}
    """
    values = strict_yaml.load(text)
    assert values["rates"] == [0.5, 1.0, -2500.0, math.inf, -math.inf, 1000, 31, 0, -3]
    assert values["quoted"] == ["1e-4", "010", "1:30"] and values["nothing"] is None and values["lr"] == 1e-4
    assert values["ours"] == {"r": 4, "alpha": 16}                    # `<<` may be overruled
    assert strict_yaml.load("a: &a {b: 1}\nc: &c {b: 2, d: 3}\ne: {<<: [*a, *c]}")["e"] == {"b": 1, "d": 3}
    assert strict_yaml.load("") is None and strict_yaml.load("# nothing\n") is None


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("a: 1\nb: 2\na: 3", "line 3: 'a' is given a second time, first in line 1"),
        ("a: {b: 1, b: 2}", "line 1: 'b' is given a second time"),
        ("a:\n- {b: 1,\n   'b': 1}", "line 3: 'b' is given a second time, first in line 2"),
        ("a: &a {b: 1}\nc: &c {b: 2}\nd:\n  <<: *a\n  <<: *c", "line 5: '<<' is given a second time, first in line 4"),
        ("1: x\n0x1: y", "line 2: 1 is given a second time"),
        ("steps: 3\nlr: 1e-4", "line 2: YAML takes 1e-4 for text; write 1.0e-4"),
        ("a: [1, 2e5]", "write 2.0e+5"),
        ("a: -3.5E2", "write -3.5e+2"),
        ("1e3: x", "write 1.0e+3"),
        ("a: .5e3", "write .5e+3"),
        ("a: inf", "write .inf, or 'inf' if it is text"),
        ("a: nan", "write .nan"),
        ("a: 08", "YAML takes 08 for text; write 8, or '08' if it is text"),
        ("a: -09", "write -9"),
        ("a: ٣", "write 3"),
        ("b: 1\na: 1.0e+400", "line 2: YAML takes 1.0e+400 for infinity"),
        ("a: 010", "line 1: YAML takes 010 for 8"),
        ("a: -0_17", "for -15, a number to base 8"),
        ("a: 1:30", "base 60; write '1:30'"),
        ("a: 1:30.5", "base 60"),
        ("a: !lora 1", "line 1: could not determine a constructor for the tag '!lora'"),
        ("a: !!python/object:os.system x", "line 1: could not determine a constructor"),
        ("a: !!int x", "line 1: 'x' cannot be read as YAML's int"),
        ("a: !!bool x", "YAML's bool"),
        ("a: !!timestamp x", "YAML's timestamp"),
        ("x: 1\na: 2024-13-40", "line 2: '2024-13-40' cannot be read as YAML's timestamp"),
        ("a: " + "9" * 5000, "YAML's int"),
        ("steps: 1\na: [5\n", "line 3: expected ',' or ']'"),
        ("a: b: c", "line 1: mapping values are not allowed"),
        ("a: 1\n b: 2", "line 2: "),
        ("\ta: 1", "line 1: found character"),
        ("a: 'x", "line 1: found unexpected end"),
        ("a: *b", "line 1: found undefined alias"),
        ("a: 1\n---\nb: 2", "line 2: but found another document"),
        ("? [1]\n: 2", "line 1: found unhashable key"),
        ("a: \x00", "special characters"),
        ("[" * 100_000, "too deep"),
    ],
)
def test_what_means_something_else_is_refused_with_its_line(text, complaint):
    with pytest.raises(strict_yaml.YamlError, match=re.escape(complaint)):
        strict_yaml.load(text)
