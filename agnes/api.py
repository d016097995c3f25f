"""The engine in one call, for Python."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from agnes import engine
from agnes.loading import LoadOptions, open_model
from agnes.registry import Registry
from agnes.results import Report

if TYPE_CHECKING:
    from agnes.backend import Precision, Progress
    from agnes.network import Network

Name = str | os.PathLike[str]


def scan(
    model: Name,
    data: Name | None = None,  # benign images; None: made from the model, and the verdict is worth less
    methods: Sequence[Any] = (),  # names as `agnes plugins` lists them, or instances
    *,
    settings: Mapping[str, Mapping[str, Any]] | None = None,  # method -> setting -> value
    output: Name | None = None,  # the run folder; nothing is written without one
    test_data: Name | None = None,  # labelled images for measuring and, without repair_data, for repair
    repair_data: Name | None = None,  # labelled images for repair
    only: bool = False,  # leave out stages that no method of `methods` serves
    repair: bool = False,  # with `only`: repair all the same, if a backdoor is found
    load: LoadOptions | None = None,
    seed: int = 0,
    device: str | None = None,
    precision: Precision = "float32",
    memory: int | None = None,  # bytes
    time_budget: float | None = None,  # seconds
    compact: bool = False,  # take channels without weights out of the repaired network
    max_accuracy_drop: float = 0.02,  # that a repair may cost before the next method is tried
    block: Sequence[str] = (),
    progress: Progress | None = None,
) -> Report:
    """Scan a model for backdoors, as `agnes run` does; no configuration file is read."""
    request = engine.Request(
        model=Path(model),
        data=_path(data),
        test_data=_path(test_data),
        repair_data=_path(repair_data),
        methods=tuple(methods),
        only=only,
        repair=repair,
        settings=settings or {},
        load=load or LoadOptions(),
        output=_path(output),
        seed=seed,
        device=device,
        precision=precision,
        memory=memory,
        time_budget=time_budget,
        compact=compact,
        max_accuracy_drop=max_accuracy_drop,
        block=tuple(block),
    )
    return engine.run(request, progress=progress)


def repair(
    model: Name,
    run: Name,  # the folder of a run of this model
    data: Name | None = None,  # benign images; None: those of the run
    methods: Sequence[Any] = (),  # of mitigation; none: the engine chooses
    *,
    test_data: Name | None = None,  # labelled images for measuring and, without repair_data, for repair
    repair_data: Name | None = None,  # labelled images for repair
    output: Name | None = None,  # the repaired model's file; nothing is written without one
    settings: Mapping[str, Mapping[str, Any]] | None = None,
    load: LoadOptions | None = None,
    seed: int = 0,
    device: str | None = None,
    precision: Precision = "float32",
    memory: int | None = None,
    time_budget: float | None = None,
    compact: bool = False,  # take channels without weights out of the repaired network
    max_accuracy_drop: float = 0.02,
    block: Sequence[str] = (),
    progress: Progress | None = None,
) -> Report:
    """Repair a model with what a run has found, as `agnes repair` does; the model itself is never changed."""
    request = engine.Request(
        model=Path(model),
        data=_path(data),
        test_data=_path(test_data),
        repair_data=_path(repair_data),
        methods=tuple(methods),
        settings=settings or {},
        load=load or LoadOptions(),
        seed=seed,
        device=device,
        precision=precision,
        memory=memory,
        time_budget=time_budget,
        compact=compact,
        max_accuracy_drop=max_accuracy_drop,
        block=tuple(block),
        findings=Path(run),
        repaired=_path(output),
    )
    return engine.run(request, progress=progress)


def open_network(model: Name, load: LoadOptions | None = None, *, block: Sequence[str] = ()) -> Network:
    """The Network in a model file, opened by whichever installed loader can."""
    return open_model(Path(model), load or LoadOptions(), Registry.discover(block)).network


def _path(name: Name | None) -> Path | None:
    return None if name is None else Path(name)
