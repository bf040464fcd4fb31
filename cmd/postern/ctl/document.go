// Documents that people write: YAML or JSON in a file or on standard input.

package ctl

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/spf13/cobra"
	"go.yaml.in/yaml/v3"
)

const maxDocument = 8 << 20 // bytes

// readDocument reads a file, or standard input for "-", and returns it as JSON. YAML has JSON in it.
func readDocument(cmd *cobra.Command, path string) (json.RawMessage, error) {
	in, name := cmd.InOrStdin(), path
	if path == "-" {
		name = "standard input"
	} else {
		f, err := os.Open(path)
		if err != nil {
			return nil, err
		}
		defer f.Close()
		in = f
	}
	text, err := io.ReadAll(io.LimitReader(in, maxDocument+1))
	if err != nil {
		return nil, err
	}
	if len(text) > maxDocument {
		return nil, fmt.Errorf("%s is longer than %d MiB", name, maxDocument>>20)
	}
	var v any
	d := yaml.NewDecoder(bytes.NewReader(text))
	if err := d.Decode(&v); err != nil && !errors.Is(err, io.EOF) {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	if err := d.Decode(new(yaml.Node)); !errors.Is(err, io.EOF) {
		return nil, fmt.Errorf("%s must hold one document, and nothing after it", name)
	}
	if v == nil {
		return nil, fmt.Errorf("%s has no document", name)
	}
	if _, ok := v.(map[string]any); !ok {
		return nil, fmt.Errorf("%s must have keys and values, such as upstream: {host: acme-db.internal}", name)
	}
	return json.Marshal(v)
}
