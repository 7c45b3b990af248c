# SPDX-License-Identifier: Apache-2.0
# Sourced before every check. A check begins in an empty directory of its own; what it ends with is its result.
set -eu
build=/guest/build

# A unit test, which may skip nothing but what wants the shared test data: this kernel has all the rest.
unit() {
	# takes a minute where the processor is emulated, and has nothing to do with the kernel
	export COCO_PULL_SKIP_TEST=same_bytes
	CMOCKA_MESSAGE_OUTPUT=TAP "$build/tests/unit/test_$1" >out 2>&1 || { cat out; exit 1; }
	grep -q 'skipped: no shared test data' out && { echo "no shared test data"; exit 77; }
	grep -i skip out && exit 1
	exit 0
}
