"""Tables and figure of docs/results.md, from the records of the laboratory: `python -m benchmarks.lab.results`.

Reads benchmarks/lab/protocol.md and the records of `paec lab sweep` in benchmarks/results/lab: `defaults/`, `long/`,
`llama/`, `word_problems/`, `countdown_four/`, `countdown_four_kept/`, `matched_entropy/`, `ablations/`, `agreement/`,
`search/`, `main/` and `finalists/`, each made from the file of jobs of that name; the records of `benchmarks.lab.why`;
and the pipeline's runs in benchmarks/results/pipeline. Writes docs/results.md and its figures.

A number is the mean over seeds, with the seeds' own values beside it.
"""

from __future__ import annotations

import argparse
import shutil
import sys
from pathlib import Path

from benchmarks.lab import ablations, endings, findings, knob_search, matched, other_tasks, pass_at_k, pipeline, why
from benchmarks.lab.comparison import DRAWS, corrected, differences, dominated, in_words, is_significant
from benchmarks.lab.figures import draw, draw_why, shows
from benchmarks.lab.records import (
    BASELINE,
    PAEC,
    REFERENCE,
    SAMPLES,
    Runs,
    comparable,
    interval,
    levels,
    means,
    means_and_seeds,
    outcomes,
    read,
    where_and_when,
    with_seeds,
)
from data_prep.files import atomic_write
from recipe.paec.scoring.estimators import Difference

ROOT = Path(__file__).parents[2]
RECORDS, PROTOCOL = ROOT / "benchmarks" / "results" / "lab", Path(__file__).parent / "protocol.md"
PAGE, FIGURE = "results.md", "results.svg"
SECTIONS = {
    "quick": "## The quick version",
    "defaults": "## The shipped defaults",
    "long": "## Long runs",
    "llama": "## Another model",
    "main": "## Main runs",
    "finalists": "## Finalists: more seeds, more steps",
}
"""Folder of records -> heading; the file of jobs has the folder's name."""
OTHERS = {
    *(*other_tasks.TASKS, matched.FILE, endings.FOLDER),
    *("defaults_repeated", "ablations", "agreement", "search", "why"),
}
"""Folders of records that other modules make sections of. Any other folder gets one like those of SECTIONS."""
CLAIMS = (
    ("Keeps the entropy of the policy above GRPO's", "entropy", "token entropy at the last step"),
    ("Is more accurate than GRPO", "accuracy", "accuracy at the last step"),
    ("Keeps more expressions of a solution than GRPO", "last expressions", "expressions of 32 at the last step"),
    ("Solves more problems within 32 tries than GRPO", "last pass@32", "pass@32 at the last step"),
    ("Keeps more expressions of a solution at its accuracy", "equal expressions", "expressions at equal accuracy"),
    ("Solves more problems within 32 tries at its accuracy", "equal pass@32", "pass@32 at equal accuracy"),
    ("Gives more than stopping GRPO earlier, in accuracy and pass@32", "pass@32", "their hypervolume"),
    ("The same in accuracy and expressions", "expressions", "their hypervolume"),
)
"""What is hoped of PAEC, the difference to GRPO that it means, and that difference in words."""


def last_step(runs: dict[str, Runs]) -> list[str]:
    """The table of the last validation."""
    lines = ["| | accuracy | pass@32 | expressions | token entropy |", "|---|---|---|---|---|"]
    for name, one in runs.items():
        lines.append(f"| `{name}` | {' | '.join(means_and_seeds(one))} |")
    return lines


def frontier(runs: dict[str, Runs], gained: dict[str, dict[str, Difference]]) -> list[str]:
    """The table of the hypervolumes; `gained`: the `differences` of every method but the baseline."""
    said = {key: corrected({name: of[key].p for name, of in gained.items()}) for key in REFERENCE}
    lines = [
        "| | hypervolume, pass@32 | minus GRPO's | | hypervolume, expressions | minus GRPO's | |",
        "|---|---|---|---|---|---|---|",
    ]
    for name, one in runs.items():
        found = outcomes(one.correct, one.distinct)
        cells = []
        for key, digits in (("pass@32", 4), ("expressions", 3)):
            cells.append(with_seeds(found[key], digits))
            if name in gained:
                cells += [interval(gained[name][key], digits), in_words(gained[name][key], said[key][name])]
            else:
                cells += ["", ""]
        lines.append(f"| `{name}` | " + " | ".join(cells) + " |")
    return lines


def equal_accuracy(gained: dict[str, dict[str, Difference]]) -> list[str]:
    """The table of the differences at equal accuracy."""
    said = {key: corrected({name: of[f"equal {key}"].p for name, of in gained.items()}) for key in REFERENCE}
    lines = [
        "At equal accuracy, the mean over the accuracies that both reach, minus GRPO's:",
        "",
        "| | pass@32 | | expressions | |",
        "|---|---|---|---|---|",
    ]
    for name, of in gained.items():
        cells = []
        for key, digits in (("pass@32", 3), ("expressions", 2)):
            found = of[f"equal {key}"]
            cells += [interval(found, digits), in_words(found, said[key][name])]
        lines.append(f"| `{name}` | " + " | ".join(cells) + " |")
    return lines


def domination(runs: dict[str, Runs]) -> list[str]:
    """In how many seeds each method dominates all of the baseline's curve."""
    baseline = runs[BASELINE]
    lines = [
        "Does a method dominate GRPO, wherever that is stopped? Seeds in which every checkpoint of GRPO has one of the "
        "method that is at least as good in both:",
        "",
        "| | accuracy and pass@32 | accuracy and expressions |",
        "|---|---|---|",
    ]
    for name, one in runs.items():
        if name != BASELINE:
            common = sum(s in baseline.seeds for s in one.seeds)
            found = dominated(one, baseline)
            lines.append(f"| `{name}` | {found['pass@32']} of {common} | {found['expressions']} of {common} |")
    return lines


def verdict(of: Difference) -> str:
    """What the p value of a difference says about the claim that it is above 0."""
    if of.p is None:
        return "one seed: no interval"
    if not is_significant(of.p):
        return "not significant"
    return "significant" if of.value > 0 else "significant, the other way"


def claims(found: dict[str, Difference]) -> list[str]:
    """What is said of PAEC beside what PAEC's shipped defaults did: its `differences`."""
    lines = [
        "What one hopes of PAEC, and what its shipped defaults did here: minus GRPO, with 95 % intervals, not "
        "corrected for the number of lines. The first two are what is known of the paper's claims "
        "([docs/paec.md](paec.md)); the others are what kept entropy should be good for.",
        "",
        "| hope | measured as | difference | |",
        "|---|---|---|---|",
    ]
    for claim, key, words in CLAIMS:
        of = found[key]
        lines.append(f"| {claim} | {words} | {interval(of, 3)} | {verdict(of)} |")
    return lines


def page(folder: Path, of_pipeline: Path | None = None, draws: int = DRAWS, figures: Path | None = None) -> str:
    """The text of docs/results.md: the protocol, and what the records of `folder` and of the pipeline make of it.

    The figures go to the folder `figures`, if one is given.
    """
    intro, heading, protocol = PROTOCOL.read_text(encoding="utf-8").rstrip("\n").partition("\n\n## Protocol\n")
    in_short = findings.section(folder, of_pipeline, draws)
    quick, defaults, long, llama, main, finalists = (section(folder / name, draws, figures) for name in SECTIONS)
    each_part = ablations.section(folder / "ablations", findings.shipped_of(folder), draws)
    agreement = pipeline.agreement(folder / "agreement", of_pipeline, draws) if of_pipeline else ""
    methods = pipeline.methods(of_pipeline, draws, figures) if of_pipeline else ""
    found = why.section(folder / "why"), knob_search.section(folder / "search")
    parts = [
        intro,
        in_short,
        heading.strip("\n") + "\n" + protocol,
        quick,
        defaults,
        each_part,
        endings.section(folder, draws),
        found[0],
        long,
        llama,
        *(other_tasks.section(folder / name, figure_of(folder / name), draws, figures) for name in other_tasks.TASKS),
        matched.section(folder / matched.FILE, folder / "countdown_four"),
        pass_at_k.section(folder, draws, figures),
        agreement,
        methods,
        found[1],
        main,
        finalists,
        *(section(own, draws, figures) for own in own_folders(folder)),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def own_folders(folder: Path) -> list[Path]:
    """The folders of records that this project does not have, such as outputs/lab/mine-records."""
    names = sorted(file.parent.name for file in folder.glob("*/none-seed*.json"))
    return [folder / name for name in dict.fromkeys(names) if name not in SECTIONS and name not in OTHERS]


def section(folder: Path, draws: int = DRAWS, figures: Path | None = None) -> str:
    """The tables of a folder of records: the methods with the baseline's seeds and validations; "" without records.

    Those with others are named: their sweep has not reached its end. The figure goes to the folder `figures`, if one is
    given.
    """
    on_record = read(folder)
    if not on_record:
        return ""
    heading, runs = SECTIONS.get(folder.name, f"## {folder.name}"), comparable(on_record)
    jobs = f" benchmarks/lab/{folder.name}.yaml" if folder.name in SECTIONS else ""
    have = {
        name: f"`{name}` with seed {', '.join(map(str, r.seeds))} to step {r.steps[-1]}"
        for name, r in on_record.items()
    }
    if len(runs) < 2 and not jobs:
        raise ValueError(
            f"{folder}: no table can be made of {'; '.join(have.values())}: it needs the job {BASELINE} "
            f"(method={BASELINE}) and another one with its seeds and validations"
        )
    if len(runs) < 2:
        return f"{heading}\n\nRuns on record: {'; '.join(have.values())}. No table yet."
    one, left_out = runs[BASELINE], [words for name, words in have.items() if name not in runs]
    gained = {name: differences(r, one, draws) for name, r in runs.items() if name != BASELINE}
    if figures is not None:
        draw(runs, gained, figures / figure_of(folder))
    first, last = one.steps[0], one.steps[-1]
    start = ", ".join(f"{name} {mean}" for name, mean in zip(levels(one), means(one, 0), strict=True))
    lines = [
        heading,
        "",
        f"{one.correct.shape[-1]} test problems x {SAMPLES} responses, {len(one.seeds)} seeds (mean, and each seed), "
        f"{last} steps; `paec lab sweep{jobs}`, then `python -m benchmarks.lab.results`; "
        f"{where_and_when(runs.values())}.",
        "",
        *([f"Not run to the end yet, so in no table: {'; '.join(left_out)}.", ""] if left_out else []),
        f"![{shows(runs)}]({figure_of(folder)})",
        "",
        f"At step {first}, before any training: {start}.",
        "",
        f"At step {last}:",
        "",
        *last_step(runs),
        "",
        f"The whole curve, which is what decides (steps {', '.join(map(str, one.steps))}; 95 % intervals"
        + (", one seed: without the spread between trainings" if len(one.seeds) == 1 else "")
        + "; the words are after Holm's correction for the number of methods):",
        "",
        *frontier(runs, gained),
        "",
        *equal_accuracy(gained),
        "",
        *domination(runs),
    ]
    if PAEC in gained:
        lines += ["", *claims(gained[PAEC])]
    return "\n".join(lines)


def figure_of(folder: Path) -> str:
    """The name of a section's figure: results.svg, or results_main.svg."""
    return FIGURE if folder.name == "defaults" else f"results_{folder.name}.svg"


def main(arguments: list[str] | None = None) -> int:
    """Command line of this module."""
    parser = argparse.ArgumentParser(description="Writes results.md and its figures from the laboratory's records.")
    parser.add_argument("--records", type=Path, default=RECORDS, help="folder with defaults/, search/ or main/")
    parser.add_argument("--pipeline", type=Path, help="folder of python -m benchmarks.lab.pipeline")
    parser.add_argument("--output", type=Path, default=ROOT / "docs")
    options = parser.parse_args(arguments)
    if not any(options.records.glob("*/*-seed*.json")):
        print(f"error: {options.records} has no record: paec lab sweep makes them", file=sys.stderr)
        return 1
    known = any((options.records / name).is_dir() for name in (*SECTIONS, *OTHERS))
    if not known and not own_folders(options.records):
        print(
            f"error: {options.records} has no folder with runs of the job `{BASELINE}`, which the others are compared "
            f"with: add `{BASELINE}: [method={BASELINE}]` to the file of jobs",
            file=sys.stderr,
        )
        return 1
    of_pipeline = options.pipeline or (pipeline.RECORDS if options.records == RECORDS else None)
    was_there = options.output.is_dir()
    options.output.mkdir(parents=True, exist_ok=True)
    try:
        found = page(options.records, of_pipeline, figures=options.output)
    except ValueError as error:
        if not was_there:  # with the figures drawn so far
            shutil.rmtree(options.output)
        print(f"error: {error}", file=sys.stderr)
        return 1
    if inside := why.read(options.records / "why"):
        draw_why(inside, options.output / why.FIGURE)
    with atomic_write(options.output / PAGE) as partial:
        partial.write_text(found, encoding="utf-8")
    print(options.output / PAGE)
    return 0


if __name__ == "__main__":
    sys.exit(main())
