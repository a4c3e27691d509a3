"""The house rules of CONTRIBUTING.md, read off the source: imports, doors, sizes."""

from __future__ import annotations

import ast
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import cache
from pathlib import Path

import pytest

from tests.conftest import TESTS_OF, belongs

PROJECT = Path(__file__).resolve().parents[1]
OURS = ("hyperbox", "suites", "workloads")
GROUND = (
    "hyperbox.errors",
    "hyperbox.files",
    "hyperbox.foreign",
    "hyperbox.interruption",
    "hyperbox.journal",
    "hyperbox.paths",
    "hyperbox.printing",
    "hyperbox.processes",
    "hyperbox.records",
    "hyperbox.repair",
    "hyperbox.settings",
)
FEATURES = ("memory", "storage", "observability", "isolation")
PRODUCT = ("hyperbox.linux", *(f"hyperbox.{feature}" for feature in FEATURES))
MODEL = "hyperbox.harness.model"
DECLARATIONS = "hyperbox.harness.declarations"

# What each part may import of the project, beside itself; the longest prefix counts.
ALLOWED: Mapping[str, tuple[str, ...]] = {
    "hyperbox": (),
    "hyperbox.errors": (),
    "hyperbox.files": ("hyperbox.errors", "hyperbox.foreign"),
    "hyperbox.foreign": ("hyperbox.errors",),
    "hyperbox.interruption": (),
    "hyperbox.journal": ("hyperbox.errors", "hyperbox.paths", "hyperbox.records"),
    "hyperbox.console": ("hyperbox.printing",),
    "hyperbox.paths": ("hyperbox.errors",),
    "hyperbox.printing": ("hyperbox.errors",),
    "hyperbox.processes": ("hyperbox.errors",),
    "hyperbox.records": ("hyperbox.errors", "hyperbox.foreign"),
    "hyperbox.repair": ("hyperbox.errors", "hyperbox.journal", "hyperbox.records"),
    "hyperbox.linux": GROUND,
    **{f"hyperbox.{feature}": ("hyperbox.linux", *GROUND) for feature in FEATURES},
    "hyperbox.observability": ("hyperbox", "hyperbox.linux", *GROUND),  # its version, in spans
    "hyperbox.settings": ("hyperbox.errors", "hyperbox.foreign"),
    "hyperbox.config": ("hyperbox.settings",),
    MODEL: (),
    "hyperbox.harness.expansion": ("hyperbox.errors",),
    DECLARATIONS: (MODEL, "hyperbox.harness.expansion", *GROUND),
    "hyperbox.harness.lab": (
        MODEL,
        "hyperbox.linux.undo",  # what hosts are repaired by
        "hyperbox.linux.process_tree",  # what programs end with
        *GROUND,
    ),
    "hyperbox.harness.statistics": (),
    "hyperbox.harness.verdicts": (MODEL, "hyperbox.harness.statistics", "hyperbox.errors"),
    "hyperbox.harness.calibration": (
        "hyperbox",
        MODEL,
        "hyperbox.harness.statistics",
        "hyperbox.harness.verdicts",
        "hyperbox.errors",
    ),
    "hyperbox.harness.report": (
        MODEL,
        "hyperbox.harness.statistics",
        "hyperbox.harness.verdicts",
        "hyperbox.harness.calibration",  # its page
        *GROUND,
    ),
    "hyperbox.harness.runs": (
        "hyperbox",
        "hyperbox.config",
        "hyperbox.console",
        MODEL,
        DECLARATIONS,
        "hyperbox.harness.lab",
        "hyperbox.harness.verdicts",
        "hyperbox.harness.report.data",  # what a run is read into
        *GROUND,
    ),
    "hyperbox.daemon": ("hyperbox", *PRODUCT, *GROUND),
    "hyperbox.runtime": (*PRODUCT, *GROUND),
    "hyperbox.results": ("hyperbox.harness",),
    "hyperbox.cli": ("hyperbox",),
    "hyperbox.__main__": ("hyperbox.cli",),
    "suites": ("hyperbox", "hyperbox.runtime", "workloads", *PRODUCT, *GROUND),
    "suites.benchmarks": (
        "hyperbox",
        "hyperbox.console",
        "hyperbox.harness",
        "workloads",
        *PRODUCT,
        *GROUND,
    ),
    "workloads": ("hyperbox", *PRODUCT, *GROUND),
}
STARTERS = {
    "subprocess": ("Popen", "run", "call", "check_call", "check_output", "getoutput"),
    "os": ("system", "popen", "posix_spawn", "posix_spawnp", "startfile"),
    "pty": ("spawn",),
    "asyncio": ("create_subprocess_exec", "create_subprocess_shell"),
}
MAY_START = {
    "hyperbox/processes.py": "the door itself",
    "hyperbox/harness/lab/agent.py": "first process of a guest: no setpriv, a child's pid at once",
    "hyperbox/harness/lab/supervisor.py": "its program's orphans are its own: a child of its own",
    "suites/harness/computing.py": "starting a program is what is measured",
    "suites/harness/start.py": "becomes the program: what a door does would be measured too",
}
MAY_WRITE = {
    "hyperbox/files.py": "the door itself",
    "hyperbox/journal.py": "appends: a record is on disk before the change, one line a record",
    "hyperbox/records.py": "appends to the journal of a dead process",
    "hyperbox/storage/lazy/content_cache.py": "fills a sparse file; marks what is on disk, after",
    "hyperbox/memory/audit.py": "appends: a decision of the tuner a line, beside those before",
    "hyperbox/storage/object_store.py": "objects are synced together; renamed when whole",
    "hyperbox/storage/unpacking.py": "scratch tree that is renamed when whole",
    "hyperbox/storage/archives.py": "a tar into a file that the door has opened",
    "hyperbox/storage/blobs.py": "downloads that are gone on with; renamed when whole and verified",
    "hyperbox/harness/lab/agent.py": "writes inside a guest that is thrown away",
    "hyperbox/harness/lab/debian_archive.py": "apt's error stream, and a partial file apt resumes",
    "hyperbox/harness/lab/guest_image.py": "scratch tree that is packed and removed",
    "hyperbox/harness/lab/debian_tree.py": "scratch tree that is packed and removed",
    "hyperbox/harness/lab/erofs_image.py": "the label in a scratch tree that is packed and removed",
    "hyperbox/harness/lab/kernel_kit.py": "scratch tree that is renamed when whole",
    "hyperbox/harness/lab/kernel_tree.py": "scratch tree that is packed and removed",
    "hyperbox/harness/lab/layers.py": "scratch tree that is packed and removed",
    "hyperbox/harness/lab/mailbox.py": "an order that only a stopped guest reads",
    "hyperbox/cli/main.py": "opens /dev/null",
    "hyperbox/runtime/background.py": "a container's standard output, while it runs",
    "hyperbox/cli/report.py": "opens /dev/null; appends to GitHub's job summary, maybe a pipe",
    "suites/erofs/ext4_disk.py": "a disk of its own, in a guest's memory",
    "suites/erofs/lazy_lab.py": "a tar in memory",
    "suites/erofs/lazy_numbers.py": "the image and the tree that it measures, of a guest",
    "suites/erofs/rungs.py": "damages files of a store that is thrown away, in place as disks do",
    "suites/harness/storing.py": "writing to a disk and a tmpfs of its own is what is measured",
}
# What a part may import beside the standard library and the project: guests have it in a layer.
PACKAGES = {
    "hyperbox.isolation": ("pyseccomp",),
    "hyperbox.observability": ("grpc", "numpy"),
    "hyperbox.storage": ("urllib3",),
}
KERNEL_INTERFACES = "hyperbox/linux/"  # its writes go to /proc, /sys and devices, not to files


@cache
def sources() -> Mapping[str, Path]:
    """Every module of the project by its dotted name."""
    found = {}
    for top in OURS:
        for path in sorted((PROJECT / top).rglob("*.py")):
            parts = path.relative_to(PROJECT).with_suffix("").parts
            found[".".join(parts).removesuffix(".__init__")] = path
    return found


@cache
def tree(name: str) -> ast.Module:
    return ast.parse(sources()[name].read_text())


@cache
def imports(name: str) -> tuple[str, ...]:
    """Dotted names that a module imports, wherever in it; typing-only ones too."""
    found: list[str] = []
    for node in ast.walk(tree(name)):
        if isinstance(node, ast.Import):
            found += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{name}: relative import"
            assert node.module is not None
            for alias in node.names:
                full = f"{node.module}.{alias.name}"
                found.append(full if full in sources() else node.module)
    return tuple(dict.fromkeys(found))


def within(name: str, prefix: str) -> bool:
    return name == prefix or name.startswith(prefix + ".")


def relative(name: str) -> str:
    return sources()[name].relative_to(PROJECT).as_posix()


def own_part(name: str) -> str:
    return max((part for part in ALLOWED if within(name, part)), key=len)


def may_import(name: str, imported: str) -> bool:
    part = own_part(name)
    if imported == "hyperbox":
        return "hyperbox" in ALLOWED[part]
    if part == "hyperbox.cli":
        return not within(imported, "suites") and not within(imported, "workloads")
    own = (part,) if part != "hyperbox" else ()
    granted = [prefix for prefix in ALLOWED[part] if prefix != "hyperbox"]
    return any(within(imported, prefix) for prefix in (*own, *granted))


@cache
def closure(name: str) -> frozenset[str]:
    """Everything of the project that importing a module runs, parents included."""
    seen: set[str] = set()
    waiting = [name]
    while waiting:
        module = waiting.pop()
        if module in seen or module not in sources():
            continue
        seen.add(module)
        parents = module.split(".")
        waiting += [".".join(parents[:depth]) for depth in range(1, len(parents))]
        waiting += imports(module)
    return frozenset(seen)


Faults = list[int] | list[str]


def offenders(faults_of: Callable[[str], Faults], names: Iterable[str]) -> dict[str, Faults]:
    """Return the modules in which a rule finds something, and what."""
    found = {name: faults_of(name) for name in names}
    assert len(found) > 20, "a rule over nothing forbids nothing"
    return {name: faults for name, faults in found.items() if faults}


def test_imports_point_downwards() -> None:
    def upwards(name: str) -> list[str]:
        ours = [imported for imported in imports(name) if imported.partition(".")[0] in OURS]
        return [imported for imported in ours if not may_import(name, imported)]

    assert offenders(upwards, sources()) == {}


def test_no_module_imports_itself_through_others() -> None:
    def circles(name: str) -> list[str]:
        others = [imported for imported in imports(name) if not within(name, imported)]
        return [imported for imported in others if name in closure(imported)]

    assert offenders(circles, sources()) == {}


def in_guests() -> Iterator[str]:
    """Modules that run under the bare python of a guest."""
    for name in sources():
        if within(name, "suites.benchmarks"):
            continue
        if name.startswith(("suites.", "workloads.")) or any(within(name, p) for p in PRODUCT):
            yield name
    yield "hyperbox.harness.lab.agent"
    yield "hyperbox.harness.lab.supervisor"


def test_what_runs_in_guests_needs_what_guests_have() -> None:
    def foreign(name: str) -> list[str]:
        known = {*OURS, *sys.stdlib_module_names, *packages(name)}
        return [one for one in imports(name) if one.partition(".")[0] not in known]

    assert offenders(foreign, {one for name in in_guests() for one in closure(name)}) == {}


def packages(module: str) -> tuple[str, ...]:
    return tuple(name for part, named in PACKAGES.items() if within(module, part) for name in named)


def called(node: ast.AST) -> tuple[str, str]:
    """Receiver and name of a call, such as ("os", "open"); ("", "") if it is none."""
    if isinstance(node, ast.Call):
        if isinstance(node.func, ast.Attribute):
            return ast.unparse(node.func.value), node.func.attr
        if isinstance(node.func, ast.Name):
            return "", node.func.id
    return "", ""


def starts(node: ast.AST) -> bool:
    if isinstance(node, ast.ImportFrom) and node.module in STARTERS:
        return any(alias.name in STARTERS[node.module] for alias in node.names)
    receiver, name = called(node)
    if receiver == "os" and name.startswith(("exec", "spawn")):
        return True
    return name in STARTERS.get(receiver, ())


def writes(node: ast.AST) -> bool:
    receiver, name = called(node)
    if not isinstance(node, ast.Call) or receiver == "files":
        return False
    if name in ("write_text", "write_bytes", "touch") and receiver:
        return True
    if receiver == "os" and name == "open":
        return any(flag in ast.unparse(node) for flag in ("O_WRONLY", "O_RDWR", "O_CREAT"))
    if receiver == "shutil" and (name.startswith("copy") or name == "move"):
        return True
    if receiver == "tempfile" and name in ("mkstemp", "NamedTemporaryFile"):
        return True
    return name == "open" and set(mode_of(node, receiver)) & set("wax+") != set()


def mode_of(call: ast.Call, receiver: str) -> str:
    """Mode of an open(): second argument of the function, first of the method."""
    place = 0 if receiver else 1
    given = [keyword.value for keyword in call.keywords if keyword.arg == "mode"]
    given += call.args[place : place + 1]
    constants = [arg.value for arg in given if isinstance(arg, ast.Constant)]
    return "".join(value for value in constants if isinstance(value, str))


def lines(name: str, rule: Callable[[ast.AST], bool]) -> list[int]:
    return [getattr(node, "lineno", 0) for node in ast.walk(tree(name)) if rule(node)]


def behind_doors() -> list[str]:
    return [name for name in sources() if not within(name, "suites.benchmarks")]


def test_programs_start_through_one_door() -> None:
    bound = [name for name in behind_doors() if relative(name) not in MAY_START]
    assert offenders(lambda name: lines(name, starts), bound) == {}


def test_files_are_written_through_one_door() -> None:
    paths = {name: relative(name) for name in behind_doors()}
    bound = [name for name, path in paths.items() if not path.startswith(KERNEL_INTERFACES)]
    bound = [name for name in bound if paths[name] not in MAY_WRITE]
    assert offenders(lambda name: lines(name, writes), bound) == {}


def uses_strerror(node: ast.AST) -> bool:
    """Whether an errno is made a text: `os.strerror`, or what an OSError has of it."""
    return isinstance(node, ast.Attribute) and node.attr == "strerror"


def test_what_the_kernel_refuses_is_said_by_one_function() -> None:
    """`refusal` knows which errno means what, and what to do about it."""
    wrappers = [name for name in sources() if within(name, "hyperbox.linux")]
    said = [name for name in wrappers if lines(name, uses_strerror)]
    assert said == ["hyperbox.linux.refusal"]


def prints_unchecked(node: ast.AST) -> bool:
    """Whether a call prints what may be a text of others as it is."""
    if called(node) != ("", "print") or not isinstance(node, ast.Call) or not node.args:
        return False
    safe = (("", "one_line"), ("", "legible"), ("json", "dumps"), ("", "as_line"))
    return not isinstance(node.args[0], ast.Constant) and called(node.args[0]) not in safe


def makes_console(node: ast.AST) -> bool:
    return called(node) == ("", "Console")


def test_what_is_printed_goes_through_one_door() -> None:
    """Terminals obey escape sequences, and names of cgroups or kernels are anybody's choice."""
    verbs = [name for name in sources() if within(name, "hyperbox.cli")]
    assert offenders(lambda name: lines(name, prints_unchecked), verbs) == {}


@pytest.mark.parametrize(
    ("rule", "code"),
    [
        (starts, "subprocess.run(['ls'])"),
        (starts, "os.execv('/bin/ls', ['ls'])"),
        (writes, "open(path, 'w')"),
        (writes, "path.open(mode='ab')"),
        (writes, "os.open(path, os.O_RDWR)"),
        (writes, "path.write_text('')"),
        (writes, "shutil.copyfile(a, b)"),
        (uses_strerror, "error.strerror"),
        (prints_unchecked, "print(name)"),
        (makes_console, "Console(stderr=True)"),
    ],
)
def test_each_rule_finds_what_it_forbids(rule: Callable[[ast.AST], bool], code: str) -> None:
    assert [node for node in ast.walk(ast.parse(code)) if rule(node)] != []


@pytest.mark.parametrize("code", ["open(path)", "open(path, 'rb')", "path.open()", "print('x')"])
def test_what_only_reads_or_is_constant_breaks_no_rule(code: str) -> None:
    nodes = list(ast.walk(ast.parse(code)))
    assert [n for n in nodes if starts(n) or writes(n) or prints_unchecked(n)] == []


def test_consoles_are_ours() -> None:
    assert offenders(lambda name: lines(name, makes_console), sources()) == {}


@pytest.mark.parametrize(("listed", "rule"), [(MAY_START, starts), (MAY_WRITE, writes)])
def test_every_exception_is_still_needed(
    listed: Mapping[str, str], rule: Callable[[ast.AST], bool]
) -> None:
    by_path = {relative(name): name for name in sources()}
    assert [p for p in listed if p not in by_path or not lines(by_path[p], rule)] == []


def test_module_is_one_noun_of_readable_size() -> None:
    def misshapen(name: str) -> list[str]:
        path = sources()[name]
        faults = {
            "is no noun": path.stem in ("utils", "helpers", "common", "manager", "misc"),
            "is longer than 500 lines": len(path.read_text().splitlines()) > 500,
            "does not say what it is": not ast.get_docstring(tree(name)),
        }
        return [fault for fault, true in faults.items() if true]

    assert offenders(misshapen, sources()) == {}


def test_every_test_is_of_a_feature() -> None:
    """So that `pytest --feature` leaves none out."""
    tests = PROJECT / "tests"
    names = [path.relative_to(tests).as_posix() for path in tests.rglob("test_*.py")]
    assert [one for one in names if not any(belongs(one, feature) for feature in TESTS_OF)] == []


def unlisted_or_absent(name: str) -> list[str]:
    body = tree(name).body
    listed = [
        ast.literal_eval(node.value)
        for node in body
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__"
    ]
    kinds = (ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    defined = {node.name for node in body if isinstance(node, kinds)}
    for node in body:
        if isinstance(node, ast.Assign):
            defined |= {ast.unparse(target) for target in node.targets}
        elif isinstance(node, ast.AnnAssign):
            defined.add(ast.unparse(node.target))
    public = {one.name for one in body if isinstance(one, kinds) and not one.name.startswith("_")}
    if public and within(name, "hyperbox") and len(listed) != 1:
        return ["`__all__` lists what is public"]
    return sorted({one for names in listed for one in names} - defined)


def test_public_names_are_listed_and_exist() -> None:
    assert offenders(unlisted_or_absent, sources()) == {}


def test_no_two_public_classes_have_the_same_name() -> None:
    """A name in a traceback or a search leads to one class."""
    places: dict[str, list[str]] = {}
    for name in sources():
        for node in tree(name).body:
            if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                places.setdefault(node.name, []).append(name)
    assert len(places) > 100
    assert {name: found for name, found in places.items() if len(found) > 1} == {}
