"""The laboratory of virtual machines: kernels booted once, cloned for every arm."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from hyperbox.errors import ConfigError
from hyperbox.files import sha256_file
from hyperbox.harness.lab.accelerator import probe_kvm
from hyperbox.harness.lab.guest_image import (
    agent_image,
    no_project,
    project_image,
    root_image,
)
from hyperbox.harness.lab.image_cache import GuestImage
from hyperbox.harness.lab.kernel_kit import KernelKit
from hyperbox.harness.lab.kernel_variant import kernel_variant
from hyperbox.harness.lab.layers import PYTHON_DIRECTORY, layer_image
from hyperbox.harness.lab.qemu import MEBIBYTE, GuestHardware, Qemu, find_qemu
from hyperbox.harness.lab.snapshot import PreparationStep, Snapshot, boot_snapshot
from hyperbox.harness.lab.snapshot_cache import SnapshotCache
from hyperbox.harness.lab.vm import VirtualMachine
from hyperbox.harness.model import Experiment, Lane, MachineRequest
from hyperbox.paths import project_directory

__all__ = [
    "LaneChoice",
    "VmLaboratory",
    "VmSource",
    "choose_lane",
    "guest_packages",
    "hardware_for",
    "warm_snapshot",
]

# Once before the snapshot, so that no arm does it: read what programs load, compile the project.
_COMPILE = "python3 -m compileall -q --invalidation-mode unchecked-hash"
_WARM_UP = (
    "sh",
    "-ec",
    f"{_COMPILE} .; test ! -d /{PYTHON_DIRECTORY} || {_COMPILE} /{PYTHON_DIRECTORY}; python3 -c '"
    "import argparse, ctypes, dataclasses, json, mmap, random, re, select, signal, subprocess, "
    "statistics, tempfile, threading'",
)
# What `vm-images/init.sh` does for a guest that boots with its project.
_MOUNT = (
    "cd /run; read -r device < hyperbox-project; mkdir project; "
    "mount -t tmpfs project project; cd project; mkdir lower upper work; "
    'mount -t erofs -o ro "$device" lower; mount -t overlay '
    "-o lowerdir=$PWD/lower,upperdir=$PWD/upper,workdir=$PWD/work project /opt/hyperbox; "
    "cd /opt/hyperbox"
)
# The same where the kernel has no overlay.
_MOUNT_COPY = (
    "cd /run; read -r device < hyperbox-project; mkdir project; "
    'mount -t erofs -o ro "$device" project; mount -t tmpfs project /opt/hyperbox; '
    "cp -a project/. /opt/hyperbox/; umount project; cd /opt/hyperbox"
)
_PROJECT = 2  # its place among a guest's images


@dataclass(frozen=True)
class LaneChoice:
    """The lane and why it was taken, for the record."""

    lane: Lane
    reason: str


def choose_lane(wanted: str, kits: Sequence[KernelKit]) -> LaneChoice:
    """Turn ``auto`` or ``real`` into KVM where it boots a kernel of the matrix.

    Elsewhere ``auto`` is the exact lane, ``real`` the fast one.

    Raises
    ------
    ConfigError
        If KVM is asked for and does not work, with the probe's reason.
    """
    if wanted not in ("auto", "real", Lane.KVM):
        return LaneChoice(Lane(wanted), "asked for")
    probe = probe_kvm(find_qemu(), kits[-1].vmlinuz, kits[-1].initramfs)
    if probe.works:
        return LaneChoice(Lane.KVM, probe.reason)
    if wanted != Lane.KVM:
        other = Lane.EXACT if wanted == "auto" else Lane.FAST
        return LaneChoice(other, f"no KVM: {probe.reason}")
    raise ConfigError(f"KVM does not work here: {probe.reason}", hint="use --lane exact")


def hardware_for(
    kit: KernelKit,
    lane: Lane,
    root: GuestImage,
    project: GuestImage,
    wanted: MachineRequest = Experiment.machine,
    layers: Sequence[GuestImage] = (),
) -> GuestHardware:
    """Return the guest that a kernel runs in."""
    images: tuple[Path, ...] = (root.path, agent_image().path, project.path)
    if kit.modules_image is not None:
        images = (*images, kit.modules_image)
    images = (*images, *(layer.path for layer in layers))
    nvdimms = f"hyperbox.nvdimms={len(images) + 1}"  # one is the mailbox
    return GuestHardware(
        lane,
        kit.vmlinuz,
        kit.initramfs,
        images,
        memory=wanted.memory_mib * MEBIBYTE,
        processors=wanted.processors,
        mitigations=wanted.mitigations,
        extra_commandline=f"{nvdimms} {wanted.commandline}".strip(),
    )


def warm_snapshot(
    kit: KernelKit, hardware: GuestHardware, report: Callable[[str, float], None]
) -> Snapshot:
    """Return a kept snapshot of a kernel with the project, or make it; close it after use.

    The project is not compiled: after each change of it that would take the first guest longer
    than to boot, and most commands import little of it.
    """
    qemu, cache, bare = find_qemu(), SnapshotCache(), _without_project(hardware)
    attach = ("sh", "-ec", _mount(kit))

    def make() -> Snapshot:
        boot = functools.partial(_boot, kit, bare, qemu, report)
        with contextlib.closing(cache.get(qemu, bare, (_WARM_UP,), boot)) as booted:
            return booted.derive(PreparationStep(attach), hardware)

    return cache.get(qemu, hardware, (_WARM_UP, attach), make)


def _mount(kit: KernelKit) -> str:
    return _MOUNT_COPY if "overlay" in kit.withheld else _MOUNT


class VmSource:
    """A kernel with one preparation done; implements `machine.MachineSource`."""

    def __init__(self, snapshot: Snapshot, fingerprint: Mapping[str, object]) -> None:
        self._snapshot = snapshot
        self._fingerprint = fingerprint

    @contextlib.contextmanager
    def fresh(self) -> Iterator[VirtualMachine]:
        """Return a clone of the prepared guest."""
        with self._snapshot.clone() as machine:
            yield machine

    def environment(self) -> Mapping[str, object]:
        """Return the fingerprint: kernel, QEMU, accelerator, command line, image hashes."""
        return self._fingerprint

    def close(self) -> None:
        """Nothing to do: the laboratory owns the snapshots that sources share."""


class VmLaboratory:
    """Boots each kernel once per preparation; implements `machine.Laboratory`.

    Parameters
    ----------
    kits
        The kernels, oldest first.
    kept
        Whether kept snapshots may be used; else each is made here, and not kept.
    progress
        Called with a text and the fraction done.
    """

    def __init__(
        self,
        kits: Sequence[KernelKit],
        *,
        lane: LaneChoice,
        kept: bool = True,
        progress: Callable[[str, float], None] | None = None,
    ) -> None:
        self._lane_reasons = {lane.lane: lane.reason}
        self._kits = {kit.label: kit for kit in kits}
        self._qemu = find_qemu()
        self._report = progress or (lambda _text, _fraction: None)
        self._root = root_image(progress)
        self._snapshots: dict[tuple[GuestHardware, tuple[tuple[str, ...], ...]], Snapshot] = {}
        self._cache = SnapshotCache() if kept else None
        self._locks = {label: threading.Lock() for label in self._kits}

    def labels(self) -> Sequence[str]:
        """Labels of the kernels, oldest first."""
        return tuple(self._kits)

    def source(self, kernel: str, experiment: Experiment, lane: Lane) -> VmSource:
        """Boot the kernel or take its kept snapshot; run the experiment's preparation once."""
        kit = self._kit(kernel, experiment)
        hardware = self._hardware(kit, experiment, lane)
        attach = ("sh", "-ec", f"{_mount(kit)}; exec {_COMPILE} .")
        steps = (_WARM_UP, attach, *([experiment.prepare] if experiment.prepare else []))
        with self._locks[kernel]:
            snapshot = self._snapshot(kit, hardware, steps)
        found = snapshot.repeatability
        facts = {"repeatability": dataclasses.asdict(found) if found else {}}
        return VmSource(snapshot, {**self.fingerprint(kernel, experiment, lane), **facts})

    def fingerprint(self, kernel: str, experiment: Experiment, lane: Lane) -> Mapping[str, object]:
        """Return kernel, QEMU, command line, memory and images, without a boot."""
        kit = self._kit(kernel, experiment)
        hardware = self._hardware(kit, experiment, lane)
        return {
            "kernel": {
                "label": kit.label,
                "release": kit.release,
                "package": kit.package,
                "version": kit.version,
                "sha256": kit.sha256,
                "build": kit.build,
                "config_sha256": sha256_file(kit.config),
                "unsigned": list(kit.unsigned),
                "remarks": list(kit.remarks),
            },
            "qemu": {"version": self._qemu.version_text, "sha256": self._qemu.sha256},
            "accelerator": "kvm" if hardware.lane is Lane.KVM else "tcg",
            "lane_reason": self._lane_reasons.get(hardware.lane, "asked for"),
            "commandline": hardware.commandline,
            "memory_bytes": hardware.memory,
            "cpus": hardware.processors,
            "images": {
                "root": self._root.sha256,
                "agent": agent_image().sha256,
                "project": project_image(experiment).sha256,
                "layers": {name: self._layer(name).sha256 for name in experiment.layers},
            },
            **guest_packages([self._root, *map(self._layer, experiment.layers)]),
        }

    def close(self) -> None:
        """Close every snapshot."""
        while self._snapshots:
            _, snapshot = self._snapshots.popitem()
            snapshot.close()

    def _kit(self, kernel: str, experiment: Experiment) -> KernelKit:
        wanted = experiment.machine
        replaced = project_directory() / wanted.modules if wanted.modules else None
        return kernel_variant(self._kits[kernel], wanted.without_modules, replaced)

    def _hardware(self, kit: KernelKit, experiment: Experiment, lane: Lane) -> GuestHardware:
        project = project_image(experiment)
        layers = [self._layer(name) for name in sorted(experiment.layers)]
        return hardware_for(kit, lane, self._root, project, experiment.machine, layers)

    def _layer(self, name: str) -> GuestImage:
        return layer_image(name, self._report)

    def _snapshot(
        self, kit: KernelKit, hardware: GuestHardware, steps: tuple[tuple[str, ...], ...]
    ) -> Snapshot:
        """Return the snapshot after the steps; the kernel boots without the project."""
        if len(steps) == 1:
            hardware = _without_project(hardware)
        key = (hardware, steps)
        if key not in self._snapshots:
            make = functools.partial(self._make, kit, hardware, steps)
            cache = self._cache
            made = cache.get(self._qemu, hardware, steps, make) if cache else make()
            self._snapshots[key] = made
        return self._snapshots[key]

    def _make(
        self, kit: KernelKit, hardware: GuestHardware, steps: tuple[tuple[str, ...], ...]
    ) -> Snapshot:
        *before, last = steps
        if before:
            return self._snapshot(kit, hardware, tuple(before)).derive(
                PreparationStep(last), hardware
            )
        return _boot(kit, hardware, self._qemu, self._report)


def guest_packages(images: Sequence[GuestImage]) -> Mapping[str, object]:
    """Return what guests are made of, and where that is not what is locked."""
    facts = [image.facts() for image in images]
    # A layer of Python distributions only has no Debian packages.
    packages = {key: text for one in facts for key, text in one.get("packages", {}).items()}
    remarks = [remark for one in facts for remark in one.get("remarks", ())]
    return {"guest_packages": packages, "guest_remarks": list(dict.fromkeys(remarks))}


def _without_project(hardware: GuestHardware) -> GuestHardware:
    """Return the hardware with nothing in the project's place."""
    images = list(hardware.images)
    images[_PROJECT] = no_project().path
    return dataclasses.replace(hardware, images=tuple(images))


def _boot(
    kit: KernelKit, hardware: GuestHardware, qemu: Qemu, report: Callable[[str, float], None]
) -> Snapshot:
    report(f"booting {kit.label}", 0.0)
    config = kit.config.read_text(errors="replace")
    made = boot_snapshot(qemu, hardware, kernel_config=config, prepare=PreparationStep(_WARM_UP))
    report(f"booting {kit.label}", 1.0)
    return made
