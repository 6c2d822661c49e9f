"""Settings: frozen, strict pydantic models that are changed by dotted names, with errors a person can act on."""

import copy
from collections.abc import Iterator, Mapping
from typing import Any, Self, cast, get_args

import pydantic
from pydantic import BaseModel, ConfigDict, model_validator

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
        allow_inf_nan=False,  # neither has a meaning for a setting, nor a form in JSON
    )

    @model_validator(mode="before")
    @classmethod
    def _no_bool_as_number(cls, values: Any) -> Any:
        """Python counts `True` as 1; a person who writes `epochs=true` means something else."""
        if isinstance(values, Mapping):
            for name, value in cast("Mapping[str, Any]", values).items():
                field = cls.model_fields.get(name)
                if isinstance(value, bool) and field is not None and (field.annotation is int or field.annotation is float):
                    raise ValueError(f"{name} = {value} is not allowed: should be a number")
        return cast("Any", values)

    def with_values(self, values: Mapping[str, Any]) -> Self:
        """A validated copy with dotted names set, e.g. `{"train.optim.lr": 3e-4}`.

        A change of a union's `kind` drops the other kind's values, so that the new kind starts from its defaults.

        Raises:
            SettingsError: unknown name (with the nearest one), or a value outside what the setting allows.
        """
        tree = self.model_dump()
        fresh: set[str] = set()
        for name in sorted(values, key=lambda name: _precedence(name, values[name])):
            _set(type(self), tree, name, values[name], fresh)
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


def _precedence(name: str, value: Any) -> tuple[int, int]:
    """Whole sections come first, then kinds: what is set inside a section afterwards belongs to the new one."""
    order = 0 if isinstance(value, Mapping | BaseModel) else 1 if name.split(".")[-1] == "kind" else 2
    return order, name.count(".")


def _set(cls: type[BaseModel], tree: dict[str, Any], name: str, value: Any, fresh: set[str]) -> None:
    """Set a dotted name in a dumped tree; a new `kind` puts its defaults into its section.

    `fresh` collects sections that were replaced: validation will fill them and knows which names they may hold.
    """
    *sections, last = name.split(".")
    section, is_fresh = tree, False
    for depth, part in enumerate(sections):
        if is_fresh:
            section.setdefault(part, {})
        if part not in section:
            raise _unknown(name, ".".join(sections[:depth]), part, list(section))
        if not isinstance(section[part], dict):
            raise _unknown(name, ".".join(sections[: depth + 1]), last, [])
        section = cast("dict[str, Any]", section[part])
        is_fresh = is_fresh or ".".join(sections[: depth + 1]) in fresh
    if last not in section and not is_fresh:
        raise _unknown(name, ".".join(sections), last, list(section))
    if last == "kind" and section.get("kind") != value:
        section.clear()
        fresh.add(".".join(sections))
        for option in _options(cls, sections):
            if option.model_fields["kind"].default == value:
                section.update(option().model_dump())
    if isinstance(value, Mapping | BaseModel):
        fresh.add(name)
        # A copy: the caller's own must not change when more is set inside it.
        value = value.model_dump() if isinstance(value, BaseModel) else copy.deepcopy(dict(cast("Mapping[str, Any]", value)))
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
    if fault["type"] == "union_tag_invalid":
        context = fault.get("ctx", {})
        tag, allowed = str(context["tag"]), str(context["expected_tags"])
        return f"{name}.kind = {tag!r} is not allowed: should be one of {allowed};{did_you_mean(tag, kinds)}".rstrip(";")
    if fault["type"] == "union_tag_not_found":
        return f"setting {name + '.kind'!r} is required and was not given"
    message = fault["msg"].removeprefix("Value error, ").removeprefix("Input ")
    if fault["type"] in ("value_error", "assertion_error"):
        return f"{name}: {message}" if name else message
    if fault["type"] == "missing":
        return f"setting {name!r} is required and was not given"
    return f"{name or cls.__name__} = {fault['input']!r} is not allowed: {message}"


def settings_error(error: pydantic.ValidationError) -> SettingsError:
    """The error of a settings class that was called directly, as in a job file, as one sentence."""
    cls = next((cls for cls in _subclasses(Settings) if cls.__name__ == error.title), Settings)
    return SettingsError(_sentence(cls, error))


def _subclasses(cls: type[Settings]) -> Iterator[type[Settings]]:
    for sub in cls.__subclasses__():
        yield sub
        yield from _subclasses(sub)


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
    """Field names of the settings class at a location."""
    return [name for option in _options(cls, path) for name in option.model_fields]


def _options(cls: type[BaseModel], path: list[str]) -> list[type[BaseModel]]:
    """The settings class at a location, or those of its union; a kind may be part of the path."""
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
    return current
