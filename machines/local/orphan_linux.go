// The kernel's help against servers that outlive us.

package local

import "syscall"

// dieWithParent has the kernel send SIGINT, a fast shutdown, when the thread that started the child ends. The thread
// must therefore be kept as long as the child: see Cluster.run.
func dieWithParent(attr *syscall.SysProcAttr) { attr.Pdeathsig = syscall.SIGINT }
