"""From a published data set to a checked parquet file: the steps, their counts, and what is written.

read -> malformed -> left out -> repetition undone -> expected count -> duplicates, conflicts (training sets)
-> contamination (on demand) -> written. Nothing is written unless every step passes; the manifest is written last,
so a data file without one is not finished.
"""

from __future__ import annotations

import json
import operator
import os
import sys
from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from importlib.metadata import version
from itertools import chain, islice
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from data_prep.contamination import benchmarks_of, find_contamination
from data_prep.contract import COLUMNS, write_parquet_part
from data_prep.duplicates import find_duplicates
from data_prep.files import atomic_write, remove_leftovers, sha256
from data_prep.progress import with_progress
from data_prep.reading import Fault, InputError, Record, Source
from data_prep.sets import BadField, DataSet, Layout, Problem, read_problem
from data_prep.templates import TEMPLATES, render
from recipe.grading import sources, strict
from recipe.grading.time_limit import time_limit

VERSION = 2
"""Version of this preparation, in every manifest: raise it when the same input would give different rows."""

LIBRARIES = ("datasets", "pandas", "pyarrow", "reasoning_gym")
"""Whose versions the manifest records."""

OTHER_FILES = (".json", ".jsonl", ".csv", ".tsv", ".txt", ".arrow")
"""Endings of files that are not written here: an output with one of them is no folder."""

REPEATED_SHARE = 0.95
"""A file counts as repeated if at least this share of its distinct rows occurs more than once."""

_HEAD, _SHOWN = 1000, 20
ROW_LIMIT = 10.0
"""Seconds for reading one row; it takes microseconds."""

_FIELDS = ({"malformed", "left_out", "repetition"}, {"tasks"}, {"ranking"}, {"set", "split", "source", "output"})
"""Fields by which a report, of generated and of selected rows too, and a manifest are recognised."""
_OWN = ("template", "historical_deviation")
"""Fields of extra_info by which a data file is: prepared rows have the first, selected ones the second."""


@dataclass
class Reading:
    """What was read: problems in the order of the file, and what happened to the other rows.

    rows: rows of the input. faults: the malformed ones. left_out: (where, reason). stripped: rows whose prompt
    contained another recipe's instructions.
    """

    problems: list[Problem] = field(default_factory=list)
    rows: int = 0
    faults: list[Fault] = field(default_factory=list)
    left_out: list[tuple[str, str]] = field(default_factory=list)
    stripped: int = 0


def prepare(
    data_set: DataSet,
    source: Source,
    split: str,
    path: Path,
    *,
    template: str,
    drop_malformed: bool = False,
    allow_count_mismatch: bool = False,
    keep_duplicates: bool = False,
    benchmarks: Sequence[Path] = (),
    drop_contaminated: bool = False,
    say: Callable[[str], None] = lambda line: print(line, file=sys.stderr),
) -> dict[str, Any]:
    """Read `source`, check it, write the parquet file, its report and its manifest.

    Args:
        split: of `data_set.counts`, or any if that is empty: then no number of problems is expected; "train" rows are
            deduplicated, by the rules for mathematics if they are graded so (`is_mathematics`).
        path: the .parquet file to write or replace; `output_path` makes it.
        template: a name of `data_prep.templates.TEMPLATES`.
        drop_malformed: leave malformed rows out instead of refusing the input.
        allow_count_mismatch: continue with a different number of problems than the set has.
        keep_duplicates: keep the duplicates of a training set; in a table of the user's, complete repetition too.
        benchmarks: prepared files whose problems are searched for in a training set.
        drop_contaminated: leave out the rows that contain a benchmark problem.
        say: called with one line for each thing that the user must know.

    Returns:
        The manifest.

    Raises:
        InputError: unknown layout, malformed rows, or unexpected count.
    """
    known = benchmarks_of(benchmarks) if benchmarks else {}
    reading = read(data_set, source)
    counts: dict[str, Any] = {"read": reading.rows, "malformed": len(reading.faults)}
    if reading.faults:
        _tell_faults(reading.faults, drop_malformed, say)
    counts["left_out"] = dict(Counter(reason for _, reason in reading.left_out))
    if reading.left_out:
        say(f"{source.name}: rows that do not belong to this set: {counts['left_out']}")
    counts["instructions_stripped"] = reading.stripped
    if reading.stripped:
        say(f"{source.name}: instructions of another recipe stripped from {reading.stripped:,} prompts")

    problems, repetition = reading.problems, None
    if data_set.counts or not keep_duplicates:
        problems, repetition = undo_repetition(problems)
    counts["repetition_undone"] = len(reading.problems) - len(problems)
    if repetition is not None:
        say(f"{source.name}: EVERY ROW IS REPEATED, {repetition}; one of each is kept: {len(problems):,} rows")

    count_matches = check_count(data_set, split, problems, allow_count_mismatch, say) if data_set.counts else None
    report: dict[str, Any] = {
        "malformed": [asdict(fault) for fault in reading.faults],
        "left_out": [{"where": where, "reason": reason} for where, reason in reading.left_out],
        "repetition": repetition,
    }

    # Named in the manifest even if the step is skipped, so that manifests are comparable.
    counts |= {"exact_duplicates": 0, "near_duplicates": 0, "conflicting": 0, "contaminated": 0}
    if split == "train" and not keep_duplicates:
        mathematics = is_mathematics(data_set.data_source)
        found = find_duplicates(
            [p.text for p in problems],
            [p.answer for p in problems],
            settings=[p.setting for p in problems],
            same_answer=strict.equal if mathematics else operator.eq,
            mathematics=mathematics,
            progress=True,
        )
        removed = found.removed
        counts |= {
            "exact_duplicates": removed["exact"],
            "near_duplicates": removed["near"],
            "conflicting": removed["conflicting"],
        }
        report["duplicates"] = [
            asdict(group) | {"where": [problems[member].where for member in group.members]} for group in found.groups
        ]
        problems = [problems[i] for i in found.kept]
    if known:
        contamination = find_contamination([p.text for p in problems], known, progress=True)
        overlap = contamination.report()
        for benchmark in overlap["benchmarks"].values():
            for match in (*benchmark["copies"], *benchmark["other_numbers"]):
                match["where"] = problems[match["row"]].where
        for benchmark in overlap["ngrams"]["benchmarks"].values():
            for match in benchmark["matches"]:
                match["where"] = problems[match["row"]].where
        report["contamination"] = overlap
        say(contamination.table())
        say(contamination.ngram_table())
        if drop_contaminated:
            drop = contamination.rows
            counts["contaminated"] = len(drop)
            problems = [problem for i, problem in enumerate(problems) if i not in drop]
    if not problems:
        raise InputError(f"{source.name}: none of the {reading.rows:,} rows is left; see what the steps above removed")

    rows = contract_rows(data_set.data_source, split, problems, template)
    manifest = {
        "set": data_set.name,
        "split": split,
        "source": dict(source.origin),
        "counts": counts,
        "count_matches": count_matches,
        "template": {"name": template, "text": TEMPLATES[template]},
        "options": {
            "drop_malformed": drop_malformed,
            "allow_count_mismatch": allow_count_mismatch,
            "keep_duplicates": keep_duplicates,
            "benchmarks": [{"path": str(file), "sha256": sha256(file)} for file in benchmarks],
            "drop_contaminated": drop_contaminated,
        },
    }
    if not data_set.counts:  # a table of the user's
        (layout,) = data_set.layouts
        columns = {"question": layout.problem, "answer": layout.answer, "extra": list(data_set.extra)}
        manifest["table"] = {**columns, "scorer": data_set.scorer}
    return write(path, rows, manifest, report)


def is_mathematics(data_source: str) -> bool:
    """Whether its rows are graded by a final answer, by one of the rules for mathematics.

    Not, if nothing names the scorer yet (`reward.scorers` will), or a scorer of text, a choice, a pattern or JSON does.
    """
    return sources.kind(data_source) in sources.MATH_RULES


def file_of(output: Path, split: str) -> Path:
    """The parquet file that `output` means: itself, or <split>.parquet in this folder.

    Raises:
        InputError: it has the name of another kind of file.
    """
    if output.suffix == ".parquet":
        return output
    if output.suffix.lower() in (".parquet", *OTHER_FILES) and not output.is_dir():
        raise InputError(f"{output}: the output is a .parquet file or a folder; write {output.stem}.parquet")
    return output / f"{split}.parquet"


def output_path(output: Path, split: str, overwrite: bool, ours: Callable[[Path], bool] | None = None) -> Path:
    """The parquet file that `output` means, if it may be written.

    Args:
        output, split: of `file_of`.
        overwrite: whether files that are `ours` may be replaced.
        ours: whether this command wrote a file; None: whether `paec data` or `paec select` did (`is_ours`).

    Raises:
        InputError: as `file_of`; or it, its report or its manifest exists and `overwrite` is false, or is not `ours`;
            or no file can be created there.
    """
    path = file_of(output, split)
    if path.is_dir():
        raise InputError(f"{path}: is a folder; choose another --output")
    parent = next(folder for folder in path.parents if folder.exists())
    if not parent.is_dir():
        raise InputError(f"{parent}: is a file, so {path} cannot be created in it; choose another --output")
    for file in _files(path):
        if not os.path.lexists(file):
            continue
        if not overwrite:
            raise InputError(f"{file}: already exists; pass --overwrite to replace it, or choose another --output")
        if not (ours or is_ours)(file):
            raise InputError(
                f"{file}: exists and was not written by this command; move it away, or choose another --output"
            )
    return path


def clear_leftovers(path: Path) -> list[Path]:
    """Remove what killed runs for the output `path` left next to it; returns what was removed."""
    return [left for file in _files(path) if file.parent.is_dir() for left in remove_leftovers(file)]


def _files(path: Path) -> tuple[Path, Path, Path]:
    return path, _beside(path, "report"), _beside(path, "manifest")


def is_ours(file: Path) -> bool:
    """Whether a parquet file, report or manifest was written here, by its columns or fields."""
    if file.is_symlink():
        return False
    try:
        if file.suffix == ".parquet":
            schema = pq.read_schema(file)
            fields = schema.field("extra_info").type
            return set(COLUMNS) <= set(schema.names) and any(fields.get_field_index(name) >= 0 for name in _OWN)
        found = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, AttributeError, pa.ArrowException):
        return False
    return isinstance(found, dict) and any(keys <= found.keys() for keys in _FIELDS)


def read(data_set: DataSet, source: Source) -> Reading:
    """Every row of the source, through the layout that its first rows have.

    Raises:
        InputError: no row, or columns of no known layout.
    """
    rows = source.rows()
    head = list(islice(rows, _HEAD))
    columns = {column for row in head if isinstance(row, Record) for column in row.values}
    layout = _layout(data_set, source, columns) if columns else None
    reading = Reading()
    for row in with_progress(chain(head, rows), label="reading", unit=" rows"):
        reading.rows += 1
        if isinstance(row, Fault):
            reading.faults.append(row)
        elif reason := data_set.leave_out(row.values):
            reading.left_out.append((row.where, reason))
        else:
            layout = layout or _layout(data_set, source, row.values)
            try:
                with time_limit(ROW_LIMIT):
                    problem = read_problem(data_set, layout, row)
            except BadField as bad:
                reading.faults.append(Fault(row.where, *bad.args))
            except TimeoutError as late:
                reading.faults.append(Fault(row.where, None, str(late)))
            else:
                reading.problems.append(problem)
                reading.stripped += problem.stripped
    if not reading.rows:
        remedy = "pass the complete published file" if data_set.hub_id else "give a file that has some"
        raise InputError(f"{source.name}: has no rows; {remedy}")
    return reading


def _layout(data_set: DataSet, source: Source, columns: Collection[str]) -> Layout:
    if layout := data_set.layout(columns):
        return layout
    accepted = " or ".join(" + ".join(sorted(layout.columns)) for layout in data_set.layouts)
    raise InputError(
        f"{source.name}: columns {', '.join(sorted(columns)) or '(none)'} are not a known layout of "
        f"{data_set.name}; known layouts have {accepted}"
    )


def undo_repetition(problems: list[Problem]) -> tuple[list[Problem], str | None]:
    """One of each and a description, if the complete set is repeated; else unchanged, None.

    Copies are rows with the same text, answer, system turn and further columns; the first one is kept.
    """
    copies = Counter(map(_content, problems))
    repeated = sum(count > 1 for count in copies.values())
    if not copies or repeated < REPEATED_SHARE * len(copies):
        return problems, None
    first = {_content(problem): problem for problem in reversed(problems)}
    usual, _ = Counter(copies.values()).most_common(1)[0]
    low, high = min(copies.values()), max(copies.values())
    spread = "" if low == high else f", between {low} and {high}"
    return [first[key] for key in copies], f"usually {usual} times{spread}"


def _content(problem: Problem) -> tuple[Any, ...]:
    return problem.text, problem.answer, problem.setting


def check_count(
    data_set: DataSet, split: str, problems: Sequence[Problem], allow: bool, say: Callable[[str], None]
) -> bool:
    """Whether the set is complete; InputError if not, or a warning if a mismatch is allowed."""
    rows, texts = len(problems), len({problem.text for problem in problems})
    accepted = data_set.counts[split]
    counted = {"rows": {rows}, "problems": {texts}, "both": {rows, texts}}[data_set.unit]
    if all(count in accepted for count in counted) and len(counted) == 1:
        return True
    message = (
        f"{data_set.name}, {split}: {rows:,} rows with {texts:,} distinct problems instead of "
        f"{describe_counts(accepted)} {'rows' if data_set.unit == 'rows' else 'problems'}{_first_repeat(problems)}"
    )
    if not allow:
        raise InputError(f"{message}; pass the complete published set, or --allow-count-mismatch")
    say(f"{message}; allowed")
    return False


def describe_counts(accepted: Collection[int]) -> str:
    """`(675, 674)` as "675 or 674", a range as "45,000 to 46,999"."""
    if isinstance(accepted, range):
        return f"{accepted[0]:,} to {accepted[-1]:,}"
    return " or ".join(f"{count:,}" for count in accepted)


def contract_rows(name: str, split: str, problems: Sequence[Problem], template: str) -> list[dict[str, Any]]:
    """Rows of the contract; `extra_info.id` is the source's id if those are unique, else the row's number."""
    ids = [problem.id for problem in problems]
    unique = None not in ids and len({*ids}) == len(ids)
    return [
        {
            "data_source": name,
            "prompt": [
                *([{"role": "system", "content": problem.system}] if problem.system is not None else []),
                {"role": "user", "content": render(TEMPLATES[template], problem.text)},
            ],
            "ability": "math" if is_mathematics(name) else "general",
            "reward_model": {"style": "rule", "ground_truth": problem.answer},
            "extra_info": {
                "split": split,
                "index": index,
                "id": f"{name}/{problem.id if unique else index}",
                "template": template,
                "problem": problem.text,
                "source": problem.where,
                **(problem.extra or {}),
            },
        }
        for index, problem in enumerate(problems)
    ]


def write(
    path: Path, rows: Sequence[Mapping[str, Any]], manifest: Mapping[str, Any], report: Mapping[str, Any]
) -> dict[str, Any]:
    """Write the rows to `path`, the report and then the manifest next to it; returns the manifest with its checksum."""
    manifest_file, report_file = _beside(path, "manifest"), _beside(path, "report")
    # They are renamed in reverse order, so that the manifest appears after the others are in place.
    with (
        atomic_write(manifest_file) as manifest_part,
        atomic_write(report_file) as report_part,
        atomic_write(path) as part,
    ):
        write_parquet_part(rows, part, str(path))
        manifest = {
            **manifest,
            "counts": {**manifest["counts"], "written": len(rows)},
            "output": {"path": path.name, "sha256": sha256(part)},
            "versions": {"data_prep": VERSION} | {library: version(library) for library in LIBRARIES},
        }
        for file, content in ((report_part, report), (manifest_part, manifest)):
            file.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
        manifest_file.unlink(
            missing_ok=True
        )  # an old manifest must never describe new rows, wherever this is interrupted
    return manifest


def _beside(path: Path, kind: str) -> Path:
    return path.with_name(f"{path.stem}.{kind}.json")


def _tell_faults(faults: Sequence[Fault], drop: bool, say: Callable[[str], None]) -> None:
    for fault in faults[:_SHOWN]:
        say(str(fault))
    if len(faults) > _SHOWN:
        say(f"... and {len(faults) - _SHOWN:,} more malformed row{'s' * (len(faults) - _SHOWN != 1)}")
    count = f"{len(faults):,} malformed row{'s' * (len(faults) != 1)}"
    if not drop:
        raise InputError(
            f"{count}, so nothing was written; correct the input, or pass --drop-malformed to leave out what is "
            "malformed (the report then lists it all)"
        )
    say(f"{count} left out")


def _first_repeat(problems: Sequence[Problem]) -> str:
    seen: dict[str, str] = {}
    for problem in problems:
        if problem.text in seen:
            return f" (first repeated problem: {seen[problem.text]} and {problem.where})"
        seen[problem.text] = problem.where
    return ""
