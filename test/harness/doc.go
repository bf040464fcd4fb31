// Package harness gives tests the world around Postern: real PostgreSQL servers of two generations, the real binary with
// its configuration, log and metrics, load balancers that send PROXY headers, certificates, a client that can say anything
// at all on the wire, and a relay that breaks connections. Only tests import it.
//
// A package whose tests use servers or the binary wraps its run in [Main], which owns what tests share and removes it:
//
//	func TestMain(m *testing.M) { os.Exit(harness.Main(m)) }
//
// Whatever a function makes for one test ends with that test. A missing program is an error that names the script which
// installs it, never a skipped test.
package harness
