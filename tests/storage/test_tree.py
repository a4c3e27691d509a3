from __future__ import annotations

import stat

import pytest

from hyperbox.errors import ImageError
from hyperbox.storage.inode import Inode
from hyperbox.storage.layer import Added, Change, Linked, Path, Removed
from hyperbox.storage.overlay_layers import copied, delta
from hyperbox.storage.tree import Tree

FILE, DIRECTORY, LINK = stat.S_IFREG | 0o644, stat.S_IFDIR | 0o750, stat.S_IFLNK | 0o777


def path(text: str) -> Path:
    return tuple(text.encode().split(b"/")) if text else ()


def file(name: str, owner: int = 0) -> Added:
    return Added(path(name), Inode(FILE, uid=owner))


def directory(name: str, owner: int = 0) -> Added:
    return Added(path(name), Inode(DIRECTORY, uid=owner))


def symlink(name: str, target: str) -> Added:
    return Added(path(name), Inode(LINK, target=target.encode()))


def link(name: str, target: str) -> Linked:
    return Linked(path(name), path(target))


def gone(name: str) -> Removed:
    return Removed(path(name))


def opaque(name: str) -> Removed:
    return Removed(path(name), opaque=True)


def tree(*layers: list[Change]) -> Tree:
    made = Tree()
    for layer in layers:
        made.apply(layer)
    return made


def names(of: Tree) -> list[str]:
    return [b"/".join(place).decode() for place, node in of.walk() if place]


def owner(of: Tree, name: str) -> int:
    node = of.find(path(name))
    assert node is not None
    return node.inode.uid


BELOW: list[Change] = [directory("d"), file("d/a", 1), file("d/b", 1), file("c", 1)]


@pytest.mark.parametrize(
    ("layer", "left"),
    [
        ([gone("d/a")], ["c", "d", "d/b"]),
        ([gone("d")], ["c"]),
        ([opaque("d")], ["c", "d"]),
        ([opaque("")], []),
        ([file("d/a", 2), gone("d/a")], ["c", "d", "d/a", "d/b"]),  # concerns lower layers only
        ([gone("d/a"), file("d/a", 2)], ["c", "d", "d/a", "d/b"]),
        ([file("d/x"), opaque("d")], ["c", "d", "d/x"]),
        ([opaque("d"), file("d/x")], ["c", "d", "d/x"]),
        ([gone("nothing"), gone("no/thing"), opaque("c")], ["c", "d", "d/a", "d/b"]),
        ([file("d")], ["c", "d"]),  # in place of a directory
        ([directory("c"), file("c/x")], ["c", "c/x", "d", "d/a", "d/b"]),
        ([directory("d", 7)], ["c", "d", "d/a", "d/b"]),
        ([file("new/deep/x")], ["c", "d", "d/a", "d/b", "new", "new/deep", "new/deep/x"]),
    ],
)
def test_layers(layer: list[Change], left: list[str]) -> None:
    assert names(tree(BELOW, layer)) == left


def test_the_last_of_several_entries_counts() -> None:
    made = tree([file("a", 1), file("a", 2), directory("d", 1), file("d/x"), directory("d", 2)])
    assert (owner(made, "a"), owner(made, "d")) == (2, 2)
    assert names(made) == ["a", "d", "d/x"]


@pytest.mark.parametrize(
    "layer",
    [
        [file("a", 5), link("b", "a")],
        [link("b", "a"), file("a", 5)],
        [link("b", "c"), link("c", "a"), file("a", 5)],
    ],
)
def test_hard_links_before_and_after_their_target(layer: list[Change]) -> None:
    made = tree(layer)
    assert made.find(path("a")) is made.find(path("b"))


def test_hard_links_into_lower_layers() -> None:
    assert owner(tree(BELOW, [link("x", "d/b")]), "x") == 1
    made = tree(BELOW, [link("x", "c"), file("c", 2)])
    assert (owner(made, "x"), owner(made, "c")) == (1, 2)
    with pytest.raises(ImageError, match="no target"):  # whiteouts count first
        tree(BELOW, [link("x", "d/a"), gone("d/a")])


def test_a_replaced_file_keeps_its_other_name() -> None:
    made = tree([file("a", 1), link("b", "a")], [file("a", 2)])
    assert (owner(made, "a"), owner(made, "b")) == (2, 1)


def test_links_that_lead_nowhere_are_refused() -> None:
    with pytest.raises(ImageError, match="no target"):
        tree([link("b", "a")])
    with pytest.raises(ImageError, match="no target"):
        tree([link("b", "a"), link("a", "b")])
    with pytest.raises(ImageError, match="directory"):
        tree([directory("a"), link("b", "a")])


@pytest.mark.parametrize(
    ("target", "real"),
    [
        ("usr/lib", "usr/lib"),
        ("/usr/lib", "usr/lib"),
        ("../../usr/lib", "usr/lib"),
        ("usr/../usr/./lib/", "usr/lib"),
        ("other", "usr/lib"),
        ("absent/dir", "absent/dir"),
    ],
)
def test_symbolic_links_on_the_way_stay_inside(target: str, real: str) -> None:
    below: list[Change] = [file("usr/lib/x"), symlink("other", "/usr/lib"), symlink("lib", target)]
    made = tree(below, [file("lib/y", 3)])
    assert owner(made, real + "/y") == 3
    made.apply([gone("lib/y")])
    assert made.find(path(real + "/y")) is None


def test_ways_that_never_end_are_refused() -> None:
    with pytest.raises(ImageError, match="too many"):
        tree([symlink("a", "b"), symlink("b", "a"), file("a/x")])
    with pytest.raises(ImageError, match="through a file"):
        tree([file("a"), file("a/x")])
    long = "/".join("d" * 250)
    with pytest.raises(ImageError, match="too deep"):
        tree(
            [file(f"{long}/x"), symlink("s", long + "/t"), symlink("u", "s/" + long + "/v")],
            [file("u/" + long + "/x")],
        )


def test_a_layer_listed_twice_changes_nothing() -> None:
    layer: list[Change] = [directory("d"), file("d/a", 1), link("b", "d/a")]
    assert names(tree(layer, layer)) == names(tree(layer))


def changed(below: list[Change], above: list[Change]) -> list[tuple[str, str]]:
    made = tree(below)
    before = copied(made)
    made.apply(above)
    kinds = {stat.S_IFREG: "file", stat.S_IFDIR: "directory", stat.S_IFCHR: "whiteout"}
    return [
        (b"/".join(one.path).decode(), kinds[stat.S_IFMT(one.node.inode.mode)])
        for one in delta(before, made)[1:]
    ]


def test_what_overlayfs_needs_of_a_layer() -> None:
    assert changed(BELOW, [file("d/a", 2)]) == [("d", "directory"), ("d/a", "file")]
    assert changed(BELOW, [gone("d")]) == [("d", "whiteout")]
    assert changed(BELOW, [gone("d/a")]) == [("d", "directory"), ("d/a", "whiteout")]
    assert changed(BELOW, [file("d")]) == [("d", "file")]
    assert changed(BELOW, [directory("c")]) == [("c", "directory")]
    assert changed(BELOW, [directory("d", 9)]) == [("d", "directory")]
    assert changed(BELOW, []) == []
    # deleted and made anew: the old files are hidden one by one
    assert changed(BELOW, [gone("d"), directory("d"), file("d/b", 3)]) == [
        ("d", "directory"),
        ("d/a", "whiteout"),
        ("d/b", "file"),
    ]


def test_a_hard_link_into_a_lower_layer_brings_all_names_of_the_file() -> None:
    assert changed(BELOW, [link("x", "d/a")]) == [
        ("d", "directory"),
        ("d/a", "file"),
        ("x", "file"),
    ]
