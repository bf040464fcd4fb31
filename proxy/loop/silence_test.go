// Tests of the rule that tells a silent peer from a slow one.

package loop

import (
	"testing"
	"time"
)

func TestSilence(t *testing.T) {
	const limit = time.Minute
	at := func(s int) time.Time { return time.Unix(1000+int64(s), 0) }
	type look struct {
		second int
		o      outgoing
		want   verdict
	}
	for name, looks := range map[string][]look{
		"all acknowledged":                 {{0, outgoing{lastAck: time.Hour}, settled}},
		"silent from the first byte on":    {{0, outgoing{unacked: 1, lastAck: time.Hour}, alive}, {59, outgoing{unacked: 1, lastAck: time.Hour}, alive}, {60, outgoing{unacked: 1, lastAck: time.Hour}, dead}},
		"slow, and acknowledging":          {{0, outgoing{unacked: 9, lastAck: 0}, alive}, {100, outgoing{unacked: 9, lastAck: 59 * time.Second}, alive}, {200, outgoing{unacked: 9, lastAck: 10 * time.Second}, alive}},
		"silent after it had acknowledged": {{0, outgoing{unacked: 9, lastAck: 0}, alive}, {100, outgoing{unacked: 9, lastAck: 60 * time.Second}, dead}},
		"does not read, and answers every question, rarely asked": {{0, outgoing{unsent: 9, lastAck: 0}, alive}, {100, outgoing{unsent: 9, lastAck: 100 * time.Second}, alive},
			{101, outgoing{unsent: 9, probes: 1, lastAck: 101 * time.Second}, alive}, {116, outgoing{unsent: 9, lastAck: 15 * time.Second}, alive},
			{215, outgoing{unsent: 9, probes: 1, lastAck: 114 * time.Second}, alive}},
		"does not read, and then is gone": {{0, outgoing{unsent: 9, lastAck: 100 * time.Second}, alive}, {15, outgoing{unsent: 9, probes: 1, lastAck: 115 * time.Second}, alive},
			{30, outgoing{unsent: 9, probes: 2, lastAck: 130 * time.Second}, alive}, {75, outgoing{unsent: 9, probes: 3, lastAck: 175 * time.Second}, dead}},
		"more is sent when all was acknowledged": {{0, outgoing{unacked: 1, lastAck: 0}, alive}, {50, outgoing{lastAck: 40 * time.Second}, settled}, {100, outgoing{unacked: 1, lastAck: 90 * time.Second}, alive}},
	} {
		var s silence
		for _, l := range looks {
			if got := s.judge(l.o, at(l.second), limit); got != l.want {
				t.Errorf("%s: at second %d: %d, want %d", name, l.second, got, l.want)
			}
		}
	}
}
