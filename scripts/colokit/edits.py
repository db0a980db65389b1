# SPDX-License-Identifier: GPL-2.0-or-later
"""What a step of the graft is made of: edits of the host's files.

A text edit finds its place by an *anchor*, the smallest piece of the host's
text that will do. The anchor must occur exactly once in the pristine file;
where that cannot be, `within` names a text that does (the head of a function,
say), and the first occurrence of the anchor behind it is meant.

Places are looked for in the pristine text only, so the edits of a file may be
made in any order and any of them may be left out.
"""

from __future__ import annotations

from dataclasses import dataclass


class NotFound(Exception):
    """An anchor that is not there, or not there just once."""


@dataclass(frozen=True)
class Span:
    """What is to take the place of text[start:end]."""
    start: int
    end: int
    text: str


def _find(text: str, anchor: str, within: str | None) -> int:
    begin = 0
    if within is not None:
        begin = _find(text, within, None)
        found = text.find(anchor, begin)
        if found < 0:
            raise NotFound(f"{_quoted(anchor)} is not found behind {_quoted(within)}")
        return found
    count = text.count(anchor)
    if count != 1:
        raise NotFound(f"{_quoted(anchor)} is found {count} times, not once" if count
                       else f"{_quoted(anchor)} is not found")
    return text.index(anchor)


def _quoted(anchor: str) -> str:
    first, _, rest = anchor.partition("\n")
    return f'"{first.strip()}{"..." if rest else ""}"'


def _line_begin(text: str, at: int) -> int:
    return text.rfind("\n", 0, at) + 1


def _line_end(text: str, at: int) -> int:
    """The place behind the line that holds text[at - 1]."""
    found = text.find("\n", at - 1)
    return len(text) if found < 0 else found + 1


@dataclass(frozen=True)
class Insert:
    """Put whole lines behind (or before) the line that the anchor is in."""
    file: str
    anchor: str
    text: str
    before: bool = False
    within: str | None = None

    def span(self, text: str) -> Span:
        at = _find(text, self.anchor, self.within)
        place = (_line_begin(text, at) if self.before
                 else _line_end(text, at + len(self.anchor)))
        return Span(place, place, self.text)

    def is_there(self, text: str) -> bool:
        """Whether the edit has been made already, as far as its own text tells."""
        return self.text in text

    def __str__(self) -> str:
        return f"{'before' if self.before else 'after'} {_quoted(self.anchor)}"


@dataclass(frozen=True)
class Replace:
    """Put a text in the anchor's place."""
    file: str
    anchor: str
    text: str
    within: str | None = None

    def span(self, text: str) -> Span:
        at = _find(text, self.anchor, self.within)
        return Span(at, at + len(self.anchor), self.text)

    def is_there(self, text: str) -> bool:
        # Else the anchor is gone once the edit is made, and that will be seen.
        return self.anchor in self.text and self.text in text

    def __str__(self) -> str:
        return f"instead of {_quoted(self.anchor)}"


@dataclass(frozen=True)
class Cut:
    """Take out the lines from one anchor's through another's (None: all the rest)."""
    file: str
    first: str
    last: str | None
    text: str = ""
    within: str | None = None

    def span(self, text: str) -> Span:
        start = _find(text, self.first, self.within)
        if self.last is None:
            end = len(text)
        else:
            # The last line may be the first one, or any behind it.
            end = text.find(self.last, start)
            if end < 0:
                raise NotFound(f"{_quoted(self.last)} is not found behind {_quoted(self.first)}")
            end = _line_end(text, end + len(self.last))
        return Span(_line_begin(text, start), end, self.text)

    def is_there(self, text: str) -> bool:
        return self.text != "" and self.text in text

    def __str__(self) -> str:
        if self.last is None:
            return f"from {_quoted(self.first)} to the end"
        if self.last == self.first:
            return f"without {_quoted(self.first)}"
        return f"from {_quoted(self.first)} through {_quoted(self.last)}"


@dataclass(frozen=True)
class Put:
    """A whole file of ours: a new one, or one in place of the host's."""
    file: str
    content: bytes
    replaces: bool = False

    def __str__(self) -> str:
        return "ours in place of the host's" if self.replaces else "new"


@dataclass(frozen=True)
class Remove:
    """A file of the host that has no use any more."""
    file: str

    def __str__(self) -> str:
        return "removed"


TextEdit = Insert | Replace | Cut
Edit = TextEdit | Put | Remove


@dataclass(frozen=True)
class Step:
    """Edits that make sense together only, and why they are made.

    For a mend of the host `test` names the test that fails without it.
    """
    name: str
    reason: str
    edits: tuple[Edit, ...]
    test: str | None = None
