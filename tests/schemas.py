"""The schemas of what `--json` prints (bfedge/schemas), and what an output has to do with them."""

from __future__ import annotations

import functools
import io
import json
from pathlib import Path
from typing import Any, NoReturn

from jsonschema import Draft202012Validator
from jsonschema.exceptions import best_match
from referencing import Registry, Resource

FOLDER = Path(__file__).parents[1] / "bfedge" / "schemas"
SUFFIX = ".schema.json"


@functools.cache
def schemas() -> dict[str, dict[str, Any]]:
    """By verb; also `common` and `manifest`, which those of verbs refer to."""
    return {path.name.removesuffix(SUFFIX): json.loads(path.read_text()) for path in sorted(FOLDER.glob(f"*{SUFFIX}"))}


@functools.cache
def validator(name: str) -> Draft202012Validator:
    resources = [(f"{other}{SUFFIX}", Resource.from_contents(schema)) for other, schema in schemas().items()]
    return Draft202012Validator(schemas()[name], registry=Registry().with_resources(resources))


def violation(text: str) -> str | None:
    """What is wrong with an output of a verb; None if nothing is."""

    def refuse(constant: str) -> NoReturn:
        raise ValueError(f"{constant} is no JSON")

    try:
        output = json.loads(text, parse_constant=refuse)
    except ValueError as problem:
        return f"{problem}: {text[:200]}"
    verb = output.get("verb")
    if verb not in schemas():
        return f"there is no {FOLDER.name}/{verb}{SUFFIX}"
    found = best_match(validator(verb).iter_errors(output))
    return f"{FOLDER.name}/{verb}{SUFFIX}: {found.json_path}: {found.message[:400]}" if found else None


class CheckedJson:
    """For the module json in bfedge.cli.output: writes the same, and notes what breaks its schema."""

    def __init__(self) -> None:
        self.violations: list[str] = []

    def take_violations(self) -> list[str]:
        """Those since the last call."""
        found, self.violations = self.violations, []
        return found

    def dump(self, value: Any, file: Any, **options: Any) -> None:
        text = io.StringIO()
        json.dump(value, text, **options)
        found = violation(text.getvalue())
        if found:
            self.violations.append(found)
        file.write(text.getvalue())


checked_json = CheckedJson()
