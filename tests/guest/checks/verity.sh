# Mounts by dm-verity: what was changed in the store is not read, everything else is, and nothing is left behind.
# build: engine/cli/coco-pull
none_left() {
	[ "$(bound)" = 0 ] && [ "$(mapped)" = 0 ]
}

make_ext4 disk
mkdir view
"$coco" --store disk/store pull "$image" --snapshot erofs --verity >log 2>&1 || { cat log; exit 1; }
"$coco" --store disk/store mount "$image" "$PWD/view"
[ "$(mapped)" != 0 ] || skip "the program does not mount by dm-verity"
[ "$(mapped)" = "$(ls -d disk/store/layers/*.erofs | wc -l)" ]
tree view >seen
cmp /guest/image.tree seen

# under the mount, as who owns the disk could: a block of data of the largest layer
layer=$(ls -S disk/store/layers/*/layer.erofs | head -n 1)
printf x | dd of="$layer" bs=1 seek=$((100 * 4096 + 5)) conv=notrunc 2>/dev/null
sync
echo 3 >/proc/sys/vm/drop_caches
find view -type f -exec sh -c 'for f; do cat "$f" >/dev/null 2>&1 || echo "$f"; done' sh {} + >unreadable
[ "$(wc -l <unreadable)" = 1 ] || { echo "not one file has become unreadable, but:"; cat unreadable; exit 1; }
"$coco" unmount --store disk/store "$PWD/view"
until_true none_left
umount disk
