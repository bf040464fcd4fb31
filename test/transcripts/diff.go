// What differs between two transcripts, and the files that say which differences are meant.

package transcripts

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// Diff returns the lines that only want has, with a minus, and those that only got has, with a plus, each under the number
// of its turn. It is empty for equal transcripts.
func Diff(want, got Transcript) []string {
	var out []string
	for i := range max(len(want), len(got)) {
		var w, g Turn
		if i < len(want) {
			w = want[i]
		}
		if i < len(got) {
			g = got[i]
		}
		if d := diffLines(w.Heard, g.Heard); len(d) > 0 {
			out = append(out, fmt.Sprintf("@ turn %d", i+1))
			out = append(out, d...)
		}
	}
	return out
}

// diffLines is the shortest way from a to b, by their longest common subsequence.
func diffLines(a, b []string) (out []string) {
	if slices.Equal(a, b) {
		return nil
	}
	common := make([][]int, len(a)+1)
	for i := range common {
		common[i] = make([]int, len(b)+1)
	}
	for i := len(a) - 1; i >= 0; i-- {
		for j := len(b) - 1; j >= 0; j-- {
			if a[i] == b[j] {
				common[i][j] = common[i+1][j+1] + 1
			} else {
				common[i][j] = max(common[i+1][j], common[i][j+1])
			}
		}
	}
	i, j := 0, 0
	for i < len(a) || j < len(b) {
		switch {
		case i < len(a) && j < len(b) && a[i] == b[j]:
			i, j = i+1, j+1
		case j == len(b) || i < len(a) && common[i+1][j] >= common[i][j+1]:
			out = append(out, "- "+a[i])
			i++
		default:
			out = append(out, "+ "+b[j])
			j++
		}
	}
	return out
}

// untilBlock cuts both transcripts before the first reply of the oracle's that tells of a transaction which lasts. refused
// reports whether there was one and a 0A000 stands in its place: what comes behind cannot be compared.
func untilBlock(want, got Transcript) (w, g Transcript, block, refused bool) {
	for i, turn := range want {
		n := slices.IndexFunc(turn.Heard, func(l string) bool { return l == ready+"T" || l == ready+"E" })
		if n < 0 {
			continue
		}
		if i < len(got) {
			refused = slices.ContainsFunc(got[i].Heard, func(l string) bool { return strings.Contains(l, `C="0A000"`) })
			got = got[:i]
		}
		return want[:i], got, true, refused
	}
	return want, got, false, false
}

// Accepted is a difference that is meant: a file with the reason as comment lines and the diff below.
type Accepted struct {
	Reason string
	Diff   []string
}

// ReadAccepted reads the file for a script in a mode; nil if there is none.
func ReadAccepted(dir, mode, script string) (*Accepted, error) {
	content, err := os.ReadFile(filepath.Join(dir, mode, script+".txt"))
	if os.IsNotExist(err) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	a := &Accepted{}
	for l := range strings.Lines(string(content)) {
		l = strings.TrimSuffix(l, "\n")
		if reason, ok := strings.CutPrefix(l, "#"); ok {
			a.Reason += strings.TrimSpace(reason) + " "
		} else if l != "" {
			a.Diff = append(a.Diff, l)
		}
	}
	if strings.TrimSpace(a.Reason) == "" {
		return nil, fmt.Errorf("%s/%s.txt gives no reason", mode, script)
	}
	return a, nil
}

// inBlock reports whether the oracle has told of a transaction that lasts.
func inBlock(want Transcript) bool {
	_, _, block, _ := untilBlock(want, nil)
	return block
}
