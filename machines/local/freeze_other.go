// Systems without /proc: nothing is frozen here.

//go:build !linux

package local

import "context"

func freeze(context.Context, int) ([]member, error) { return nil, ErrNoFreeze }

func thaw(int, []member) {}

func thawStrays(string) {}

func isStopped(int) bool { return false }
