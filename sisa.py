"""The front door under one name: ``import sisa``.

    import sisa
    with sisa.launch("sisa.toml") as federation:
        federation.train()
        federation.erase(subjects=["person-17"])

``Client`` alone loads neither Ray nor torch. Everything else is in the rooms: storage, shards, coordinator, cluster,
deploy.
"""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from cluster import Federation, connect, launch
    from cluster.client import Client
    from cluster.clusterer import Clusterer
    from cluster.config.serve import ServeSettings
    from cluster.config.specification import ClusterSettings
    from cluster.config.specification import FederationSpecification as Specification
    from cluster.estimators import Classifier, Regressor
    from coordinator.settings import AggregationSettings, ErasureSettings, ReceiptSettings
    from shards.specification import DataSettings, ModelSettings, PartitionSettings, TrainingSettings

__all__ = [
    "AggregationSettings",
    "Classifier",
    "Client",
    "ClusterSettings",
    "Clusterer",
    "DataSettings",
    "ErasureSettings",
    "Federation",
    "ModelSettings",
    "PartitionSettings",
    "ReceiptSettings",
    "Regressor",
    "ServeSettings",
    "Specification",
    "TrainingSettings",
    "connect",
    "launch",
]

_HOME = Path(__file__).resolve().parent


def _refuse_others() -> None:
    """Raise ``ImportError`` where Python finds somebody else's package under the name of one of our rooms.

    ``cluster.runtime.guard`` does the same for processes that have got as far as importing it.
    """
    for room in ("storage", "shards", "coordinator", "cluster", "deploy"):
        found = find_spec(room)
        origin = found.origin if found else None
        if origin is None or Path(origin).resolve() != _HOME / room / "__init__.py":
            raise ImportError(
                f"Python finds {origin or 'nothing'} for the package {room!r}, and sisa-ray needs its own,"
                f" {_HOME / room}: rename the other one, or start Python in another folder"
            )


_refuse_others()


if not TYPE_CHECKING:  # which would take every name for one of these

    def __getattr__(name: str) -> Any:
        # Looked up at first use: a client's process needs neither Ray nor torch.
        if name == "Client":
            from cluster.client import Client  # noqa: PLC0415

            return Client
        if name in {"Classifier", "Regressor"}:
            from cluster import estimators  # noqa: PLC0415

            return getattr(estimators, name)
        if name == "Clusterer":
            from cluster.clusterer import Clusterer  # noqa: PLC0415

            return Clusterer
        if name not in __all__:
            raise AttributeError(f"module 'sisa' has no attribute {name!r}")
        if name == "Specification" or name.endswith("Settings"):
            from cluster.config import specification  # noqa: PLC0415

            return getattr(specification, name.replace("Specification", "FederationSpecification"))
        import cluster  # noqa: PLC0415

        return getattr(cluster, name)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
