"""An attack that can be made by name: its options, and what it makes of them."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from agnes.errors import UsageError, suggestion
from agnes_zoo.attacks.adaptive import AdaptiveLoss
from agnes_zoo.attacks.attack import Attack
from agnes_zoo.attacks.by_class import ByClass
from agnes_zoo.attacks.goals import AllToOne, CleanLabel, Goal, NextClass, SourceToTarget
from agnes_zoo.attacks.preparing import Adversarial, Blend, Disturbance
from agnes_zoo.attacks.triggers import Trigger

LABELS = ("all-to-one", "source", "next", "clean-label")


@dataclass(frozen=True)
class Common:
    """The options that every attack takes."""

    target: int = 14  # stop
    rate: float = 0.1
    cover_rate: float = 0.0
    labels: str = "all-to-one"
    source: int | tuple[int, ...] | None = None  # the classes that labels="source" turns
    classes: int = 43  # that labels="next" goes round
    seed: int = 0  # of what is random in the trigger
    disturb: str | None = None  # "adversarial" or "blend": done to training images before they are stamped
    adaptive: str | None = None  # "deviation", "difference" or "maximum"
    adaptive_weight: float = 0.1

    def goal(self) -> Goal:
        """What the options say of labels."""
        if self.labels not in LABELS:
            raise UsageError(f"labels cannot be '{self.labels}'{suggestion(self.labels, LABELS)}")
        if (self.labels == "source") != (self.source is not None):
            raise UsageError("an attack on some classes needs both labels = 'source' and the source class")
        if self.labels == "source":
            return SourceToTarget((self.source,) if isinstance(self.source, int) else self.source or (), self.target)
        if self.labels == "next":
            return NextClass(self.classes)
        return CleanLabel(self.target) if self.labels == "clean-label" else AllToOne(self.target)

    def before(self) -> Disturbance | None:
        """What is done to training images first."""
        if self.disturb not in (None, "adversarial", "blend"):
            raise UsageError(f"images cannot be disturbed by '{self.disturb}'; there is adversarial and blend")
        if self.disturb is not None and self.labels != "clean-label":
            raise UsageError("only images that keep their label are disturbed; set labels = 'clean-label'")
        return None if self.disturb is None else Adversarial() if self.disturb == "adversarial" else Blend()


@dataclass(frozen=True)
class Entry:
    """An attack that can be made."""

    name: str
    paper: str
    says: str  # one line
    trigger: Callable[..., Trigger | ByClass]
    defaults: Mapping[str, Any] = field(default_factory=dict)  # of the common options, where they differ
    dynamic: bool = False

    @property
    def options(self) -> dict[str, Any]:
        """Every option with its default."""
        own = {name: given.default for name, given in inspect.signature(self.trigger).parameters.items()}
        common = {name: getattr(Common(), name) for name in Common.__dataclass_fields__}
        return {**common, **own, **self.defaults}

    def __call__(self, **options: Any) -> Attack:
        known = self.options
        for name, value in options.items():
            if name not in known:
                raise UsageError(f"attack '{self.name}' has no option '{name}'{suggestion(name, known)}")
            _check(self.name, name, value, known[name])
        chosen = known | {name: _tuples(value) for name, value in options.items()}
        common = Common(**{name: chosen[name] for name in Common.__dataclass_fields__})
        trigger = self.trigger(**{name: chosen[name] for name in inspect.signature(self.trigger).parameters})
        adaptive = None if common.adaptive is None else AdaptiveLoss(common.adaptive, common.adaptive_weight)
        return Attack(
            self.name,
            trigger,
            common.goal(),
            common.rate,
            common.cover_rate,
            common.seed,
            common.before(),
            adaptive,
            self.dynamic,
        )


def _check(attack: str, name: str, value: Any, default: Any) -> None:
    """A value is of its default's kind; a whole number also serves as a share."""
    kinds = {float: (int, float), int: (int,), str: (str,), tuple: (list, tuple)}.get(type(default))
    if default is None and value is not None:
        kinds = (int, list, tuple) if name == "source" else (str,)
    if kinds is not None and (not isinstance(value, kinds) or isinstance(value, bool)):
        raise UsageError(f"option '{name}' of attack '{attack}' cannot be {value!r}; its default is {default!r}")


def _tuples(value: Any) -> Any:
    return tuple(_tuples(item) for item in value) if isinstance(value, list | tuple) else value
