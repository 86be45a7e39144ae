#!/bin/sh
# The machine's first process, until it becomes Debian's init: mounts its root and what an init expects to find.
# usage: inside.sh FOLDER ROOT CONSOLE NAME [VARIABLE=VALUE …]
set -eu
folder=$1 root=$2 console=$3 name=$4
shift 4
mount --make-rprivate /
here=$folder/root
mount -t overlay overlay -o "lowerdir=$root,upperdir=$folder/upper,workdir=$folder/work" "$here"

mount -t proc proc "$here/proc"
mount -t tmpfs -o mode=755 tmpfs "$here/sys"
mkdir "$here/.sys"
mount -t sysfs sysfs "$here/.sys"
for part in "$here"/.sys/*; do
    mkdir "$here/sys/${part##*/}"
    mount --bind "$part" "$here/sys/${part##*/}"
done
umount "$here/.sys"
rmdir "$here/.sys"
if [ -e "$folder/uuid" ]; then # what the hypervisor calls this machine: how cloud-init knows EC2
    mkdir "$here/sys/hypervisor"
    cp "$folder/uuid" "$here/sys/hypervisor/uuid"
fi
mount -t tmpfs -o mode=755 tmpfs "$here/sys/fs/cgroup"
for group in cpu cpuacct memory pids devices freezer; do
    mkdir "$here/sys/fs/cgroup/$group"
    mount -t cgroup -o "$group" cgroup "$here/sys/fs/cgroup/$group" || rmdir "$here/sys/fs/cgroup/$group"
done
mkdir "$here/sys/fs/cgroup/systemd" "$here/sys/fs/cgroup/unified"
mount -t cgroup -o none,name=systemd cgroup "$here/sys/fs/cgroup/systemd"
mount -t cgroup2 cgroup2 "$here/sys/fs/cgroup/unified"

mount -t tmpfs -o mode=755 tmpfs "$here/run"
mount -t tmpfs -o mode=755 tmpfs "$here/dev"
mkdir "$here/dev/pts" "$here/dev/shm"
mount -t devpts -o newinstance,ptmxmode=0666,mode=620,gid=5 devpts "$here/dev/pts"
mount -t tmpfs -o mode=1777 tmpfs "$here/dev/shm"
mknod -m 666 "$here/dev/null" c 1 3
mknod -m 666 "$here/dev/zero" c 1 5
mknod -m 666 "$here/dev/full" c 1 7
mknod -m 666 "$here/dev/random" c 1 8
mknod -m 666 "$here/dev/urandom" c 1 9
mknod -m 666 "$here/dev/tty" c 5 0
ln -s pts/ptmx "$here/dev/ptmx"
ln -s /proc/self/fd "$here/dev/fd"
ln -s fd/0 "$here/dev/stdin"
ln -s fd/1 "$here/dev/stdout"
ln -s fd/2 "$here/dev/stderr"
touch "$here/dev/console"
mount --bind "$console" "$here/dev/console"

hostname "$name"
until [ -e "$folder/go" ]; do sleep 0.01; done # the wire is connected
mkdir -p "$here/.old"
cd "$here"
pivot_root . .old
umount -l /.old
rmdir /.old
exec env -i container=anybinder TERM=dumb PATH=/usr/sbin:/usr/bin:/sbin:/bin "$@" /sbin/init --log-target=journal \
    --show-status=yes </dev/console >/dev/console 2>&1
