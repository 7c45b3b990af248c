# The program, by both snapshots, from a store on disk and one in memory: what is mounted is what umoci unpacks.
# build: engine/cli/coco-pull
none_bound() {
	[ "$(bound)" = 0 ]
}

# try STORE SNAPSHOT
try() {
	"$coco" --store "$1" pull "$image" --snapshot "$2" >log 2>&1 || { cat log; return 1; }
	"$coco" --store "$1" mount "$image" "$PWD/view"
	[ "$2" = overlay ] || [ "$(bound)" != 0 ] || echo "(mounted without loop devices)"
	tree view >seen
	cmp -s /guest/image.tree seen || { diff /guest/image.tree seen | head -n 40; return 1; }
	"$coco" unmount --store "$1" "$PWD/view"
	until_true none_bound
}

mkdir view
make_ext4 disk
try "$PWD/disk/directories" overlay
try "$PWD/disk/images" erofs
# directories are not tried in memory: before 6.6 tmpfs has no user.* attributes
try "$PWD/memory" erofs
umount disk
