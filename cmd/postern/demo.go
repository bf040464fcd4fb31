// The demo command: its flags, and the gate that the demo has served.

package main

import (
	"context"

	"github.com/spf13/cobra"

	"github.com/postern/postern/cmd/postern/demo"
	"github.com/postern/postern/configs"
	"github.com/postern/postern/machines"
)

func newDemo() *cobra.Command {
	var o demo.Options
	cmd := &cobra.Command{Use: "demo", Short: "Try it out: the gate in front of two local PostgreSQL machines that sleep", Args: cobra.NoArgs,
		Long: "demo makes two tenants, acme and globex, each on a PostgreSQL machine of its own, which sleeps while nobody needs it.\n" +
			"It serves them on loopback addresses and prints lines to paste into another terminal. It needs PostgreSQL's server\n" +
			"programs (initdb, postgres).",
		RunE: func(cmd *cobra.Command, _ []string) error {
			defer survivePipes()()
			lines := newAsyncWriter(cmd.ErrOrStderr())
			defer lines.flush()
			o.Out, o.Log = cmd.OutOrStdout(), newLogger(configs.Log{Level: "warn", Format: configs.LogText}, lines)
			o.Serve = func(ctx context.Context, config string, started func(demo.Gate)) error {
				conf, err := configs.Load(config)
				if err != nil {
					return err
				}
				p, err := build(conf, o.Log, lines.lost.Load)
				if err != nil {
					return err
				}
				return p.run(ctx, o.Log, func() { started(p.forDemo()) })
			}
			return demo.Run(cmd.Context(), o)
		}}
	cmd.Flags().BoolVar(&o.Once, "once", false, "make a scripted visit instead of waiting for you; exit code 1 if something is not as it should be")
	cmd.Flags().StringVar(&o.Dir, "dir", "", "keep machines and files in this folder (default: a temporary one, removed at the end)")
	return cmd
}

// forDemo is what the demo sees of a gate that serves.
func (p *process) forDemo() demo.Gate {
	g := demo.Gate{Listeners: make(map[string]string), Admin: p.adminLn.Addr().String(),
		Machine: func(tenant string) (machines.View, error) {
			info, err := p.gate.Machine(tenant)
			return info.View, err
		}}
	for i, a := range p.gate.Addrs() {
		g.Listeners[p.conf.Listeners[i].Name] = a.String()
	}
	return g
}
