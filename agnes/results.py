"""What a run finds, as immutable objects: each stage hands the next one everything it needs."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    import torch
    from numpy.typing import NDArray

    from agnes.network import Network

SCHEMA_VERSION = "1.0"

Status = Literal["clean", "backdoored", "inconclusive"]
RunStatus = Literal["ok", "skipped", "failed"]
MeasuredOn = Literal["test data", "scan images", "repair images"]  # the last: seen by the repair too
Confusion = tuple[tuple[int, int, int], ...]
NOT_NEEDED = "not needed:"  # begins the reason of a method that was skipped because another had done its work


@dataclass(frozen=True)
class Representatives:
    """Per layer, the cluster of each neuron and the neurons that stand for their clusters."""

    clusters: Mapping[str, torch.Tensor] = field(compare=False, repr=False)  # layer -> int64, the layer's shape
    positions: Mapping[str, torch.Tensor] = field(compare=False, repr=False)  # layer -> bool, the layer's shape
    abstract_network: Network | None = field(default=None, compare=False, repr=False)
    # layer of the abstract network -> int64: the flat index, in the layer of that name, of each neuron's original
    sources: Mapping[str, torch.Tensor] = field(default_factory=dict, compare=False, repr=False)
    notes: tuple[str, ...] = ()  # what the report should say of it
    method: str = ""  # stamped by the engine, here and below

    def rate(self, layer: str) -> float:
        """The share of a layer's neurons that are representatives."""
        positions = self.positions[layer]
        return float(positions.sum()) / positions.numel()


class Noted(tuple):
    """What a method returns where it has results and something to say about them."""

    notes: tuple[str, ...]

    def __new__(cls, items: Iterable[Any] = (), notes: Iterable[str] = ()) -> Noted:
        made = super().__new__(cls, items)
        made.notes = tuple(notes)
        return made


@dataclass(frozen=True)
class Curve:
    """A channel's stimulation function as a plot shows it: the logits' mean over the images at each value."""

    values: torch.Tensor = field(compare=False, repr=False)  # ascending
    logits: torch.Tensor = field(compare=False, repr=False)  # values, classes


@dataclass(frozen=True)
class Candidate:
    """A channel that, set to some range of values, sends every image to one class."""

    layer: str
    channel: int
    target: int | None  # None: found at inversion
    score: float  # largest elevation minus the second largest (ABS, algorithm 1)
    low: float  # the values between which the target wins on all images; low > high: on no value does it
    high: float
    elevations: tuple[float, ...] = field(default=(), repr=False)  # per class
    positions: torch.Tensor | None = field(default=None, compare=False, repr=False)  # bool, the map's shape; None: all
    curve: Curve | None = field(default=None, compare=False, repr=False)
    method: str = ""

    @property
    def elevation(self) -> float:
        return self.elevations[self.target] if self.elevations and self.target is not None else self.score


@dataclass(frozen=True, kw_only=True)
class Trigger:
    """How to turn a benign image into one that the network sends to the target. Subclasses say how."""

    target: int
    asr: float  # share of images, not of the target class, that it sends to the target
    held_out: int  # how many images that share was counted on
    unseen: bool = True  # whether it was made and chosen on none of these
    source: int | None = None  # only images of this class, where the backdoor is label-specific
    purpose: Literal["candidate", "scan", "null"] = "candidate"  # null: a class or neuron nothing pointed to
    layer: str | None = None  # the candidate it came from
    channel: int | None = None
    method: str = ""
    anomaly_index: float | None = None  # by the judge: robust deviations by which it is smaller than its like
    convicts: bool = False  # by the judge
    null_share: float | None = None  # of random neurons' triggers that do as well; None: not compared with any
    natural_share: float | None = None  # of images that the class's own content moves there, put in its place
    reach: float | None = None  # share of the other classes of which it sends most images to the target; if it convicts

    def apply(self, images: torch.Tensor) -> torch.Tensor:
        """The images with the trigger on them, inside [0, 1]."""
        raise TypeError(f"{type(self).__name__} does not say how it is applied")

    @property
    def channels(self) -> int:
        """How many colours the images have that it is for."""
        return max((array.shape[0] for array in self.arrays().values() if array.ndim == 3), default=3)

    @property
    def pixels(self) -> int:
        """How many pixels change by more than 1/255."""
        return int((self.change() > 1 / 255).sum())

    @property
    def l1(self) -> float:
        """The sum over pixels of the largest change in any colour."""
        return float(self.change().sum())

    def change(self) -> torch.Tensor:
        """How strongly each pixel may be changed, height x width."""
        raise TypeError(f"{type(self).__name__} does not say how large it is")

    def arrays(self) -> Mapping[str, NDArray[Any]]:
        """What a file must hold for somebody else to apply the trigger."""
        raise TypeError(f"{type(self).__name__} does not say how it is stored")


@dataclass(frozen=True, kw_only=True)
class AdditiveTrigger(Trigger):
    """x' = clip(x + delta)."""

    delta: torch.Tensor = field(compare=False, repr=False)  # channels, height, width; in [-1, 1]

    def apply(self, images: torch.Tensor) -> torch.Tensor:
        return (images + self.delta.to(images)).clamp(0, 1)

    def change(self) -> torch.Tensor:
        return self.delta.abs().amax(0)

    def arrays(self) -> Mapping[str, NDArray[Any]]:
        return {"delta": self.delta.detach().cpu().numpy()}


@dataclass(frozen=True, kw_only=True)
class MaskTrigger(Trigger):
    """x' = x (1 - mask) + pattern mask."""

    mask: torch.Tensor = field(compare=False, repr=False)  # 1, height, width; in [0, 1]
    pattern: torch.Tensor = field(compare=False, repr=False)  # channels, height, width; in [0, 1]

    def apply(self, images: torch.Tensor) -> torch.Tensor:
        mask, pattern = self.mask.to(images), self.pattern.to(images)
        return (images * (1 - mask) + pattern * mask).clamp(0, 1)

    def change(self) -> torch.Tensor:
        return self.mask[0]

    def arrays(self) -> Mapping[str, NDArray[Any]]:
        return {"mask": self.mask.detach().cpu().numpy(), "pattern": self.pattern.detach().cpu().numpy()}


@dataclass(frozen=True)
class Evidence:
    """A score with its threshold and its null distribution, from a method that reconstructs nothing."""

    name: str
    score: float
    threshold: float  # a score above it speaks for a backdoor
    null: tuple[float, ...] = field(default=(), repr=False)  # scores where there is none
    by_class: tuple[float, ...] = field(default=(), repr=False)  # what was compared, where classes were
    target: int | None = None
    note: str = ""
    method: str = ""
    trigger: Trigger | None = field(default=None, compare=False, repr=False)  # what the score was reached with

    @property
    def exceeds(self) -> bool:
        return self.score > self.threshold


@dataclass(frozen=True)
class Benign:
    """How a network does on its benign images."""

    accuracy: float | None = None  # None: no labels
    images: int = 0  # that it was measured on


@dataclass(frozen=True)
class Verdict:
    """What the findings amount to."""

    status: Status
    probability: float | None  # None: nothing to compute it from
    target: int | None = None
    target_name: str | None = None
    reasons: tuple[str, ...] = ()  # each names the method it rests on
    targets: tuple[int, ...] = ()  # every class a convicting trigger leads to, the strongest first
    calibrated: bool = False  # whether the probability was calibrated on networks of known truth
    backdoors: int = 0  # targets of convicting triggers that misclassify four classes of five or more (AGNES, 5.1)


@dataclass(frozen=True)
class Change:
    """One thing a repair changed."""

    layer: str
    channel: int | None
    what: str


@dataclass(frozen=True)
class TriggerOutcome:
    """How often a trigger succeeds before a repair and after it."""

    target: int
    before: float
    after: float
    images: int
    method: str = ""  # that made the trigger


@dataclass(frozen=True)
class Relearning:
    """How readily a repaired network takes a class for a trigger: steps of training until half of new images obey."""

    target: int
    method: str  # that made the trigger
    images: int  # under the trigger, that were learnt from
    measured: int  # further images, that the success was measured on
    limit: int  # steps at most
    target_steps: int | None  # until the trigger leads to its target again; None: not within the limit
    controls: Mapping[int, int | None]  # the same for other classes that were taught in the target's place

    @property
    def quick(self) -> bool:
        """Whether the target came back in at most half the steps that the controls took in the median."""
        if self.target_steps is None:
            return False
        beyond = self.limit + 1
        taken = sorted(beyond if steps is None else steps for steps in self.controls.values())
        return bool(taken) and 2 * self.target_steps <= (taken[(len(taken) - 1) // 2] + taken[len(taken) // 2]) / 2


@dataclass(frozen=True)
class Repair:
    """A repaired copy of the network, what was changed in it, and what that did."""

    network: Network = field(compare=False, repr=False)
    changes: tuple[Change, ...]
    notes: tuple[str, ...] = ()
    method: str = ""
    # measured by the engine, the same way for every method:
    accuracy_before: float | None = None  # None: no labelled images
    accuracy_after: float | None = None
    accuracy_images: int = 0
    outcomes: tuple[TriggerOutcome, ...] = ()
    rescan: Verdict | None = None
    exported: str | None = None
    measured_on: MeasuredOn | None = None  # which images the accuracy is of
    confusion_before: Confusion = field(default=(), repr=False)  # (class, seen as, images); no other pair occurs
    confusion_after: Confusion = field(default=(), repr=False)
    agreement: float | None = None  # share of benign images that are called what the original called them
    weights: int = 0  # of the repaired network
    weights_changed: int | None = None  # numbers that differ from the original's, or are gone; None: not measured
    relearning: Relearning | None = None  # of the best repair


@dataclass(frozen=True)
class MethodRun:
    """How one method of one stage went."""

    name: str
    stage: str
    distribution: str
    version: str
    settings: Mapping[str, Any]
    status: RunStatus
    reason: str = ""  # why it was skipped or how it failed; for an automatic choice, why it was chosen
    seconds: float = 0.0
    chosen: str = ""  # "named" by the user, or why the engine chose it
    notes: tuple[str, ...] = ()  # what it left out or did in another way than asked
    memory: int | None = None  # the most bytes that were held while it ran; None: not known


@dataclass(frozen=True)
class Report:
    """Everything a run has to say."""

    model: Mapping[str, Any]
    data: Mapping[str, Any]
    verdict: Verdict
    candidates: tuple[Candidate, ...] = ()
    triggers: tuple[Trigger, ...] = ()
    evidence: tuple[Evidence, ...] = ()
    repairs: tuple[Repair, ...] = ()  # all that were made, the best first
    methods: tuple[MethodRun, ...] = ()
    timings: Mapping[str, float] = field(default_factory=dict)
    environment: Mapping[str, Any] = field(default_factory=dict)
    settings: Mapping[str, Any] = field(default_factory=dict)  # of the run: seed, device, budget...
    complete: bool = True  # False: the run was interrupted
    written: bool = False  # whether there is a run folder that holds it
    schema_version: str = SCHEMA_VERSION

    @property
    def repair(self) -> Repair | None:
        """The best of the repairs."""
        return self.repairs[0] if self.repairs else None

    def to_json(self) -> dict[str, Any]:
        """The report as the JSON object that report.json holds and `agnes schema` describes."""
        from agnes.reports.json import as_json

        return as_json(self)
