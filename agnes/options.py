"""The options of a run: typed by the user, over those of a configuration file, over the defaults."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from agnes import settings
from agnes.errors import UsageError

if TYPE_CHECKING:
    from agnes.engine import Request

_BYTES = {"": 1, "k": 1 << 10, "m": 1 << 20, "g": 1 << 30, "t": 1 << 40}
_SECONDS = {"": 1, "s": 1, "m": 60, "h": 3600}


@dataclass(frozen=True)
class RunOptions:
    """What `agnes run` takes, and agnes.toml may hold at its top."""

    data: Path | None = None  # benign images
    test_data: Path | None = None  # labelled images for measuring and, without repair_data, for repair
    repair_data: Path | None = None  # labelled images for repair
    plugin: tuple[str, ...] = ()  # methods to use
    only: bool = False  # leave out stages that no named method serves
    repair: bool = False  # with only: repair all the same
    compact: bool = False  # take channels without weights out of the repaired model
    output: Path | None = None  # the run folder
    seed: int = 0  # of everything random
    device: str | None = None  # cpu, cuda, cuda:1, mps
    precision: Literal["float32", "tf32", "bfloat16"] = "float32"  # of the arithmetic
    memory: str | int | None = None  # for one chunk of work, as in 512M or 4G
    time_budget: str | int | float | None = None  # as in 90, 5m or 1h
    block: tuple[str, ...] = ()  # plugins or distributions to leave out
    max_accuracy_drop: float = 0.02  # that a repair may cost before the next method is tried
    report: tuple[str, ...] = ()  # further reports
    arch: str | None = None  # the architecture of a file that holds weights only
    mean: tuple[float, ...] = (0.0,)  # of the preprocessing
    std: tuple[float, ...] = (1.0,)  # of the preprocessing
    scale: float = 1.0  # of the preprocessing
    layout: Literal["auto", "NCHW", "NHWC"] = "auto"  # of the file's own input
    input_shape: tuple[int, ...] | None = None  # channels,height,width where the file does not say


def resolved(typed: Mapping[str, Any], config: settings.Config) -> RunOptions:
    """The options as typed, then as configured, then as they are; None counts as not typed."""
    origin = " and ".join(Path(source).name for source in config.sources) or "the configuration"
    configured = settings.typed(RunOptions, origin, config.run)
    given = {name: value for name, value in typed.items() if value is not None and value != () and value != []}
    return RunOptions(**{**configured, **settings.typed(RunOptions, "agnes run", _as_text(given))})


def among(values: Mapping[str, Any]) -> dict[str, Any]:
    """Those of a command's values that are options of a run."""
    return {name: value for name, value in values.items() if name in RunOptions.__dataclass_fields__}


def request_of(
    model: Path,
    options: RunOptions,
    assigned: settings.Assignments,
    config: settings.Config,
    *,
    trust_model_code: bool = False,
) -> Request:
    """A run of these options."""
    from agnes.engine import Request

    return Request(
        model=model,
        data=options.data,
        test_data=options.test_data,
        repair_data=options.repair_data,
        methods=options.plugin,
        only=options.only,
        repair=options.repair,
        compact=options.compact,
        settings=assigned,
        config=config.plugins,
        load=load_options(options, trust_model_code=trust_model_code),
        output=options.output or free_folder(model),
        seed=options.seed,
        device=options.device,
        precision=options.precision,
        memory=None if options.memory is None else size(options.memory),
        time_budget=None if options.time_budget is None else duration(options.time_budget),
        block=options.block,
        reports=options.report,
        max_accuracy_drop=options.max_accuracy_drop,
    )


def load_options(options: RunOptions, *, trust_model_code: bool = False) -> Any:
    """What these options say of the model file."""
    from agnes.loading import LoadOptions

    return LoadOptions(
        arch=options.arch,
        mean=options.mean,
        std=options.std,
        scale=options.scale,
        layout=options.layout,
        input_shape=options.input_shape,
        trust_model_code=trust_model_code,
    )


def free_folder(model: Path, parent: Path | None = None) -> Path:
    """runs/NAME, or runs/NAME-2 and so on where that is taken."""
    folder = (parent or Path("runs")) / (model.stem or "model")
    number = 2
    while folder.exists():
        folder = folder.with_name(f"{model.stem or 'model'}-{number}")
        number += 1
    return folder


def size(text: str | int) -> int:
    """Bytes: 512M, 4G, 1.5 GiB or a plain number."""
    return int(_with_unit(text, _BYTES, r"([kmgt]?)(?:i?b)?", "a memory size, as in 512M or 4G"))


def duration(text: str | int | float) -> float:
    """Seconds: 90, 90s, 5m or 1h."""
    return _with_unit(text, _SECONDS, r"([smh]?)", "a duration, as in 90, 5m or 1h")


def _with_unit(text: str | int | float, units: Mapping[str, int], pattern: str, wanted: str) -> float:
    match = re.fullmatch(rf"([0-9]+(?:\.[0-9]+)?)\s*{pattern}", str(text).strip().lower())
    if match is None or float(match[1]) <= 0:
        raise UsageError(f"'{text}' is not {wanted}")
    return float(match[1]) * units[match[2]]


def _as_text(given: Mapping[str, Any]) -> dict[str, Any]:
    """Typed words as words to be read by type; lists as lists of such."""
    return {name: _word(value) for name, value in given.items()}


def _word(value: Any) -> Any:
    if isinstance(value, str):
        return settings.Text(value)
    if isinstance(value, Sequence):
        return tuple(settings.Text(item) if isinstance(item, str) else item for item in value)
    return value
