"""The accelerator probe boots where booting works, so that its "no" means something."""

from __future__ import annotations

from pathlib import Path

import pytest

from hyperbox.harness.lab.accelerator import boot_probe, probe_kvm
from hyperbox.harness.lab.qemu import find_qemu


@pytest.mark.vm
def test_probe_boots_under_emulation() -> None:
    assert boot_probe(find_qemu(), "tcg").works


@pytest.mark.vm
def test_unknown_accelerator_fails_with_qemus_own_words() -> None:
    probe = boot_probe(find_qemu(), "abacus")
    assert not probe.works
    assert "abacus" in probe.reason


@pytest.mark.vm
def test_kvm_answer_has_a_reason() -> None:
    probe = probe_kvm(find_qemu())
    assert probe.reason
    assert Path("/dev/kvm").exists() or not probe.works
