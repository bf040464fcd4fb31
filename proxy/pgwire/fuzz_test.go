// Fuzz targets: no input panics, reads too far, or is understood in two ways.

package pgwire

import (
	"bytes"
	"encoding/binary"
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
)

func FuzzReadPacket(f *testing.F) {
	f.Add(packet(0, Version30, kv("user", "app.acme", "database", "db", "options", `-c search_path=a\ b reference=acme --x-y=z`)))
	f.Add(packet(0, 3<<16|9999, kv("user", "app", "_pq_.a", "1", "replication", "ON")))
	f.Add(packet(0, CodeSSL, ""))
	f.Add(packet(0, CodeCancel, "\x00\x00\x00\x01abcd"))
	f.Add(packet(10_005, Version30, ""))
	f.Add([]byte("GET / HTTP/1.1\r\n"))
	f.Fuzz(func(t *testing.T, in []byte) {
		r := &counted{Reader: bytes.NewReader(in)}
		code, body, err := ReadPacket(r)
		if err != nil {
			if errors.Is(err, ErrStartupLength) && r.n != 4 {
				t.Fatalf("read %d bytes of a packet that cannot be", r.n)
			}
			return
		}
		if n := int(binary.BigEndian.Uint32(in)); r.n != n || len(body) != n-8 || !bytes.Equal(body, in[8:n]) {
			t.Fatalf("read %d of %d bytes", r.n, n)
		} else if again := AppendPacket(nil, code, body); !bytes.Equal(again, in[:n]) {
			t.Fatalf("%q was read, and %q is written", in[:n], again)
		}
		_, _, _ = CancelKey(body)
		s, err := ParseStartup(code, body)
		if err != nil {
			var e *Error
			if !errors.As(err, &e) || e.Code == "" || s != nil {
				t.Fatalf("%T %v", err, err)
			}
			return
		}
		again, err := StartupBody(asParams(s))
		if err != nil {
			t.Fatalf("%+v cannot be encoded: %v", s, err)
		}
		got, err := ParseStartup(code, again)
		if d := cmp.Diff(s, got, cmpopts.EquateEmpty()); err != nil || d != "" {
			t.Fatalf("encoded again: %v %s", err, d)
		}
	})
}

// asParams writes what was understood as a list of startup parameters.
func asParams(s *Startup) []Param {
	ps := []Param{{"user", s.User}, {"database", s.Database}}
	if s.Replication != "" {
		ps = append(ps, Param{"replication", s.Replication})
	}
	var words []string
	for _, r := range s.References {
		words = append(words, escape("reference="+r))
	}
	// Those that only an options string can have set, and what stands before them.
	byOption := 0
	for i, p := range s.Params {
		if slices.Contains([]string{"user", "database", "options", "replication"}, p.Name) || strings.HasPrefix(p.Name, "_pq_.") {
			byOption = i + 1
		}
	}
	for _, p := range s.Params[:byOption] {
		words = append(words, "-c", escape(p.Name+"="+p.Value))
	}
	ps = append(ps, Param{"options", strings.Join(words, " ")})
	for _, o := range s.Unrecognized {
		ps = append(ps, Param{o, ""})
	}
	return append(ps, s.Params[byOption:]...)
}

func FuzzParseOptions(f *testing.F) {
	for _, s := range []string{"-c a=b", `--a-b=c\ d reference=x`, "-c", `\`, "project=x -ca=", "-c =", "- -- --="} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, in string) {
		refs, params, err := ParseOptions(in)
		if err != nil {
			var e *Error
			if !errors.As(err, &e) || refs != nil || params != nil {
				t.Fatalf("%T %v, %v %v", err, err, refs, params)
			}
			return
		}
		var words []string
		for _, r := range refs {
			words = append(words, escape("--reference="+r))
		}
		for _, p := range params {
			if p.Name == "" || strings.ContainsAny(p.Name, "-=") {
				t.Fatalf("name %q", p.Name)
			}
			words = append(words, escape("-c"+p.Name+"="+p.Value))
		}
		refs2, params2, err := ParseOptions(strings.Join(words, " "))
		if d := cmp.Diff(refs, refs2) + cmp.Diff(params, params2); err != nil || d != "" {
			t.Fatalf("written again: %v %s", err, d)
		}
	})
}

// fuzzFrame checks what holds for both directions: a prefix of the input says
// the same or asks for more.
func fuzzFrame(f *testing.F, frame func([]byte) (int, FrameStatus)) {
	for _, b := range [][]byte{{}, {'Q'}, header('Q', 4), header('Z', 5), header('S', 10_001), header('D', 0), header('d', 1<<31), header('~', 4)} {
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, in []byte) {
		size, status := frame(in)
		switch status {
		case FrameOK:
			if n := binary.BigEndian.Uint32(in[1:]); size != int(n)+1 || n < 4 || n > MaxMessage {
				t.Fatalf("size %d of %x", size, in[:5])
			}
		case FrameShort:
			if len(in) >= HeaderSize || size != 0 {
				t.Fatalf("%d bytes are not enough", len(in))
			}
		default:
			if size != 0 {
				t.Fatalf("a bad frame of %d", size)
			}
		}
		for i := range min(len(in), 8) {
			if n, s := frame(in[:i]); s != FrameShort && (s != status || n != size) {
				t.Fatalf("%x: %d %d, its first %d bytes: %d %d", in, size, status, i, n, s)
			}
		}
	})
}

func FuzzClientFrame(f *testing.F) { fuzzFrame(f, ClientFrame) }
func FuzzServerFrame(f *testing.F) { fuzzFrame(f, ServerFrame) }

func FuzzParseError(f *testing.F) {
	for _, s := range []string{"", "\x00", "SERROR\x00Mm\x00\x00", "VFATAL\x00C57P01\x00", "S", "Mboo"} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, in []byte) {
		e := ParseError(in)
		b := e.Append(nil)
		if size, status := ServerFrame(b); status != FrameOK || size != len(b) {
			t.Fatalf("%q is not one frame", b)
		}
		if d := cmp.Diff(e, ParseError(b[HeaderSize:])); d != "" {
			t.Fatal(d)
		}
		_, _ = ParseParameterStatus(in)
	})
}
