"""``hyperbox run --image``: what the image says, what options say, and that nothing is kept."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from hyperbox.errors import ConfigError
from hyperbox.linux.mounts import mounts
from hyperbox.runtime.bundle import Container, User
from hyperbox.runtime.image_root import with_image
from hyperbox.storage.images import ImageStore
from hyperbox.storage.layouts import import_layout
from hyperbox.storage.oci import ImageConfig
from hyperbox.storage.platforms import Platform
from tests.storage.conftest import busybox, image, write_layout


@pytest.mark.root
def test_a_container_runs_on_an_image(tmp_path: Path) -> None:
    script = "echo $A; pwd; echo new > new && cat new"
    made = image([busybox()], Cmd=["sh", "-c", script], WorkingDir="/work", Env=["A=b"])
    import_layout(write_layout(tmp_path / "in", made, "app:1"), ImageStore(tmp_path / "store"))
    places = {"HYPERBOX_STATE": "state", "HYPERBOX_IMAGES_ROOT": "store"}
    variables = {name: os.fspath(tmp_path / place) for name, place in places.items()}

    def run(*words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "hyperbox", "run", "--image", "app:1", *words],
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
            env={**os.environ, **variables},
        )

    before = mounts("tmpfs"), mounts("overlay")
    done = run()
    assert (done.returncode, done.stdout) == (0, "b\n/work\nnew\n"), done.stderr
    done = run("-w", "/bin", "-e", "A=c", "--", "sh", "-c", "echo $A; pwd; ls /work; exit 3")
    assert (done.returncode, done.stdout) == (3, "c\n/bin\n"), done.stderr
    assert (mounts("tmpfs"), mounts("overlay")) == before


def test_what_the_image_says_counts_where_the_user_says_nothing() -> None:
    config = ImageConfig(Platform("linux", "amd64"), (), user="7:8", command=("a",))
    plain = Container(Path("/"), (), directory="")
    assert with_image(plain, config, own_user=False).user == User(7, 8)
    assert with_image(plain, config, own_user=True).user == User()
    assert with_image(plain, config, own_user=True).directory == "/"
    named = ImageConfig(Platform("linux", "amd64"), (), user="www", command=("a",))
    with pytest.raises(ConfigError, match="is a name"):
        with_image(plain, named, own_user=False)
    with pytest.raises(ConfigError, match="no command"):
        with_image(plain, ImageConfig(Platform("linux", "amd64"), ()), own_user=False)
