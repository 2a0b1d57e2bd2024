"""The training file of a few prompts: their rows in turn until the file is full, with listing and manifest."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from data_prep import prepare
from data_prep.files import sha256
from data_prep.reading import InputError
from recipe.paec.common.errors import UserError
from recipe.paec.select.ranking import SCORE, Prompt, entry

REPORT = "ranking"
"""Field of the report beside the file: every prompt of the run."""


def repeated(
    rows: Sequence[Mapping[str, Any]], entries: Sequence[Mapping[str, Any]], size: int
) -> list[dict[str, Any]]:
    """`size` rows, the given ones in turn.

    Each gets its own `extra_info.index`, which is part of the seed of its responses: with one index, the copies in a
    batch would get the same responses. `selected_index` keeps the old one; rank, score, accuracy and difficulty of the
    prompt are beside it.
    """
    about = [
        {**{name: one[name] for name in ("rank", SCORE, "accuracy", "difficulty")}, "selected_index": one["index"]}
        for one in entries
    ]
    places = [number % len(rows) for number in range(size)]
    return [
        {**rows[place], "extra_info": {**rows[place]["extra_info"], **about[place], "index": number}}
        for number, place in enumerate(places)
    ]


def is_selection(file: Path) -> bool:
    """Whether this command, not `paec data`, wrote a training file, its report or its manifest."""
    if not prepare.is_ours(file):
        return False
    if file.suffix == ".parquet":
        return pq.read_schema(file).field("extra_info").type.get_field_index(SCORE) >= 0
    found = json.loads(file.read_text(encoding="utf-8"))
    return REPORT in found or found.get("set") == SCORE


def write(
    output: Path,
    rows: Mapping[str, Sequence[Mapping[str, Any]]],
    ranking: Sequence[Prompt],
    few: Sequence[Prompt],
    ranks: Sequence[int],
    size: int,
    about: Mapping[str, Any],
    overwrite: bool,
) -> tuple[Path, list[dict[str, Any]]]:
    """Write the file, its report and its manifest; all of them appear, or none.

    Args:
        output: .parquet file, or a folder for train.parquet.
        rows: file -> its rows.
        ranking: the prompts by rank.
        few: those without one.
        ranks: which of them are chosen.
        size: rows of the file.
        about: `source` of the manifest: the run.
        overwrite: whether files that this command wrote may be replaced.

    Returns:
        The file, and the entries of the chosen prompts.

    Raises:
        UserError: fewer rows than chosen prompts, or a file that may not be replaced, as those of `rows`.
    """
    if size < len(ranks):
        raise UserError(f"--rows {size}: is less than the {len(ranks)} chosen prompts: raise it, or choose fewer")
    try:
        path = prepare.file_of(output, "train")
        if path.exists() and any(path.samefile(Path(file).expanduser()) for file in rows):
            raise UserError(
                f"--output {output}: {path} is a training file of the run itself (data.train_files): choose another "
                "--output"
            )
        path = prepare.output_path(output, "train", overwrite, is_selection)
    except InputError as error:
        raise UserError(str(error)) from None
    entries = [entry(prompt, rank) for rank, prompt in enumerate(ranking, 1)] + [entry(prompt, None) for prompt in few]
    picked = [ranking[rank - 1] for rank in ranks]
    chosen = [entries[rank - 1] for rank in ranks]
    manifest = {
        "set": SCORE,
        "split": "train",
        "source": {**about, "files": [{"path": file, "sha256": sha256(Path(file).expanduser())} for file in rows]},
        "counts": {"ranked": len(ranking), "too_few_epochs": len(few), "chosen": len(chosen)},
        "chosen": chosen,
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    content = repeated([rows[prompt.file][prompt.row] for prompt in picked], chosen, size)
    prepare.write(path, content, manifest, {REPORT: entries})
    return path, chosen
