"""Inputs as people and scripts get them wrong: of any shape, or right but for one field."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from typing import Any

from hypothesis import strategies as st

# Cyrillic and full-width letters that look like Latin ones.
_LOOK_ALIKES = str.maketrans({"a": "\u0430", "e": "\u0435", "o": "\u043e", "c": "\u0441", "-": "\u2010", "2": "\uff12"})
_CONTROL = ("\x00", "\n", "\r", "\t", "\x1b[31m", "\u202e", "\u200b", "\ufeff", "\ud800")
_JSONATA = ("{% $states.context %}", "'; $error('x') & '", "$states.input", "${x}", "%s%n", "../..", '"}],"x":[{"')


def _twists(text: str) -> list[str]:
    """What may happen to a string on its way: white space, case, look-alikes, control characters, cuts, repetitions."""
    return [
        "",
        " ",
        f" {text}",
        f"{text} ",
        f"{text}\n",
        text.upper(),
        text.title(),
        text.translate(_LOOK_ALIKES),
        text[:-1],
        text + text,
        text.replace("-", "_"),
        f'"{text}"',
        f"{text},{text}",
        "*",
        f"{text[:5]}*",
        text * 400,
        "\u0430" * 5000,
        *(text[:3] + control + text[3:] for control in _CONTROL),
        *_JSONATA,
        *(text + trick for trick in _JSONATA),
    ]


def twisted(text: str) -> st.SearchStrategy[str]:
    """A string that is nearly ``text``, but is not."""
    return st.sampled_from([twist for twist in _twists(text) if twist != text])


_scalars = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(min_value=-(2**53), max_value=2**53),
    st.floats(allow_nan=False, allow_infinity=False),
    st.text(max_size=8),
    st.sampled_from([*_CONTROL, *_JSONATA, "true", "null", "0", "x" * 3000]),
)


def anything(*words: str) -> st.SearchStrategy[Any]:
    """Any JSON value; ``words`` are names and values that a request might have."""
    leaves = st.one_of(_scalars, st.sampled_from(words)) if words else _scalars
    names = st.one_of(st.text(max_size=5), st.sampled_from(words)) if words else st.text(max_size=5)
    values: st.SearchStrategy[Any] = st.recursive(
        leaves, lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(names, inner, max_size=4)),
        max_leaves=10,
    )  # fmt: skip
    deep = st.integers(min_value=1, max_value=200).map(_nested)
    return st.one_of(values, values, deep)


def _nested(depth: int) -> Any:
    value: Any = "x"
    for level in range(depth):
        value = [value] if level % 2 else {"tables": value}
    return value


Path = tuple[str | int, ...]


def _paths(value: Any, path: Path = ()) -> list[Path]:
    """Where something may be wrong: every field and element of a request, and the request itself."""
    found = [path]
    if isinstance(value, Mapping):
        for name, entry in value.items():
            found += _paths(entry, (*path, name))
    elif isinstance(value, list):
        for index, entry in enumerate(value):
            found += _paths(entry, (*path, index))
    return found


def _changed(value: Any, path: Path, change: Any) -> Any:
    """A copy with what is at ``path`` replaced by ``change(what is there)``."""
    if not path:
        return change(value)
    changed = copy.copy(value)
    changed[path[0]] = _changed(value[path[0]], path[1:], change)
    return changed


WRONGS = ("replaced", "twisted", "elsewhere", "shape")
"""Kinds of mistakes: another value, nearly the right text, a value that belongs elsewhere, fields or elements too many,
too few or misspelt."""


def _possible(wrong: str, here: Any) -> bool:
    if wrong == "shape":
        return isinstance(here, Mapping | list) and bool(here)
    return wrong == "replaced" or isinstance(here, str)


@st.composite
def one_wrong(
    draw: st.DrawFn, good: Mapping[str, Any], *, elsewhere: Sequence[str], wrongs: Sequence[str] = WRONGS
) -> Any:
    """A good request with one thing wrong.

    ``elsewhere``: strings that would be right in another place, or that no request may name. ``wrongs``: which kinds
    of mistakes.
    """
    wrong = draw(st.sampled_from(wrongs))
    path = draw(st.sampled_from([path for path in _paths(good) if _possible(wrong, _at(good, path))]))
    here = _at(good, path)
    if wrong == "twisted":
        new: Any = draw(twisted(here))
    elif wrong == "elsewhere":
        new = draw(st.sampled_from(elsewhere))
    elif wrong == "replaced":
        new = draw(anything(*elsewhere))
    else:
        new = draw(_misshapen(here))
    return _changed(good, path, lambda _: new)


def _at(value: Any, path: Path) -> Any:
    for step in path:
        value = value[step]
    return value


@st.composite
def _misshapen(draw: st.DrawFn, here: Any) -> Any:
    """An object or array with something too many, too few or misspelt."""
    if isinstance(here, list):
        return draw(st.sampled_from([[*here, *here], here[:-1], [], [here], [*here, None]]))
    name = draw(st.sampled_from(sorted(here)))
    lacks = {key: value for key, value in here.items() if key != name}
    more = st.tuples(st.one_of(st.text(max_size=5), st.sampled_from(_CONTROL)), _scalars)
    changes = st.one_of(
        st.just(lacks),
        twisted(name).map(lambda other: {**lacks, other: here[name]}),
        more.map(lambda extra: {**here, extra[0]: extra[1]}),
    )
    return draw(changes)
