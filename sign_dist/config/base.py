"""Settings: frozen, strict pydantic models that are changed by dotted names, with errors a person can act on."""

from collections.abc import Mapping
from typing import Any, Self, cast, get_args

import pydantic
from pydantic import BaseModel, ConfigDict

from sign_dist.errors import SettingsError, did_you_mean


class Settings(BaseModel):
    """Base of every settings class. Unknown names are errors, instances cannot be changed, only copied.

    >>> class Optim(Settings):
    ...     lr: float = 1e-3
    >>> class Train(Settings):
    ...     optim: Optim = Optim()
    >>> Train().with_values({"optim.lr": "3e-4"}).optim.lr
    0.0003
    """

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        validate_default=True,
        coerce_numbers_to_str=True,
        protected_namespaces=(),
        ser_json_inf_nan="strings",
    )

    def with_values(self, values: Mapping[str, Any]) -> Self:
        """A validated copy with dotted names set, e.g. `{"train.optim.lr": 3e-4}`.

        A change of a union's `kind` drops the other kind's values, so that the new kind starts from its defaults.

        Raises:
            SettingsError: unknown name (with the nearest one), or a value outside what the setting allows.
        """
        tree = self.model_dump()
        # A union's kind comes first: what is set inside it afterwards belongs to the new kind.
        for name in sorted(values, key=lambda name: (not name.endswith("kind"), name.count("."))):
            _set(tree, name, values[name])
        return self.from_tree(tree)

    @classmethod
    def from_tree(cls, tree: Mapping[str, Any]) -> Self:
        """Validate a nested dict, as read from JSON or YAML.

        Raises:
            SettingsError: the first fault found, as one sentence.
        """
        try:
            return cls.model_validate(tree)
        except pydantic.ValidationError as error:
            raise SettingsError(_sentence(cls, error)) from None

    def flat(self) -> dict[str, Any]:
        """Every setting by its dotted name."""
        return _flatten(self.model_dump(mode="json"))


def _flatten(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in tree.items():
        if isinstance(value, dict):
            flat |= _flatten(cast("dict[str, Any]", value), f"{prefix}{name}.")
        else:
            flat[prefix + name] = value
    return flat


def _set(tree: dict[str, Any], name: str, value: Any) -> None:
    """Set a dotted name in a dumped tree; a new `kind` empties its section."""
    *sections, last = name.split(".")
    section = tree
    for depth, part in enumerate(sections):
        if part not in section:
            raise _unknown(name, ".".join(sections[:depth]), part, list(section))
        if not isinstance(section[part], dict):
            raise _unknown(name, ".".join(sections[: depth + 1]), last, [])
        section = cast("dict[str, Any]", section[part])
    if last == "kind" and section.get("kind") != value:
        section.clear()
    elif section and last not in section and set(section) != {"kind"}:
        raise _unknown(name, ".".join(sections), last, list(section))
    section[last] = value


def _unknown(name: str, where: str, word: str, known: list[str]) -> SettingsError:
    place = f"{where!r} has" if where else "there are"
    if not known:
        return SettingsError(f"no setting {name!r}: {where!r} is a single value, not a section")
    return SettingsError(f"no setting {name!r}: {place} {', '.join(sorted(known))};{did_you_mean(word, known)}".rstrip(";"))


def _sentence(cls: type[BaseModel], error: pydantic.ValidationError) -> str:
    """The first fault of a validation, with its dotted name, the value got and what is allowed."""
    fault = error.errors(include_url=False)[0]
    # A discriminated union puts the chosen kind into the location: it is no part of the dotted name.
    kinds = _kinds(cls)
    parts = [str(part) for part in fault["loc"]]
    name = ".".join(part for i, part in enumerate(parts) if not (i and part in kinds))
    if fault["type"] == "extra_forbidden":
        known = sorted(_known(cls, parts[:-1]))
        return f"no setting {name!r}: known there are {', '.join(known)};{did_you_mean(parts[-1], known)}".rstrip(";")
    message = fault["msg"].removeprefix("Value error, ").removeprefix("Input ")
    if fault["type"] in ("value_error", "assertion_error"):
        return f"{name}: {message}" if name else message
    if fault["type"] == "missing":
        return f"setting {name!r} is required and was not given"
    return f"{name} = {fault['input']!r} is not allowed: {message}"


def _kinds(cls: type[BaseModel]) -> set[str]:
    kinds: set[str] = set()
    for field in cls.model_fields.values():
        options = get_args(field.annotation) or (field.annotation,)
        for option in options:
            if isinstance(option, type) and issubclass(option, BaseModel):
                kinds |= _kinds(option)
                if "kind" in option.model_fields:
                    kinds.add(str(option.model_fields["kind"].default))
    return kinds


def _known(cls: type[BaseModel], path: list[str]) -> list[str]:
    """Field names of the settings class at a location, through unions."""
    current = [cls]
    for part in path:
        following: list[type[BaseModel]] = []
        for option in current:
            field = option.model_fields.get(part)
            annotations = (get_args(field.annotation) or (field.annotation,)) if field else ()
            following += [a for a in annotations if isinstance(a, type) and issubclass(a, BaseModel)]
        if not following:  # the part was a union's kind
            following = [c for c in current if "kind" in c.model_fields and c.model_fields["kind"].default == part]
        current = following or current
    return [name for option in current for name in option.model_fields]
