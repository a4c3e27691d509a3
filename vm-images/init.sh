#!/bin/busybox sh
# /init of every guest's initramfs: load the early modules, find the three images and the
# mailbox by their content (the order of pmem devices is not fixed), hand over to the agent.
B=/bin/busybox

# Say why and power off; the harness reads the console.
fail() {
    echo "hyperbox-init: $1" > /dev/console
    $B poweroff -f
}

$B mount -t proc proc /proc
$B mount -t sysfs sysfs /sys
$B mount -t devtmpfs dev /dev
read -r commandline < /proc/cmdline
case "$commandline" in *hyperbox.probe*) fail "probe booted" ;; esac
while read -r module; do
    $B insmod "/modules/$module" 2> /dev/null
done < /modules.order-to-load

$B mkdir -p /lower /rw /newroot /images/root /images/modules /images/project
expected=4
case "$commandline" in *hyperbox.modules=none*) expected=3 ;; esac

# What an image holds says what it is.
name_of() {
    if [ -e "$1/usr/bin/python3" ]; then echo root
    elif [ -e "$1/hyperbox/__init__.py" ]; then echo project
    else echo modules
    fi
}

tries=0
while :; do
    found=0
    for device in /dev/pmem*; do [ -b "$device" ] && found=$((found + 1)); done
    [ "$found" -ge "$expected" ] && break
    tries=$((tries + 1))
    [ "$tries" -gt 500 ] && fail "only $found of $expected nvdimms appeared"
    $B usleep 10000
done
$B mkdir -p /probe
for device in /dev/pmem*; do
    $B mount -t erofs -o ro "$device" /probe 2> /dev/null || continue
    name=$(name_of /probe)
    $B umount /probe
    $B mount -t erofs -o ro "$device" "/images/$name" || fail "cannot mount the $name image"
done
[ -e /images/root/usr/bin/python3 ] || fail "no root image"
[ -e /images/project/hyperbox/__init__.py ] || fail "no project image"

$B mount -t tmpfs -o size=75%,mode=755 tmpfs /rw
$B mkdir /rw/upper /rw/work
$B mount -t overlay -o lowerdir=/images/root,upperdir=/rw/upper,workdir=/rw/work overlay /newroot \
    || fail "cannot mount the overlay root"
$B mkdir -p /newroot/usr/lib/modules /newroot/opt/hyperbox /rw/project /rw/project-work
[ "$expected" -eq 4 ] && $B mount --move /images/modules /newroot/usr/lib/modules
# Writable, so that the project is compiled once, before the snapshot.
$B mount -t overlay -o lowerdir=/images/project,upperdir=/rw/project,workdir=/rw/project-work \
    overlay /newroot/opt/hyperbox || fail "cannot mount the project"
$B mkdir -p /dev/shm /dev/pts
$B mount -t tmpfs tmpfs /dev/shm
$B mount -t devpts devpts /dev/pts
# As udev would: devtmpfs has none of these.
$B ln -sf /proc/self/fd /dev/fd
$B ln -sf fd/0 /dev/stdin
$B ln -sf fd/1 /dev/stdout
$B ln -sf fd/2 /dev/stderr
$B mount -t tmpfs tmpfs /newroot/tmp
$B mount -t tmpfs tmpfs /newroot/run
$B mount -t cgroup2 cgroup2 /sys/fs/cgroup
$B mount -t tracefs tracefs /sys/kernel/tracing 2> /dev/null
$B mount -t debugfs debugfs /sys/kernel/debug 2> /dev/null
$B mount -t bpf bpf /sys/fs/bpf 2> /dev/null
# A name that resolves; the archive's base system has none.
$B hostname hyperbox
printf '127.0.0.1\tlocalhost hyperbox\n::1\tlocalhost\n' > /newroot/etc/hosts
$B ip link set lo up 2> /dev/null
$B mount --move /proc /newroot/proc
$B mount --move /sys /newroot/sys
$B mount --move /dev /newroot/dev
exec $B switch_root /newroot /bin/sh -c \
    'cd /opt/hyperbox && exec /usr/bin/python3 -SE -m hyperbox.harness.lab.agent'
