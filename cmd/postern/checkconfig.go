// The check-config command, and loading what serve needs.

package main

import (
	"errors"
	"fmt"
	"log/slog"

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
		conf, err := configs.Load(*path)
		if err != nil {
			return err
		}
		var problems []error
		tenants, err := checkTenants(conf)
		if err != nil {
			problems = append(problems, err)
		}
		if _, err := loadCertificates(conf); err != nil {
			problems = append(problems, err)
		}
		if conf.Cluster.KeyFile != "" {
			if _, err := cluster.ReadKeys(conf.Cluster.KeyFile); err != nil {
				problems = append(problems, err)
			}
		}
		if _, err := consoleUsers(conf); err != nil {
			problems = append(problems, err)
		}
		if _, err := mockSecret(conf, slog.New(slog.DiscardHandler)); err != nil {
			problems = append(problems, err)
		}
		if _, err := newDrivers(conf, slog.New(slog.DiscardHandler), prometheus.NewRegistry()); err != nil { // its token, too
			problems = append(problems, err)
		}
		if conf.Admin.TokenFile != "" {
			if _, err := admin.New(admin.Options{TokenFile: conf.Admin.TokenFile, Gatherer: prometheus.NewRegistry()}); err != nil {
				problems = append(problems, err)
			}
		}
		if err := errors.Join(problems...); err != nil {
			return err
		}
		_, err = fmt.Fprintf(cmd.OutOrStdout(), "%s: %d listeners, %s: ok\n", *path, len(conf.Listeners), tenants)
		return err
	}
	return cmd
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
