"""Header text to Python values, without a Python parser.

A header is the `str()` of nested dicts: strings, bytes literals, numbers, True, False, None, lists, tuples. One pass
rewrites that to JSON, token by token, and the JSON parser does the rest: faster than a syntax
tree, and with nothing in it that could run or nest without limit. JSON text itself passes unchanged.
"""

from __future__ import annotations

import json
import re
from typing import Any, Final

from fsdeploy.errors import HostileFileError, InputError

MAX_TEXT: Final = 8 << 20
"""Longest header text in characters; real ones have 4 000 to 30 000."""
_MAX_DEPTH: Final = 24
_MAX_TOKENS: Final = 50_000
"""Strings, names and round brackets; real headers have less than 500."""

_ESCAPE: Final = r"""\\(?:x[0-9a-fA-F]{2}|[\\'"abfnrtv])"""
_WIDE_ESCAPE: Final = r"""\\(?:x[0-9a-fA-F]{2}|u[0-9a-fA-F]{4}|U[0-9a-fA-F]{8}|[\\'"/abfnrtv])"""
# One alternative per token that JSON spells differently; everything else is copied as it stands. No alternative starts
# with an assertion, so that the regex engine can skip to the next candidate character.
# Quantifiers inside strings are possessive: there is never a reason to go back, nor to remember how.
_TOKENS: Final = (
    rf"""(?P<bytes>[bB](?:'[^'\\]*+(?:{_ESCAPE}[^'\\]*+)*+'|"[^"\\]*+(?:{_ESCAPE}[^"\\]*+)*+"))"""
    rf"""|(?P<string>'[^'\\]*+(?:{_WIDE_ESCAPE}[^'\\]*+)*+'|"[^"\\]*+(?:{_WIDE_ESCAPE}[^"\\]*+)*+")"""
    r"""|(?P<name>True|False|None)|(?P<bracket>[()])"""
)
_PLAIN: Final = re.compile(_TOKENS)
_WITH_NUMPY: Final = re.compile(
    r"""np\.(?P<bool>True|False)_|(?:numpy|np)\.[a-z]+[0-9]*_?\((?P<scalar>[^()'"]*)\)|(?P<comma>,\s*)(?=[\]})])|"""
    + _TOKENS
)
"""Also reads the reprs that NumPy 2 gives its scalars, and trailing commas. Slower, and rarely needed."""
_NAMES: Final = {"True": "true", "False": "false", "None": "null"}
_BYTES_MARK: Final = "\ue000fsdeploy-bytes:"
"""Starts a JSON string that stands for a bytes literal; a private-use character keeps names from looking like one."""


_REFUSALS: Final = (ValueError, SyntaxError, RecursionError, MemoryError)


def parse_literal(text: str) -> Any:
    """Parse header text, as Python literal or as JSON. Tuples become lists; NumPy scalar reprs become numbers.

    Raises:
        InputError: it is neither.
        HostileFileError: it is longer, nested deeper or made of more pieces than any header.
    """
    if len(text) > MAX_TEXT:
        raise HostileFileError(f"the header is {len(text)} characters long, more than the {MAX_TEXT} a face can have")
    try:
        return _parse(text, _PLAIN)
    except _REFUSALS:
        pass
    try:
        return _parse(text, _WITH_NUMPY)
    except _REFUSALS as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise InputError(f"its header is neither a Python literal nor JSON ({reason[:80]})") from error


def _parse(text: str, tokens: re.Pattern[str]) -> Any:
    literals: list[bytes] = []
    left = _MAX_TOKENS

    def rewrite(match: re.Match[str]) -> str:
        nonlocal left
        left -= 1
        if left < 0:
            raise HostileFileError(f"the header is made of more than {_MAX_TOKENS} strings and brackets")
        kind = match.lastgroup
        token = match.group()
        if kind == "string":
            return _string(token)
        if kind == "bytes":
            literals.append(_unescaped(token[2:-1].encode("ascii")).encode("latin-1"))
            return f'"{_BYTES_MARK}{len(literals) - 1}"'
        if kind == "bracket":
            return "[" if token == "(" else "]"
        if kind == "comma":
            return ""
        return match[kind] if kind == "scalar" else _NAMES[match[kind or "name"]]

    def restore(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        return {key: _restored(value, literals) for key, value in pairs}

    rewritten = tokens.sub(rewrite, text)
    _check_depth(rewritten)
    return json.loads(rewritten, object_pairs_hook=restore, parse_constant=_refuse_constant)


def _string(token: str) -> str:
    """A Python or JSON string token as a JSON string."""
    value = token[1:-1]
    if "\\" in token:
        value = str(json.loads(token)) if "\\/" in token else _unescaped(value.encode("latin-1", "backslashreplace"))
    if value.startswith(_BYTES_MARK):
        raise ValueError("a name of private-use characters")
    return json.dumps(value)


def _unescaped(escaped: bytes) -> str:
    """The text of a literal whose backslashes all start one of the escapes above.

    Not by `ast`: in Python 3.11 its calls in two threads can fail with a SystemError, and headers are read in threads.
    """
    return escaped.decode("unicode_escape")


def _restored(value: Any, literals: list[bytes]) -> Any:
    """Put bytes back for their marks; dict values and list items are enough, for keys are never bytes."""
    if isinstance(value, str) and value.startswith(_BYTES_MARK):
        return literals[int(value[len(_BYTES_MARK) :])]
    if isinstance(value, list) and any(isinstance(item, str) for item in value):
        return [_restored(item, literals) for item in value]
    return value


def _check_depth(text: str) -> None:
    """Refuse deep nesting before any recursive parser meets it; brackets inside strings only make this stricter."""
    depth = 0
    for bracket in re.findall(r"[\[\]{}]", text):
        depth += 1 if bracket in "[{" else -1
        if depth > _MAX_DEPTH:
            raise HostileFileError(f"the header is nested more than {_MAX_DEPTH} levels deep")


def _refuse_constant(name: str) -> Any:
    raise ValueError(f"{name} is no number")
