"""The building blocks of the config: sections, types of keys, and what is declared beside a key.

The docstring below a key describes it. `Annotated` holds its range and, where they apply, `Needs`
and `MayChange`. docs/configuration.md is generated from all of them.
"""

import dataclasses
from collections.abc import Callable
from typing import Annotated, Any, ClassVar, NamedTuple, TypeGuard

import pydantic
from pydantic import Field
from pydantic.fields import FieldInfo


@dataclasses.dataclass(frozen=True)
class Needs:
    """Declares beside a key that it has an effect only with certain values of other keys.

    reason: completes the sentence "KEY has no effect ...". switches: paths of the other keys.
    holds: a function of their values -> bool.
    """

    reason: str
    switches: tuple[str, ...]
    holds: Callable[..., bool]


def only_with(switch, *values) -> Needs:
    """The key needs one of these values of another key."""
    choices = " or ".join(filter(None, [", ".join(values[:-1]), values[-1]]))
    return Needs(f"unless {switch} is {choices}", (switch,), lambda value: value in values)


def only_if(switch) -> Needs:
    """The key needs another key that is set, above 0 or not empty."""
    return Needs(f"without {switch}", (switch,), bool)


@dataclasses.dataclass(frozen=True)
class MayChange:
    """Declares beside a key that a run may be resumed with another value.

    only_after_divergence: only if training diverged. consequence: what else changes, for the log.
    """

    only_after_divergence: bool = False
    consequence: str = ""


MAY_CHANGE = MayChange()
AFTER_DIVERGENCE = MayChange(only_after_divergence=True)

PositiveInt = Annotated[int, Field(gt=0)]
Count = Annotated[int, Field(ge=0)]
PositiveFloat = Annotated[float, Field(gt=0)]
NonNegativeFloat = Annotated[float, Field(ge=0)]
Probability = Annotated[float, Field(ge=0, le=1)]
Momentum = Annotated[float, Field(ge=0, lt=1)]
Fraction = Annotated[float, Field(gt=0, lt=1)]


def _check_order(limits):
    if limits[0] > limits[1]:
        raise ValueError("expected the smaller number first")
    return limits


Range = Annotated[tuple[float, float], pydantic.AfterValidator(_check_order)]
Factors = Annotated[
    tuple[NonNegativeFloat, NonNegativeFloat], pydantic.AfterValidator(_check_order)
]


class Section(pydantic.BaseModel):
    """A group of keys. Rejects unknown keys; instances are frozen.

    may_change: applies to every key of the section.
    """

    model_config = pydantic.ConfigDict(
        extra="forbid", frozen=True, allow_inf_nan=False, use_attribute_docstrings=True
    )
    may_change: ClassVar[MayChange | None] = None

    @pydantic.field_validator("*", mode="before")
    @classmethod
    def _reject_switches_as_numbers(cls, value, info):
        """Or `steps: true` would be one step."""
        values = value if isinstance(value, (list, tuple)) else [value]
        is_switch = cls.model_fields[info.field_name].annotation is bool
        if not is_switch and any(isinstance(item, bool) for item in values):
            raise ValueError("expected no switch (true, false, on, off, yes, no)")
        return value


class Key(NamedTuple):
    """A key of the config. may_change: None if a run keeps its value."""

    field: FieldInfo
    needs: list[Needs]
    may_change: MayChange | None


def list_keys(section: type[Section], prefix="") -> dict[str, Key]:
    """All keys of a section, then of those inside, by their paths such as train.steps."""
    own = {}
    nested = {}
    for name, field in section.model_fields.items():
        if is_section(field.annotation):
            nested |= list_keys(field.annotation, f"{prefix}{name}.")
            continue
        needs = [entry for entry in field.metadata if isinstance(entry, Needs)]
        permissions = [entry for entry in field.metadata if isinstance(entry, MayChange)]
        own[prefix + name] = Key(field, needs, next(iter(permissions), section.may_change))
    return own | nested


def is_section(annotation: Any) -> TypeGuard[type[Section]]:
    """Whether the annotation of a field is a Section."""
    return isinstance(annotation, type) and issubclass(annotation, Section)
