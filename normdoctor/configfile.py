"""Reading `[tool.normdoctor]` or `normdoctor.toml`: every mistake names the file, the key and a way out."""

from __future__ import annotations

import os
import re
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import msgspec

from normdoctor.config import BATCHES, FAIL_ON, LEVELS, Settings, anchor, check_count, check_timeout
from normdoctor.errors import ConfigError, NormDoctorError, near
from normdoctor.findings import Confidence
from normdoctor.rules import find_rule
from normdoctor.selection import parse_selector, unknown_rule_hint

OWN_FILE = "normdoctor.toml"
#: The keys that hold selectors.
SELECTORS = (
    *("select", "ignore", "extend-select"),
    *("fixable", "unfixable", "extend-safe-fixes", "extend-unsafe-fixes"),
)
#: The roles that `roles` may give to a function or class.
ROLES = (
    *("norm", "activation", "linear", "dropout", "add", "gate", "concat", "pool"),
    *("reshape", "reduce", "softmax", "attention", "loss", "other"),
)


def _about(text: str) -> msgspec.Meta:
    return msgspec.Meta(description=text)


class File(msgspec.Struct, frozen=True, kw_only=True, rename="kebab", forbid_unknown_fields=True):
    """The keys of a configuration file, their types, and what they mean."""

    targets: Annotated[list[str] | dict[str, str], _about("What is checked when no target is given.")] = []
    select: Annotated[list[str], _about("The rules that run: codes, prefixes, names or ALL.")] = []
    ignore: Annotated[list[str], _about("Rules that do not run.")] = []
    extend_select: Annotated[list[str], _about("Rules that run besides `select`.")] = []
    preview: Annotated[bool, _about("Run rules in preview too.")] = False
    fail_on: Annotated[str, _about("The severity from which on a finding fails the run.")] = "warning"
    min_confidence: Annotated[str, _about("Findings below are counted, not shown.")] = "medium"
    output_format: Annotated[str, _about("How `check` writes its report.")] = "full"
    rules: Annotated[dict[str, str], _about("Rule to error, warning, info or ignore.")] = {}
    options: Annotated[dict[str, dict[str, Any]], _about("Rule to its options.")] = {}
    per_file_ignores: Annotated[dict[str, list[str]], _about("Glob of files to rules.")] = {}
    per_module_ignores: Annotated[dict[str, list[str]], _about("Glob of module paths to rules.")] = {}
    fixable: Annotated[list[str], _about("The rules whose findings `--fix` may fix.")] = []
    unfixable: Annotated[list[str], _about("Rules whose findings it may not fix.")] = []
    extend_safe_fixes: Annotated[list[str], _about("Rules whose unsafe fixes count as safe.")] = []
    extend_unsafe_fixes: Annotated[list[str], _about("Rules whose safe fixes count as unsafe.")] = []
    baseline: Annotated[str | None, _about("The file of findings that are known.")] = None
    inputs: Annotated[
        list[str] | dict[str, str | list[str]], _about("Inputs of every target, or target to its inputs.")
    ] = []
    roles: Annotated[dict[str, str], _about("Function or module class to its role.")] = {}
    loss: Annotated[str | None, _about("The loss that the output goes to, by its name.")] = None
    data: Annotated[str | None, _about("Batches for measured rules, by their name, or synthetic.")] = None
    batches: Annotated[int, _about("How many batches of the data are read.")] = BATCHES
    batch_size: Annotated[int | None, _about("The batch size of the training.")] = None
    device: Annotated[str | None, _about("Where given inputs are put.")] = None
    import_timeout: Annotated[float | None, _about("Seconds after which an import is stopped.")] = None


def load_settings(
    config: Path | None = None, *, isolated: bool = False, start: Path | None = None
) -> Settings:
    """Read the settings of the nearest configuration file, or of `config`; defaults when isolated."""
    if isolated:
        return Settings()
    path = config or find(start or Path.cwd())
    return read(path) if path else Settings()


def given_keys(config: Path | None = None, *, isolated: bool = False) -> tuple[Path | None, frozenset[str]]:
    """The configuration file that `load_settings` reads, and the keys that stand in it."""
    path = None if isolated else config or find(Path.cwd())
    return (path, frozenset(_Reader(path).table)) if path else (None, frozenset())


def find(start: Path) -> Path | None:
    """The nearest configuration file at `start` or above; the nearest wins, none are merged."""
    for folder in (start, *start.parents):
        if (folder / OWN_FILE).is_file():
            return folder / OWN_FILE
        pyproject = folder / "pyproject.toml"
        if pyproject.is_file() and _own_table(_parse(pyproject)) is not None:
            return pyproject
    return None


def read(path: Path) -> Settings:
    """Read and check one configuration file."""
    return _Reader(path).settings()


def _parse(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise ConfigError(f"no such file: {path}", hint="`--config` takes a TOML file.") from error
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} cannot be read: {error}") from error
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{path}: not valid TOML: {error}") from error


def _own_table(parsed: dict[str, Any]) -> Any:
    tool = parsed.get("tool")
    return tool.get("normdoctor") if isinstance(tool, dict) else None


class _Reader:
    """One file's table on its way to `Settings`, with the names for error messages."""

    def __init__(self, path: Path) -> None:
        self.path = path
        table = _parse(path)
        own = _own_table(table)
        self.prefix = ""
        if path.name == "pyproject.toml" or own is not None:
            self.prefix = "tool.normdoctor."
            table = {} if own is None else own
        self.table = table
        self.file = self._convert(table)

    def fail(self, key: str, message: str, hint: str | None = None) -> ConfigError:
        where = f"{self.prefix}{key}".rstrip(".")
        return ConfigError(f"{self.path.name}: {where}: {message}".replace(": : ", ": "), hint=hint)

    def _convert(self, table: Any) -> File:
        if not isinstance(table, Mapping):
            raise self.fail("", f"expected a table, found {table!r}")
        known = list(File.__struct_encode_fields__)
        for key in table:
            if key not in known:
                raise self.unknown(key, known)
        try:
            return msgspec.convert(table, File)
        except msgspec.ValidationError as error:
            raise self.fail(*located(error)) from error

    def unknown(self, key: str, known: list[str]) -> ConfigError:
        hint = near(key.rpartition(".")[2], known)
        message = f"unknown option, {hint[0].lower()}{hint[1:]}" if hint else "unknown option"
        listed = f"Known are: {', '.join(known)}." if known else "There are none here."
        return self.fail(key, message, None if hint else listed)

    def settings(self) -> Settings:
        file = self.file
        root = self.path.parent
        for key in SELECTORS:
            self.selectors(key, getattr(file, key.replace("-", "_")))
        self.one_of("fail-on", file.fail_on, FAIL_ON)
        self.one_of("min-confidence", file.min_confidence, tuple(Confidence))
        self.output_format(file.output_format)
        self.timeout(file.import_timeout)
        self.count("batches", file.batches)
        if file.batch_size is not None:
            self.count("batch-size", file.batch_size)
        for name, role in file.roles.items():
            self.one_of(f"roles.{name}", role, ROLES)
        aliases = file.targets if isinstance(file.targets, dict) else {}
        specs = list(file.targets.values()) if isinstance(file.targets, dict) else file.targets
        shared = tuple(file.inputs) if isinstance(file.inputs, list) else ()
        return Settings(
            targets=tuple(anchor(spec, root) for spec in specs),
            aliases={name: anchor(spec, root) for name, spec in aliases.items()},
            select=tuple(file.select),
            ignore=tuple(file.ignore),
            extend_select=tuple(file.extend_select),
            preview=file.preview,
            fixable=tuple(file.fixable),
            unfixable=tuple(file.unfixable),
            extend_safe_fixes=tuple(file.extend_safe_fixes),
            extend_unsafe_fixes=tuple(file.extend_unsafe_fixes),
            levels=self.levels(),
            options=self.options(),
            fail_on=file.fail_on,
            min_confidence=Confidence(file.min_confidence),
            output_format=file.output_format,
            per_file_ignores=self.ignores("per-file-ignores", file.per_file_ignores),
            per_module_ignores=self.ignores("per-module-ignores", file.per_module_ignores),
            inputs=shared,
            target_inputs=self.target_inputs(aliases),
            baseline=None if file.baseline is None else Path(os.path.relpath(root / file.baseline)),
            roles=file.roles,
            loss=file.loss and anchor(file.loss, root),
            data=file.data and anchor(file.data, root),
            batches=file.batches,
            batch_size=file.batch_size,
            device=file.device,
            import_timeout=file.import_timeout,
            root=root,
        )

    def selectors(self, key: str, values: list[str]) -> None:
        for value in values:
            try:
                parse_selector(value)
            except NormDoctorError as error:
                raise self.fail(key, error.message, error.hint) from error

    def one_of(self, key: str, value: str, allowed: tuple[str, ...]) -> None:
        if value not in allowed:
            expected = ", ".join(f"`{item}`" for item in allowed)
            raise self.fail(key, f"expected one of {expected}; found `{value}`", near(value, list(allowed)))

    def output_format(self, value: str) -> None:
        from normdoctor.output import format_names

        self.one_of("output-format", value, format_names())

    def timeout(self, value: float | None) -> None:
        try:
            check_timeout(value)
        except NormDoctorError as error:
            raise self.fail("import-timeout", error.message) from error

    def count(self, key: str, value: int) -> None:
        try:
            check_count(value, "a number")
        except NormDoctorError as error:
            raise self.fail(key, error.message) from error

    def levels(self) -> dict[str, str]:
        found = {}
        for key, level in self.file.rules.items():
            self.one_of(f"rules.{key}", level, LEVELS)
            found[self.code(f"rules.{key}", key)] = "warning" if level == "warn" else level
        return found

    def options(self) -> dict[str, dict[str, Any]]:
        found = {}
        for key, values in self.file.options.items():
            code = self.code(f"options.{key}", key)
            rule = find_rule(code)
            assert rule is not None
            fields = [field.replace("_", "-") for field in rule.Options.__struct_fields__]
            for name in values:
                if name.replace("_", "-") not in fields:
                    raise self.unknown(f"options.{key}.{name}", fields)
            found[code] = {name.replace("-", "_"): value for name, value in values.items()}
            try:
                msgspec.convert(found[code], rule.Options)
            except msgspec.ValidationError as error:
                where, message = located(error)
                raise self.fail(f"options.{key}.{where.replace('_', '-')}", message) from error
        return found

    def code(self, place: str, key: str) -> str:
        rule = find_rule(key)
        if rule is None:
            raise self.fail(place, f"unknown rule `{key}`", unknown_rule_hint(key))
        return rule.code

    def ignores(self, key: str, table: dict[str, list[str]]) -> dict[str, tuple[str, ...]]:
        for pattern, selectors in table.items():
            self.selectors(f'{key}."{pattern}"', selectors)
        return {pattern: tuple(selectors) for pattern, selectors in table.items()}

    def target_inputs(self, aliases: dict[str, str]) -> dict[str, tuple[str, ...]]:
        if isinstance(self.file.inputs, list):
            return {}
        return {
            anchor(aliases.get(target, target), self.path.parent): (specs,)
            if isinstance(specs, str)
            else tuple(specs)
            for target, specs in self.file.inputs.items()
        }


def located(error: msgspec.ValidationError) -> tuple[str, str]:
    """Split msgspec's "Expected `array`, got `str` - at `$.select`" into the key and the message."""
    message, _, place = str(error).partition(" - at ")
    key = re.sub(r"^key in ", "", place).strip("`").removeprefix("$").removeprefix(".")
    message = message.replace(" | null", "").replace("object", "table")
    return key, re.sub(r"^Expected (.*), got (.*)$", r"expected \1, found \2", message)
