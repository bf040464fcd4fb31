// The key machine of a tenant: what it may say, which depends on the provider.

package tenants

import (
	"cmp"
	"math"
	"regexp"
	"strconv"
	"time"
)

// What names look like to Fly. Each becomes a part of an address of its API.
var (
	flyApp = regexp.MustCompile(`^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$`) // also the label of a DNS name
	flyID  = regexp.MustCompile(`^[a-z0-9]{1,63}$`)
)

// machine reads a machine, and how to log in to it: an Upstream without a Host, because the machine is asked for that.
func (l *loader) machine(v value) (*Machine, Upstream) {
	m, u := &Machine{SuspendAfter: DefaultSuspendAfter, Wake: WakeOnConnect}, Upstream{}
	keys := map[string]func(value){
		"provider":      func(v value) { m.Provider = oneOf(v, ProviderFly, ProviderLocal) },
		"app":           func(v value) { m.App = v.matching(flyApp, "the name of a Fly app") },
		"id":            func(v value) { m.ID = v.matching(flyID, "the id of a Fly machine") },
		"name":          func(v value) { m.Name = v.matching(idPattern, "the name of a machine") },
		"port":          func(v value) { u.Port = uint16(v.integer(1, math.MaxUint16)) },
		"suspend_after": func(v value) { m.SuspendAfter = suspendAfter(v) },
		"wake":          func(v value) { m.Wake = oneOf(v, WakeOnConnect, WakeOnQuery) },
		"sleep":         func(v value) { m.Sleep = oneOf(v, SleepSuspend, SleepStop) },
	}
	judgeTLS := l.security(&u, keys)
	at := map[string]value{} // the keys that are there, for what is judged when the provider is known
	for key, read := range keys {
		keys[key] = func(v value) { at[key] = v; read(v) }
	}
	if v.keys(keys) == nil {
		return nil, u
	}
	_, named := at["provider"]
	switch {
	case !named:
		v.fail("provider is missing")
	case m.Provider == ProviderFly:
		flyMachine(v, at, m, &u)
	case m.Provider == ProviderLocal:
		localMachine(v, at, m, &u)
	}
	judgeTLS()
	l.once(v, m)
	return m, u
}

// flyMachine judges and completes a machine of Fly.
func flyMachine(v value, at map[string]value, m *Machine, u *Upstream) {
	demand(v, at, ProviderFly, "app", "id")
	refuse(at, ProviderFly, "name")
	if _, ok := at["tls"]; !ok {
		u.TLS = TLSVerifyFull
	}
	if _, ok := at["server_name"]; !ok && u.TLS == TLSVerifyFull {
		v.fail("server_name is missing: verify-full needs it, since the machine is reached by an address")
	}
	u.Port = cmp.Or(u.Port, DefaultPort)
	m.Sleep = cmp.Or(m.Sleep, SleepSuspend)
}

// localMachine judges and completes a cluster on this computer, which picks its port itself and speaks no TLS.
func localMachine(v value, at map[string]value, m *Machine, u *Upstream) {
	demand(v, at, ProviderLocal, "name")
	refuse(at, ProviderLocal, "app", "id", "port")
	switch tls, ok := at["tls"]; {
	case !ok:
		u.TLS = TLSDisable
	case u.TLS == TLSRequire || u.TLS == TLSVerifyFull:
		tls.fail("must be disable: a %s machine has no TLS", ProviderLocal)
	}
	m.Sleep = cmp.Or(m.Sleep, SleepStop)
}

func demand(v value, at map[string]value, p Provider, keys ...string) {
	for _, key := range keys {
		if _, ok := at[key]; !ok {
			v.fail("%s is missing: a %s machine needs it", key, p)
		}
	}
}

func refuse(at map[string]value, p Provider, keys ...string) {
	for _, key := range keys {
		if v, ok := at[key]; ok {
			v.fail("means nothing to a %s machine", p)
		}
	}
}

// once reports a machine that another tenant has already: putting it to sleep for one would take it from the other.
func (l *loader) once(v value, m *Machine) {
	if (m.Provider != ProviderFly || m.App == "" || m.ID == "") && (m.Provider != ProviderLocal || m.Name == "") {
		return // it has no name, which was reported
	}
	if line, taken := l.machines[m.Key()]; taken {
		v.fail("machine %s is another tenant's already, in line %d", m.Key(), line)
		return
	}
	if l.machines == nil {
		l.machines = make(map[string]int)
	}
	l.machines[m.Key()] = v.node.Line
}

func suspendAfter(v value) time.Duration {
	d, ok := v.duration()
	if ok && d != 0 && d < leastSuspendAfter {
		v.fail("must be at least %v, or 0s for never", leastSuspendAfter)
	}
	return d
}

// duration reads a length of time with its unit.
func (v value) duration() (time.Duration, bool) {
	tag := v.node.ShortTag()
	_, err := strconv.ParseFloat(v.node.Value, 64)
	if tag == "!!int" || tag == "!!float" || tag == "!!str" && err == nil { // ParseDuration would let "0" pass
		v.fail("needs a unit, such as 30s or 5m")
		return 0, false
	}
	s, ok := v.text()
	if !ok {
		return 0, false
	}
	d, err := time.ParseDuration(s)
	if err != nil {
		v.fail("must be a duration with its unit, such as 30s or 5m")
	}
	return d, err == nil
}

// matching reads text of a form.
func (v value) matching(form *regexp.Regexp, what string) string {
	s, ok := v.text()
	if ok && !form.MatchString(s) {
		v.fail("%q is not %s: it must match %s", s, what, form)
		return ""
	}
	return s
}
