// Package test holds the checks that concern the whole tree rather than one
// package: who may import whom, and that every message that Postern builds is
// understood alike by two decoders that are not ours. Its folders hold the
// suites that run the real program.
package test
