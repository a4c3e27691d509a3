"""The workload patterns that profiles are learned from: scripts for sh, run in a container.

A *pattern* is a kind of container that people run. Each script is one run of it: the ordinary
work first, then other flags, error paths and a shutdown, which a profile learned from the ordinary
work alone must survive. A script ends with status 0, and prints the same lines in every run.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

__all__ = ["PATTERNS", "Pattern"]


@dataclass(frozen=True)
class Pattern:
    """A workload and its runs.

    Parameters
    ----------
    runs
        Scripts by name.
    needs
        Programs that the guest must have.
    """

    runs: Mapping[str, str]
    needs: Sequence[str] = field(default=("sh",))


_SHELL = Pattern(
    {
        "files": """
            mkdir -p /tmp/a/b; echo one > /tmp/a/x; cp /tmp/a/x /tmp/a/b/y
            mv /tmp/a/b/y /tmp/a/b/z; cat /tmp/a/b/z; ln -s x /tmp/a/l; readlink /tmp/a/l
            chmod 600 /tmp/a/x; find /tmp/a -type f | sort; rm -r /tmp/a
        """,
        "text": """
            seq 1 1000 | sort -r | head -n 3; printf 'b\\na\\n' | sort | tr a-z A-Z
            echo hello world | sed 's/world/there/' | cut -d' ' -f2; date -d @0 -u +%Y
        """,
        "errors": """
            cat /nosuch 2>/dev/null || echo missing; rmdir /proc 2>/dev/null || echo busy
            sh -c 'exit 3' || echo "status $?"; sh -c 'kill -TERM $$' || echo killed
        """,
        "pipes": """
            mkfifo /tmp/f; (echo through > /tmp/f) & cat /tmp/f; wait; rm /tmp/f
            i=0; while [ $i -lt 20 ]; do i=$((i + 1)); done; echo $i; trap 'echo end' EXIT
        """,
    },
    ("sh", "find", "sed", "sort"),
)

_SERVER = """
import http.server, os, signal, sys, threading, urllib.error, urllib.request
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        body = b'hello' if self.path == '/' else b''
        self.send_response(200 if body else 404)
        self.send_header('Content-Length', str(len(body)))
        self.end_headers()
        self.wfile.write(body)
    def log_message(self, *rest): pass
server = http.server.ThreadingHTTPServer(('127.0.0.1', 8000), Handler)
threading.Thread(target=server.serve_forever, daemon=True).start()
"""
_PYTHON = Pattern(
    {
        "requests": f"""
            python3 - <<'END'
{_SERVER}
print(sum(len(urllib.request.urlopen('http://127.0.0.1:8000/').read()) for _ in range(20)))
server.shutdown()
END
        """,
        "errors": f"""
            python3 - <<'END'
{_SERVER}
try: urllib.request.urlopen('http://127.0.0.1:8000/nosuch')
except urllib.error.HTTPError as error: print(error.code)
try: urllib.request.urlopen('http://127.0.0.1:8001/')
except urllib.error.URLError: print('refused')
signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
os.kill(os.getpid(), signal.SIGTERM)
END
        """,
        "work": """
            python3 - <<'END'
import concurrent.futures, hashlib, json, os, sqlite3, subprocess, tempfile
with tempfile.TemporaryDirectory() as place:
    base = sqlite3.connect(os.path.join(place, 'x.db'))
    base.execute('create table t (n)')
    base.executemany('insert into t values (?)', [(n,) for n in range(100)])
    base.commit()
    print(base.execute('select sum(n) from t').fetchone()[0])
with concurrent.futures.ThreadPoolExecutor(4) as pool:
    print(len(set(pool.map(lambda n: hashlib.sha256(str(n).encode()).digest(), range(50)))))
print(json.dumps(subprocess.run(['true']).returncode))
END
        """,
    },
    ("sh", "python3"),
)

_REDIS_UP = """
            cd /tmp; redis-server --port 6379 --save '' --daemonize yes --dir /tmp > /dev/null
            until redis-cli ping > /dev/null 2>&1; do sleep 0.1; done
"""
_REDIS_DOWN = "redis-cli shutdown nosave; while redis-cli ping > /dev/null 2>&1; do sleep 0.1; done"
_REDIS = Pattern(
    {
        "benchmark": f"""{_REDIS_UP}
            redis-benchmark -q -n 200 -c 5 -t set,get,lpush > /dev/null && echo done
            {_REDIS_DOWN}
        """,
        "saving": f"""{_REDIS_UP}
            redis-cli set a 1; redis-cli bgsave > /dev/null; sleep 1
            redis-cli lastsave > /dev/null
            redis-cli config set appendonly yes; redis-cli incr a
            redis-cli bgrewriteaof > /dev/null; sleep 1
            {_REDIS_DOWN}; rm -rf /tmp/dump.rdb /tmp/appendonlydir; echo ended
        """,
        "errors": f"""{_REDIS_UP}
            redis-cli nosuch
            redis-server --port 6379 --dir /nosuch > /dev/null 2>&1 || echo refused
            redis-cli eval 'return 7' 0; redis-cli client list > /dev/null
            {_REDIS_DOWN}; echo ended
        """,
    },
    ("sh", "redis-server", "redis-cli", "redis-benchmark"),
)

_GCC = Pattern(
    {
        "program": """
            cd /tmp; printf '#include <stdio.h>\\nint main(void){puts("made");return 0;}\\n' > a.c
            gcc -O2 a.c -o a && ./a; rm -f a a.c
        """,
        "errors": """
            cd /tmp; echo 'int main(void){return x;}' > b.c
            gcc b.c -o b 2> /dev/null || echo refused; rm -f b.c
        """,
        "library": """
            cd /tmp; echo 'int two(void){return 2;}' > c.c
            echo 'int two(void); int main(void){return two();}' > d.c
            gcc -g -pipe -fPIC -shared c.c -o libc2.so && gcc d.c -L. -lc2 -o d
            LD_LIBRARY_PATH=. ./d; echo $?; rm -f c.c d.c d libc2.so
        """,
    },
    ("sh", "gcc"),
)

PATTERNS: Mapping[str, Pattern] = {
    "shell": _SHELL,
    "python": _PYTHON,
    "redis": _REDIS,
    "gcc": _GCC,
}
