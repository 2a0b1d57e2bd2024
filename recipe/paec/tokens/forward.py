"""Token statistics by one forward pass of a model: for texts, and for responses that another policy wrote."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from omegaconf import OmegaConf

from data_prep.progress import quiet_transformers
from paec_loss import TokenStatistics, token_statistics
from paec_loss.token_texts import token_pieces
from recipe.paec.common import prompts
from recipe.paec.common.errors import UserError
from recipe.paec.common.model_files import context_length, file_errors, model_folder, read_config
from recipe.paec.export.huggingface import EXPORT_FILE, checkpoint_in, export_in_process
from recipe.paec.run import checkpoints
from recipe.paec.tokens.sources import Candidates, Response, Source, padded

CANDIDATES = 5
"""Most likely tokens of each place that a page shows."""


@contextmanager
def hugging_face(given: str) -> Iterator[tuple[Path, str]]:
    """(Hugging Face folder, label) of a model, of a checkpoint or of a run's newest one, exported while in use.

    Raises:
        UserError: it does not exist, is not complete, or is not a model.
    """
    path = Path(given).expanduser()
    if (path / checkpoints.STATE_FILE).is_file() or (path / "checkpoints").is_dir():
        folder = checkpoint_in(path)
        run = checkpoints.run_of(folder)
        label = f"{run.name if run else folder.parent.name}, {folder.name.replace('global_step_', 'step ')}"
        with tempfile.TemporaryDirectory(prefix="paec-tokens-") as place:
            target = Path(place) / "model"
            export_in_process(folder, target, Path(place) / "export.log")
            yield target, label
        return
    folder = model_folder(given)
    if folder is None:
        raise UserError(
            f"model={given}: does not exist, and is not in the Hugging Face cache: give a Hugging Face folder, a "
            "checkpoint (.../global_step_N) or a run"
        )
    if problems := file_errors(folder, f"model={given}"):
        raise UserError(*problems)
    yield folder, folder.name if path.is_dir() else given


def template_kwargs_of(given: str) -> dict[str, Any]:
    """What the chat template was told in the run of a checkpoint, of an export or of that folder; {} without a run."""
    path = Path(given).expanduser().absolute()
    if (path / checkpoints.STATE_FILE).is_file():
        run = checkpoints.run_of(path)
    else:
        run = path.parent if (path / EXPORT_FILE).is_file() else path
    file = run / "config.yaml" if run else None
    return prompts.template_kwargs(OmegaConf.load(file)) if file and file.is_file() else {}


def tokenizer_of(folder: Path, given: str) -> Any:
    """The tokenizer of a model folder; UserError if it cannot be loaded."""
    from transformers import AutoTokenizer

    try:
        return AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
    except (OSError, ValueError) as error:
        raise UserError(f"model={given}: the tokenizer cannot be loaded: {error}") from None


def language_model(folder: Path) -> Any:
    """The model of a Hugging Face folder, to be read with: float32 on a CPU, else as saved on the GPU."""
    from transformers import AutoModelForCausalLM

    quiet_transformers()
    device = "cuda" if torch.cuda.is_available() else "cpu"
    dtype = "auto" if device == "cuda" else torch.float32
    return AutoModelForCausalLM.from_pretrained(folder, dtype=dtype, trust_remote_code=False).to(device).eval()


def text_responses(
    texts: Sequence[dict[str, Any]], tokenizer: Any, told: Mapping[str, Any] | None = None
) -> list[Response]:
    """Texts as responses: `{"text": ..., "prompt": None or text, "score": None or number, "chat": whether a template}`.

    Without a prompt the first token only is context: no distribution precedes it. UserError for a text that is too
    short.

    `told`: what the chat template is told (`template_kwargs_of`).
    """
    found = []
    for number, one in enumerate(texts):
        prompt = one["prompt"]
        ids = tokenizer.encode(one["text"], add_special_tokens=False)
        if prompt is None:
            before, ids = ids[:1], ids[1:]
        elif one["chat"] and tokenizer.chat_template is not None:
            before = prompts.encode(tokenizer, [{"role": "user", "content": prompt}], **(told or {}))
        else:
            before = tokenizer.encode(prompt, add_special_tokens=False)
        if not before or not ids:
            raise UserError(f"text {number + 1}: has fewer than two tokens: give a longer one, or a prompt")
        found.append(
            Response(
                key=f"text-{number:06d}_0_0",
                step=None,
                prompt=tokenizer.decode(before) if prompt is None else prompt,
                score=one["score"],
                prompt_ids=tuple(before),
                ids=tuple(ids),
                texts=tuple(token_pieces([ids], tokenizer)[0]),
                response_mask=(True,) * len(ids),
                advantages=None,
            )
        )
    return found


def texts_of(file: Path) -> list[dict[str, Any]]:
    """The texts of a file: all of a text file, or of `*.jsonl` the field `output` of each line with `input`, `score`.

    Raises:
        UserError: the file or a line cannot be read.
    """
    try:
        content = file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"file={file}: cannot be read ({error}): give a text file in UTF-8") from None
    if file.suffix != ".jsonl":
        return [{"text": content, "prompt": None, "score": None, "chat": False}]
    found = []
    for number, line in enumerate(content.split("\n"), 1):  # splitlines would also split at U+2028, U+2029 and U+0085
        if not line.strip():
            continue
        try:
            row = json.loads(line)
            score = row.get("score")
            found.append(
                {"text": row["output"] + "", "prompt": row.get("input") or None, "score": score, "chat": False}
            )
        except (ValueError, KeyError, TypeError, AttributeError):
            raise UserError(
                f"file={file}, line {number}: is not a response: each line needs a field output, as rollouts/ has"
            ) from None
        if score is not None and not isinstance(score, int | float):
            raise UserError(f"file={file}, line {number}, field score: {score!r} must be a number")
    if not found:
        raise UserError(f"file={file}: is empty: give a file with responses")
    return found


def read_with(
    folder: Path,
    given: str,
    label: str,
    tokenizer: Any,
    page: Sequence[Response],
    rows: Sequence[int],
    *,
    top_ps: Sequence[float],
    temperature: float,
    step: int,
    seed: int,
) -> Source:
    """The statistics of responses under the model in `folder`, by one forward pass each.

    Args:
        folder: Hugging Face folder.
        given: what the user wrote, for errors.
        label: its name on the page.
        tokenizer: its own, for the texts of the candidates.
        page: the responses of the page.
        rows: which of them it reads.
        top_ps: masses of the nuclei, each once.
        temperature: of the distributions.
        step, seed: for methods that draw lots.

    Raises:
        UserError: a response is longer than the model's context, or has a token that its vocabulary lacks.
    """
    model = language_model(folder)
    vocab_size = model.config.get_text_config().vocab_size
    context = context_length(read_config(folder))
    parts: dict[float, list[TokenStatistics]] = {top_p: [] for top_p in top_ps}
    candidates = []
    for number in rows:
        response = page[number]
        length, largest = len(response.prompt_ids) + len(response.ids), max((*response.prompt_ids, *response.ids))
        if context and length > context:
            raise UserError(
                f"model={given}: {response.key} has {length} tokens, more than the model's context of {context}: give "
                "a model with a longer context"
            )
        if largest >= vocab_size:
            raise UserError(
                f"model={given}: {response.key} has token {largest}, but the vocabulary has {vocab_size}: give a model "
                "with the tokenizer of the run"
            )
        ids = torch.tensor([*response.prompt_ids, *response.ids], device=model.device)
        with torch.no_grad():
            logits = model(ids[None]).logits[0, len(response.prompt_ids) - 1 : -1]
            labels = ids[len(response.prompt_ids) :]
            for top_p, of_it in parts.items():
                found = token_statistics(logits, labels, top_p=top_p, temperature=temperature)
                of_it.append(found.map(torch.Tensor.cpu))
            candidates.append(_candidates(logits, temperature, tokenizer))
    return Source(
        label=label,
        rows=tuple(rows),
        statistics={top_p: _joined(of_it) for top_p, of_it in parts.items()},
        step=step,
        seed=seed,
        candidates=tuple(candidates),
        note="quantiles and means over the mini-batch are those of the responses on this page",
    )


def _candidates(logits: torch.Tensor, temperature: float, tokenizer: Any) -> Candidates:
    top = (logits.float() / temperature).log_softmax(-1).topk(min(CANDIDATES, logits.shape[-1]), dim=-1)
    ids = sorted(set(top.indices.flatten().tolist()))
    texts = dict(zip(ids, token_pieces([ids], tokenizer)[0], strict=True))
    return Candidates(top.indices.cpu().numpy(), top.values.cpu().numpy(), texts)


def _joined(parts: Sequence[TokenStatistics]) -> TokenStatistics:
    names = [name for name in vars(parts[0]) if name != "vocab_size"]
    return padded({name: [getattr(part, name) for part in parts] for name in names}, parts[0].vocab_size)
