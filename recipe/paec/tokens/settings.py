"""The command line of `paec tokens`: RUN [STEP ...], or model= with text= or file=, and the methods to show."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from paec_loss import Method
from paec_loss.methods import METHODS
from recipe.paec.common.errors import UserError
from recipe.paec.config.methods import stack_of
from recipe.paec.config.values import OWN_CLASS, closest

SHOWN = ("paec", "siren", "forking_tokens", "hapo", "steer", "clip_cov", "kl_cov", "hicra")
"""Methods on a page if `methods=` is not given, besides the run's own and that of `method=`."""
RESPONSES = 50
"""Most responses on a page if `responses=` is not given."""
KEYS = ("model", "text", "file", "prompt", "method", "methods", "output", "responses", "temperature", "validation")


@dataclass(frozen=True)
class Named:
    """A method under the name that the page shows."""

    name: str
    method: Method


@dataclass(frozen=True)
class Request:
    """What a page is to show."""

    run: Path | None
    steps: tuple[int, ...]
    """Steps of the record; empty: the last one."""
    validation: bool
    """Whether to show the validations after these steps instead of their training responses."""
    models: tuple[str, ...]
    """Hugging Face folders, hub ids or checkpoints that read the responses."""
    text: str | None
    file: Path | None
    prompt: str | None
    method: Named | None
    """That of `method=`, with its fields."""
    methods: tuple[Named, ...]
    output: Path | None
    responses: int
    temperature: float | None
    """None: that of the run's rollout, 1 without a run."""


def _as_key(option: str) -> str:
    """The hint for an option of other commands that is a key here."""
    name = option.lstrip("-").partition("=")[0]
    return f", such as {name}=..." if name in KEYS else ""


def read_request(arguments: Sequence[str]) -> Request:
    """The request of a command line; UserError for what it cannot mean."""
    places = [a for a in arguments if _is_place(a)]
    given = [a.partition("=")[::2] for a in arguments if not _is_place(a)]
    errors = [f"{a}: unknown option: write key=value{_as_key(a)}" for a in places if a.startswith("-")]
    if errors:
        raise UserError(*errors)
    for key, value in given:
        if key not in KEYS and not key.startswith("method."):
            errors.append(f"{key}={value}: there is no such key{closest(key, KEYS, ': did you mean {}?')}")
    values = {key: value for key, value in given if key != "model"}
    models = tuple(value for key, value in given if key == "model")
    steps = tuple(int(a) for a in places[1:] if a.isdecimal())
    errors += [f"{a}: is not a step: write paec tokens RUN STEP" for a in places[1:] if not a.isdecimal()]
    run = Path(places[0]).expanduser() if places else None
    texts = [key for key in ("text", "file") if key in values]
    if run is None and not models:
        errors.append("give a run, or model=... with text=... or file=...")
    if run is not None and texts:
        errors.append(f"{texts[0]}={values[texts[0]]}: a run has its own responses: give a run, or {texts[0]}=...")
    if run is None and models and len(texts) != 1:
        errors.append("model=...: give text=... or file=... (one of them), or a run whose responses the model reads")
    if "prompt" in values and "text" not in values:
        errors.append("prompt=...: can only be used with text=...")
    if "validation" in values and run is None:
        errors.append(f"validation={values['validation']}: needs a run: write paec tokens RUN validation=true")
    if errors:
        raise UserError(*errors)
    return Request(
        run=run,
        steps=steps,
        validation=_flag("validation", values.get("validation", "false")),
        models=models,
        text=values.get("text"),
        file=Path(values["file"]).expanduser() if "file" in values else None,
        prompt=values.get("prompt"),
        method=_method(given),
        methods=_catalogue(values.get("methods")),
        output=Path(values["output"]).expanduser() if "output" in values else None,
        responses=_whole("responses", values.get("responses", str(RESPONSES))),
        temperature=_positive("temperature", values["temperature"]) if "temperature" in values else None,
    )


def _is_place(argument: str) -> bool:
    """Whether it is no key=value; the name of a run contains its overrides, and so `=`."""
    key, equals, _ = argument.partition("=")
    known = key in KEYS or key.startswith("method.")
    return not equals or (not known and Path(argument).expanduser().is_dir())


def _whole(key: str, text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise UserError(f"{key}={text}: must be an integer >= 1")
    return int(text)


def _flag(key: str, text: str) -> bool:
    if text not in ("true", "false"):
        raise UserError(f"{key}={text}: must be true or false")
    return text == "true"


def _positive(key: str, text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value < float("inf"):
        raise UserError(f"{key}={text}: must be a number > 0")
    return value


def _method(given: Sequence[Sequence[str]]) -> Named | None:
    """The method of `method=NAME method.FIELD=VALUE`; of `method=PATH` or `method=custom method.class_path=PATH`."""
    chosen = [value for key, value in given if key == "method"]
    fields = [f"{key.removeprefix('method.')}={value}" for key, value in given if key.startswith("method.")]
    if not chosen:
        if fields:
            raise UserError(f"method.{fields[0]}: which method? Add method=NAME")
        return None
    name = chosen[-1]
    if OWN_CLASS.fullmatch(name):
        name, fields = "custom", [f"class_path={name}", *fields]
    if name != "custom" and name not in METHODS:
        raise UserError(f"method={name}: there is no such method{closest(name, METHODS, ': did you mean {}?')}")
    try:
        node = OmegaConf.to_container(OmegaConf.from_dotlist(fields))
    except OmegaConfBaseException as error:
        raise UserError(f"method.{' method.'.join(fields)}: cannot be read: {error}") from None
    target = (
        node.pop("class_path", None) if name == "custom" else METHODS[name].__module__ + "." + METHODS[name].__name__
    )
    found = made({"_target_": target, **node}, {})[0]
    shown = [f for f in fields if not (name == "custom" and f.startswith("class_path="))]
    label = found.name.rpartition(".")[2] if name == "custom" else name
    return Named(f"{label} ({', '.join(shown)})" if shown else label, found.method)


def made(method: Any, also: Any) -> list[Named]:
    """The methods of a configuration's `method` and `also`; UserError if they cannot be made."""
    try:
        stack = stack_of(OmegaConf.create({"method": method, "also": also}))
    except (ValueError, TypeError) as error:
        raise UserError(str(error)) from None
    return [Named(name, method) for name, method in zip(stack.names, stack.methods, strict=True)]


def _catalogue(text: str | None) -> tuple[Named, ...]:
    """Methods of the catalogue with their defaults: `all`, a list, or SHOWN."""
    names = list(SHOWN) if text is None else list(METHODS) if text == "all" else text.strip("[]").split(",")
    names = [name.strip() for name in names if name.strip()]
    for name in names:
        if name not in METHODS:
            raise UserError(f"methods={text}: there is no method {name}{closest(name, METHODS, ': did you mean {}?')}")
    return tuple(Named(name, METHODS[name]()) for name in dict.fromkeys(names))
