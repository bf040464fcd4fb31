// The check-config command, and loading what serve needs.

package main

import (
	"errors"
	"fmt"
	"log/slog"
	"slices"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/spf13/cobra"

	"github.com/postern/postern/admin"
	"github.com/postern/postern/cluster"
	"github.com/postern/postern/configs"
	"github.com/postern/postern/files"
)

func newCheckConfig() *cobra.Command {
	cmd := &cobra.Command{Use: "check-config", Short: "Report every problem of a configuration and its tenants at once", Args: cobra.NoArgs}
	path := configFlag(cmd)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		if err := needConfig(*path); err != nil {
			return err
		}
		conf, err := configs.Read(*path)
		if conf == nil {
			return err
		}
		tenants, more := checkFiles(conf, err == nil)
		if err := errors.Join(err, more); err != nil {
			return err
		}
		_, err = fmt.Fprintf(cmd.OutOrStdout(), "%s: %d listeners, %s: ok\n", *path, len(conf.Listeners), tenants)
		return err
	}
	return cmd
}

// checkFiles says in words how many tenants there are, or all that is wrong in the files that a configuration names. Of one that is not
// sound itself nothing is told twice: what it lacks is not looked for.
func checkFiles(conf *configs.Config, sound bool) (tenants string, err error) {
	quiet, unused := slog.New(slog.DiscardHandler), prometheus.NewRegistry()
	var problems []error
	found := func(err error) { problems = append(problems, err) }
	if sound {
		_, err := consoleUsers(conf)
		found(err)
	} else {
		conf.Machines.Fly.API = configs.DefaultFlyAPI
		conf.TLS.Certificates = slices.DeleteFunc(conf.TLS.Certificates, func(f configs.CertificateFile) bool { return f.Cert == "" || f.Key == "" })
	}
	_, err = loadCertificates(conf)
	found(err)
	_, err = mockSecret(conf, quiet)
	found(err)
	_, err = newDrivers(conf, quiet, unused) // its token, too
	found(err)
	if conf.Cluster.KeyFile != "" {
		_, err = cluster.ReadKeys(conf.Cluster.KeyFile)
		found(err)
	}
	found(checkAdvertised(conf.Cluster))
	if conf.Admin.TokenFile != "" {
		_, err = admin.New(admin.Options{TokenFile: conf.Admin.TokenFile, Gatherer: unused})
		found(err)
	}
	tenants, err = checkTenants(conf, sound)
	found(err)
	return tenants, errors.Join(problems...)
}

// maxMockSecret bounds its file, in bytes.
const maxMockSecret = 64 << 10

// mockSecret reads the secret that makes fake salts stable.
func mockSecret(conf *configs.Config, log *slog.Logger) ([]byte, error) {
	if conf.Auth.MockSecretFile == "" {
		log.Warn("auth.mock_secret_file is not set: the salts of unknown users change with every restart, which tells them from known ones")
		return nil, nil
	}
	b, err := files.NewLane().Read(conf.Auth.MockSecretFile, maxMockSecret)
	if err != nil {
		return nil, fmt.Errorf("auth.mock_secret_file: %w", err)
	}
	if len(b) < 16 {
		return nil, errors.New("auth.mock_secret_file: shorter than 16 bytes")
	}
	return b, nil
}
