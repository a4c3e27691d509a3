"""What an agent gets with an EXECUTE frame; pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from hyperbox.harness.lab.protocol import PROJECT_DIRECTORY
from hyperbox.harness.model import Perturbation

__all__ = ["execute_order"]

_SPARE_NS = 20_000_000  # between the order and the earliest start: the agent is asleep again


def execute_order(
    argv: Sequence[str],
    environment: Mapping[str, str] | None = None,
    start: Perturbation | None = None,
) -> dict[str, object]:
    """Return the JSON data of an order to run a command, perturbed as `start` says."""
    variables = {"PYTHONPATH": PROJECT_DIRECTORY} | dict(environment or {})
    order: dict[str, object] = {"argv": list(argv), "environment": variables}
    if start is not None:
        variables.update(start.environment())
        order["delay_ns"] = _SPARE_NS + start.delay_ns
        order["entropy"] = f"{start.seed:016x}"
        order["noise_pages"] = start.noise_pages
    return order
