"""Building a zoo: each model in a process of its own, what is finished never made twice."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from agnes.errors import UsageError
from agnes.reports.environment import versions
from agnes.reports.folder import write_text, writing
from agnes_zoo.dealing import deal, write_samples
from agnes_zoo.making import Made, make
from agnes_zoo.manifest import MANIFEST, MODELS, Manifest, held_out_file, model_file, samples_folder, sha256_of
from agnes_zoo.recipes import Entry, Recipe
from agnes_zoo.stopping import asked_to_stop
from agnes_zoo.training import Stopped, Watch
from agnes_zoo.workers import one_thread, side_by_side, stopping
from agnes_zoo.writing import export_onnx

WORK = ".work"  # checkpoints of models that are not finished
Tell = Callable[[str, dict[str, Any], int], None]  # a model's name, its record, and how many are done


def build(recipe: Recipe, folder: Path, jobs: int = 1, tell: Tell | None = None) -> Manifest:
    """Make what the folder lacks of the recipe's zoo. KeyboardInterrupt leaves it to be gone on with."""
    tell = tell or (lambda name, record, done: None)
    with writing(folder):
        manifest = _begun(recipe, folder)
        missing = [e for e in recipe.entries if e.name not in manifest.models and e.name not in manifest.failed]
        try:
            for name, record in _made(missing, folder, jobs):
                (manifest.failed if "reason" in record else manifest.models)[name] = record
                manifest.write(folder)
                tell(name, record, len(manifest.models) + len(manifest.failed))
        except Stopped:
            raise KeyboardInterrupt from None
        manifest.complete = True
        manifest.write(folder)
        shutil.rmtree(folder / WORK, ignore_errors=True)
    return manifest


def _begun(recipe: Recipe, folder: Path) -> Manifest:
    """The manifest to go on from, less the models whose files are not what they were."""
    if (folder / MANIFEST).exists():
        manifest = Manifest.read(folder)
        if manifest.recipe["digest"] != recipe.digest:
            raise UsageError(
                f"{folder} holds a zoo of another recipe ('{manifest.recipe['name']}'); give a new folder with -o"
            )
        for name in list(manifest.models):
            file = model_file(folder, name)
            if not file.exists() or sha256_of(file) != manifest.models[name]["sha256"]:
                del manifest.models[name]
    else:
        if folder.exists() and any(folder.iterdir()):
            raise UsageError(f"{folder} holds something else than a zoo; give a new folder with -o")
        manifest = Manifest({"name": recipe.name, "seed": recipe.seed, "digest": recipe.digest}, versions=versions())
    (folder / MODELS).mkdir(parents=True, exist_ok=True)
    manifest.complete = False
    manifest.write(folder)
    for name in recipe.data:
        manifest.data[name] = _written_data(recipe, name, folder)
    manifest.write(folder)
    return manifest


def _written_data(recipe: Recipe, name: str, folder: Path) -> dict[str, Any]:
    """The samples and the images held out, as files, and what they are."""
    plan = recipe.data[name]
    dealt = deal(plan)
    place, kept = samples_folder(folder, name), held_out_file(folder, name)
    if not place.exists() or not kept.exists():
        partial = place.with_name(f"{name}.partial")
        shutil.rmtree(partial, ignore_errors=True)
        shutil.rmtree(place, ignore_errors=True)
        write_samples(dealt, partial)
        os.replace(partial, place)
        kept.parent.mkdir(exist_ok=True)
        np.savez_compressed(kept.with_suffix(".partial.npz"), images=dealt.held_out[0], labels=dealt.held_out[1])
        os.replace(kept.with_suffix(".partial.npz"), kept)
    return {
        **asdict(plan),
        "class_names": list(dealt.class_names),
        "shape": list(dealt.shape),
        "digest": dealt.digest,
    }


def _made(entries: Sequence[Entry], folder: Path, jobs: int) -> Iterator[tuple[str, dict[str, Any]]]:
    """Each model as it is finished."""
    if jobs == 1:
        with one_thread(), asked_to_stop() as stop:
            for entry in entries:
                yield entry.name, made(entry, folder, Watch(stop=stop))
    else:
        for entry, record in side_by_side(partial(_work, folder), entries, jobs, "trained a model"):
            yield entry.name, record


def _work(folder: Path, entry: Entry) -> dict[str, Any]:
    """In a worker: one model."""
    return made(entry, folder, Watch(stop=stopping))


def made(entry: Entry, folder: Path, watch: Watch) -> dict[str, Any]:
    """Train until the bars are reached or the attempts are used up; the record for the manifest."""
    work = folder / WORK / entry.name
    attempts = _earlier_attempts(work)
    for number in range(len(attempts), entry.attempts):
        done = make(entry.attempt(number), work=work, watch=watch)
        short = _short_of_bars(done.truth, entry)
        attempts.append({key: done.truth[key] for key in ("accuracy", "asr", "seconds")} | {"missed": short})
        attempts[-1]["seed"] = entry.attempt(number).seed
        if not short:
            return _kept(done, entry, folder, attempts)
        work.mkdir(parents=True, exist_ok=True)
        write_text(work / "attempts.json", json.dumps(attempts))
    plan = entry.plan.as_json()
    return {
        **{key: plan[key] for key in ("arch", "attack", "options", "training")},
        "data": entry.data,
        "attempts": attempts,
        "reason": f"{attempts[-1]['missed']} after {len(attempts)} attempts",
    }


def _earlier_attempts(work: Path) -> list[dict[str, Any]]:
    try:
        return json.loads((work / "attempts.json").read_text(encoding="utf-8"))
    except FileNotFoundError:
        return []


def _short_of_bars(truth: dict[str, Any], entry: Entry) -> str:
    """Which bar a network missed, or nothing."""
    if truth["accuracy"] < entry.bars.accuracy:
        return f"accuracy {truth['accuracy']:.1%}, below {entry.bars.accuracy:.1%}"
    if truth["asr"] is not None and truth["asr"] < entry.bars.asr:
        return f"attack success {truth['asr']:.1%}, below {entry.bars.asr:.1%}"
    return ""


def _kept(done: Made, entry: Entry, folder: Path, attempts: list[dict[str, Any]]) -> dict[str, Any]:
    file = export_onnx(done.module, model_file(folder, entry.name), deal(entry.plan.data).shape)
    return {
        **done.truth,
        "data": entry.data,
        "attempt": len(attempts) - 1,
        "attempts": attempts,  # those that missed a bar, and this one
        "bars": {"accuracy": entry.bars.accuracy, "asr": entry.bars.asr},
        "sha256": sha256_of(file),
        "plan": entry.plan.digest,
    }
