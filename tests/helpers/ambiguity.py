r"""Whether a regular expression can be matched in linear time by a backtracking matcher: a proof, not a measurement.

The pattern, as `re` itself parses it, becomes a nondeterministic automaton. A matcher that backtracks takes more than
linear time only if the automaton is ambiguous without bound on some text (Weideman et al., "Analyzing matching time
behavior of backtracking regular expression matchers", 2016):

    exponential   a state has two different ways back to itself that read the same text, as in (a|aa)*
    polynomial    two loops, the second reachable from the first, and both as well as the way from one to the other read
                  the same text, as in \s*\s*x, or in \s*x if it is searched for, which starts anew at every character

Lookarounds and anchors are taken to succeed, and the inside of a lookaround is one more way: this finds too much at
worst. Repetitions with a bound of at most BOUND are written out; with a higher one they count as unbounded.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import cache
from re import _constants as op
from re import _parser as parser

BOUND = 80
SAMPLE = [chr(code) for code in range(128)] + list("\x85\xa0°½²¼éßſı٣３中−、。：​\u2028\ud800\U0001d7d8")
"""The characters that texts are made of here; those of the pattern are added."""


@dataclass
class _Automaton:
    alphabet: list[str]
    flags: int
    silent: list[list[int]] = field(default_factory=list)
    """From a state, the states reached without reading."""
    sure: list[list[int]] = field(default_factory=list)
    """Those of them without an assertion before them."""
    reads: list[tuple[int, int, int]] = field(default_factory=list)
    """(from, the characters as bits, to)."""
    empty_turns: bool = False
    """Whether the body of a loop may match nothing."""

    def state(self) -> int:
        self.silent.append([])
        self.sure.append([])
        return len(self.silent) - 1

    def join(self, a: int, b: int, sure: bool = True) -> None:
        self.silent[a].append(b)
        if sure:
            self.sure[a].append(b)

    def add(self, items: Iterable, start: int) -> int:
        """Append parsed items after `start`; returns the state where they end."""
        for kind, argument in items:
            start = self._add(kind, argument, start)
        return start

    def _add(self, kind, argument, start: int) -> int:
        if kind in (op.LITERAL, op.NOT_LITERAL, op.ANY, op.IN):
            end = self.state()
            self.reads.append((start, self._characters(kind, argument), end))
            return end
        if kind is op.SUBPATTERN:
            return self.add(argument[-1], start)
        if kind is op.BRANCH:
            end = self.state()
            for branch in argument[1]:
                first = self.state()
                self.join(start, first)
                self.join(self.add(branch, first), end)
            return end
        if kind in (op.MAX_REPEAT, op.MIN_REPEAT):
            return self._repeat(*argument, start)
        if kind in (op.ASSERT, op.ASSERT_NOT):
            first, end = self.state(), self.state()
            self.join(start, first)
            self.add(argument[1], first)  # ends nowhere
            self.join(start, end, sure=False)
            return end
        if kind is op.AT:
            end = self.state()
            self.join(start, end, sure=False)
            return end
        raise NotImplementedError(f"{kind} in a regular expression")

    def _repeat(self, least: int, most: int, items, start: int) -> int:
        for _ in range(min(least, BOUND)):
            start = self.add(items, start)
        end = self.state()
        if most is op.MAXREPEAT or most > BOUND:
            loop = self.state()
            self.join(start, loop)
            last = self.add(items, loop)
            # What may be empty in a loop can be read in two ways: by one more turn, or by one less.
            self.empty_turns = self.empty_turns or last in _ways(self.silent, loop)
            self.join(last, loop)
            self.join(loop, end)
            return end
        self.join(start, end)
        for _ in range(most - least):
            start = self.add(items, start)
            self.join(start, end)
        return end

    def _characters(self, kind, argument) -> int:
        if kind is op.IN:
            negated = argument[0][0] is op.NEGATE
            found = 0
            for inner, value in argument[negated:]:
                found |= self._characters(inner, value)
            return found ^ ((1 << len(self.alphabet)) - 1) if negated else found
        if kind is op.ANY:
            expression = "."
        elif kind is op.CATEGORY:
            expression = _CATEGORIES[argument]
        elif kind is op.RANGE:
            expression = f"[{re.escape(chr(argument[0]))}-{re.escape(chr(argument[1]))}]"
        else:
            expression = f"[{'^' if kind is op.NOT_LITERAL else ''}{re.escape(chr(argument))}]"
        matcher = re.compile(expression, self.flags & (re.IGNORECASE | re.ASCII | re.DOTALL | re.UNICODE))
        return sum(1 << i for i, character in enumerate(self.alphabet) if matcher.fullmatch(character))


_CATEGORIES = {
    op.CATEGORY_DIGIT: r"\d",
    op.CATEGORY_NOT_DIGIT: r"\D",
    op.CATEGORY_SPACE: r"\s",
    op.CATEGORY_NOT_SPACE: r"\S",
    op.CATEGORY_WORD: r"\w",
    op.CATEGORY_NOT_WORD: r"\W",
}


def _literals(items) -> set[str]:
    found: set[str] = set()
    for item in items:
        if isinstance(item, tuple) and item[0] in (op.LITERAL, op.NOT_LITERAL):
            found.add(chr(item[1]))
        elif isinstance(item, tuple) and item[0] is op.RANGE:
            found |= {chr(item[1][0]), chr(item[1][1])}
        elif isinstance(item, (tuple, list, parser.SubPattern)):
            found |= _literals(item)
    return found


class _Steps:
    """The automaton between characters: a node is a reading transition, and edges lead to what may be read next."""

    def __init__(self, pattern: re.Pattern[str], use: str):
        parsed = parser.parse(pattern.pattern, pattern.flags)
        automaton = _Automaton(sorted({*SAMPLE, *_literals(parsed)}), pattern.flags)
        everything = (1 << len(automaton.alphabet)) - 1
        start = automaton.state()
        first = automaton.state()
        automaton.join(start, first)
        if use not in ("match", "fullmatch"):
            automaton.reads.append((start, everything, start))
        accept = automaton.add(parsed, first)
        self.characters = [characters for _, characters, _ in automaton.reads]
        ways = [_ways(automaton.silent, end) for _, _, end in automaton.reads]
        sources = [source for source, _, _ in automaton.reads]
        self.next = [[j for j, source in enumerate(sources) if source in way] for way in ways]
        self.doubled = {(i, j) for i, way in enumerate(ways) for j in self.next[i] if way[sources[j]] > 1}
        # Where no failure can follow, nothing is ever tried again.
        ends = automaton.reads if use != "fullmatch" else ()
        self.done = {i for i, (_, _, end) in enumerate(ends) if accept in _ways(automaton.sure, end)}
        self.empty_turns = automaton.empty_turns
        self.component = _components(self.next)
        self.looping = [i for i in range(len(self.next)) if self._loops(i)]

    def _loops(self, node: int) -> bool:
        return any(self.component[j] == self.component[node] for j in self.next[node])

    def exponential(self) -> bool:
        """Whether a state has two ways back to itself that read the same text."""
        if self.empty_turns:
            return True
        for i, j in self.doubled:
            if self.component[i] == self.component[j]:
                return True
        for component in {self.component[i] for i in self.looping}:
            members = [i for i in self.looping if self.component[i] == component]
            inside = set(members)
            edges: dict[tuple[int, int], list[tuple[int, int]]] = {}
            for a in members:
                for b in members:
                    if self.characters[a] & self.characters[b]:
                        edges[a, b] = [
                            (c, d)
                            for c in self.next[a]
                            if c in inside
                            for d in self.next[b]
                            if d in inside and self.characters[c] & self.characters[d]
                        ]
            for scc in _strong(edges):
                if any(a == b for a, b in scc) and any(a != b for a, b in scc):
                    return True
        return False

    def polynomial(self) -> bool:
        """Whether one text leads around a loop, around a second one behind it, and from the first to the second."""
        for p in self.looping:
            reachable = _reachable(self.next, p)
            for q in self.looping:
                if q == p or q not in reachable:
                    continue
                if q not in self.done and self._three(p, q):
                    return True
        return False

    def _three(self, p: int, q: int) -> bool:
        """Whether one text leads from p to p, from p to q and from q to q, the last one past no end of a match.

        After an end the attempt cannot fail any more, and what was read up to it is not read again.
        """
        if not (self.characters[p] & self.characters[q]):
            return False
        seen, todo = {(p, p, q)}, [(p, p, q)]
        back = {i for i in range(len(self.next)) if q in _reachable(self.next, i)}
        while todo:
            a, b, c = todo.pop()
            for x in self.next[a]:
                if self.component[x] != self.component[p]:
                    continue
                for z in self.next[c]:
                    if z in self.done or self.component[z] != self.component[q]:
                        continue
                    if not self.characters[x] & self.characters[z]:
                        continue
                    for y in self.next[b]:
                        if y not in back or not self.characters[x] & self.characters[z] & self.characters[y]:
                            continue
                        if (x, y, z) == (p, q, q):
                            return True
                        if (x, y, z) not in seen:
                            seen.add((x, y, z))
                            todo.append((x, y, z))
        return False


def _ways(edges: list[list[int]], start: int) -> dict[int, int]:
    """The states reached from `start` by silent steps, and by how many ways (1, or 2 for more)."""
    found: dict[int, int] = {}
    path: set[int] = set()

    def visit(state: int) -> None:
        found[state] = min(found.get(state, 0) + 1, 2)
        path.add(state)
        for other in edges[state]:
            if other not in path and found.get(other, 0) < 2:
                visit(other)
        path.discard(state)

    visit(start)
    return found


def _reachable(edges: list[list[int]], start: int) -> set[int]:
    found, todo = set(), [start]
    while todo:
        for other in edges[todo.pop()]:
            if other not in found:
                found.add(other)
                todo.append(other)
    return found


def _components(edges: list[list[int]]) -> list[int]:
    graph = {i: others for i, others in enumerate(edges)}
    numbers = [0] * len(edges)
    for number, members in enumerate(_strong(graph)):
        for member in members:
            numbers[member] = number
    return numbers


def _strong(graph: dict) -> list[list]:
    """The strongly connected components (Tarjan, without recursion)."""
    index: dict = {}
    low: dict = {}
    on_stack: set = set()
    stack: list = []
    found: list[list] = []
    for root in graph:
        if root in index:
            continue
        work = [(root, iter(graph[root]))]
        index[root] = low[root] = len(index)
        stack.append(root)
        on_stack.add(root)
        while work:
            node, others = work[-1]
            for other in others:
                if other not in graph:
                    continue
                if other not in index:
                    index[other] = low[other] = len(index)
                    stack.append(other)
                    on_stack.add(other)
                    work.append((other, iter(graph[other])))
                    break
                if other in on_stack:
                    low[node] = min(low[node], index[other])
            else:
                work.pop()
                if work:
                    low[work[-1][0]] = min(low[work[-1][0]], low[node])
                if low[node] == index[node]:
                    members = []
                    while True:
                        member = stack.pop()
                        on_stack.discard(member)
                        members.append(member)
                        if member == node:
                            break
                    found.append(members)
    return found


@cache
def growth(pattern: re.Pattern[str], use: str) -> str:
    """ "linear", "polynomial" or "exponential": how the time of `pattern.<use>(text)` may grow with the text.

    Args:
        use: the method of the pattern: search, sub, finditer ... start anew at every character; match and fullmatch do
            not.
    """
    steps = _Steps(pattern, use)
    if steps.exponential():
        return "exponential"
    return "polynomial" if steps.polynomial() else "linear"
