// Package demo is the gate over two local machines that sleep, to try out or to be visited by script. It knows its gate
// from outside, as an operator and clients do: who runs the demo has one served.
package demo
