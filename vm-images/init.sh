#!/bin/busybox sh
# /init of every guest's initramfs: load the early modules, find the images and the mailbox
# among the nvdimms (their order is not fixed: each image has a file that says what it is),
# stack them, hand over to the agent.
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

expected=0
for word in $commandline; do
    case "$word" in hyperbox.nvdimms=*) expected="${word#*=}" ;; esac
done
tries=0
while :; do
    found=0
    for device in /dev/pmem*; do [ -b "$device" ] && found=$((found + 1)); done
    [ "$found" -ge "$expected" ] && break
    tries=$((tries + 1))
    [ "$tries" -gt 500 ] && fail "only $found of $expected nvdimms appeared"
    $B usleep 10000
done

$B mkdir -p /images /probe
for device in /dev/pmem*; do
    $B mount -t erofs -o ro "$device" /probe 2> /dev/null || continue
    label=
    read -r label 2> /dev/null < /probe/.hyperbox-image
    $B umount /probe
    [ -n "$label" ] || fail "an image has no label"
    $B mkdir "/images/$label" 2> /dev/null || fail "two images are called $label"
    $B mount -t erofs -o ro "$device" "/images/$label" || fail "cannot mount the $label image"
    [ "$label" = project ] && project="$device"
done
[ -d /images/root ] || fail "no root image"
[ -d /images/agent ] || fail "no agent image"

lower=/images/root
for image in /images/layer-*; do [ -d "$image" ] && lower="$image:$lower"; done
$B mount -t tmpfs -o size=75%,mode=755 tmpfs /rw
$B mkdir /rw/root /rw/root-work /rw/agent /rw/agent-work /rw/project /rw/project-work
$B mount -t overlay -o "lowerdir=$lower,upperdir=/rw/root,workdir=/rw/root-work" \
    overlay /newroot || fail "cannot mount the overlay root"
for image in /images/layer-*; do  # the accounts of each: overlay shows one passwd only
    for kind in passwd group; do
        [ -f "$image/.hyperbox-$kind" ] || continue
        $B cat "$image/.hyperbox-$kind" >> "/newroot/etc/$kind"
        $B rm "/newroot/.hyperbox-$kind"
    done
done
$B mkdir -p /newroot/usr/lib/modules /newroot/opt/hyperbox
[ -d /images/modules ] && $B mount --move /images/modules /newroot/usr/lib/modules
# Writable, so that Python's code is compiled once, before the snapshot.
$B mount -t overlay -o lowerdir=/images/agent,upperdir=/rw/agent,workdir=/rw/agent-work \
    overlay /newroot/opt/hyperbox || fail "cannot mount the agent"
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
# A guest that boots without a project is given one later, when the device has another image
# (see `attach` in hyperbox.harness.lab.vm_laboratory).
if [ -d /images/project/hyperbox ]; then
    $B mount -t overlay \
        -o lowerdir=/images/project,upperdir=/rw/project,workdir=/rw/project-work \
        overlay /newroot/opt/hyperbox || fail "cannot mount the project"
elif [ -n "$project" ]; then
    $B umount /images/project
    echo "$project" > /newroot/run/hyperbox-project
fi
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
