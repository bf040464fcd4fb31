// The key file, and sealing: AES-256-GCM, bound to the place where the sealed value stands.

package postgres

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"crypto/rand"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"regexp"
	"strings"

	"github.com/postern/postern/files"
)

const (
	maxKeyFile = 64 << 10
	keyBytes   = 32 // AES-256
	sealedForm = 1  // the first byte of what is sealed
)

var keyID = regexp.MustCompile(`^[A-Za-z0-9_-]{1,32}$`)

// Keys seal and open secrets. They never change.
type Keys struct {
	first string // seals
	all   map[string]cipher.AEAD
}

// ReadKeys reads a key file: a line for each key, its id and 32 bytes in base64. The first one seals; all open. Empty lines and
// lines that start with # do not count. Errors repeat nothing of the file.
func ReadKeys(path string) (*Keys, error) {
	text, err := files.Read(path, maxKeyFile)
	if err != nil {
		return nil, fmt.Errorf("key file: %w", err)
	}
	k, err := parseKeys(text)
	if err != nil {
		return nil, fmt.Errorf("key file %s: %w", path, err)
	}
	return k, nil
}

func parseKeys(text []byte) (*Keys, error) {
	k := &Keys{all: make(map[string]cipher.AEAD)}
	n := 0
	for line := range bytes.Lines(text) {
		n++
		fields := strings.Fields(string(line))
		if len(fields) == 0 || strings.HasPrefix(fields[0], "#") {
			continue
		}
		if len(fields) != 2 || !keyID.MatchString(fields[0]) {
			return nil, fmt.Errorf("line %d: must be the id of a key (letters, digits, _ and -) and the key", n)
		}
		key, err := base64.StdEncoding.DecodeString(fields[1])
		if err != nil || len(key) != keyBytes {
			return nil, fmt.Errorf("line %d: the key must be %d bytes in base64", n, keyBytes)
		}
		if k.all[fields[0]] != nil {
			return nil, fmt.Errorf("line %d: the id is there already", n)
		}
		block, err := aes.NewCipher(key)
		if err != nil {
			return nil, err
		}
		if k.all[fields[0]], err = cipher.NewGCMWithRandomNonce(block); err != nil {
			return nil, err
		}
		if k.first == "" {
			k.first = fields[0]
		}
	}
	if k.first == "" {
		return nil, errors.New("has no key")
	}
	return k, nil
}

// MakeKeyFile writes a key file with one new key, unless there is a file already. It reports whether it has made one.
func MakeKeyFile(path string) (bool, error) {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if errors.Is(err, os.ErrExist) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	key := make([]byte, keyBytes)
	_, _ = rand.Read(key) // never fails
	_, err = fmt.Fprintf(f, "# Opens the secrets of the store of tenants. Keep a copy where the database is not.\nk1 %s\n", base64.StdEncoding.EncodeToString(key))
	return true, errors.Join(err, f.Sync(), f.Close())
}

// place is where a sealed value stands: put anywhere else, it does not open.
type place struct {
	table, field string
	row          []string
}

// bind is the data that the seal is bound to: each part with its length, so that no two places look alike.
func (p place) bind(id string) (b []byte) {
	for _, part := range append([]string{"postern", p.table, p.field, id}, p.row...) {
		b = append(binary.AppendUvarint(b, uint64(len(part))), part...)
	}
	return b
}

// seal closes a text. The result tells which key opens it.
func (k *Keys) seal(at place, text []byte) []byte {
	head := append([]byte{sealedForm, byte(len(k.first))}, k.first...)
	return k.all[k.first].Seal(head, nil, text, at.bind(k.first))
}

var errSealed = errors.New("a sealed value does not open: it was changed, belongs somewhere else, or was sealed with another key of the same id")

// open is the reverse of seal.
func (k *Keys) open(at place, sealed []byte) ([]byte, error) {
	if len(sealed) < 2 || sealed[0] != sealedForm || len(sealed) < 2+int(sealed[1]) {
		return nil, errors.New("is no sealed value")
	}
	id := string(sealed[2 : 2+sealed[1]])
	key := k.all[id]
	if key == nil {
		if !keyID.MatchString(id) {
			return nil, errors.New("is no sealed value")
		}
		return nil, fmt.Errorf("the key file has no key %s", id)
	}
	text, err := key.Open(nil, nil, sealed[2+len(id):], at.bind(id))
	if err != nil {
		return nil, errSealed
	}
	return text, nil
}
