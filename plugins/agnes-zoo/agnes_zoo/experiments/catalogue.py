"""Every table by the name it is typed by."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from agnes.errors import UsageError, suggestion
from agnes_zoo.experiments import of_abs, of_agnes, of_koldenhof, of_overactivation, of_strategic_retraining
from agnes_zoo.experiments.describing import Table
from agnes_zoo.experiments.scales import Scale

_PAPERS = (of_agnes, of_strategic_retraining, of_koldenhof, of_overactivation, of_abs)
TABLES: Mapping[str, Table] = MappingProxyType({table.name: table for paper in _PAPERS for table in paper.TABLES})


def find(name: str) -> Table:
    """The table a user typed."""
    if name not in TABLES:
        raise UsageError(f"there is no table '{name}'{suggestion(name, TABLES)} (agnes bench list shows them all)")
    return TABLES[name]


def cost(table: Table, scale: Scale) -> tuple[int, int]:
    """Networks and measurements that a table takes, without data of the user's."""
    from agnes_zoo.experiments.running import asks_of

    asks = {ask.key: ask for ask in asks_of(table, scale, {})}
    return len({ask.plan.digest for ask in asks.values()}), len(asks)
