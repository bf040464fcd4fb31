// docs/operate.md beside the code: every metric has its row, and every row is a metric.

package test

import (
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

var (
	metricInCode = regexp.MustCompile(`"postern_([a-z_]+)"`)
	metricRow    = regexp.MustCompile("(?m)^\\| (`[a-z_]+(?:\\{[a-z,]+\\})?`(?:, `[a-z_]+(?:\\{[a-z,]+\\})?`)*) \\|")
	metricInRow  = regexp.MustCompile("`([a-z_]+)(?:\\{[a-z,]+\\})?`")
)

func TestDocsMetrics(t *testing.T) {
	_, text, ok := strings.Cut(read(t, "../docs/operate.md"), "\n## Metrics\n")
	if !ok {
		t.Fatal("docs/operate.md has no metrics")
	}
	text, _, _ = strings.Cut(text, "\n## ")
	shown := make(map[string]bool)
	for _, row := range metricRow.FindAllStringSubmatch(text, -1) {
		for _, m := range metricInRow.FindAllStringSubmatch(row[1], -1) {
			shown[m[1]] = true
		}
	}
	built := make(map[string]bool)
	for _, dir := range []string{"proxy", "admin", "cluster", "cmd/postern"} {
		files, err := filepath.Glob("../" + dir + "/*.go")
		if err != nil || len(files) == 0 {
			t.Fatalf("%s: %d files, %v", dir, len(files), err)
		}
		for _, name := range files {
			if strings.HasSuffix(name, "_test.go") {
				continue
			}
			for _, m := range metricInCode.FindAllStringSubmatch(read(t, name), -1) {
				if built[m[1]] = true; !shown[m[1]] {
					t.Errorf("%s: docs/operate.md does not have postern_%s", name, m[1])
				}
			}
		}
	}
	for name := range shown {
		if !built[name] {
			t.Errorf("docs/operate.md has postern_%s, which nobody makes", name)
		}
	}
	if len(built) < 25 {
		t.Errorf("found %d metrics only", len(built))
	}
}
