# The program, by both snapshots, from a store on disk and one in memory: what is mounted is what umoci unpacks.
# build: engine/cli/coco-pull
none_bound() {
	[ "$(bound)" = 0 ]
}

# try STORE SNAPSHOT TAG
try() {
	local image=oci:/guest/image:$3

	"$coco" --store "$1" pull "$image" --snapshot "$2" >log 2>&1 || { cat log; return 1; }
	"$coco" --store "$1" mount "$image" "$PWD/view"
	same_tree view "$3"
	"$coco" --store "$1" unmount "$PWD/view"
	until_true none_bound
}

mkdir view
make_ext4 disk
for tag in small many; do
	try "$PWD/disk/directories" overlay $tag
	try "$PWD/disk/images" erofs $tag
	# directories are not tried in memory: before 6.6 tmpfs has no user.* attributes
	try "$PWD/memory" erofs $tag
done
umount disk
