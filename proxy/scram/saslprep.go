// SASLprep: passwords are prepared exactly as by Postgres and libpq, or a verifier made here would not match theirs.

package scram

import (
	"slices"
	"unicode/utf8"

	"github.com/xdg-go/stringprep"
	"golang.org/x/text/unicode/norm"
)

// todoSoftHyphen stands in table B.1 of RFC 3454, but not in the library's.
const todoSoftHyphen = '\u1806'

// saslPrep applies SASLprep (RFC 4013) to a password the way Postgres does; both sides of a login must use it. A
// password that SASLprep forbids (control characters, emoji, mixed writing directions, invalid UTF-8) is used as it is.
//
// stringprep.SASLprep itself will not do: it looks for forbidden characters after normalization and Postgres before,
// it drops U+200B which Postgres turns into a space, and it accepts a password of which nothing is left.
func saslPrep(password string) string {
	ascii := true
	for i := range len(password) {
		ascii = ascii && password[i] < utf8.RuneSelf
	}
	if ascii || !utf8.ValidString(password) {
		return password
	}
	mapped := make([]rune, 0, len(password))
	for _, r := range password {
		if stringprep.TableC1_2.Contains(r) {
			mapped = append(mapped, ' ')
		} else if _, dropped := stringprep.TableB1[r]; !dropped && r != todoSoftHyphen {
			mapped = append(mapped, r)
		}
	}
	if len(mapped) == 0 || slices.ContainsFunc(mapped, forbidden) || !oneDirection(mapped) {
		return password
	}
	return norm.NFKC.String(string(mapped))
}

// forbidden says whether RFC 4013 sections 2.3 and 2.5 rule r out: forbidden output, or not assigned in Unicode 3.2.
func forbidden(r rune) bool {
	// C.1.2 is absent: mapping has left none of it.
	for _, table := range [...]stringprep.Set{
		stringprep.TableC2_1, stringprep.TableC2_2, stringprep.TableC3, stringprep.TableC4, stringprep.TableC5,
		stringprep.TableC6, stringprep.TableC7, stringprep.TableC8, stringprep.TableC9, stringprep.TableA1,
	} {
		if table.Contains(r) {
			return true
		}
	}
	return false
}

// oneDirection checks RFC 3454 section 6: text with a right-to-left letter begins and ends with one and holds no
// left-to-right letter. s is not empty.
func oneDirection(s []rune) bool {
	rightToLeft, leftToRight := stringprep.TableD1, stringprep.TableD2
	if !slices.ContainsFunc(s, rightToLeft.Contains) {
		return true
	}
	return rightToLeft.Contains(s[0]) && rightToLeft.Contains(s[len(s)-1]) && !slices.ContainsFunc(s, leftToRight.Contains)
}
