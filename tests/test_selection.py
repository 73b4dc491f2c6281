"""The text form of a selection and the numbers that it accepts."""

from __future__ import annotations

import math
import pickle
import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kinkcheck.errors import InputError
from kinkcheck.selection import (
    Branch,
    Every,
    First,
    Hybrid,
    Kinks,
    Last,
    Minimal,
    Mix,
    Native,
    Random,
    Selection,
    Uniform,
    parse,
    separated,
)

ACCEPTED = (
    "native, minimal, hybrid:BETA, first, last, random:SEED, uniform:SEED, branch:ALPHA, "
    "kinks:ALPHA,..., every, mix:FACTOR*SELECTION,..., as:FRAMEWORK, limit:SEED"
)

finite = st.floats(allow_nan=False, allow_infinity=False)
numbers = finite | st.integers(-(2**70), 2**70)
mixed = st.one_of(
    st.sampled_from([Native(), Minimal(), First(), Last(), Every()]),
    st.builds(Hybrid, numbers),
    st.builds(Branch, numbers),
)
selections = st.one_of(
    mixed,
    st.builds(Random, st.integers(0, 2**64 - 1)),
    st.builds(Uniform, st.integers(0, 2**64 - 1)),
    st.builds(Kinks, st.lists(numbers, min_size=1, max_size=3).map(tuple)),
    st.builds(Mix, st.lists(st.tuples(numbers, mixed), min_size=1, max_size=3).map(tuple)),
)


@given(selections)
def test_text_form_reads_back_as_the_same_selection(selection: Selection) -> None:
    assert parse(str(selection)) == selection
    assert parse(selection) is selection
    assert str(parse(str(selection))) == str(selection)


@given(st.lists(selections, min_size=1, max_size=4))
def test_a_list_with_commas_is_taken_apart_where_it_was_put_together(
    several: list[Selection],
) -> None:
    texts = list(map(str, several))
    assert separated(",".join(texts)) == texts


@given(selections)
def test_text_form_has_no_space_and_begins_with_the_kind(selection: Selection) -> None:
    assert re.fullmatch(rf"{selection.kind}(:[-+.e0-9*,:a-z]+)?", str(selection))


@pytest.mark.parametrize(
    ("selection", "text"),
    [
        (Hybrid(10), "hybrid:10"),
        (Hybrid(-0.5), "hybrid:-0.5"),
        (Hybrid(1e-4), "hybrid:0.0001"),
        (Hybrid(0.1 + 0.2), "hybrid:0.30000000000000004"),
        (Hybrid(np.float64(0.1234567890123)), "hybrid:0.1234567890123"),
        (Branch(1), "branch:1"),
        (Mix(((0.5, First()), (1, Branch(2)))), "mix:0.5*first,1*branch:2"),
        (Random(2**64 - 1), "random:18446744073709551615"),
    ],
)
def test_text_form_is_the_shortest_one(selection: Selection, text: str) -> None:
    assert str(selection) == text


@given(selections)
def test_a_selection_is_a_value(selection: Selection) -> None:
    copy = pickle.loads(pickle.dumps(selection))
    assert copy == selection
    assert hash(copy) == hash(selection)
    assert selection.selection is selection


@pytest.mark.parametrize(
    ("texts", "nearest"),
    [
        (["", ":", "most"], None),
        (["Native", "native:"], "native"),
        (["minimal:1", "minimum"], "minimal"),
        (["first:0"], "first"),
        (["hybird:10", "hybrid", "hybrid:", "hybrid:ten"], "hybrid:BETA"),
        (["branch", "branch:"], "branch:ALPHA"),
        (["random", "random:", "random:1.5", "random:x"], "random:SEED"),
        (["uniform", "uniform:", "uniform:0.5"], "uniform:SEED"),
        (["kinks", "kinks:", "kinks:1,x"], "kinks:ALPHA,..."),
        (["every:1"], "every"),
        (["as"], "as:FRAMEWORK"),
        (["mix", "mix:", "mix:last", "mix:x*last"], "mix:FACTOR*SELECTION,..."),
    ],
)
def test_a_wrong_text_is_told_the_accepted_ones(texts: list[str], nearest: str | None) -> None:
    hint = "" if nearest is None else f" did you mean {nearest!r}?"
    for text in texts:
        with pytest.raises(InputError) as error:
            parse(text)
        assert str(error.value) == f"unknown selection {text!r};{hint} accepted: {ACCEPTED}"


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("hybrid:nan", "hybrid: beta must be a finite number, not nan"),
        ("hybrid:1e400", "hybrid: beta must be a finite number, not inf"),
        ("branch:-inf", "branch: alpha must be a finite number, not -inf"),
        ("mix:inf*last", "mix: a factor must be a finite number, not inf"),
        ("mix:1*limit:0", "mix: limit:0 cannot be a part of it"),
        ("mix:1*uniform:0", "mix: uniform:0 cannot be a part of it"),
        ("uniform:-1", "uniform: seed must be an integer from 0 to 2**64 - 1, not -1"),
        ("random:-1", "random: seed must be an integer from 0 to 2**64 - 1, not -1"),
        (
            "random:18446744073709551616",
            "random: seed must be an integer from 0 to 2**64 - 1, not 18446744073709551616",
        ),
    ],
)
def test_a_number_out_of_range_is_told_the_range(text: str, reason: str) -> None:
    with pytest.raises(InputError) as error:
        parse(text)
    assert str(error.value) == f"unknown selection {text!r} ({reason}); accepted: {ACCEPTED}"


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, 10**400, "10", None, 1j])
@pytest.mark.parametrize(("kind", "name"), [(Hybrid, "beta"), (Branch, "alpha")])
def test_a_weight_must_be_a_finite_number(kind: type, name: str, value: object) -> None:
    with pytest.raises(InputError) as error:
        kind(value)
    expected = f"{kind.__name__.lower()}: {name} must be a finite number, not {value!r}"
    assert str(error.value) == expected


@pytest.mark.parametrize("value", [-1, 2**64, 1.5, 7.0, "7", None])
@pytest.mark.parametrize("kind", [Random, Uniform])
def test_a_seed_must_be_an_integer_of_64_bits(kind: type, value: object) -> None:
    with pytest.raises(InputError) as error:
        kind(value)
    expected = (
        f"{kind.__name__.lower()}: seed must be an integer from 0 to 2**64 - 1, not {value!r}"
    )
    assert str(error.value) == expected


def test_a_convention_is_that_of_a_version() -> None:
    assert str(parse("as:torch-2.13")) == "as:torch-2.13"
    newest = parse("as:jax")
    assert re.fullmatch(r"as:jax-\d+\.\d+", str(newest))
    assert parse(str(newest)) == newest
    with pytest.raises(
        InputError, match=r"^unknown framework 'jxa'; did you mean 'jax'\? accepted: "
    ):
        parse("as:jxa")
    with pytest.raises(
        InputError, match=r"^unknown framework 'torch-2.41'; did you mean 'torch-2.1"
    ):
        parse("as:torch-2.41")
