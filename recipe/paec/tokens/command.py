"""`python -m recipe.paec.tokens RUN [STEP]`, or `model=... text=...`: one HTML file on which tokens methods select."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

from recipe.paec.common.console import asked_for_help, complain, complain_of_files, say
from recipe.paec.common.errors import UserError
from recipe.paec.tokens.settings import Named, Request, made, read_request

if TYPE_CHECKING:
    from recipe.paec.tokens.page import Content

PAGE = "tokens.html"
USAGE = """
usage: paec tokens RUN [STEP ...] [model=MODEL ...] [key=value ...]
       paec tokens model=MODEL [model=MODEL ...] text=TEXT|file=FILE [key=value ...]
Writes one HTML file: every token coloured by what a method does to it, with its entropy, nucleus and candidates.
  RUN STEP          a run and recorded steps (default: the last); validation=true: the validations after these steps
  model=MODEL       a Hugging Face folder, hub id, checkpoint or run that reads the responses; several: side by side
  text=TEXT         a text, with prompt=TEXT the answer to it; file=FILE: a text file, or *.jsonl as in rollouts/
  method=NAME       adds a method, or your own: method=package.module.Class; method.FIELD=VALUE sets a field
  methods=all       the whole catalogue, or a list: methods=paec,steer (docs/tokens.md)
  output=FILE       the file to write; default RUN/tokens.html, or tokens.html
  responses=N       at most N responses (default 50); temperature=T: that of the distributions
example: paec tokens outputs/tiny_cpu-paec 20 model=outputs/tiny_cpu-none method=paec method.rho=0.7
"""


def content_of(request: Request) -> Content:
    """What the page of a request shows; UserError if something cannot be read."""
    from recipe.paec.tokens import forward, sources  # imports torch
    from recipe.paec.tokens.page import Content

    config = _config(request.run)
    page: list[sources.Response] = []
    found: list[sources.Source] = []
    for record in sources.records(request.run, request.steps, request.validation) if request.run else ():
        limit = request.responses - len(page)
        if limit > 0 and record.responses:
            found.append(sources.source_of(record, len(page), limit))
            page += sources.responses_of(record, limit)
    methods = _methods(request, config)
    with ExitStack() as stack:
        for given in request.models:
            folder, label = stack.enter_context(forward.hugging_face(given))
            tokenizer = forward.tokenizer_of(folder, given)
            if not page:
                told = forward.template_kwargs_of(given)
                page += forward.text_responses(_texts(request)[: request.responses], tokenizer, told)
            found.append(
                forward.read_with(
                    folder,
                    given,
                    label,
                    tokenizer,
                    page,
                    range(len(page)),
                    top_ps=list(dict.fromkeys(named.method.top_p for named in methods)) or [1.0],
                    temperature=request.temperature or _temperature(config),
                    step=found[0].step if found else 1,
                    seed=int(config.get("seed", 1)),
                )
            )
    if not page:
        raise UserError(f"{request.run}: the record of this step has no response: choose another step")
    return Content(_title(request), page, found, methods)


def _config(run: Path | None) -> dict[str, Any]:
    """The recorded configuration of a run, empty without one; UserError if it cannot be read."""
    from omegaconf import OmegaConf
    from yaml import YAMLError

    if run is None or not run.is_dir():
        return {}
    try:
        return OmegaConf.to_container(OmegaConf.load(run / "config.yaml"))
    except (OSError, YAMLError) as error:
        raise UserError(f"{run / 'config.yaml'}: cannot be read ({error}): give the directory of a run") from None


def _temperature(config: dict[str, Any]) -> float:
    return float(config["actor_rollout_ref"]["rollout"]["temperature"]) if config else 1.0


def _methods(request: Request, config: dict[str, Any]) -> list[Named]:
    """The run's own methods, that of the command line, then the catalogue's; each once."""
    own = made(config["method"], config.get("also") or {}) if "method" in config else []
    own = [Named(f"{named.name} (this run)", named.method) for named in own]
    given = [request.method] if request.method else []
    found: list[Named] = []
    for named in [*given, *own, *request.methods]:
        if not any(other.method == named.method for other in found):
            found.append(named)
    return found


def _texts(request: Request) -> list[dict[str, Any]]:
    from recipe.paec.tokens.forward import texts_of

    if request.file is not None:
        return texts_of(request.file)
    return [{"text": request.text, "prompt": request.prompt, "score": None, "chat": True}]


def _title(request: Request) -> str:
    return request.run.resolve().name if request.run else Path(request.models[0]).name


def write(content: Content, output: Path) -> None:
    """Write a page, completely or not at all."""
    import paec_loss
    from data_prep.files import atomic_write
    from recipe.paec.tokens.page import render

    text = render(content, f"Made by paec {paec_loss.__version__} on {time.strftime('%Y-%m-%d %H:%M')}")
    with atomic_write(output) as partial:
        partial.write_text(text, encoding="utf-8")


def main(arguments: Sequence[str] | None = None) -> int:
    """Command line entry; returns the exit code."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    if asked_for_help(given, USAGE):
        return 0
    try:
        request = read_request(given)
        output = request.output or (request.run / PAGE if request.run else Path(PAGE))
        if output.is_dir():
            raise UserError(f"output={output}: is a folder: give the name of a file")
        content = content_of(request)
        write(content, output)
        say(f"{output} ({len(content.responses)} responses, {output.stat().st_size / 1e6:.1f} MB)")
    except UserError as error:
        return complain(error.errors)
    except OSError as error:
        return complain_of_files(error, "free some space, or choose another place with output=")
    return 0
