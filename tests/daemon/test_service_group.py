"""The group: order, unavailable services, failures; and who may know a feature."""

from __future__ import annotations

import ast
from collections.abc import Iterable, Sequence
from pathlib import Path

import pytest
from prometheus_client import Metric

import hyperbox.daemon
from hyperbox.daemon.application import application
from hyperbox.daemon.service import Endpoint, ServiceState, Status
from hyperbox.daemon.service_group import ServiceGroup
from hyperbox.errors import HarnessError, HyperboxError, KernelFeatureMissing


class Service:
    """A service that writes down what happens to it."""

    def __init__(
        self,
        name: str,
        events: list[str],
        *,
        start: HyperboxError | None = None,
        stop: HyperboxError | None = None,
        paths: Sequence[str] = (),
    ) -> None:
        self.name = name
        self.events = events
        self.start_error = start
        self.stop_error = stop
        self.paths = paths
        self.state = ServiceState.STOPPED

    def start(self) -> None:
        self.events.append(f"start {self.name}")
        self.state = ServiceState.RUNNING
        if self.start_error is not None:
            missing = isinstance(self.start_error, KernelFeatureMissing)
            self.state = ServiceState.UNAVAILABLE if missing else ServiceState.STOPPED
            raise self.start_error

    def stop(self) -> None:
        self.events.append(f"stop {self.name}")
        if self.stop_error is not None:
            raise self.stop_error

    def status(self) -> Status:
        return Status(self.state)

    def endpoints(self) -> Sequence[Endpoint]:
        async def never(_request: object) -> None:
            raise AssertionError

        return [Endpoint(path, "", never, {}) for path in self.paths]  # type: ignore[arg-type]

    def metrics(self) -> Iterable[Metric]:
        return ()


def test_services_start_in_order_and_stop_in_reverse_once() -> None:
    events: list[str] = []
    with ServiceGroup([Service("a", events), Service("b", events)]) as group:
        assert group.ready()
        group.stop()
    assert events == ["start a", "start b", "stop b", "stop a"]


def test_unavailable_service_is_no_fault() -> None:
    events: list[str] = []
    missing = KernelFeatureMissing("no such thing")
    with ServiceGroup([Service("a", events, start=missing), Service("b", events)]) as group:
        assert group.ready()
        assert group.statuses()["a"].state is ServiceState.UNAVAILABLE
    assert events == ["start a", "stop a", "start b", "stop b"]


def test_failed_service_makes_the_group_unready() -> None:
    service = Service("a", [])
    with ServiceGroup([service]) as group:
        service.state = ServiceState.FAILED
        assert not group.ready()


def test_a_service_that_cannot_start_takes_the_others_down() -> None:
    events: list[str] = []
    services = [
        Service("a", events),
        Service("b", events, start=HarnessError("taken")),
        Service("c", events),
    ]
    with pytest.raises(HarnessError, match="taken"), ServiceGroup(services):
        pytest.fail("it started")
    assert events == ["start a", "start b", "stop b", "stop a"]


def test_every_service_is_stopped_even_if_one_cannot_put_things_back() -> None:
    events: list[str] = []
    services = [
        Service("a", events),
        Service("b", events, stop=HarnessError("stuck")),
        Service("c", events),
    ]
    with pytest.raises(HarnessError, match="stuck"), ServiceGroup(services):
        pass
    assert events[3:] == ["stop c", "stop b", "stop a"]


def test_two_services_with_one_path_are_a_bug() -> None:
    group = ServiceGroup([Service("a", [], paths=["/x"]), Service("b", [], paths=["/x"])])
    with pytest.raises(ValueError, match="two endpoints"):
        application(group, longest_head=0, longest_body=0)


def test_only_the_composition_and_the_services_know_features() -> None:
    package = Path(hyperbox.daemon.__file__).parent
    knowing = set()
    for path in package.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom) and str(node.module).startswith(
                ("hyperbox.memory", "hyperbox.daemon.services")
            ):
                knowing.add(path.relative_to(package).as_posix())
    services = {path.relative_to(package).as_posix() for path in package.glob("services/*.py")}
    # Options are declarations: they carry a feature's settings to its service.
    assert knowing <= services | {"composition.py", "options.py"}
    assert "composition.py" in knowing
