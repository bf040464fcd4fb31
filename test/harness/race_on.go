// Whether the tests, and so the binary, are built with the race detector.

//go:build race

package harness

const raceEnabled = true
