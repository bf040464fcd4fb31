// Tests of the relay that knows when its clients have had an answer.

package harness

import (
	"context"
	"strings"
	"sync"
	"testing"

	"github.com/jackc/pgproto3/v2"
)

func TestTurnRelayKnowsWhenATransactionBegins(t *testing.T) {
	var mu sync.Mutex
	var told []string
	tell := func(word string) error {
		mu.Lock()
		defer mu.Unlock()
		told = append(told, word)
		return nil
	}
	s := Dial(t, TurnRelay(t, Postgres(t).Addr(), Turns{
		Before: func(_ context.Context, _ any, between bool) error {
			if between {
				return tell("begins")
			}
			return tell("goes-on")
		},
		After: func(context.Context, any) error { return tell("over") },
	}))
	if answer := s.SSLRequest(); answer != 'N' {
		t.Fatalf("SSLRequest: %q", answer)
	}
	s.Login(App, AppPassword, "postgres")
	for _, text := range []string{"select 1", "begin", "select repeat('x', 100000)", "nonsense", "rollback"} {
		s.Send(&pgproto3.Query{String: text})
		s.Until('Z')
	}
	s.Send(&pgproto3.Parse{Query: "select 1"}, &pgproto3.Flush{})
	s.Until('1')
	s.Send(&pgproto3.Sync{})
	s.Until('Z')
	mu.Lock()
	defer mu.Unlock()
	const want = "over begins over begins goes-on goes-on goes-on over begins over"
	if got := strings.Join(told, " "); got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
}
