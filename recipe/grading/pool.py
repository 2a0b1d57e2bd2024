"""Grading in separate processes, safe against hostile answers: extraction, strict rule, math_verify, library scorers.

    with GraderPool() as pool:
        verdicts = pool.grade([("math500", response, reference), ...])

Only these processes ever read a response, and each has a wall-clock limit; the caller imports neither sympy nor the
libraries, and can always be interrupted, whatever a response contains. (Countdown's answers, which pass a filter of
characters and length, are scored in the caller.)
"""

from __future__ import annotations

import json
import os
import queue
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from threading import Lock
from types import TracebackType
from typing import Any, Literal, TypeVar

from recipe.grading import countdown, reasoning_gym, sources, strict
from recipe.grading.scorers import ScorerError, is_function
from recipe.grading.strict import Form
from recipe.grading.tolerance import near
from recipe.grading.units import Unit

ROOT = Path(__file__).resolve().parents[2]
STARTUP_LIMIT = 120.0
"""Seconds that a grader's process may take to import its libraries; not part of an answer's time."""
LONGEST_REPLY = 64 << 20
"""Bytes of one reply; of this project's own code they are at most a few times the response's."""

Status = Literal["ok", "unparsable", "timeout", "error"]
_Item = TypeVar("_Item")
_Result = TypeVar("_Result")


@dataclass(frozen=True)
class Verdict:
    """A grader's verdict on one response."""

    correct: bool
    """Correct by the strict rule or by math_verify; or by the scorer of the data source."""
    strict: bool
    """Correct by the strict rule (`recipe.grading.strict`); equals `correct` if the data source has another scorer."""
    answer: str | None
    """The extracted answer."""
    status: Status
    """ok: graded. unparsable: no answer, or one that makes no sense. timeout, error: not graded."""
    detail: str = ""
    """One phrase on anything but a plain verdict."""


@dataclass(frozen=True)
class ScoredVerdict(Verdict):
    """The verdict of a scorer with scores between right and wrong; `correct` from `scorers.CORRECT` on."""

    score: float = 0.0
    """What the scorer gave; 0 if it failed."""
    metrics: Mapping[str, float] = field(default_factory=dict)
    """What else it measured."""


class GraderPool:
    """Grader processes, started when first needed and replaced after a time-out or an error; safe to share by threads.

    Not by processes: after a fork, a child opens a pool of its own.

    Args:
        workers: processes at most; the number of processors, up to 8, if None.
        time_limit: wall-clock seconds for one answer, by the strict rule and by math_verify each. Then the process is
            killed, and the verdict is "timeout".
        memory_limit: bytes of address space per process. Reaching it, or half of it with a negative verdict, is an
            "error".
        scorers: data source -> scorer, before the table of `recipe.grading.sources`: `reward.scorers`.
    """

    def __init__(
        self,
        workers: int | None = None,
        time_limit: float = 10.0,
        memory_limit: int = 4 << 30,
        scorers: Mapping[str, str] = sources.OWN_NONE,
    ):
        self.workers = workers or min(os.cpu_count() or 1, 8)
        self.scorers = dict(scorers)
        self.time_limit, self.memory_limit = time_limit, memory_limit
        self.failed_comparisons = 0
        """Comparisons in `group` that ended without a verdict; the two answers then count as different."""
        self._idle: queue.LifoQueue[_Process | None] = queue.LifoQueue()
        for _ in range(self.workers):
            self._idle.put(None)
        # The kernel kills a process when the *thread* that started it ends, so one thread of the pool starts them all.
        self._starter = ThreadPoolExecutor(1, thread_name_prefix="grader-starter")
        self._owner = os.getpid()
        self._closed = False
        self._lock = Lock()
        self._living: set[_Process] = set()

    def __enter__(self) -> GraderPool:
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Stop the processes immediately; pending and later requests get a RuntimeError."""
        with self._lock:
            if self._closed:
                return
            self._closed = True
            living = list(self._living)
        for process in living:
            process.end()
        for idle in [self._idle.get() for _ in range(self.workers)]:
            if idle:
                idle.kill()
            self._idle.put(None)
        self._starter.shutdown()

    def judge(
        self,
        data_source: str,
        response: str,
        ground_truth: str,
        strictly: bool = False,
        extra: Mapping[str, Any] | None = None,
    ) -> Verdict:
        """Grade one response.

        Args:
            data_source: a data source of `scorers` or of `recipe.grading.sources`.
            response: untrusted.
            ground_truth: the reference answer.
            strictly: of a source with the scorer `math`, by the strict rule alone.
            extra: the row's `extra_info`, for a scorer from outside.

        Returns:
            The verdict; a `ScoredVerdict` of a scorer that is a function from outside.

        Raises:
            ValueError: no scorer for the data source, a reference that it cannot read, or (`ScorerError`) a scorer that
                cannot be imported.
            RuntimeError: a grader's process cannot be started, the pool is closed, or it was opened before a fork.
        """
        scorer = sources.kind(data_source, self.scorers)
        if scorer is None:
            raise ValueError(sources.why_not(data_source))
        if not isinstance(ground_truth, str):
            problem = sources.check_ground_truth(data_source, ground_truth, self.scorers)
            raise ValueError(f"field reward_model.ground_truth of {data_source}: {problem}")
        if scorer == "countdown":
            correct, answer = countdown.score(response, ground_truth)
            return Verdict(correct, correct, answer, "ok" if answer else "unparsable", "" if answer else "no answer")
        if sources.is_called(scorer):
            return self._scored(scorer, data_source, response, ground_truth, extra or {})
        source = sources.graded_as(data_source, self.scorers)
        found = self._ask({"kind": "strict", "source": source, "gold": ground_truth, "response": response})
        if found["status"] == "reference":
            raise ValueError(f"field reward_model.ground_truth of {data_source}: {found['detail']}")
        answer = found.get("answer")
        if answer is None:
            return Verdict(False, False, None, found["status"], found["detail"])
        if scorer == "reasoning_gym":
            task = source.removeprefix(reasoning_gym.PREFIX)
            reply = self._ask({"kind": "reasoning_gym", "task": task, "gold": ground_truth, "answer": answer})
            return Verdict(reply["correct"], reply["correct"], answer, reply["status"], reply["detail"])
        strictly = scorer == "math_strict" or (strictly and scorer == "math")
        reply = found if strictly or found["correct"] else self._compare(ground_truth, answer)
        return Verdict(reply["correct"], found["correct"], answer, reply["status"], reply["detail"])

    def _scored(
        self, scorer: str, data_source: str, response: str, ground_truth: str, extra: Mapping[str, Any]
    ) -> Verdict:
        if problem := sources.check_ground_truth(data_source, ground_truth, self.scorers):
            raise ValueError(f"field reward_model.ground_truth of {data_source}: {problem}")
        reply = self._call(scorer, response, ground_truth, extra)
        verdict = (reply["correct"], reply["correct"], reply.get("answer"), reply["status"], reply["detail"])
        if not is_function(scorer):
            return Verdict(*verdict)
        return ScoredVerdict(*verdict, score=reply.get("score", 0.0), metrics=reply.get("metrics", {}))

    def _call(self, scorer: str, response: str, ground_truth: str, extra: Mapping[str, Any]) -> dict[str, Any]:
        request = {"kind": "score", "scorer": scorer, "gold": ground_truth, "response": response}
        return self._ask({**request, "extra": plain_extra(extra)})

    def probe(self, scorer: str, ground_truth: str | None = None, extra: Mapping[str, Any] | None = None) -> str | None:
        """Why a scorer, `package.module:function`, cannot be used, one sentence; None if it can.

        It is imported, and called with an empty response and with the reference as the response. Without a reference it
        is only imported, and its arguments are checked.
        """
        try:
            if ground_truth is None:
                self._ask({"kind": "load", "scorer": scorer})
                return None
            for response in ("", ground_truth):
                reply = self._call(scorer, response, ground_truth, extra or {})
                if reply["status"] in ("timeout", "error"):
                    what = "an empty response" if not response else "the reference as a response"
                    truth = f"{ground_truth!r:.80}"
                    return f"scorer {scorer}: fails for {what} and the ground truth {truth}: {reply['detail']}"
        except ScorerError as error:
            return str(error)
        return None

    def grade(self, items: Iterable[tuple[str, str, str] | tuple[str, str, str, Mapping[str, Any]]]) -> list[Verdict]:
        """`judge` for many (data source, response, reference[, extra]), `workers` at a time, in the order given."""
        return self._for_each(lambda item: self.judge(*item[:3], extra=item[3] if len(item) > 3 else None), items)

    def groups(self, problems: Iterable[tuple[str, Sequence[str | None]]]) -> list[list[int | None]]:
        """`group` for many (data source, answers), `workers` at a time, in the order given."""
        return self._for_each(lambda problem: self.group(*problem), problems)

    def answer_ids(
        self, rows: Iterable[Sequence[int]], data_sources: Sequence[str], answers: Sequence[str | None]
    ) -> list[int]:
        """Class of each answer within its group, as `group` numbers them; no answer has a class of its own, `-1 - row`.

        Args:
            rows: of each group, the places of its responses; every place is in one group.
            data_sources: of each response; a group has one.
            answers: of each response.
        """
        groups = [*rows]
        found = self.groups((data_sources[group[0]], [answers[row] for row in group]) for group in groups)
        ids = [0] * len(answers)
        for group, classes in zip(groups, found, strict=True):
            for row, number in zip(group, classes, strict=True):
                ids[row] = -1 - row if number is None else number
        return ids

    def _for_each(self, function: Callable[[_Item], _Result], items: Iterable[_Item]) -> list[_Result]:
        with ThreadPoolExecutor(self.workers) as threads:
            try:
                return list(threads.map(function, items))
            except (KeyboardInterrupt, SystemExit):
                self.close()  # or the executor would wait for the answers at hand
                raise

    def group(self, data_source: str, answers: Sequence[str | None]) -> list[int | None]:
        """Which of one problem's answers are the same: a class number each, by first appearance; None for no answer.

        Answers of a reasoning_gym task (except countdown, whose answers are expressions) are the same if their normal
        forms are: mathematical equality does not apply to words. Those of countdown are the same if their values are,
        and expressions without one if their text is. Those of the scorers in `recipe.grading.answers` and
        of functions from outside are the same if their text is. Elsewhere, answers with the same normal form are the
        same, and so are two that the strict rule or math_verify, in either direction, calls equal. A new form joins the
        first class whose first answer it equals. `failed_comparisons` is
        the number of timeouts and errors. After one of them, one of the two answers is no longer compared, so that a
        malicious answer costs at most three time limits, not one for every other answer.
        """
        scorer = sources.kind(data_source, self.scorers)
        if scorer is not None and sources.is_called(scorer):
            return _numbered(answers)
        if scorer == "countdown":
            values = [None if answer is None else countdown.value(answer) for answer in answers]
            return _numbered([text if value is None else value for text, value in zip(answers, values, strict=True)])
        mathematical = scorer != "reasoning_gym"
        classes: dict[Form, int] = {}
        first: list[tuple[str, Form]] = []
        apart: set[int] = set()
        groups: list[int | None] = []
        for answer in answers:
            if answer is None:
                groups.append(None)
                continue
            form = self._form(answer)
            if form not in classes:
                classes[form] = self._class_of((answer, form), first, apart) if mathematical else len(classes)
            groups.append(classes[form])
        return groups

    def _form(self, answer: str) -> Form:
        """The answer's normal form; without one in time, the answer as it is."""
        reply = self._ask({"kind": "form", "answer": answer})
        if reply["status"] != "ok":
            self.failed_comparisons += 1
            return Form("", answer, None)
        label, value, unit = reply["form"]
        return Form(label, value, unit and Unit(*unit))

    def _class_of(self, new: tuple[str, Form], first: list[tuple[str, Form]], apart: set[int]) -> int:
        """The class of a new answer; `first` (the first of every class) and `apart` (no longer compared) grow."""
        for number, other in enumerate(first):
            status, same = ("ok", strict.same(other[1], new[1])) if number in apart else self._same(other, new)
            if same:
                return number
            if status in ("timeout", "error"):
                self.failed_comparisons += 1
                # The culprit is the one that cannot be compared with a plain number either, else the new one.
                if self._fails(new[0]) or not self._fails(other[0]):
                    apart.add(len(first))
                    break
                apart.add(number)
        first.append(new)
        return len(first) - 1

    def _fails(self, answer: str) -> bool:
        return self._compare("1", answer)["status"] in ("timeout", "error")

    def _same(self, a: tuple[str, Form], b: tuple[str, Form]) -> tuple[Status, bool]:
        if strict.same(a[1], b[1]):
            return "ok", True
        left, right = strict.number(a[1]), strict.number(b[1])
        if left is not None and right is not None and not near(left, right):
            return "ok", False
        reply = self._compare(a[0], b[0], both_ways=True)
        return reply["status"], reply["correct"]

    def _compare(self, gold: str, answer: str, both_ways: bool = False) -> dict[str, Any]:
        if len(answer) > strict.MAX_LENGTH:
            return _reply("unparsable", f"longer than {strict.MAX_LENGTH} characters")
        return self._ask({"kind": "math", "gold": gold, "answer": answer, "both_ways": both_ways})

    def _ask(self, request: dict[str, Any]) -> dict[str, Any]:
        if os.getpid() != self._owner:
            raise RuntimeError("this GraderPool was opened before a fork; open another one in the child")
        process, kept = self._idle.get(), None
        try:
            self._check_open()
            if process is None or not process.alive():
                process = self._start()
            reply = process.ask(request, self.time_limit)
            self._check_open()
            if reply["status"] not in ("timeout", "error") or reply.get("intact"):
                kept = process
        except RuntimeError:
            self._check_open()  # closing also stops processes that are starting
            raise
        finally:  # also when interrupted: a pending reply must not answer the next request
            if process is not None and kept is None:
                self._living.discard(process)
                process.kill()
            self._idle.put(kept)
        return reply

    def _check_open(self) -> None:
        if self._closed:
            raise RuntimeError("this GraderPool is closed; open another one")

    def _start(self) -> _Process:
        process = self._starter.submit(_Process, self.time_limit, self.memory_limit).result()
        with self._lock:
            self._living.add(process)
            closed = self._closed
        if closed:
            process.end()
        return process


def _numbered(answers: Sequence[Hashable | None]) -> list[int | None]:
    """Equal answers by the number of their first appearance, None as None."""
    numbers = {answer: number for number, answer in enumerate(dict.fromkeys(a for a in answers if a is not None))}
    return [None if answer is None else numbers[answer] for answer in answers]


def plain_extra(extra: Mapping[str, Any]) -> dict[str, Any]:
    """`extra_info` as JSON has it: arrays of a parquet file as lists, what JSON does not have as text."""

    def plain(value: Any) -> Any:
        return value.tolist() if hasattr(value, "tolist") else str(value)

    return json.loads(json.dumps({str(key): value for key, value in extra.items()}, default=plain))


def _reply(status: Status, detail: str = "", correct: bool = False) -> dict[str, Any]:
    return {"status": status, "correct": correct, "detail": detail}


class _Process:
    """One grader process, ready for requests."""

    def __init__(self, time_limit: float, memory_limit: int):
        arguments = [os.getpid(), time_limit, memory_limit]
        # A fixed hash seed, so that verdicts do not depend on the order of sympy's sets; one thread, because every
        # thread of a linear algebra library takes address space.
        environment = {**os.environ, "PYTHONHASHSEED": "0", "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
        if given := environment.get("PYTHONPATH"):  # it runs in another folder
            environment["PYTHONPATH"] = os.pathsep.join(map(os.path.abspath, filter(None, given.split(os.pathsep))))
        self._process = subprocess.Popen(
            [sys.executable, "-m", "recipe.grading.worker", *map(str, arguments)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            cwd=ROOT,
            env=environment,
            start_new_session=True,
        )
        assert self._process.stdin is not None and self._process.stdout is not None, "both are pipes"
        self._stdin, self._stdout = self._process.stdin, self._process.stdout
        self._buffer = b""
        self._command = f"python -m recipe.grading.worker {os.getppid()} {time_limit} {memory_limit}"
        self._prepared: set[str] = set()
        self._prepare("")

    def alive(self) -> bool:
        """Whether the process still runs."""
        return self._process.poll() is None

    def ask(self, request: dict[str, Any], time_limit: float) -> dict[str, Any]:
        """The reply to a request; a timeout or the end of the process is also a reply, after which it is unusable."""
        needs = {
            "math": "math",
            "reasoning_gym": request.get("task", ""),
            **dict.fromkeys(("score", "load"), request.get("scorer", "")),
        }
        self._prepare(needs.get(request["kind"], ""))
        try:
            self._send(request)
            return self._receive(time_limit)
        except TimeoutError:
            return _reply("timeout", f"not graded within {time_limit:g} s")
        except (EOFError, BrokenPipeError):
            return _reply("error", f"the grader process exited with code {self._process.wait()}")
        except ValueError as error:  # a scorer found the pipe and wrote to it
            return _reply("error", f"the grader process gave no reply ({error})"[:200])

    def _prepare(self, needs: str) -> None:
        """Wait until the process has started and loaded what a request needs; RuntimeError if it cannot."""
        if needs in self._prepared:
            return
        try:
            if needs:
                self._send({"kind": "prepare", "needs": needs})
            reply = self._receive(STARTUP_LIMIT)
        except (TimeoutError, EOFError, BrokenPipeError, ValueError) as error:
            self.kill()
            if is_function(needs):
                raise ScorerError(f"scorer {needs}: its module cannot be imported ({error})") from None
            raise RuntimeError(f'a grader process did not start ({error}): run "{self._command}" to see why') from None
        if reply["status"] == "refused":
            raise ScorerError(reply["detail"])
        self._prepared |= {"", needs}

    def end(self) -> None:
        """Stop the process, from any thread; the one that uses it still has to `kill` it."""
        if self.alive():
            with suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)

    def kill(self) -> None:
        """Kill the process and everything it started, and close its pipes."""
        self.end()
        self._process.wait()
        with suppress(BrokenPipeError):  # it died before reading a request
            self._stdin.close()
        self._stdout.close()

    def _send(self, request: dict[str, Any]) -> None:
        self._stdin.write(json.dumps(request).encode() + b"\n")
        self._stdin.flush()

    def _receive(self, time_limit: float) -> dict[str, Any]:
        deadline = time.monotonic() + time_limit
        stream = self._stdout.fileno()
        poll = select.poll()  # not select(), which fails beyond 1024 open files
        poll.register(stream, select.POLLIN)
        while b"\n" not in self._buffer:
            if not poll.poll(max(0.0, deadline - time.monotonic()) * 1000):
                raise TimeoutError(f"{time_limit:g} s")
            received = os.read(stream, 1 << 16)
            if not received:
                raise EOFError(f"exit code {self._process.wait()}")
            self._buffer += received
            if len(self._buffer) > LONGEST_REPLY:
                raise ValueError(f"more than {LONGEST_REPLY} bytes")
        line, _, self._buffer = self._buffer.partition(b"\n")
        reply = json.loads(line)
        if not isinstance(reply, dict) or "status" not in reply:
            raise ValueError("not a reply")
        return reply
