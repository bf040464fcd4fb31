#!/bin/sh
# Runs every fuzz target of the module for a while, one after the other: fuzz.sh DURATION (such as 5s).
set -eu
duration=${1:?how long for each target?}
cd "$(dirname "$0")/.."

# Only packages with a fuzz target are compiled for the question which ones they have.
for dir in $(grep -rl --include='*_test.go' '^func Fuzz' . | xargs -r -n1 dirname | sort -u); do
	listed=$(go test -list '^Fuzz' "$dir") # not in the loop's head, where its failure would go unseen
	for target in $(echo "$listed" | grep '^Fuzz'); do
		echo "fuzz $dir $target $duration"
		go test -run '^$' -fuzz "^$target\$" -fuzztime "$duration" "$dir"
	done
done
