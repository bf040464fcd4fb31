// The list: what is taken of a server's answer, and who of it may log in.

package roles

import (
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/postern/postern/proxy/scram"
)

// Limits of a list.
const (
	MaxRoles = 10_000
	MaxBytes = 8 << 20 // of a server's whole answer
	maxName  = 255     // bytes; Postgres has 63
	// maxIterations bounds what a login costs us, because a tenant's server chooses it. About 0.1 s of CPU; Postgres's default is 4,096.
	maxIterations = 200_000
)

// Role is one that may log in.
type Role struct {
	Verifier scram.Verifier
	Until    time.Time // VALID UNTIL; zero: for ever
	Limit    int       // CONNECTION LIMIT; -1: none
}

// List is the roles of a server at one moment that may log in with SCRAM. It never changes. It prints as a number of roles: what it
// holds is secret.
type List struct{ roles map[string]Role }

// String tells how many there are.
func (l *List) String() string { return fmt.Sprintf("%d roles", l.Len()) }

// Len is the number of roles; nil has none.
func (l *List) Len() int {
	if l == nil {
		return 0
	}
	return len(l.roles)
}

// Role finds a role by its name, byte by byte.
func (l *List) Role(name string) (Role, bool) {
	if l == nil {
		return Role{}, false
	}
	r, ok := l.roles[name]
	return r, ok
}

// All calls each for every role, in no order.
func (l *List) All(each func(name string, r Role)) {
	if l != nil {
		for name, r := range l.roles {
			each(name, r)
		}
	}
}

// Expired reports whether the role's password counts no more, as Postgres judges it: VALID UNTIL itself is still good.
func (r Role) Expired(now time.Time) bool { return !r.Until.IsZero() && now.After(r.Until) }

// Equal reports whether both say the same.
func (r Role) Equal(o Role) bool {
	return r.Verifier.Equal(o.Verifier) && r.Until.Equal(o.Until) && r.Limit == o.Limit
}

// Equal reports whether both have the same roles.
func (l *List) Equal(o *List) bool {
	if (l == nil) != (o == nil) || l.Len() != o.Len() {
		return false
	}
	same := true
	l.All(func(name string, r Role) {
		other, ok := o.Role(name)
		same = same && ok && r.Equal(other)
	})
	return same
}

// Builder makes a list of rows.
type Builder struct {
	own  string
	seen map[string]bool
	list List
}

// NewBuilder starts a list. own is the role that asks: it is nobody's to log in as.
func NewBuilder(own string) *Builder {
	return &Builder{own: own, seen: make(map[string]bool), list: List{make(map[string]Role)}}
}

// List is what has been added.
func (b *Builder) List() *List { return &b.list }

// Add takes a row of Query, in text; nil is NULL. An error means that the answer is not one to rely on; it repeats nothing of it.
func (b *Builder) Add(row [][]byte) error {
	if len(row) != 5 {
		return fmt.Errorf("a row has %d columns instead of 5", len(row))
	}
	if len(b.seen) == MaxRoles {
		return fmt.Errorf("there are more than %d roles", MaxRoles)
	}
	name, r, login, err := parse(row)
	if err != nil {
		return fmt.Errorf("row %d: %w", len(b.seen)+1, err)
	}
	if b.seen[name] {
		return fmt.Errorf("row %d: the role was there already", len(b.seen)+1)
	}
	b.seen[name] = true
	if login && name != b.own {
		b.list.roles[name] = r
	}
	return nil
}

// parse reads one row. login: it is one of a role that can prove a password.
func parse(row [][]byte) (name string, r Role, login bool, err error) {
	name = string(row[0])
	if name == "" || len(name) > maxName || strings.ContainsRune(name, 0) {
		return "", r, false, errors.New("rolname is no name")
	}
	if r.Until, err = until(row[2]); err != nil {
		return "", r, false, err
	}
	switch string(row[3]) {
	case "t":
		login = true
	case "f":
	default:
		return "", r, false, errors.New("rolcanlogin is no boolean")
	}
	if r.Limit, err = strconv.Atoi(string(row[4])); err != nil || r.Limit < -1 || r.Limit > math.MaxInt32 {
		return "", r, false, errors.New("rolconnlimit is no number of connections")
	}
	if r.Verifier, err = scram.ParseVerifier(string(row[1])); err != nil || r.Verifier.Iterations > maxIterations || !utf8.ValidString(name) {
		return name, Role{}, false, nil // no password, or of a kind that is not proved here
	}
	return name, r, login, nil
}

// until reads VALID UNTIL, in seconds since 1970.
func until(text []byte) (time.Time, error) {
	if text == nil {
		return time.Time{}, nil
	}
	seconds, err := strconv.ParseFloat(string(text), 64)
	if err != nil || math.IsNaN(seconds) {
		return time.Time{}, errors.New("rolvaliduntil is no time")
	}
	const first, last = -60_000_000_000, 250_000_000_000 // years of four digits, which can be written down
	if seconds > last {
		return time.Time{}, nil
	}
	seconds = max(seconds, first)
	return time.UnixMicro(int64(math.Round(seconds * 1e6))).UTC(), nil
}

// kept is a role as it is written down.
type kept struct {
	Verifier string    `json:"verifier"`
	Until    time.Time `json:"until,omitzero"`
	Limit    int       `json:"limit"`
}

// Encode writes the list down. The result is a secret.
func (l *List) Encode() []byte {
	all := make(map[string]kept, l.Len())
	l.All(func(name string, r Role) { all[name] = kept{r.Verifier.Encode(), r.Until, r.Limit} })
	text, err := json.Marshal(all)
	if err != nil {
		panic("BUG: " + err.Error()) // see until
	}
	return text
}

// Decode is the reverse of Encode. Its errors repeat nothing of the text.
func Decode(text []byte) (*List, error) {
	var all map[string]kept
	if json.Unmarshal(text, &all) != nil || len(all) > MaxRoles {
		return nil, errors.New("is no list of roles")
	}
	l := &List{make(map[string]Role, len(all))}
	for name, k := range all {
		v, err := scram.ParseVerifier(k.Verifier)
		if err != nil {
			return nil, errors.New("is no list of roles")
		}
		l.roles[name] = Role{v, k.Until, k.Limit}
	}
	return l, nil
}
