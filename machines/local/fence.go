// The fence of a machine that several processes share: a file in its folder, locked by whoever changes the machine, with that one's epoch.

package local

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/postern/postern/machines"
)

const (
	fenceName  = "postern.epoch"
	fencePause = 20 * time.Millisecond // between two tries to lock it
	maxFence   = 64
)

var errOldEpoch = errors.New("another process has changed the machine since: this one stood still, or could not reach the store of tenants")

// fenced runs a change of a machine that processes share, with the lock of its fence. An epoch that is older than one that was there is
// refused, and while a change is under way every other one waits: who stands still in the middle of one keeps the lock. ctx may end the
// wait for the lock, and not the change.
func (m *Machine) fenced(ctx context.Context, change func() error) error {
	f, ok := machines.FenceOf(ctx)
	if !ok && !m.opts.Shared {
		return change()
	}
	f.At(atLock)
	file, err := m.lockFence(ctx)
	if err != nil {
		return err
	}
	defer file.Close() // and with it the lock
	if ok {
		f.At(atEpoch)
		if err := obey(file, f.Epoch); err != nil {
			return err
		}
		f.At(atCheck)
		if err := f.Over(ctx); err != nil {
			return fmt.Errorf("%w: %w", errOldEpoch, err)
		}
	}
	f.At(atChange)
	defer f.At(atUnlock)
	return change()
}

// Where a change stands: what comes next.
const (
	atLock   = "the lock is taken"
	atEpoch  = "the epoch is compared"
	atCheck  = "the right is checked"
	atChange = "the change is made"
	atUnlock = "the lock is given back"
)

func (m *Machine) lockFence(ctx context.Context) (*os.File, error) {
	if err := os.MkdirAll(filepath.Dir(m.opts.Dir), 0o711); err != nil { // as Create does
		return nil, err
	}
	if err := os.MkdirAll(m.opts.Dir, 0o700); err != nil {
		return nil, err
	}
	file, err := os.OpenFile(filepath.Join(m.opts.Dir, fenceName), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, err
	}
	for {
		err := syscall.Flock(int(file.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
		if err == nil {
			return file, nil
		}
		if errors.Is(err, syscall.EWOULDBLOCK) || errors.Is(err, syscall.EINTR) {
			if err = pause(ctx, fencePause); err == nil {
				continue
			}
			err = fmt.Errorf("another process is changing the machine: %w", err)
		}
		file.Close()
		return nil, err
	}
}

// obey compares an epoch with the last one that was obeyed, and remembers it.
func obey(file *os.File, epoch int64) error {
	text := make([]byte, maxFence)
	n, err := file.ReadAt(text, 0)
	if n == 0 { // it is new
		return remember(file, epoch)
	}
	last, err2 := strconv.ParseInt(strings.TrimSpace(string(text[:n])), 10, 64)
	switch {
	case err2 != nil:
		return fmt.Errorf("%s holds no epoch: %w", file.Name(), errors.Join(err, err2))
	case epoch < last:
		return fmt.Errorf("%w (epoch %d after %d)", errOldEpoch, epoch, last)
	case epoch == last:
		return nil
	}
	return remember(file, epoch)
}

// remember writes an epoch over the one before. They are of one length, so that no moment has neither.
func remember(file *os.File, epoch int64) error {
	if _, err := file.WriteAt(fmt.Appendf(nil, "%019d\n", epoch), 0); err != nil {
		return err
	}
	return file.Sync()
}
