// Tests of reports: they are shared, and clients are told what has changed.

package params

import (
	"strconv"
	"testing"

	"github.com/postern/postern/proxy/pgwire"
)

func zone(v string) pgwire.Param { return pgwire.Param{Name: "TimeZone", Value: v} }

// TestReportsAreShared: equal lists are one, and what differs is what is told.
func TestReportsAreShared(t *testing.T) {
	var sets ReportSets
	a := sets.Intern([]pgwire.Param{{Name: "DateStyle", Value: "ISO"}, zone("UTC"), {Name: ApplicationName, Value: "x"}})
	if len(a.List()) != 2 || sets.With(a, zone("UTC")) != a || sets.With(a, pgwire.Param{Name: ApplicationName, Value: "y"}) != a {
		t.Errorf("not the same: %v", a.List())
	}
	b := sets.With(a, zone("Asia/Tokyo"))
	if b == a || sets.With(b, zone("UTC")) != a {
		t.Error("there and back is somewhere else")
	}
	if got, want := a.News(nil, b), pgwire.AppendParameterStatus(nil, zone("Asia/Tokyo")); string(got) != string(want) {
		t.Errorf("news: %q", got)
	}
	other := sets.Intern([]pgwire.Param{zone("UTC"), {Name: "DateStyle", Value: "ISO"}})
	if other == a || !other.Same(a) || other.Same(b) || len(a.News(nil, other)) != 0 {
		t.Error("the order counts")
	}
	var none *Reports
	if none.Same(a) || !none.Same(nil) || sets.With(nil, zone("UTC")).List()[0] != zone("UTC") {
		t.Error("nothing is something")
	}
	for i := range 100_000 {
		sets.With(a, zone(strconv.Itoa(i)))
	}
	if sets.bytes > maxReportBytes+1000 {
		t.Errorf("%d bytes are kept", sets.bytes)
	}
	if again := sets.With(a, zone("Asia/Tokyo")); !again.Same(b) || len(b.News(nil, again)) != 0 {
		t.Error("forgotten, and then something else")
	}
}

// TestWhatIsToldFollowsTheDefaults, for whoever has not set the parameter.
func TestWhatIsToldFollowsTheDefaults(t *testing.T) {
	var sets Sets
	var lists ReportSets
	plain, german, tokyo := sets.Intern(nil), sets.Intern(listOf("datestyle=German")), sets.Intern(listOf("timezone=Asia/Tokyo"))
	utc := lists.Intern([]pgwire.Param{zone("UTC")})
	if sets.Learn(plain, utc) || sets.Learn(plain, lists.Intern([]pgwire.Param{zone("UTC")})) {
		t.Error("the same again is something else")
	}
	sets.Learn(tokyo, lists.Intern([]pgwire.Param{zone("Asia/Tokyo")}))
	if sets.With(plain, ApplicationName, "x").Told() != utc || german.Told() != nil {
		t.Error("a client's name counts, or what it has set does not")
	}
	var learned []*Set
	copied := sets.DefaultIs(zone("Europe/Rome"), &lists, func(s *Set) { learned = append(learned, s) })
	rome := lists.Intern([]pgwire.Param{zone("Europe/Rome")})
	if plain.Told() != rome || german.Told() != nil || tokyo.Told() != nil || len(learned) != 1 || learned[0] != plain || copied != rome.Size() {
		t.Errorf("told %v, %v and %v; learned %v, %d bytes", plain.Told(), german.Told(), tokyo.Told(), learned, copied)
	}
	sets.Learn(german, rome)
	if !sets.Learn(plain, utc) || plain.Told() != utc || german.Told() != nil {
		t.Error("what was known with other defaults is kept")
	}
}
