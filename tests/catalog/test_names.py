"""Names that some reader cannot tell apart."""

from __future__ import annotations

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scythe_catalog.names import composed, folded, twins


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("r", "R"),
        ("Wärme", "WÄRME"),
        ("Wärme", unicodedata.normalize("NFD", "wärme")),
        ("Straße", "STRASSE"),
        ("σ", "ς"),
    ],
)
def test_case_and_normalisation_do_not_tell_names_apart(one: str, other: str) -> None:
    assert folded(one) == folded(other)
    assert twins(["x", one, other]) == (one, other)


def test_other_differences_do() -> None:
    assert twins(["load", "load_g1", "lo-ad", "η", "n"]) is None
    assert twins(["a", "a"]) == ("a", "a")


@given(st.text())
def test_folding_is_settled_after_once(name: str) -> None:
    assert folded(folded(name)) == folded(name) == folded(composed(name))
