"""The YAML of a file of jobs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from recipe.paec.common.errors import UserError


class _Loader(yaml.SafeLoader):
    """Refuses a key that is written twice: YAML would keep the last, and lose the other job without a word."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: set[str] = set()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode):
                if key.value in seen:
                    line = key.start_mark.line + 1
                    raise UserError(f"line {line}: {key.value} is written twice: name every key once")
                seen.add(key.value)
        return super().construct_mapping(node, deep)


def read(file: Path) -> Any:
    """The content of a file of jobs.

    Raises:
        UserError: there is no such file, or it cannot be read; with the line.
    """
    if not file.is_file():
        raise UserError(f"{file}: does not exist: give a YAML file of jobs")
    try:
        return yaml.load(file.read_text(encoding="utf-8"), Loader=_Loader)
    except UserError as error:
        raise UserError(f"{file}, {error}") from None
    except yaml.MarkedYAMLError as error:
        place = f"{file}, line {error.problem_mark.line + 1}" if error.problem_mark else f"{file}"
        raise UserError(f"{place}: is not YAML ({error.problem}): check brackets, quotes and indentation") from None
    except (yaml.YAMLError, UnicodeDecodeError):
        raise UserError(f"{file}: has characters that YAML cannot have: save it as text in UTF-8") from None
