// Reading one small file.

package files

import (
	"fmt"
	"io"
	"os"
	"syscall"
)

// Read reads a regular file of at most limit bytes. Others are refused: a pipe would hang, a device never end. It may wait
// as long as the file system does; [Lane.Read] does not.
func Read(path string, limit int) ([]byte, error) {
	// With O_NONBLOCK not even the opening of a pipe waits for somebody at its other end. A regular file does not mind. What
	// was opened is judged, so that nobody can change the path in between.
	f, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK|syscall.O_NOCTTY, 0)
	if err != nil {
		return nil, err
	}
	defer func() { _ = f.Close() }() // only read
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() {
		return nil, fmt.Errorf("%s is not a regular file", path)
	}
	data, err := io.ReadAll(io.LimitReader(f, int64(limit)+1))
	if err != nil {
		return nil, err
	}
	if len(data) > limit {
		return nil, fmt.Errorf("%s is longer than %d bytes", path, limit)
	}
	return data, nil
}
