# Mounts by dm-verity: what was changed in the store is not read, everything else is, and nothing is left behind.
# build: engine/cli/coco-pull
none_left() {
	[ "$(bound)" = 0 ] && [ "$(mapped)" = 0 ]
}

# pull_and_mount TAG DEVICES
pull_and_mount() {
	local image=oci:/guest/image:$1

	"$coco" --store disk/store pull "$image" --snapshot erofs --verity >log 2>&1 || { cat log; exit 1; }
	"$coco" --store disk/store mount "$image" "$PWD/view"
	[ "$(mapped)" = "$2" ]
}

unmount_view() {
	"$coco" --store disk/store unmount "$PWD/view"
	until_true none_left
}

# change FILE OFFSET: as who owns the disk could.
change() {
	printf '\377' | dd of="$1" bs=1 seek="$2" conv=notrunc 2>/dev/null
	sync
	echo 3 >/proc/sys/vm/drop_caches
}

make_ext4 disk
mkdir view

# so many layers are merged into an image of their own, which is one device more
pull_and_mount many 25
same_tree view many
unmount_view
"$coco" --store disk/store rm oci:/guest/image:many

pull_and_mount small 4
same_tree view small

# under the mount, a block of data of the largest layer
layer=$(ls -S disk/store/layers/*/layer.erofs | head -n 1)
change "$layer" $((100 * 4096 + 5))
find view -type f -exec b2sum {} + 2>unreadable | sort -k 2 >sums || :
count=$(grep -c 'Input/output error' unreadable) || :
[ "$count" = 1 ] || { echo "not one file is unreadable, but:"; cat unreadable; exit 1; }
sed 's|  view/|  ./|' sums | grep -v -x -F -f /guest/image/small.tree && exit 1
unmount_view

# and one without which there is no mount
change "$layer" 1100
status=0
"$coco" --store disk/store mount oci:/guest/image:small "$PWD/view" 2>log || status=$?
[ $status = 5 ] || { echo "status $status"; cat log; exit 1; }
grep 'layer 1/4: .*first block does not match' log
until_true none_left
umount disk
