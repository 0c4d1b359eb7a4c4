"""Rules of a model's own, asked of instances that were not made by it: `model_copy(update=...)` and assignment ask none of them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import lru_cache
from typing import Any

from pydantic import AfterValidator, BaseModel, ValidationError

from scythe_catalog.schema.compile import CompiledModel
from scythe_catalog.schema.problems import Problem

#: What a validator's ValueError, or its assertion, becomes.
_OWN = ("value_error", "assertion_error")


def asks_again(compiled: CompiledModel) -> bool:
    """Whether a model has rules that see values as they are once they are valid, and so may be asked again; and none that come before.

    A rule that comes before makes a value of what is given (degrees of radians, say), and would do so a second time.
    """
    return not compiled.loose and _has_rules_after(compiled.model)


@lru_cache(maxsize=512)
def _has_rules_after(model: type[BaseModel]) -> bool:
    decorators = model.__pydantic_decorators__
    annotated = (one for info in model.model_fields.values() for one in info.metadata)
    return "__get_pydantic_core_schema__" not in vars(model) and bool(
        decorators.field_validators
        or decorators.model_validators
        or decorators.validators
        or decorators.root_validators
        or any(isinstance(one, AfterValidator) for one in annotated)
    )


def rule_problems(models: Sequence[BaseModel], compiled: CompiledModel) -> Iterator[Problem]:
    """What the model's own rules say of instances of it, which stay as they are."""
    if not asks_again(compiled):
        return
    validate, fields = compiled.model.__pydantic_validator__.validate_python, list(compiled.model.model_fields)
    broken: dict[tuple[str, str], list[int]] = {}
    for i, one in enumerate(models):
        values: dict[str, Any] = one.__dict__
        try:
            validate(
                {name: values[name] for name in fields} | (one.__pydantic_extra__ or {}), by_alias=False, by_name=True
            )
        except ValidationError as error:
            for told in error.errors(include_url=False):
                if told["type"] in _OWN:
                    where = ".".join(map(str, told["loc"])) or compiled.model.__name__
                    broken.setdefault((where, told["msg"]), []).append(i)
        except Exception:  # noqa: BLE001 - whatever else it raises, it did not when the instance was made
            continue
    yield from (Problem(where, rule, tuple(rows)) for (where, rule), rows in broken.items())


__all__ = ["asks_again", "rule_problems"]
