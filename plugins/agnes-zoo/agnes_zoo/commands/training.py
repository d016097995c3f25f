"""What `agnes zoo train` and `agnes zoo samples` do."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
import typer

from agnes.errors import UsageError
from agnes.reports.environment import versions
from agnes.reports.folder import write_text, writing
from agnes.reports.json import plain
from agnes_zoo.commands.arguments import fitted
from agnes_zoo.commands.progress import shown, told_epochs
from agnes_zoo.dealing import DataPlan, deal, write_images, write_samples
from agnes_zoo.making import Made, Plan, check, make
from agnes_zoo.manifest import sha256_of
from agnes_zoo.stopping import asked_to_stop
from agnes_zoo.training import Regime, Stopped, Watch
from agnes_zoo.writing import check_suffix, write

INTERRUPTED = 130
_SCHEMA_VERSION = "1.0"  # of the truth file
_TEST = 20  # images of each class that accuracy and success are measured on


def planned(
    arch: str, data: str, attack: str | None, options: Mapping[str, Any], regime: Mapping[str, Any], images: int | None
) -> Plan:
    """The plan that a command line amounts to."""
    plan = Plan(arch, _data(data, regime["seed"], images), Regime(**regime), attack, _options(attack, options))
    check(plan)
    return plan


def _data(name: str, seed: int, images: int | None) -> DataPlan:
    return DataPlan(name, seed, images, samples=1, test=0, held_out=_TEST)


def _options(attack: str | None, options: Mapping[str, Any]) -> dict[str, Any]:
    if attack is None:
        if options:
            raise UsageError("a clean network has no options to --set; name an --attack")
        return {}
    from agnes_zoo.attacks import find

    return fitted(options, find(attack).options)


def trained(plan: Plan, output: Path, threads: int | None, device: str, quiet: bool) -> int:
    """Train, write the network and the truth; the exit code."""
    check_suffix(output)
    if threads is not None:
        torch.set_num_threads(_at_least_one(threads))
    with writing(output):
        output.parent.mkdir(parents=True, exist_ok=True)
        work = output.with_name(f".{output.name}.work")
        with shown(plan.arch, quiet) as seen, asked_to_stop() as stop:
            watch = Watch(told_epochs(seen, plan.regime.epochs), seen.step, stop)
            try:
                done = make(plan, work=work, watch=watch, device=_device(device))
            except Stopped as stopped:
                said = f"interrupted in epoch {stopped.epoch}; the same command goes on from there"
                typer.echo(f"agnes: {said}", err=True)
                return INTERRUPTED
        write(done.module, output, deal(plan.data).shape)
        truth = _truth_file(done, output)
        if work.exists():
            work.rmdir()
    if not quiet:
        typer.echo(_summary(done.truth, output, truth))
    return 0


def _device(name: str) -> torch.device:
    from agnes.backend import Backend

    return Backend.choose(name).device


def _at_least_one(threads: int) -> int:
    if threads < 1:
        raise UsageError(f"--threads takes a number from 1 on, not {threads}")
    return threads


def _truth_file(done: Made, output: Path) -> Path:
    """The truth beside the network; a scan reads neither this file nor anything like it."""
    path = output.with_suffix(".truth.json")
    said = {"schema_version": _SCHEMA_VERSION, "sha256": sha256_of(output), **done.truth, "versions": versions()}
    write_text(path, json.dumps(plain(said), indent=1) + "\n")
    return path


def _summary(truth: Mapping[str, Any], output: Path, card: Path) -> str:
    success = "" if truth["asr"] is None else f", attack success {truth['asr']:.1%}"
    return (
        f"{output}: {truth['arch']}, {truth['parameters']:,} parameters, accuracy {truth['accuracy']:.1%}{success}, "
        f"{truth['seconds']:.0f} s\nthe truth is in {card}"
    )


def sampled(output: Path, data: str, each: int, test: int, seed: int) -> str:
    """Write benign images; what was written, in words."""
    if output.exists() and any(output.iterdir()):
        raise UsageError(f"{output} is not empty; give a new folder with -o")
    dealt = deal(DataPlan(data, seed, None, samples=each, test=test, held_out=1))
    with writing(output):
        if test:
            write_samples(dealt, output)
        else:
            write_images(output, *dealt.samples, dealt.class_names)
    counts = f"{len(dealt.samples[1])} images and {len(dealt.test[1])} test images"
    return f"{output}: {counts} of {len(dealt.class_names)} classes"
