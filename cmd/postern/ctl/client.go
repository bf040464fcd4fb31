// The client of the admin API: one request, one answer, and problems as errors.

package ctl

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"strings"
	"time"
)

const (
	requestTimeout = 30 * time.Second
	maxAnswer      = 64 << 20 // bytes
	maxToken       = 4096     // bytes of a token file's first line
)

// client asks one Postern.
type client struct {
	base  *url.URL
	token string
	http  *http.Client
}

// newClient makes a client. The token comes from a file or from the environment, never from the command line, where every user of the
// machine could read it.
func newClient(api, tokenFile string) (*client, error) {
	base, err := url.Parse(api)
	if err != nil || base.Scheme != "http" && base.Scheme != "https" || base.Host == "" || base.User != nil || base.RawQuery != "" {
		return nil, usageError{errors.New("--api must be a URL such as http://127.0.0.1:9187")}
	}
	token := os.Getenv("POSTERN_TOKEN")
	if tokenFile != "" {
		if token, err = readToken(tokenFile); err != nil {
			return nil, err
		}
	}
	if token == "" {
		return nil, usageError{errors.New("no token: give --token-file, or set POSTERN_TOKEN_FILE or POSTERN_TOKEN")}
	}
	return &client{base: base, token: token, http: &http.Client{
		Timeout:       requestTimeout,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }, // the token goes nowhere else
	}}, nil
}

// readToken returns the first token of a file in the form of admin.token_file.
func readToken(path string) (string, error) {
	f, err := os.Open(path)
	if err != nil {
		return "", fmt.Errorf("token: %w", err)
	}
	defer f.Close()
	text, err := io.ReadAll(io.LimitReader(f, maxToken))
	if err != nil {
		return "", fmt.Errorf("token: %w", err)
	}
	for line := range strings.Lines(string(text)) {
		if line = strings.TrimSpace(line); line != "" && line[0] != '#' {
			return line, nil
		}
	}
	return "", fmt.Errorf("token: %s has none", path)
}

// call is a request.
type call struct {
	method string
	path   []string   // its segments
	query  url.Values // nil: none
	body   any        // nil: none; a json.RawMessage goes as it is
	match  string     // If-Match, a revision; "*": it must not be there; "": whatever it is
}

// do makes a call. Its answer is nil if there was none.
func (c *client) do(ctx context.Context, r call) (json.RawMessage, error) {
	var body io.Reader
	if r.body != nil {
		text, err := json.Marshal(r.body)
		if err != nil {
			return nil, err
		}
		body = bytes.NewReader(text)
	}
	to := c.base.JoinPath(escaped(r.path)...)
	to.RawQuery = r.query.Encode()
	req, err := http.NewRequestWithContext(ctx, r.method, to.String(), body)
	if err != nil {
		return nil, err
	}
	req.Header.Set("Authorization", "Bearer "+c.token)
	if r.body != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	switch r.match {
	case "":
	case "*":
		req.Header.Set("If-None-Match", "*")
	default:
		req.Header.Set("If-Match", `"`+r.match+`"`)
	}
	answer, err := c.http.Do(req)
	if err != nil {
		return nil, plain(err)
	}
	defer answer.Body.Close()
	text, err := io.ReadAll(io.LimitReader(answer.Body, maxAnswer+1))
	switch {
	case err != nil:
		return nil, plain(err)
	case len(text) > maxAnswer:
		return nil, errors.New("the answer is too long")
	case answer.StatusCode >= http.StatusMultipleChoices:
		return nil, problemOf(answer.StatusCode, text)
	case len(bytes.TrimSpace(text)) == 0:
		return nil, nil
	case !json.Valid(text):
		return nil, errors.New("the answer is no JSON: is this the address of a Postern's admin API?")
	}
	return text, nil
}

// escaped are segments that no name can break out of.
func escaped(segments []string) []string {
	out := make([]string, 0, len(segments))
	for _, s := range segments {
		s = url.PathEscape(s)
		if strings.Trim(s, ".") == "" { // "." and ".." mean something to whoever joins paths
			s = strings.ReplaceAll(s, ".", "%2E")
		}
		out = append(out, s)
	}
	return out
}

// plain is an error of a request without its URL, which the user knows.
func plain(err error) error {
	var u *url.Error
	if errors.As(err, &u) {
		return fmt.Errorf("asking the admin API: %w", u.Err)
	}
	return err
}

// problem is an answer that is none (RFC 9457).
type problem struct {
	Status int
	Detail string   `json:"detail"`
	Error  string   `json:"error"`
	Id     string   `json:"instance"`
	Errors []detail `json:"errors"`
}

type detail struct {
	Pointer string `json:"pointer"`
	Detail  string `json:"detail"`
}

// refusedError is what the API answered in place of what it was asked for.
type refusedError struct{ problem }

// Error implements error: all that is wrong, a line for each.
func (e *refusedError) Error() string {
	if len(e.Errors) == 0 {
		return fmt.Sprintf("%s (%d)", e.Detail, e.Status)
	}
	lines := []string{fmt.Sprintf("refused (%d):", e.Status)}
	for _, d := range e.Errors {
		lines = append(lines, "  "+strings.TrimPrefix(d.Pointer+": "+d.Detail, ": "))
	}
	return strings.Join(lines, "\n")
}

func problemOf(status int, text []byte) error {
	e := &refusedError{}
	_ = json.Unmarshal(text, &e.problem) // what is no problem document has its status
	e.Status = status
	if e.Detail == "" {
		e.Detail = e.problem.Error
	}
	if e.Detail == "" {
		e.Detail = http.StatusText(status)
	}
	e.Detail = strings.ReplaceAll(e.Detail, "?confirm=true", "--confirm")
	return e
}

// isStatus reports whether the API has refused with a status.
func isStatus(err error, status int) bool {
	var refused *refusedError
	return errors.As(err, &refused) && refused.Status == status
}
