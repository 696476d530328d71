"""A recipe: stages of training in order, each with the configuration that its command would read.

A file has `[recipe]`, maybe `[[tasks]]`, and one `[[stages]]` table per stage with `kind`, `name`
and the sections of that kind; `[[tasks]]` and the seed go to every stage that names none of its
own. `"@zero"` in a stage means what the earlier stage `zero` made: a model, a data folder, or
traces. Overrides are `STAGE.section.key=value`, `recipe.key=value` and `tasks.INDEX.key=value`.

Every stage is checked before the first one runs.
"""

import difflib
import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, cast

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from rorqual.config.distill import DistillRunConfig
from rorqual.config.eval import EvalConfig
from rorqual.config.model import first_error
from rorqual.config.presets import find_preset
from rorqual.config.rl import RLRunConfig
from rorqual.config.run import RunConfig

# The file's reader and the overrides of every command, here for the sections inside a stage.
from rorqual.config.sections import apply_override, config_from, read_config_file
from rorqual.config.sft import SFTRunConfig
from rorqual.config.tasks import TaskShare
from rorqual.errors import ConfigError

Result = Literal["data", "model", "traces", "nothing"]
_FOLDER = "speedrun"  # of the presets


class RecipeConfig(BaseModel):
    """What holds for the whole recipe."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    title: str = Field(description="heading of the report")
    seed: int = Field(0, ge=0, description="of every stage that sets none")


class CorpusStageConfig(BaseModel):
    """Worked examples, and text beside them."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    num_examples: int = Field(gt=0, description="worked examples drawn; repetitions are dropped")
    seed: int = Field(0, ge=0, description="of the problems")
    text: Path | None = Field(
        None, description="data folder whose text is taken over; None: worked examples alone"
    )


class CorpusStageRunConfig(BaseModel):
    """A data folder of the recipe's own: `[corpus]` and `[[tasks]]`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    corpus: CorpusStageConfig = Field(description="what goes in")
    tasks: tuple[TaskShare, ...] = Field(min_length=1, description="of the worked examples")


class RejectionConfig(BaseModel):
    """Rejection sampling: a model answers training problems, right answers are kept."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    model: Path = Field(description="model directory or run folder that is asked")
    seed: int = Field(0, ge=0, description="problems and samples")
    num_problems: int = Field(512, gt=0, description="training problems asked")
    problems_per_batch: int = Field(32, gt=0, description="problems sampled at once")
    samples_per_problem: int = Field(4, gt=0, description="completions per problem")
    traces_per_problem: int = Field(1, gt=0, description="different right ones kept of one")
    max_completion_length: int = Field(64, gt=0, description="tokens; longer ones are not kept")
    temperature: float = Field(1.0, gt=0, description="of the samples")
    thinking: Literal["free", "forced"] = Field(
        "free", description="forced: the prompt already opens <think>, direct answers are not kept"
    )
    kernels: Literal["auto", "native", "twin"] = Field("auto", description="which kernels run")
    num_threads: int | None = Field(None, gt=0, description="CPU threads; None: physical cores")


class RejectionRunConfig(BaseModel):
    """`[rejection]` and `[[tasks]]`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    rejection: RejectionConfig = Field(description="the sampling")
    tasks: tuple[TaskShare, ...] = Field(min_length=1, description="what is asked")


class EvalStageConfig(EvalConfig):
    """An evaluation of several models on the same problems."""

    models: tuple[Path, ...] = Field(min_length=1, description="model directories or run folders")


class EvalStageRunConfig(BaseModel):
    """`[eval]` and `[[tasks]]`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    eval: EvalStageConfig = Field(description="the evaluation")
    tasks: tuple[TaskShare, ...] = Field(min_length=1, description="what is asked")


@dataclass(frozen=True, slots=True)
class _Kind:
    """A kind of stage: its configuration, where its seed stands, what it leaves."""

    config: type[BaseModel]
    seeded: str
    result: Result


KINDS: dict[str, _Kind] = {
    "corpus": _Kind(CorpusStageRunConfig, "corpus", "data"),
    "pretrain": _Kind(RunConfig, "train", "model"),
    "rl": _Kind(RLRunConfig, "rl", "model"),
    "sft": _Kind(SFTRunConfig, "train", "model"),
    "rejection": _Kind(RejectionRunConfig, "rejection", "traces"),
    "distill": _Kind(DistillRunConfig, "distill", "model"),
    "eval": _Kind(EvalStageRunConfig, "eval", "nothing"),
}
# The keys at which "@stage" is a reference, and what it must have left.
_WANTED: dict[str, Result] = {
    "root": "data",
    "files": "traces",
    **dict.fromkeys(("model", "models", "teacher", "student", "tokenizer"), "model"),
}


class StageHead(BaseModel):
    """What a `[[stages]]` table says beside the sections of its kind."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: Literal["corpus", "pretrain", "rl", "sft", "rejection", "distill", "eval"] = Field(
        description="what is done"
    )
    name: str = Field(
        pattern=r"^[a-z][a-z0-9_-]*$", description="what later stages call its result"
    )
    expected_seconds: float | None = Field(
        None, gt=0, description="on the machine the recipe was made on; for the time left"
    )


@dataclass(frozen=True, slots=True)
class Stage:
    """One stage. config: of its kind's type, with references to earlier stages still in it."""

    head: StageHead
    config: BaseModel

    @property
    def name(self) -> str:
        """What later stages and overrides call it."""
        return self.head.name

    def values(self) -> dict[str, Any]:
        """What decides the outcome, as JSON holds it."""
        return {"kind": self.head.kind} | self.config.model_dump(mode="json")

    @property
    def digest(self) -> str:
        """Names the configuration."""
        text = json.dumps(self.values(), sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    def resolved(self, results: dict[str, Path]) -> Any:
        """The configuration with earlier stages' results in the place of references."""
        values = _map_references(self.config.model_dump(mode="json"), results)
        return type(self.config).model_validate(values)


@dataclass(frozen=True, slots=True)
class Pipeline:
    """A recipe as read: stages in order."""

    recipe: RecipeConfig
    stages: tuple[Stage, ...]
    source: Path


def load_recipe(name_or_path: str, overrides: tuple[str, ...] = ()) -> Pipeline:
    """Read a shipped recipe by name or a TOML by path, and check every stage of it."""
    is_file = Path(name_or_path).expanduser().is_file()
    path = find_preset(name_or_path if is_file else f"{_FOLDER}/{name_or_path}")
    raw = read_config_file(path)
    _check_keys(raw, ["recipe", "tasks", "stages"], str(path))
    tables = _stage_tables(raw.get("stages"), path)
    heads = [_head(table, f"{path}: stage {number}") for number, table in enumerate(tables, 1)]
    _check_names(heads, path)
    places = {head.name: place for place, head in enumerate(heads)}
    for override in overrides:
        if override.partition(".")[0] not in places:
            _apply_to_recipe(raw, override, list(places))
    common = config_from(_Common, {k: v for k, v in raw.items() if k != "stages"}, str(path))
    for head, table in zip(heads, tables, strict=True):
        _inherit(head, table, common)
    for override in overrides:
        stage, _, rest = override.partition(".")
        if stage in places:
            place = places[stage]
            apply_override(KINDS[heads[place].kind].config, tables[place], rest)
    stages = tuple(
        Stage(head, config_from(KINDS[head.kind].config, table, f"{path}: stage {head.name}"))
        for head, table in zip(heads, tables, strict=True)
    )
    _check_references(stages, path)
    return Pipeline(common.recipe, stages, path)


class _Common(BaseModel):
    """The part of the file that is not stages."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    recipe: RecipeConfig = Field(description="the whole")
    tasks: tuple[TaskShare, ...] = Field((), description="of every stage that names none")


def _check_keys(raw: dict[str, Any], known: list[str], place: str) -> None:
    for key in raw:
        if key not in known:
            nearest = difflib.get_close_matches(key, known, n=1)
            hint = f"did you mean {nearest[0]}?" if nearest else f"known: {', '.join(known)}"
            raise ConfigError(f"{place}: unknown key {key}; {hint}")


def _stage_tables(stages: object, path: Path) -> list[dict[str, Any]]:
    listed = cast("list[object]", stages) if isinstance(stages, list) else []
    if not listed or not all(isinstance(table, dict) for table in listed):
        raise ConfigError(f"{path}: there is no [[stages]]; add one table per stage")
    return cast("list[dict[str, Any]]", listed)


def _head(table: dict[str, Any], place: str) -> StageHead:
    """Takes the head out of a stage's table, which keeps the sections."""
    kind = table.get("kind")
    place = f"{place} ({table.get('name', 'without a name')})"
    if kind not in KINDS:
        nearest = difflib.get_close_matches(str(kind), list(KINDS), n=1)
        hint = f"did you mean {nearest[0]}?" if nearest else f"expected one of {', '.join(KINDS)}"
        raise ConfigError(f"{place}: kind={kind!r}; {hint}")
    heads = list(StageHead.model_fields)
    _check_keys(table, heads + list(KINDS[kind].config.model_fields), place)
    try:
        return StageHead(**{key: table.pop(key) for key in heads if key in table})
    except ValidationError as error:
        raise ConfigError(f"{place}: {first_error(error)}") from error


def _check_names(heads: list[StageHead], path: Path) -> None:
    names = [head.name for head in heads]
    for name in names:
        if names.count(name) > 1 or name in _Common.model_fields:
            raise ConfigError(f"{path}: stage name {name!r} is taken; give each stage its own")


def _apply_to_recipe(raw: dict[str, Any], override: str, names: list[str]) -> None:
    section = override.partition("=")[0].partition(".")[0]
    known = [*_Common.model_fields, *names]
    if section not in _Common.model_fields:
        nearest = difflib.get_close_matches(section, known, n=1)
        hint = f"did you mean {nearest[0]}?" if nearest else f"known: {', '.join(known)}"
        raise ConfigError(f"override {override!r}: there is no stage {section!r}; {hint}")
    apply_override(_Common, raw, override)


def _inherit(head: StageHead, table: dict[str, Any], common: _Common) -> None:
    """Fill in the recipe's seed and tasks where the stage has none."""
    kind = KINDS[head.kind]
    section = table.setdefault(kind.seeded, {})
    if isinstance(section, dict):
        cast("dict[str, Any]", section).setdefault("seed", common.recipe.seed)
    draws = head.kind != "sft" or table.get("sft", {}).get("num_examples", 0) > 0
    if "tasks" in kind.config.model_fields and "tasks" not in table and draws and common.tasks:
        table["tasks"] = [share.model_dump(mode="json") for share in common.tasks]


def _references(value: object, key: str = "") -> Iterator[tuple[str, str]]:
    """(key it stands at, stage) of every reference in a configuration."""
    if isinstance(value, dict):
        for name, part in cast("dict[str, object]", value).items():
            yield from _references(part, name)
    elif isinstance(value, list):
        for part in cast("list[object]", value):
            yield from _references(part, key)
    elif _is_reference(value, key):
        yield key, str(value)[1:]


def _is_reference(value: object, key: str) -> bool:
    return isinstance(value, str) and value.startswith("@") and key in _WANTED


def _map_references(value: object, results: dict[str, Path], key: str = "") -> Any:
    if isinstance(value, dict):
        named = cast("dict[str, object]", value)
        return {name: _map_references(part, results, name) for name, part in named.items()}
    if isinstance(value, list):
        return [_map_references(part, results, key) for part in cast("list[object]", value)]
    return str(results[str(value)[1:]]) if _is_reference(value, key) else value


def _check_references(stages: tuple[Stage, ...], path: Path) -> None:
    """Every reference is to an earlier stage that leaves what is wanted there."""
    made: dict[str, Result] = {}
    for stage in stages:
        for key, name in _references(stage.config.model_dump(mode="json")):
            wanted = _WANTED[key]
            if made.get(name) != wanted:
                fitting = [f"@{earlier}" for earlier, result in made.items() if result == wanted]
                what = f"leaves {made[name]}" if name in made else "is no earlier stage"
                raise ConfigError(
                    f"{path}: stage {stage.name}: {key}=@{name}: {name} {what}, expected one that "
                    f"leaves {wanted}: {', '.join(fitting) or 'none so far'}"
                )
        made[stage.name] = KINDS[stage.head.kind].result
