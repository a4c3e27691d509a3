"""From a run of a container to the next version of its profile."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from datetime import UTC, datetime

from hyperbox.isolation.default_profile import NEWEST, default_profile
from hyperbox.isolation.profile import Profile
from hyperbox.isolation.recording import Recording
from hyperbox.isolation.seccomp_gen import (
    Completeness,
    Generated,
    Validation,
    completeness,
    generate,
    validate,
)
from hyperbox.isolation.store import ProfileStore

__all__ = ["Learned", "learn", "regenerate"]


@dataclass(frozen=True)
class Learned:
    """The version that is in force after learning, and what is known of it."""

    name: str
    number: int
    generated: Generated
    validation: Validation
    completeness: Completeness
    default: Profile


def learn(
    store: ProfileStore, name: str, recording: Recording, default_name: str = NEWEST
) -> Learned:
    """Keep a recording and make the profile of all recordings of its name anew.

    Raises
    ------
    HyperboxError
        If the store cannot be read or written.
    """
    store.add_recording(name, recording)
    return regenerate(store, name, default_name)


def regenerate(store: ProfileStore, name: str, default_name: str = NEWEST) -> Learned:
    """Make the profile of a name from its recordings; a new version only if it differs.

    Raises
    ------
    ConfigError
        If the name has no recordings, or there is no such default.
    """
    recordings = store.recordings(name)
    default = default_profile(default_name)
    generated = generate(recordings, default)
    validation = validate(generated.profile, default)
    found = completeness(recordings)
    newest = recordings[-1] if recordings else Recording({})
    metadata = {
        "generated": datetime.now(UTC).isoformat(timespec="seconds"),
        "default": default_name,
        "runs": len(recordings),
        "programs": sorted(frozenset().union(*(one.programs for one in recordings))),
        "environment": dict(newest.environment),
        "size": asdict(validation.size),
        "default_size": asdict(validation.default_size),
        "unknown_to_libseccomp": list(validation.unknown),
        "outside_default": sorted(generated.outside_default),
        "new_calls": list(found.new_calls),
        "expected_next": found.expected_next,
        "warnings": list(found.warnings),
    }
    number = store.add_version(name, generated.profile, default, metadata)
    return Learned(name, number, generated, validation, found, default)
