package main

import (
	"encoding/base64"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestStoreCommandsSayWhatIsWrong, without a database.
func TestStoreCommandsSayWhatIsWrong(t *testing.T) {
	dir := t.TempDir()
	write := func(name, content string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	head := "listeners: [{name: l, address: '127.0.0.1:6543'}]\n"
	file := write("file.yaml", head+"tenants: {file: tenants.yaml}\n")
	store := write("store.yaml", head+"tenants: {postgres: {dsn_file: dsn, key_file: key}}\n")
	noKey := write("nokey.yaml", head+"tenants: {postgres: {dsn_file: good, key_file: none}}\n")
	write("dsn", "postgres://u:s3cret@[bad\n")
	write("good", "postgres://u:s3cret@127.0.0.1:1/x\n")
	write("key", "k1 "+base64.StdEncoding.EncodeToString(make([]byte, 32))+"\n")
	away := write("away.yaml", head+"tenants: {postgres: {dsn_file: good, key_file: key}}\n")
	tenants := write("tenants.yaml", "tenants: []\n")
	const refused = "the store of tenants cannot be asked: dial tcp 127.0.0.1:1: connect: connection refused"
	for _, c := range []struct {
		args []string
		code int
		says string
	}{
		{[]string{"store", "import"}, exitUsage, "accepts 1 arg"},
		{[]string{"store", "init"}, exitUsage, "--config is required"},
		{[]string{"store", "nothing"}, exitUsage, "unknown command"},
		{[]string{"store", "init", "--config", file}, exitFailed, "no tenants.postgres"},
		{[]string{"store", "export", "--config", store}, exitFailed, "holds no connection string"},
		{[]string{"store", "import", "x.yaml", "--config", noKey}, exitFailed, "key file"},
		{[]string{"check-config", "--config", noKey}, exitFailed, "key file"},
		{[]string{"serve", "--config", store}, exitFailed, "holds no connection string"},
		{[]string{"store", "init", "--config", away}, exitFailed, refused},
		{[]string{"store", "import", tenants, "--config", away}, exitFailed, refused},
		{[]string{"store", "export", "--config", away}, exitFailed, refused},
		{[]string{"store", "nodes", "--config", away}, exitFailed, refused},
		{[]string{"store", "forget-node", "x", "--config", away}, exitFailed, refused},
		{[]string{"store", "rotate-key", "--config", away}, exitFailed, refused},
		{[]string{"audit", "verify", "--config", away}, exitFailed, refused},
		{[]string{"serve", "--config", away}, exitFailed, "connecting to the store: dial tcp 127.0.0.1:1: connect: connection refused"},
	} {
		root := newRoot()
		root.SetArgs(c.args)
		root.SetOut(new(strings.Builder))
		root.SetErr(new(strings.Builder))
		err := root.ExecuteContext(t.Context())
		if err != nil && strings.Contains(err.Error(), "user=") {
			t.Errorf("%v: %v", c.args, err)
		}
		if code := exitCode(err); code != c.code || err == nil || !strings.Contains(err.Error(), c.says) || strings.Contains(err.Error(), "s3cret") {
			t.Errorf("%v: code %d, %v", c.args, code, err)
		}
	}
}
