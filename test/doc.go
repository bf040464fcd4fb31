// Package test holds the checks that concern the whole tree rather than one
// package: who may import whom, that every message that Postern builds is
// understood alike by two decoders that are not ours, and that the documents
// say what the code says. Its folders hold the suites that run the real program.
package test
