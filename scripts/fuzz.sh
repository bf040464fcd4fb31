#!/bin/sh
# Runs every fuzz target of the module for a while, one after the other: fuzz.sh DURATION (such as 5s).
set -eu
duration=${1:?how long for each target?}
cd "$(dirname "$0")/.."

output=$(mktemp)
trap 'rm -f "$output"' EXIT

# fuzz DIR TARGET: at the end of its time the go command sometimes takes the end itself for a failure, the more often the
# busier the computer is. It then names no input, and gets another chance. A failure with an input ends everything.
fuzz() {
	for chance in 1 2 3 4 5; do
		if go test -run '^$' -fuzz "^$2\$" -fuzztime "$duration" -fuzzminimizetime 10x "$1" >"$output" 2>&1; then
			tail -n 1 "$output"
			return 0
		fi
		cat "$output"
		if ! grep -q 'context deadline exceeded' "$output" || grep -q 'Failing input' "$output"; then
			break
		fi
		echo "no input failed: chance $chance of 5 is over"
	done
	exit 1
}

# Only packages with a fuzz target are compiled for the question which ones they have.
for dir in $(grep -rl --include='*_test.go' '^func Fuzz' . | xargs -r -n1 dirname | sort -u); do
	listed=$(go test -list '^Fuzz' "$dir") # not in the loop's head, where its failure would go unseen
	for target in $(echo "$listed" | grep '^Fuzz'); do
		echo "fuzz $dir $target $duration"
		fuzz "$dir" "$target"
	done
done
