// Tests of what is believed of the gossip, of its log, and of what is measured.

package cluster

import (
	"fmt"
	"log/slog"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/memberlist"
	"github.com/prometheus/client_golang/prometheus"
)

// FuzzParse: whatever a member says of itself, names that are taken over are plain words.
func FuzzParse(f *testing.F) {
	f.Add("a/boot", []byte{127, 0, 0, 1}, []byte(`{"port":7947,"protocol":1,"region":"ams"}`))
	f.Add("a", []byte{127, 0, 0, 1}, []byte(`{}`))
	f.Add("a/b/c", make([]byte, 16), []byte(`{"leaving":true}`))
	f.Add("\x1b[2J/b", []byte{}, []byte(`[]`))
	f.Fuzz(func(t *testing.T, name string, addr, meta []byte) {
		m, err := parse(&memberlist.Node{Name: name, Addr: net.IP(addr), Port: 1, Meta: meta})
		if err != nil {
			return
		}
		for _, word := range []string{m.Name, m.Boot, "x" + m.Region} {
			if !nodeName.MatchString(word) && len(word) <= 64 {
				t.Errorf("%q is taken over", word)
			}
		}
		if gossipName(m.Name, m.Boot) != name || !m.Gossip.IsValid() {
			t.Errorf("%q became %+v", name, m)
		}
	})
}

// TestMembersAreBounded, and those that left go after a minute.
func TestMembersAreBounded(t *testing.T) {
	m := newMembers("own/boot", discard)
	node := func(i int) *memberlist.Node {
		return &memberlist.Node{Name: fmt.Sprintf("n%d/b", i), Addr: net.IPv4(127, 0, 0, 1), Port: 1, Meta: []byte(`{"port":2}`)}
	}
	for i := range maxMembers {
		if err := m.NotifyAlive(node(i)); err != nil {
			t.Fatal(i, err)
		}
		m.NotifyJoin(node(i))
	}
	if m.NotifyAlive(node(maxMembers)) == nil || m.NotifyAlive(node(0)) != nil || m.NotifyAlive(&memberlist.Node{Name: "own/boot"}) != nil {
		t.Error("the bound is somewhere else")
	}
	m.NotifyLeave(node(0))
	m.prune(time.Now())
	if len(m.list()) != maxMembers {
		t.Error("who has just left is not told of")
	}
	m.prune(time.Now().Add(leftKept + time.Second))
	if len(m.list()) != maxMembers-1 || m.NotifyAlive(node(maxMembers)) != nil {
		t.Error("who has left stays")
	}
}

// TestSuspects are so until they answer.
func TestSuspects(t *testing.T) {
	m := newMembers("own/boot", discard)
	n := &memberlist.Node{Name: "a/b", Addr: net.IPv4(127, 0, 0, 1), Port: 1, Meta: []byte(`{}`)}
	m.suspect("a/b")
	m.NotifyPingComplete(n, 0, nil)
	if len(m.list()) != 0 {
		t.Error("who is not known is told of")
	}
	log := gossipLogger(discard, "b", m.suspect)
	m.NotifyJoin(n)
	for range 2 {
		log.Printf("[INFO] memberlist: Suspect a/b has failed, no acks received")
	}
	if m.list()[0].State != Suspect || m.suspected() != 1 {
		t.Errorf("%+v", m.list())
	}
	m.NotifyPingComplete(n, 0, nil)
	if m.list()[0].State != Alive {
		t.Errorf("%+v", m.list())
	}
}

// TestGossipLog: levels, and no more lines of a kind than somebody can read.
func TestGossipLog(t *testing.T) {
	out := new(logged)
	log := gossipLogger(slog.New(slog.NewTextHandler(out, &slog.HandlerOptions{Level: slog.LevelDebug})), "b", func(string) {})
	log.Printf("[DEBUG] memberlist: Stream connection from=127.0.0.1:1")
	log.Printf("[INFO] memberlist: Marking a/b as failed, suspect timeout reached (0 peer confirmations)")
	for i := range 100 {
		log.Printf("[ERR] memberlist: Decrypt packet failed: no installed keys could decrypt the message from=127.0.0.1:%d", i)
	}
	log.Printf("[WARN] memberlist: Refuting a suspect message (from: a/b)")
	log.Printf("[WARN] memberlist: Got ping for unexpected node 'b/before' from=127.0.0.1:1") // of its own name: it has just started again
	log.Printf("[WARN] memberlist: Got ping for unexpected node b/before from=127.0.0.1:1")
	log.Printf("[WARN] memberlist: Got ping for unexpected node 'ab/before' from=127.0.0.1:1")
	text := out.String()
	if strings.Count(text, "level=WARN") != linesPerMinute+2 || strings.Count(text, "level=DEBUG") != 4 || strings.Count(text, "not logged for a minute") != 1 ||
		strings.Contains(text, "memberlist:") || strings.Contains(text, "[ERR]") {
		t.Error(text)
	}
}

// TestMetrics are sound, and count.
func TestMetrics(t *testing.T) {
	t.Parallel()
	s, keys := newStore(), keyFile(t, newKey())
	reg := prometheus.NewPedanticRegistry()
	a := start(t, "a", s, keys, func(o *Options) { o.Registerer = reg })
	b := echo(open(t, "b", s, keys)).run(t)
	together(t, a, b)
	a.echoes(t, "b", "a: hi")
	value := func(name, labels string) (sum float64) {
		families, err := reg.Gather()
		if err != nil {
			t.Fatal(err)
		}
		for _, f := range families {
			for _, m := range f.GetMetric() {
				var all []string
				for _, l := range m.GetLabel() {
					all = append(all, l.GetName()+"="+l.GetValue())
				}
				if f.GetName() == name && strings.Join(all, ",") == labels {
					sum += m.GetGauge().GetValue() + m.GetCounter().GetValue()
				}
			}
		}
		return sum
	}
	eventually(t, "both are counted", func() bool { return value("postern_cluster_members", "state=alive") == 2 })
	if n := value("postern_cluster_calls_total", "direction=out,result=ok,what=echo"); n != 1 {
		t.Errorf("%v calls", n)
	}
	// They have met by a stream; packets come when it is time for them.
	eventually(t, "packets are counted", func() bool {
		return value("postern_cluster_packets_total", "direction=out") > 0 && value("postern_cluster_packets_total", "direction=in") > 0 &&
			value("postern_cluster_bytes_total", "direction=in") > 0
	})
	s.remove("b")
	eventually(t, "a member without a row is counted", func() bool { return value("postern_cluster_divergence", "what=no_row") == 1 })
}
