#!/bin/busybox sh
# The first program of a guest: loads what its disk and its card need, lays this cloud's files over its root, and becomes systemd.
export PATH=/bin
/bin/busybox --install -s /bin
mkdir -p /dev /root
mount -t devtmpfs dev /dev
while read -r driver; do insmod "/drivers/$driver"; done </drivers/order
until [ -b /dev/vda ]; do usleep 50000; done
mount -t ext4 -o rw,noatime /dev/vda /root
cp -a /over/. /root/
mount --move /dev /root/dev
exec switch_root /root /sbin/init
