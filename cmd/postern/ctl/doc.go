// Package ctl is the command line for a running Postern: it asks the admin API, and prints tables for people or JSON for programs.
// It knows the routes and nothing of what is behind them; what it cannot do, its token may not do.
package ctl
