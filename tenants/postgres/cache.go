// The cache file: what is in force, sealed, for a start without the store.

package postgres

import (
	"bufio"
	"crypto/rand"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/postern/postern/tenants"
	"github.com/postern/postern/tenants/document"
)

// The file is magic, then records, each with its length: tenants, and an ending. Each is sealed on its own, bound to the file and
// to its number in it, so that none can be left out, moved or taken from an older file.
const (
	cacheMagic = "postern tenants 1\n"
	maxRecord  = 64 << 20
)

// contents is what a cache file has.
type contents struct {
	all   []*tenants.Tenant
	marks map[string]int64
	end   ending
}

// ending is the last record.
type ending struct {
	Epoch string    `json:"epoch"`
	Seen  int64     `json:"seen"`
	At    time.Time `json:"at"` // when the store was known to have just this
	Count int       `json:"count"`
}

// cache writes a file, rarely and in the background. offer, dirty and close belong to one goroutine.
type cache struct {
	path string
	keys *Keys
	log  *slog.Logger

	isDirty bool
	key     atomic.Pointer[string] // id of the key that the file needs; nil: there is no file
	last    time.Time              // when writing began
	writing sync.WaitGroup
	busy    chan struct{} // holds one while somebody writes
}

func newCache(path string, keys *Keys, log *slog.Logger) *cache {
	c := &cache{path: path, keys: keys, log: log, busy: make(chan struct{}, 1)}
	if id, err := keyOfCache(path); err == nil {
		c.key.Store(&id)
	}
	return c
}

// needs is the id of the key without which the file cannot be read; "": there is no file.
func (c *cache) needs() string {
	if id := c.key.Load(); id != nil {
		return *id
	}
	return ""
}

// stale reports whether there is a file that another key has sealed than would now.
func (c *cache) stale() bool { return c.needs() != "" && c.needs() != c.keys.IDs()[0] }

// dirty says that the file is not what it should be.
func (c *cache) dirty() { c.isDirty = true }

// offer has the file written, if it is time to.
func (c *cache) offer(now func() contents) {
	wait := cacheEvery
	if c.stale() { // somebody waits until the old key can go
		c.isDirty, wait = true, time.Second
	}
	if c.path == "" || !c.isDirty || time.Since(c.last) < wait {
		return
	}
	select {
	case c.busy <- struct{}{}:
	default:
		return
	}
	c.last, c.isDirty = time.Now(), false
	what := now()
	c.writing.Go(func() {
		defer func() { <-c.busy }()
		c.write(what)
	})
}

// close writes what was not written yet.
func (c *cache) close(now func() contents) {
	c.writing.Wait()
	if c.path != "" && c.isDirty {
		c.write(now())
	}
}

func (c *cache) write(what contents) {
	if err := c.save(what); err != nil {
		c.log.Error("the cache file of the store of tenants is not written", "error", err)
	}
}

// save replaces the file in one step.
func (c *cache) save(what contents) (err error) {
	f, err := os.OpenFile(c.path+".new", os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			_ = os.Remove(f.Name())
		}
	}()
	w := bufio.NewWriter(f)
	keys := newKeys(c.keys.now.Load()) // the same ones from beginning to end
	err = errors.Join(encodeCache(w, what, keys), w.Flush(), f.Sync(), f.Close())
	if err == nil {
		err = os.Rename(f.Name(), c.path)
	}
	if err == nil {
		c.key.Store(&keys.IDs()[0])
	}
	return err
}

func recordPlace(file string, number int) place {
	return place{table: "cache", row: []string{file, strconv.Itoa(number)}, field: "record"}
}

func encodeCache(w io.Writer, what contents, keys *Keys) error {
	file := rand.Text()
	if _, err := io.WriteString(w, cacheMagic+file+"\n"); err != nil {
		return err
	}
	number := 0
	record := func(v any) error {
		sealed := keys.seal(recordPlace(file, number), document.Encode(v))
		number++
		if _, err := w.Write(binary.BigEndian.AppendUint32(nil, uint32(len(sealed)))); err != nil {
			return err
		}
		_, err := w.Write(sealed)
		return err
	}
	for _, t := range what.all {
		mark, ok := what.marks[t.ID]
		if !ok {
			mark = unread
		}
		if err := record(rowOf(t, mark, keys)); err != nil {
			return err
		}
	}
	what.end.Count = len(what.all)
	return record(what.end)
}

// read calls each for every tenant of the file, if all of the file is good.
func (c *cache) read(each func(row) error) (end ending, err error) {
	f, err := os.Open(c.path)
	if err != nil {
		return end, err
	}
	defer f.Close()
	in := bufio.NewReader(f)
	file, err := cacheStart(in)
	if err != nil {
		return end, err
	}
	var rows []row
	for number := 0; ; number++ {
		text, err := c.record(in, recordPlace(file, number))
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return end, fmt.Errorf("record %d: %w", number, err)
		}
		if end.Epoch != "" {
			return end, errors.New("goes on behind its end")
		}
		var r row
		if err := json.Unmarshal(text, &r); err != nil {
			return end, err
		}
		if r.ID != "" {
			rows = append(rows, r)
		} else if err := json.Unmarshal(text, &end); err != nil {
			return end, err
		}
	}
	if end.Epoch == "" || end.Count != len(rows) {
		return end, errors.New("is cut short")
	}
	for _, r := range rows {
		if err := each(r); err != nil {
			return end, err
		}
	}
	return end, nil
}

// cacheStart reads how a file begins, and returns what tells it from others.
func cacheStart(in io.Reader) (string, error) {
	start := make([]byte, len(cacheMagic)+26+1) // rand.Text's length
	if _, err := io.ReadFull(in, start); err != nil || string(start[:len(cacheMagic)]) != cacheMagic || start[len(start)-1] != '\n' {
		return "", errors.New("is no cache file of ours")
	}
	return string(start[len(cacheMagic) : len(start)-1]), nil
}

// keyOfCache is the id of the key that a file was sealed with.
func keyOfCache(path string) (string, error) {
	f, err := os.Open(path)
	if err != nil {
		return "", err
	}
	defer f.Close()
	in := bufio.NewReader(f)
	if _, err := cacheStart(in); err != nil {
		return "", err
	}
	first, err := sealedRecord(in)
	return sealedBy(first), err
}

func (c *cache) record(in io.Reader, at place) ([]byte, error) {
	sealed, err := sealedRecord(in)
	if err != nil {
		return nil, err
	}
	return c.keys.open(at, sealed)
}

func sealedRecord(in io.Reader) ([]byte, error) {
	var length [4]byte
	if _, err := io.ReadFull(in, length[:]); err != nil {
		return nil, err // io.EOF between two records
	}
	n := binary.BigEndian.Uint32(length[:])
	if n > maxRecord {
		return nil, errors.New("is too long")
	}
	sealed := make([]byte, n)
	if _, err := io.ReadFull(in, sealed); err != nil {
		return nil, errors.New("is cut short")
	}
	return sealed, nil
}
