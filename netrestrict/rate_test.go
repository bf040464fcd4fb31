// Tests of how often somebody may come.

package netrestrict

import (
	"encoding/binary"
	"net/netip"
	"testing"
	"time"

	"pgregory.net/rapid"
)

func TestRates(t *testing.T) {
	r := NewRates[string](100)
	for i := range 50 { // ten seconds' worth at once
		if wait := r.Take(start, "a", 5); wait != 0 {
			t.Fatalf("%d: %v", i, wait)
		}
	}
	if wait := r.Take(start, "a", 5); wait != 200*time.Millisecond {
		t.Errorf("waits %v", wait)
	}
	if wait := r.Take(start, "b", 5); wait != 0 {
		t.Errorf("another one waits %v", wait)
	}
	if wait := r.Take(start.Add(199*time.Millisecond), "a", 5); wait != time.Millisecond {
		t.Errorf("waits %v", wait)
	}
	if wait := r.Take(start.Add(200*time.Millisecond), "a", 5); wait != 0 {
		t.Errorf("waits %v", wait)
	}
}

// TestRatesModel: in no stretch of time do more come than the rate allows and what may come at once, and who is turned away could not
// have come.
func TestRatesModel(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		rate := rapid.IntRange(1, 4).Draw(t, "rate")
		r, now := NewRates[int](1000), start
		came := map[int][]time.Time{}
		for range rapid.IntRange(1, 150).Draw(t, "steps") {
			now = now.Add(time.Duration(rapid.SampledFrom([]int{0, 0, 0, 0, 0, 0, 100, 250, 1000, 3000}).Draw(t, "ms")) * time.Millisecond)
			who := rapid.IntRange(0, 1).Draw(t, "who")
			fits := func(at time.Time) bool { // with those who came since any moment
				for i, first := range came[who] {
					if n := len(came[who]) - i + 1; time.Duration(n)*time.Second/time.Duration(rate) > burstFor+at.Sub(first)+time.Duration(n) { // a nanosecond for each division
						return false
					}
				}
				return true
			}
			wait := r.Take(now, who, rate)
			if fits(now) != (wait == 0) {
				t.Fatalf("at %v: waits %v, and %d have come", now.Sub(start), wait, len(came[who]))
			}
			if wait == 0 {
				came[who] = append(came[who], now)
			} else if !fits(now.Add(wait)) {
				t.Fatalf("may come in %v, which is too soon", wait)
			}
		}
	})
}

// TestRatesOfAddresses: more IPv6 networks allow no more than their /48, and a flood of addresses needs no more memory.
func TestRatesOfAddresses(t *testing.T) {
	r := NewRates[netip.Prefix](1000)
	came := 0
	var raw [16]byte
	copy(raw[:], []byte{0x20, 0x01, 0x0d, 0xb8, 0, 7})
	for i := range 3000 {
		binary.BigEndian.PutUint16(raw[6:], uint16(i*21))
		if TakeAddress(r, start, netip.AddrFrom16(raw), 1) == 0 {
			came++
		}
	}
	if came != 160 {
		t.Errorf("%d have come from a /48 at once, want 160", came)
	}
	for i := range 20_000 {
		binary.BigEndian.PutUint32(raw[2:], uint32(i))
		TakeAddress(r, start, netip.AddrFrom16(raw), 1)
		if r.Len() > 2*1000 {
			t.Fatalf("%d are remembered", r.Len())
		}
	}
	TakeAddress(r, start.Add(burstFor), mary, 1)
	TakeAddress(r, start.Add(2*burstFor), mary, 1)
	if r.Len() != 2 {
		t.Errorf("%d are remembered of those who have not come for long", r.Len())
	}
}
