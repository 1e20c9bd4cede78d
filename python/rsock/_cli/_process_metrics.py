"""The metrics of several processes, as their parent gives them. It must never read a ledger."""

from collections.abc import Iterable
from typing import TYPE_CHECKING

from .. import metrics
from ._processes import Parent

if TYPE_CHECKING:
    from prometheus_client import CollectorRegistry
    from prometheus_client.core import Metric

__all__ = ["registry_of"]


def registry_of(parent: Parent) -> "CollectorRegistry":
    """Return a registry with the sums of all children, and nothing of the parent's own."""
    from prometheus_client import CollectorRegistry

    registry = CollectorRegistry()
    registry.register(metrics.Collector(parent.numbers))
    registry.register(_Processes(parent))
    return registry


class _Processes:
    def __init__(self, parent: Parent) -> None:
        self._parent = parent

    def collect(self) -> "Iterable[Metric]":
        """Return how many processes there are."""
        from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily

        serving, restarts = self._parent.counts()
        yield GaugeMetricFamily("rsock_processes", "Processes that serve.", serving)
        yield CounterMetricFamily(
            "rsock_process_restarts", "Processes started because one had ended.", restarts
        )
