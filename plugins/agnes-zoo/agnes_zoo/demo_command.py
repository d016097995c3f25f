"""agnes demo: one whole run on the model that travels with AGNES, then the truth about it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from agnes.engine import Request
    from agnes.network import Network
    from agnes.results import Report

FRESH_PER_CLASS, FRESH_SEED = 10, 20_000  # test signs, drawn when the demo runs; neither trained nor scanned with

app = typer.Typer(add_completion=False)


@app.command("demo")
def demo(
    output: Annotated[
        Path | None, typer.Option("-o", "--output", metavar="DIR", help="The run folder. Default: runs/demo.")
    ] = None,
    seed: Annotated[int, typer.Option("--seed", metavar="N", help="Of everything random.")] = 0,
    device: Annotated[str | None, typer.Option("--device", metavar="NAME", help="cpu, cuda, cuda:1 or mps.")] = None,
    json: Annotated[bool, typer.Option("--json", help="Print the report's JSON alone on standard output.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No progress.")] = False,
) -> None:
    """Scan, show and repair the embedded trojaned traffic-sign model, and compare with the truth.

    Exit codes: 0 the backdoor was found and its target named, 2 it was not.
    """
    from agnes.cli.running import show
    from agnes.options import free_folder
    from agnes_zoo.demo import true_attack

    request = _request(output or free_folder(Path("demo")), seed, device)
    report = show(request, as_json=json, quiet=quiet)
    _, target = true_attack()
    found = report.verdict.status == "backdoored" and report.verdict.target == target
    if not json:
        for line in truth_lines(request, report):
            typer.echo(line)
    raise typer.Exit(0 if found else 2)


def _request(output: Path, seed: int, device: str | None) -> Request:
    from agnes.engine import Request
    from agnes_zoo.demo import demo_files

    files = demo_files()
    return Request(files.model, files.samples, output=output, seed=seed, device=device)


def truth_lines(request: Request, report: Report) -> list[str]:
    """What the scan was not told: the true trigger, and how it fares before and after the repair."""
    from agnes.loading import LoadOptions, open_model
    from agnes.registry import Registry
    from agnes_zoo.demo import true_attack

    attack, target = true_attack()
    network = open_model(request.model, LoadOptions(), Registry.discover()).network
    name = report.model["class_names"][target]
    lines = [
        f"truth    a {attack.size}x{attack.size} patch at row {attack.place[0]}, column {attack.place[1]} leads to "
        f"{target} {name}; on {43 * FRESH_PER_CLASS} fresh signs:",
        f"         as given: {_fares(network, attack, target)}",
    ]
    if report.repair is not None:
        lines.append(f"         repaired: {_fares(report.repair.network, attack, target)}")
    return lines


def _fares(network: Network, attack: Any, target: int) -> str:
    """Accuracy and the true trigger's success on fresh signs."""
    import torch

    from agnes_zoo.signs import signs
    from agnes_zoo.training import as_tensors

    images, labels = as_tensors(*signs(FRESH_PER_CLASS, FRESH_SEED))
    with torch.no_grad():
        right = network(images.to(network.device)).argmax(1).cpu() == labels
        others = labels != target
        hits = network(attack.stamp(images[others]).to(network.device)).argmax(1).cpu() == target
    return f"accuracy {float(right.float().mean()):.1%}, the true trigger succeeds on {float(hits.float().mean()):.1%}"
