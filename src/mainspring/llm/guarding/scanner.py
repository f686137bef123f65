"""A scanner of a text that comes in parts. Findings and what is given out do not depend on how it was cut."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from mainspring.llm.guarding.characters import forms
from mainspring.llm.guarding.fingerprints import PREFIX, Fingerprints
from mainspring.llm.guarding.patterns import Shape, held_from

Treatment = Literal["refuse", "redact", "mark"]
REFUSE: Treatment = "refuse"
REDACT: Treatment = "redact"
MARK: Treatment = "mark"
HELD = 16_384  # characters of a text that are held back at most
_UNSEEN = 16  # characters in a row that are not shown; more are left out
_SPACE = str.maketrans("\n\r\t", "   ")
_KEPT = 64  # before what is searched, for conditions on what stands before a match


@dataclass(frozen=True, slots=True, order=True)
class Finding:
    """A piece of a text.

    Attributes:
        start, end: Characters of the text, from the first, end exclusive; of a text that is spread over more than
            `HELD` characters, the last ones. Characters that are left out do not count.
        kind: "canary", "secret", "personal" or "link".
        name: Of the shape, or of the secret.
    """

    start: int
    end: int
    kind: str
    name: str


@dataclass(frozen=True, slots=True)
class Rules:
    """Rules for what is found.

    Attributes:
        shapes: To look for.
        fingerprints: Kind -> texts to look for.
        treatments: Kind, or kind and name as in `personal/card`, -> treatment. What is not named is marked.
    """

    shapes: Sequence[Shape] = ()
    fingerprints: Mapping[str, Fingerprints] = field(default_factory=dict)
    treatments: Mapping[str, Treatment] = field(default_factory=dict)

    def treatment(self, found: Finding) -> Treatment:
        return self.treatments.get(f"{found.kind}/{found.name}") or self.treatments.get(found.kind, MARK)


class Scanner:
    """Passes a text on, part by part, and treats what it finds.

    Ordinary text is held back to the beginning of its last word, or its last seven letters. Memory is bounded, whatever
    the length of the text.

    Attributes:
        findings: What was found, by where it begins.
        refused: The first finding that is refused: nothing is passed on from its beginning.
    """

    def __init__(self, rules: Rules) -> None:
        self._rules = rules
        self.findings: list[Finding] = []
        self.refused: Finding | None = None
        self._text, self._given = "", 0  # not passed on yet; its place in the text
        self._unseen = 0
        self._clean = _Form()
        self._folded = _Form()
        self._searched = [0] * len(rules.shapes)  # places in the clean form
        self._begun = 0  # place in the folded form
        self._open: list[tuple[int, int, str]] = []  # place in the folded form, length, kind
        self._waiting: list[Finding] = []

    def feed(self, text: str) -> str:
        """Return what to pass on after another part of the text."""
        if self.refused is not None:
            return ""
        self._read(text)
        return self._pass(min(self._shapes(held_from(self._clean.text)), self._prints()))

    def finish(self) -> str:
        """Return the rest to pass on, at the end of the text."""
        if self.refused is not None:
            return ""
        self._shapes(len(self._clean.text))
        return self._pass(self._given + len(self._text))

    def _read(self, text: str) -> None:
        if not text:
            return
        start = self._given + len(self._text)
        if text.isascii() and (text.isprintable() or text.translate(_SPACE).isprintable()):
            self._unseen = 0
            self._text += text
            self._clean.add(text, range(start, start + len(text)))
            if self._rules.fingerprints:
                lower = text.lower()
                at = [place for place, letter in enumerate(lower) if letter.isalnum()]
                self._folded.add("".join([lower[place] for place in at]), [start + place for place in at])
            return
        seen: list[str] = []
        cleans: list[str] = []
        folds: list[str] = []
        clean_at: list[int] = []
        folded_at: list[int] = []
        for letter in text:
            clean, folded = forms(letter)
            self._unseen = 0 if clean else self._unseen + 1
            if self._unseen > _UNSEEN:
                continue
            place = start + len(seen)
            seen.append(letter)
            cleans.append(clean)
            folds.append(folded)
            clean_at += [place] * len(clean)
            folded_at += [place] * len(folded)
        self._text += "".join(seen)
        self._clean.add("".join(cleans), clean_at)
        if self._rules.fingerprints:
            self._folded.add("".join(folds), folded_at)

    def _shapes(self, held: int) -> int:
        """Search what begins before `held`, in the clean form that is kept; return the place of what comes after."""
        form = self._clean
        for number, shape in enumerate(self._rules.shapes):
            at = self._searched[number] - form.first
            while (match := shape.pattern.search(form.text, at)) and match.start() < held:
                found = shape.check(match)
                length = 1 if found is None else found[1]
                if found is not None:
                    start, end = form.at[match.start()], form.at[match.start() + length - 1] + 1
                    self._waiting.append(Finding(start, end, shape.kind, found[0]))
                at = match.start() + length
            self._searched[number] = form.first + max(at, held)
        place = form.at[held] if held < len(form.at) else self._given + len(self._text)
        form.drop(min(held, *(each - form.first for each in self._searched)) - _KEPT if self._searched else held)
        return place

    def _prints(self) -> int:
        """Look for fingerprints; return the place at which one may begin."""
        form, prints = self._folded, self._rules.fingerprints
        if not prints:
            return self._given + len(self._text)
        at = self._begun - form.first
        while at + PREFIX <= len(form.text):
            prefix = form.text[at : at + PREFIX]
            for kind, each in prints.items():
                self._open += [(form.first + at, length, kind) for length in each.begins(prefix)]
            at += 1
        self._begun = form.first + at
        still = []
        for start, length, kind in self._open:
            piece = form.text[start - form.first : start - form.first + length]
            if len(piece) < length:
                still.append((start, length, kind))
            elif name := prints[kind].name_of(piece):
                first, last = form.at[start - form.first], form.at[start - form.first + length - 1]
                self._waiting.append(Finding(max(first, last - HELD), last + 1, kind, name))
        self._open = still
        form.drop(min([self._begun, *(start for start, _, _ in still)]) - form.first)
        return form.at[0] if form.at else self._given + len(self._text)

    def _pass(self, until: int) -> str:
        until = max(until, self._given + len(self._text) - HELD)
        ready = sorted(each for each in self._waiting if each.start < until)
        self._waiting = [each for each in self._waiting if each.start >= until]
        out = []
        for each in ready:
            self.findings.append(each)
            treatment = self._rules.treatment(each)
            if treatment == MARK:
                continue
            if each.start >= self._given:
                out.append(self._take(each.start))
                if treatment == REDACT:
                    out.append(f"[{each.name}]")
            if treatment == REFUSE:
                self.refused, self._text = each, ""
                return "".join(out)
            self._take(each.end)
        out.append(self._take(until))
        return "".join(out)

    def _take(self, until: int) -> str:
        length = max(0, until - self._given)
        taken, self._text = self._text[:length], self._text[length:]
        self._given += length
        return taken


class _Form:
    """A form of the text, of which the beginning is dropped: characters, and where each was in the text."""

    def __init__(self) -> None:
        self.first = 0  # place in the form of the first that is kept
        self.text = ""
        self.at: list[int] = []

    def add(self, text: str, at: Sequence[int]) -> None:
        self.text += text
        self.at.extend(at)

    def drop(self, count: int) -> None:
        if count > 0:
            self.text, self.first = self.text[count:], self.first + count
            del self.at[:count]


def scan(rules: Rules, text: str) -> tuple[str, Scanner]:
    """Return what is passed on of a whole text, and its scanner."""
    scanner = Scanner(rules)
    return scanner.feed(text) + scanner.finish(), scanner
