"""Metrics for Prometheus: the counters of all servers of this process.

`rsock.metrics.register()` adds them to the registry of the package prometheus-client, which the
extra `metrics` installs. They are read when they are scraped, and cost nothing in between. The
labels have few values: the name of a server (`Server(name=…)`; "unnamed" without one, and "other"
after the first hundred names), what ended a connection, the kind of a refusal or of a fault.
"""

from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Final

from . import _counts
from ._counts import FAMILIES, Numbers

if TYPE_CHECKING:
    from prometheus_client import CollectorRegistry
    from prometheus_client.core import Metric

__all__ = ["Collector", "register"]

_MISSING: Final = "metrics need the package prometheus-client: pip install prometheus-client"


class Collector:
    """A collector of the package prometheus-client, as `register` adds one to a registry."""

    def __init__(self, read: Callable[[], Numbers] = _counts.numbers) -> None:
        self._read = read

    def describe(self) -> "Iterable[Metric]":
        """Return the metrics without values, by which a registry knows their names."""
        return [_metric(name) for name in FAMILIES]

    def collect(self) -> "Iterator[Metric]":
        """Yield the metrics with the values of now. Blocks for no longer than another reader."""
        found: dict[str, Numbers] = {name: {} for name in FAMILIES}
        for key, value in self._read().items():
            found[key[0]][key[1:]] = value
        for name, values in found.items():
            metric = _metric(name)
            if FAMILIES[name].kind == "histogram":
                _add_histogram(metric, values)
            else:
                suffix = "_total" if FAMILIES[name].kind == "counter" else ""
                for labels, value in values.items():
                    named = dict(zip(FAMILIES[name].labels, labels, strict=True))
                    metric.add_sample(f"{name}{suffix}", named, float(value))
            yield metric


def register(registry: "CollectorRegistry | None" = None) -> Collector:
    """Add the counters of all servers of this process to a registry, and return the collector.

    `registry` None is `prometheus_client.REGISTRY`. Counted are the servers that exist now and all
    that are started later, also once they have stopped, so that no counter falls.
    `registry.unregister(collector)` removes them. A forked child counts its own servers only.

    Raises ImportError without the package prometheus-client, TypeError for a registry that is
    none, and ValueError if it has them already. Does not block.
    """
    try:
        import prometheus_client
    except ImportError:
        raise ImportError(_MISSING, name="prometheus_client") from None
    if registry is None:
        registry = prometheus_client.REGISTRY
    elif not isinstance(registry, prometheus_client.CollectorRegistry):
        kind = type(registry).__name__
        raise TypeError(f"registry must be a prometheus_client.CollectorRegistry, not {kind}")
    collector = Collector()
    registry.register(collector)
    _counts.track()
    return collector


def _metric(name: str) -> "Metric":
    from prometheus_client.core import Metric

    family = FAMILIES[name]
    return Metric(name, family.help, family.kind)


def _add_histogram(metric: "Metric", values: Numbers) -> None:
    servers: dict[str, dict[str, float]] = {}
    for (server, bound), value in values.items():
        servers.setdefault(server, {})[bound] = value
    for server, found in servers.items():
        labels = {"server": server}
        total = found.pop("sum")
        count = 0.0
        for bound in sorted(found, key=float):
            count += found[bound]
            metric.add_sample(f"{metric.name}_bucket", {**labels, "le": bound}, count)
        metric.add_sample(f"{metric.name}_count", labels, count)
        metric.add_sample(f"{metric.name}_sum", labels, total)
