"""The workload patterns that profiles are learned from: scripts for sh, run in a container.

A *pattern* is a kind of container that people run. Each script is one run of it: the ordinary
work first, then other flags, error paths and a shutdown, which a profile learned from the ordinary
work alone must survive. A script ends with status 0, and prints the same lines in every run.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

__all__ = ["PATTERNS", "REDIS_DOWN", "REDIS_UP", "Pattern"]


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

REDIS_UP = """
            cd /tmp; redis-server --port 6379 --save '' --daemonize yes --dir /tmp > /dev/null
            until redis-cli ping > /dev/null 2>&1; do sleep 0.1; done
"""
REDIS_DOWN = "redis-cli shutdown nosave; while redis-cli ping > /dev/null 2>&1; do sleep 0.1; done"
_REDIS = Pattern(
    {
        "benchmark": f"""{REDIS_UP}
            redis-benchmark -q -n 200 -c 5 -t set,get,lpush > /dev/null && echo done
            {REDIS_DOWN}
        """,
        "saving": f"""{REDIS_UP}
            redis-cli set a 1; redis-cli bgsave > /dev/null; sleep 1
            redis-cli lastsave > /dev/null
            redis-cli config set appendonly yes; redis-cli incr a
            redis-cli bgrewriteaof > /dev/null; sleep 1
            {REDIS_DOWN}; rm -rf /tmp/dump.rdb /tmp/appendonlydir; echo ended
        """,
        "errors": f"""{REDIS_UP}
            redis-cli nosuch
            redis-server --port 6379 --dir /nosuch > /dev/null 2>&1 || echo refused
            redis-cli eval 'return 7' 0; redis-cli client list > /dev/null
            {REDIS_DOWN}; echo ended
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

_NGINX_UP = """
            mkdir -p /tmp/n/html /tmp/n/log; echo hello > /tmp/n/html/index.html; cd /tmp/n
            head -c 200000 /dev/zero > html/large
            cat > conf <<END
            daemon on; user www-data; pid /tmp/n/pid; error_log /tmp/n/log/error;
            worker_processes 2;
            events { worker_connections 64; }
            http {
                access_log /tmp/n/log/access; sendfile on; gzip on;
                client_body_temp_path /tmp/n/b; proxy_temp_path /tmp/n/p; uwsgi_temp_path /tmp/n/u;
                scgi_temp_path /tmp/n/s; fastcgi_temp_path /tmp/n/f;
                server { listen 127.0.0.1:8080; root /tmp/n/html; location /shut { return 403; } }
            }
END
            chmod -R a+rX /tmp/n; nginx -p /tmp/n -e /tmp/n/log/error -c /tmp/n/conf || exit 1
"""
_NGINX_DOWN = """
            nginx -p /tmp/n -e /tmp/n/log/error -c /tmp/n/conf -s quit
            while [ -e /tmp/n/pid ]; do sleep 0.1; done; rm -rf /tmp/n; echo ended
"""
_GET = """
            get() { python3 -c "
import sys, urllib.request, urllib.error
try: print(len(urllib.request.urlopen('http://127.0.0.1:8080' + sys.argv[1]).read()))
except urllib.error.HTTPError as error: print(error.code)
" "$1"; }
"""
_NGINX = Pattern(
    {
        "load": f"""{_NGINX_UP}{_GET}
            wrk -t 1 -c 4 -d 1 http://127.0.0.1:8080/ > /dev/null && echo loaded
            get /large; {_NGINX_DOWN}
        """,
        "errors": f"""{_NGINX_UP}{_GET}
            get /nosuch; get /shut; get /
            nginx -t -e /dev/null -c /nosuch 2> /dev/null || echo refused; {_NGINX_DOWN}
        """,
        "restart": f"""{_NGINX_UP}{_GET}
            get /; nginx -p /tmp/n -e /tmp/n/log/error -c /tmp/n/conf -s reload; sleep 1; get /large
            kill -USR1 $(cat pid); sleep 0.5; get /; {_NGINX_DOWN}
        """,
    },
    ("sh", "nginx", "wrk", "python3"),
)

_POSTGRES_UP = """
            export PATH=/usr/lib/postgresql/17/bin:$PATH PGHOST=/tmp PGUSER=postgres; cd /tmp
            as() { setpriv --reuid=nobody --regid=nogroup --clear-groups "$@"; }
            as initdb -D /tmp/data -U postgres -A trust -N > /dev/null || exit 1
            as pg_ctl -D /tmp/data -o '-k /tmp' -l /tmp/log -w start > /dev/null || exit 1
"""
_POSTGRES_DOWN = "as pg_ctl -D /tmp/data -m fast -w stop > /dev/null; rm -rf /tmp/data; echo ended"
_POSTGRES = Pattern(
    {
        "load": f"""{_POSTGRES_UP}
            as pgbench -q -i postgres 2> /dev/null
            as pgbench -c 2 -t 20 postgres > /dev/null 2>&1 && echo loaded
            {_POSTGRES_DOWN}
        """,
        "errors": f"""{_POSTGRES_UP}
            as psql -Atc 'select nosuch' postgres 2> /dev/null || echo refused
            as psql -Atc 'select 1/0' postgres 2> /dev/null || echo divided
            as psql -Atc 'alter system set work_mem = 64' -c 'table pg_am' postgres | wc -l
            as psql -Atc 'copy (table pg_am) to stdout' postgres | sort | head -n 1
            {_POSTGRES_DOWN}
        """,
        "restart": f"""{_POSTGRES_UP}
            as psql -Atc 'checkpoint' postgres > /dev/null
            as pg_ctl -D /tmp/data -o '-k /tmp' -l /tmp/log -w restart > /dev/null
            as psql -Atc 'vacuum' -c 'select 7' postgres; {_POSTGRES_DOWN}
        """,
    },
    ("sh", "setpriv"),
)

_THREADS = Pattern(
    {
        "pool": """
            python3 - <<'END'
import queue, threading
jobs, done = queue.Queue(), queue.Queue()
def work():
    while (job := jobs.get()) is not None: done.put(job * job)
threads = [threading.Thread(target=work) for _ in range(4)]
for thread in threads: thread.start()
for number in range(100): jobs.put(number)
for _ in threads: jobs.put(None)
for thread in threads: thread.join()
print(sum(done.get() for _ in range(100)))
END
        """,
        "sort": """
            seq 1 60000 | sort -R --random-source=/dev/zero > /tmp/s
            sort --parallel=4 -S 200K -n /tmp/s | tail -n 1; xz -T4 -0 -k /tmp/s
            xz -dc /tmp/s.xz | wc -l; rm /tmp/s /tmp/s.xz
        """,
        "errors": """
            python3 - <<'END'
import os, signal, threading, time
event, barrier = threading.Event(), threading.Barrier(3)
def wait():
    barrier.wait()
    print('timed out' if not event.wait(0.05) else 'set')
threads = [threading.Thread(target=wait) for _ in range(2)]
for thread in threads: thread.start()
barrier.wait()
for thread in threads: thread.join()
signal.signal(signal.SIGUSR1, lambda *_: event.set())
signal.pthread_kill(threading.main_thread().ident, signal.SIGUSR1)
time.sleep(0.05)
print(event.is_set(), len(os.sched_getaffinity(0)) > 0)
threading.Thread(target=lambda: os._exit(0)).start()
time.sleep(5)
END
        """,
    },
    ("sh", "python3", "sort", "xz"),
)

_BASE = 0x10000
_TEXT = b"hello\n\0/tmp/x\0"
_HELLO, _PATH = _BASE + 84, _BASE + 84 + 7
_REGISTERS = (b"\xb8", b"\xbb", b"\xb9", b"\xba")  # mov eax, ebx, ecx, edx
_WRITE, _EXIT = (4, 1, _HELLO, 6), (1, 0)


def _old(*calls: tuple[int, ...]) -> str:
    """Return a script that makes and runs a static 32-bit program of a few calls and no library.

    A call is its number in syscall_32.tbl and its arguments, made by ``int 0x80``. The file is an
    ELF header and one program header, 84 bytes, then text and code.
    """
    code = b"".join(
        b"".join(op + struct.pack("<I", word) for op, word in zip(_REGISTERS, call, strict=False))
        + b"\xcd\x80"
        for call in (*calls, _WRITE, _EXIT)
    )
    size = 84 + len(_TEXT) + len(code)
    header = b"\x7fELF\x01\x01\x01" + bytes(9)
    entry = _BASE + 84 + len(_TEXT)
    header += struct.pack("<HHIIIIIHHHHHH", 2, 3, 1, entry, 52, 0, 0, 52, 32, 1, 0, 0, 0)
    header += struct.pack("<8I", 1, 0, _BASE, _BASE, size, size, 5, 4096)
    data = "".join(f"\\{byte:03o}" for byte in header + _TEXT + code)
    return f"""
            printf '{data}' > /tmp/old; chmod 755 /tmp/old; /tmp/old; echo $?; rm /tmp/old
    """


_I386 = Pattern(
    {
        "plain": _old((20,), (45, 0)),  # getpid, brk
        "files": _old((5, _PATH, 0o102, 0o600), (4, 3, _HELLO, 6), (6, 3), (10, _PATH)),
        "errors": _old((5, _PATH, 0, 0), (6, 99), (37, 0, 0)),  # open, close, kill
    }
)

PATTERNS: Mapping[str, Pattern] = {
    "shell": _SHELL,
    "python": _PYTHON,
    "redis": _REDIS,
    "gcc": _GCC,
    "nginx": _NGINX,
    "postgresql": _POSTGRES,
    "threads": _THREADS,
    "i386": _I386,
}
