// What must never be seen in a log or on a page of metrics.

package hostile

import (
	"crypto/pbkdf2"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"strings"
	"testing"

	"github.com/postern/postern/proxy/scram"
)

// secret is one of them, in one spelling.
type secret struct{ name, text string }

// secrets lists them in every spelling in which a program would print them.
func secrets(v scram.Verifier) ([]secret, error) {
	var all []secret
	for _, canary := range []string{canaryRight, canaryFile, canaryWrong, canaryClear, canaryQuery} {
		all = append(all, secret{"the marked secret " + canary, canary})
	}
	salted, err := pbkdf2.Key(sha256.New, canaryRight, v.Salt, v.Iterations, sha256.Size)
	if err != nil {
		return nil, err
	}
	for name, key := range map[string][]byte{"the client key": mac(salted, "Client Key"), "the stored key": v.StoredKey,
		"the server key": v.ServerKey, "the salted password": salted} {
		for _, spelling := range []string{string(key), base64.StdEncoding.EncodeToString(key), hex.EncodeToString(key), fmt.Sprint(key)} {
			all = append(all, secret{name, spelling})
		}
	}
	return all, nil
}

// secretIn names the first secret that text contains.
func (g *gate) secretIn(text string) string {
	for _, s := range g.secrets {
		if strings.Contains(text, s.text) {
			return s.name
		}
	}
	return ""
}

// TestSecrets uses every marked secret as it is meant to be used, and looks at all that the gate says about it. That no
// bad input brings one out is judged with every group of rows.
func TestSecrets(t *testing.T) {
	t.Parallel()
	g := startGate(t, gateOptions{timeouts: brief})
	g.guard(t, 2, func() {
		p := g.login(t, "acme", g.freshClient())
		p.send(query("select '" + canaryQuery + "'"))
		p.want("TDCZ")
		p.send(query("select no_such_function('" + canaryQuery + "')"))
		p.want("EZ")
		p.Close()

		p = g.connect(t, g.freshClient())
		p.send(startup(v30, "user", "other.acme"))
		s := &scramClient{password: canaryFile}
		final := s.final(t, p.begin(s))
		p.send(message('p', final))
		p.until('Z')
		p.selectOne()
		p.Close()

		p = g.connect(t, g.freshClient())
		p.send(startup(v30, "user", "app.acme"))
		p.wrongPassword("app")

		proof := attribute(final, "p")
		if g.Log().Contains(proof) {
			t.Error("R7: a proof in the log")
		}
		for series := range g.Metrics(t) {
			if s := g.secretIn(series); s != "" {
				t.Errorf("%s among the metrics: %s", s, series)
			}
		}
	})
}
