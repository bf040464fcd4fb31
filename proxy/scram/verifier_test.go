// Verifiers: parsing, deriving as Postgres does, mocks.

package scram

import (
	"bytes"
	"encoding/base64"
	"errors"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

// fromPostgres are verifiers made by PostgreSQL 15 (ALTER ROLE ... PASSWORD in a UTF-8 database). They also show what
// its SASLprep does: each but the plain ones breaks at least one easier way to do it.
var fromPostgres = []struct{ name, password, verifier string }{
	{"plain", "pencil", "SCRAM-SHA-256$4096:vO6Z2ByiG2WBkKf5wfgSAA==$IhX0a51eFS7TjjxcT8EeJ3H42x9tY2IuDqs8xwGbKtA=:4iI/Zc0QhzQQ/nRVxoRbV4OE7KEO81S8MV/6+InYsVQ="},
	{"space", "a b", "SCRAM-SHA-256$4096:0D2IcGYxkVAFx8ooL2wpBQ==$6FxXV8r7NCY1CN2O0yK91ERHcVxcHoS+b2Lpub3BFVg=:JKTcc04jHjdwYhYjNRM4zr7fUuYb1xUOxuGIrRKikSg="},
	{"roman numeral, normalized", "\u2168", "SCRAM-SHA-256$4096:zrneYAFPHGGEdnc+bPjXLA==$xjYSgPKTfB1tvv+vAMIDO2HbZyWcAMqEtsYxEszv2u0=:Fw9uj3m+PxZxM0XZPXxRrc4HZNHf9hpe2llX53vtePI="},
	{"soft hyphen, dropped", "I\u00adX", "SCRAM-SHA-256$4096:ekhQp7eNpQsPeZt8jRMw+A==$TLjeZdL99iHCLCfGSjrjZy36veWEoZBZlDLgzRn5Er8=:j8vi1mSVnu7gZO1Tr5qspGfkS0JtAMfoM+0N7jBO6IY="},
	{"zero width space, a space", "a\u200bb", "SCRAM-SHA-256$4096:I98ij2UqNOLwFEMAD0p6TQ==$Hu05c4OBAGlx9ayF7wTZVBFFm/Q7COf4BRr48ZsgUaU=:U18RqZNjP0oYwawE4SSzBpHmBmUmr+iQiGCKjGPvL74="},
	{"control character, raw", "a\a\u2168", "SCRAM-SHA-256$4096:SDJCMKJwCA982hRqOvG0Jw==$TxlTgkaVcqyOTjWpdciDyPFfPJmEIoNTP5KQhGMKJjc=:/3hsPyPNJTWcys95gQ9EthwJxOJXvlDD8GT4/3SOmYc="},
	{"emoji, raw", "\U0001f600\u2168", "SCRAM-SHA-256$4096:oZog08jeB8IJwPsAjr3jDw==$a/kTOaEv9zBxZIOXWanQze8mW2w+7qLCEnaM7TQCbkY=:01QqoaWY8xAweZ1c6dmiXyfNOC4kFj0HGXg9V7WsrYg="},
	{"ligatures, normalized", "\ufb01\ufb02", "SCRAM-SHA-256$4096:rzaIxgYS84cRGUKXhSO98w==$Hv5uxFghKG09idl/z614U+yxspXmltbG9pTM4Tj9pzM=:O4eoSI2YfUU0z4EEtzcI+HVRtekk35lyrKkQf/ACb4w="},
	{"composed", "\u00e0\u00e9", "SCRAM-SHA-256$4096:7Kf/9PKXdd80YuVcjGvY9g==$3N87Qiu6rYLjhunPBoCmDQbLQ+c2OAyPf3FDewIrH5M=:Sist3F9HE7pkBkk5GSz3CsBhY78ALxqyX4bfX5c3Jd4="},
	{"decomposed, the same", "a\u0300e\u0301", "SCRAM-SHA-256$4096:7Kf/9PKXdd80YuVcjGvY9g==$3N87Qiu6rYLjhunPBoCmDQbLQ+c2OAyPf3FDewIrH5M=:Sist3F9HE7pkBkk5GSz3CsBhY78ALxqyX4bfX5c3Jd4="},
	{"right to left, fine", "\u05d01\u05d0", "SCRAM-SHA-256$4096:lsdQNh2261xPRdVdxigbKg==$bODrIz/U/N8mkar2WXOA+Vb7+lMxxOJ559wQ0ikBOCo=:zaxQUUhln/iAPJOgJ8HDkMpGttXlTGoA3q5aF5Zg1b4="},
	{"right to left, bad end, raw", "\u05d0\u00b2", "SCRAM-SHA-256$4096:sM2J94XbvOYD4cwYgPbvbQ==$9gHIej9ZEwK2g5dF17KuavHbevg4OxvohYxOynUhrxc=:gO1wnT60bUu3icLhyHHDndJsEnnPD0k83Z1JwN0JZZI="},
	{"right to left, bad start, raw", "\u00b2\u05d0", "SCRAM-SHA-256$4096:zb5zuHuHGwrw+K3wjNk9yg==$wZjvno8SFFVOthCKR/V09CGBKHj9IoP6trBRhItKZlw=:yNtUq/3h15cV41d24IutUpLBIwd71JXJ3XkDX/OqogA="},
	{"both directions, raw", "\u05d0\u2168\u05d0", "SCRAM-SHA-256$4096:pow/3VPBOZpPQkz4dLXKnw==$gLJjL8n8aA2sPFgnCF568f8cgsbQQP67y+XJefWhJ3A=:QG+sT+Dkpo+l5Rkv8/BxyUwK1NJ1fFUL+okWZuQs11o="},
	{"nothing left, raw", "\u00ad", "SCRAM-SHA-256$4096:gZMzWgO4CPhIMvD/kOrvLA==$D6/as4Z6tzWMaQ1W3Hs90gPA+nmbq6y1wtzo3o+T81M=:XkrvnL/bqlFNjaejJ5mv+lXTcmTP/yyUug7yh2kHBww="},
	{"todo soft hyphen, dropped", "\u05d0\u1806\u05d0", "SCRAM-SHA-256$4096:/P00Jh4jAiuaXgWDH5PO0A==$4tB7tKfRLoCVq6SuunM85CiK6hNGXbIHmd7BoGyrOsE=:5f1cZ+F87vRt++YUpH3kGSKOgQRdqV8KThze6bpNBg0="},
	{"forbidden before normalization only, raw", "\u0340x", "SCRAM-SHA-256$4096:hA8UaWMPE7wQVnvAXpVc1A==$+/zryQCOW340qLp5MeADp4WREYFhqPb53DrN449gOj0=:3pWnTwRqX3yNztBtsMJ0tq+N/U8IYeUUH9lJCkBvjgQ="},
}

func TestNewVerifierIsPostgres(t *testing.T) {
	for _, c := range fromPostgres {
		t.Run(c.name, func(t *testing.T) {
			want, err := ParseVerifier(c.verifier)
			if err != nil {
				t.Fatal(err)
			}
			got, err := NewVerifier(c.password, want.Iterations, want.Salt)
			if err != nil {
				t.Fatal(err)
			}
			if !got.Equal(want) || got.Encode() != c.verifier {
				t.Errorf("%+q gives %s, Postgres says %s", c.password, got.Encode(), c.verifier)
			}
		})
	}
}

func TestNewVerifierBounds(t *testing.T) {
	salt := []byte("0123456789abcdef")
	for _, c := range []struct {
		name, password string
		iterations     int
		salt           []byte
	}{
		{"empty password", "", 4096, salt},
		{"zero byte", "a\x00b", 4096, salt},
		{"no iterations", "x", 0, salt},
		{"negative iterations", "x", -1, salt},
		{"too many iterations", "x", MaxIterations + 1, salt},
		{"empty salt", "x", 4096, []byte{}},
		{"long salt", "x", 4096, make([]byte, MaxSaltSize+1)},
	} {
		if v, err := NewVerifier(c.password, c.iterations, c.salt); !errors.Is(err, ErrVerifier) || !v.IsZero() {
			t.Errorf("%s: %v", c.name, err)
		}
	}
	a, err := NewVerifier("x", 1, nil)
	if err != nil {
		t.Fatal(err)
	}
	b, err := NewVerifier("x", 1, nil)
	if err != nil {
		t.Fatal(err)
	}
	if len(a.Salt) != SaltSize || bytes.Equal(a.Salt, b.Salt) {
		t.Errorf("salts %x and %x are not random", a.Salt, b.Salt)
	}
	given := bytes.Clone(salt)
	if a, err = NewVerifier("x", 1, given); err != nil {
		t.Fatal(err)
	}
	given[0]++
	if !bytes.Equal(a.Salt, salt) {
		t.Error("the verifier shares the caller's salt")
	}
}

func TestParseVerifierIsStrict(t *testing.T) {
	key := base64.StdEncoding.EncodeToString(bytes.Repeat([]byte{0x5a}, KeySize))
	other := base64.StdEncoding.EncodeToString(bytes.Repeat([]byte{0xa5}, KeySize))
	b64 := func(n int) string { return base64.StdEncoding.EncodeToString(make([]byte, n)) }
	good := "SCRAM-SHA-256$4096:c2FsdA==$" + key + ":" + other
	for _, s := range []string{good, "SCRAM-SHA-256$1:AA==$" + key + ":" + other, "SCRAM-SHA-256$1000000:" + b64(1024) + "$" + key + ":" + other} {
		if v, err := ParseVerifier(s); err != nil || v.Encode() != s {
			t.Errorf("%q: %v, encodes to %q", s, err, v.Encode())
		}
	}
	for name, s := range map[string]string{
		"empty":                 "",
		"md5":                   "md5d41d8cd98f00b204e9800998ecf8427e",
		"password":              "hunter2hunter2",
		"other mechanism":       strings.Replace(good, "256", "1", 1),
		"lower case":            strings.Replace(good, "SCRAM", "scram", 1),
		"space in front":        " " + good,
		"space behind":          good + " ",
		"line end behind":       good + "\n",
		"line end in a key":     strings.Replace(good, "$"+key, "$\n"+key, 1),
		"no keys":               "SCRAM-SHA-256$4096:c2FsdA==",
		"no salt":               "SCRAM-SHA-256$4096$" + key + ":" + other,
		"empty salt":            "SCRAM-SHA-256$4096:$" + key + ":" + other,
		"salt of 1025":          "SCRAM-SHA-256$4096:" + b64(1025) + "$" + key + ":" + other,
		"salt unpadded":         "SCRAM-SHA-256$4096:c2FsdA$" + key + ":" + other,
		"salt with stray bits":  "SCRAM-SHA-256$4096:c2FsdB==$" + key + ":" + other,
		"no server key":         "SCRAM-SHA-256$4096:c2FsdA==$" + key,
		"third key":             good + ":" + key,
		"third dollar":          good + "$",
		"stored key of 31":      "SCRAM-SHA-256$4096:c2FsdA==$" + b64(31) + ":" + other,
		"server key of 33":      "SCRAM-SHA-256$4096:c2FsdA==$" + key + ":" + b64(33),
		"no iterations":         strings.Replace(good, "4096", "", 1),
		"0 iterations":          strings.Replace(good, "4096", "0", 1),
		"1000001 iterations":    strings.Replace(good, "4096", "1000001", 1),
		"-1 iterations":         strings.Replace(good, "4096", "-1", 1),
		"+4096 iterations":      strings.Replace(good, "4096", "+4096", 1),
		"04096 iterations":      strings.Replace(good, "4096", "04096", 1),
		"4_096 iterations":      strings.Replace(good, "4096", "4_096", 1),
		"iterations overflow":   strings.Replace(good, "4096", "99999999999999999999", 1),
		"iterations in letters": strings.Replace(good, "4096", "hunter2", 1),
		"megabytes":             good + strings.Repeat("A", 1<<20),
	} {
		v, err := ParseVerifier(s)
		if !errors.Is(err, ErrVerifier) || !v.IsZero() {
			t.Errorf("%s: %v, %v", name, err, v.IsZero())
			continue
		}
		for _, secret := range []string{key, other, "hunter2", "d41d8", "c2Fsd"} {
			if strings.Contains(err.Error(), secret) {
				t.Errorf("%s: the error shows the secret: %v", name, err)
			}
		}
	}
}

func TestVerifierEqual(t *testing.T) {
	base := Mock([]byte("k"), "acme", "app", 4096)
	same, err := ParseVerifier(base.Encode())
	if err != nil || !same.Equal(base) || !(Verifier{}).Equal(Verifier{}) || !(Verifier{}).IsZero() || base.IsZero() {
		t.Errorf("equality of equals: %v", err)
	}
	flip := func(b []byte) []byte { b = bytes.Clone(b); b[len(b)-1] ^= 1; return b }
	for i, change := range []func(v *Verifier){
		func(v *Verifier) { v.Iterations++ },
		func(v *Verifier) { v.Salt = flip(v.Salt) },
		func(v *Verifier) { v.StoredKey = flip(v.StoredKey) },
		func(v *Verifier) { v.ServerKey = flip(v.ServerKey) },
		func(v *Verifier) { v.ServerKey = nil },
	} {
		other := base
		change(&other)
		if other.Equal(base) || base.Equal(other) {
			t.Errorf("change %d goes unnoticed", i)
		}
	}
}

func TestMock(t *testing.T) {
	secret := []byte("cluster secret")
	base := Mock(secret, "acme", "app", 4096)
	if err := base.validate(); err != nil {
		t.Fatal(err)
	}
	// Written down, so that a change, which would show every real user by his unchanged salt, does not pass unnoticed.
	if got, want := base64.StdEncoding.EncodeToString(base.Salt), "qt4dKWsXuXP9ApARomPp1Q=="; got != want {
		t.Errorf("salt %s, want %s", got, want)
	}
	if !Mock(secret, "acme", "app", 4096).Equal(base) {
		t.Error("the same arguments give another mock")
	}
	for name, other := range map[string]Verifier{
		"secret": Mock([]byte("another"), "acme", "app", 4096),
		"tenant": Mock(secret, "globex", "app", 4096),
		"user":   Mock(secret, "acme", "web", 4096),
		"border": Mock(secret, "acmea", "pp", 4096),
		"count":  Mock(secret, "acme", "app", 4097),
	} {
		if bytes.Equal(other.Salt, base.Salt) || bytes.Equal(other.StoredKey, base.StoredKey) || bytes.Equal(other.ServerKey, base.ServerKey) {
			t.Errorf("another %s gives a mock that is partly the same", name)
		}
	}
	if bytes.Equal(base.StoredKey, base.ServerKey) || bytes.HasPrefix(base.StoredKey, base.Salt) || bytes.HasPrefix(base.ServerKey, base.Salt) {
		t.Error("parts of the mock are the same, and the salt is public")
	}
	if Mock(secret, "acme", "app", 0).Iterations != DefaultIterations || Mock(secret, "acme", "app", 1<<30).Iterations != MaxIterations {
		t.Error("iterations out of range are kept")
	}
}

func TestVerifierRoundTrip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		v := Verifier{
			Iterations: rapid.IntRange(1, MaxIterations).Draw(t, "iterations"),
			Salt:       rapid.SliceOfN(rapid.Byte(), 1, 64).Draw(t, "salt"),
			StoredKey:  rapid.SliceOfN(rapid.Byte(), KeySize, KeySize).Draw(t, "stored"),
			ServerKey:  rapid.SliceOfN(rapid.Byte(), KeySize, KeySize).Draw(t, "server"),
		}
		back, err := ParseVerifier(v.Encode())
		if err != nil || !back.Equal(v) {
			t.Fatal(err)
		}
	})
}

func FuzzParseVerifier(f *testing.F) {
	for _, c := range fromPostgres[:3] {
		f.Add(c.verifier)
	}
	f.Add("SCRAM-SHA-256$+1:AA==$:")
	f.Fuzz(func(t *testing.T, s string) {
		v, err := ParseVerifier(s)
		if err != nil {
			if !errors.Is(err, ErrVerifier) || !v.IsZero() {
				t.Fatalf("%v", err)
			}
			return
		}
		if v.Encode() != s || v.validate() != nil {
			t.Fatalf("%q is accepted and encodes to %q", s, v.Encode())
		}
	})
}

// The key of the right password matches, also in another spelling that SASLprep takes for the same; that of any other does not.
func TestKeyOf(t *testing.T) {
	v, err := NewVerifier("p\u00a0w", 4096, nil)
	if err != nil {
		t.Fatal(err)
	}
	for password, want := range map[string]bool{"p w": true, "p\u00a0w": true, "pw": false, "": false} {
		key, err := v.KeyOf(password)
		if err != nil || key.Matches(v) != want {
			t.Errorf("%q: matches %v, %v", password, key.Matches(v), err)
		}
	}
}
