// Package configs is the static configuration of a Postern process: its types, its defaults, a strict reader of the file,
// and the rules that a configuration must keep. It knows keys and values only: it opens no socket, certificate, secret or
// tenants file, and sees no other package of Postern than files.
//
// Invariants:
//   - Load returns a configuration that passed Validate, or every problem that it could find at once, each with the path of
//     its key and, when it came from the file, its line.
//   - A key is known, written in lower case, there once, and not empty; whatever else stands in the file is a problem. A
//     duration has its unit. Nothing is guessed and nothing is rounded.
//   - Defaults are in default.go: Default, and what a listener or a provider of machines leaves out.
//   - Each scalar key outside lists can be overridden by a variable of the environment: POSTERN_ and the path in upper case,
//     with underscores for its dots, such as POSTERN_TIMEOUTS_LOGIN=20s. A variable that is set to nothing is not an override.
//   - Relative paths become absolute while loading, from the folder of the configuration file.
//   - Loading twice is two independent loads: there is no shared state, and a loaded Config is only read.
package configs
