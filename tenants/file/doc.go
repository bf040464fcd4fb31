// Package file is the store of tenants that is a YAML file: it reads the file and all that it names, strictly, reports every
// problem at once, each with its line, and puts what it has read into a tenants.Directory, again whenever a file changes.
//
// It knows keys, types and files. What the values may be is [tenants.Validate]'s, and what several tenants may be beside each
// other [tenants.Conflicts]': every store needs those. This one adds where in the file a problem is.
//
// # Invariants
//
//   - A file with any problem changes nothing: the last good tenants stay. A list that was meant to restrict can therefore never
//     be lost to a typing error: null is refused where absence means "everyone".
//   - A key that is documented but not built yet is an error, never ignored.
//
// # Reading YAML
//
// The process configuration is read with viper; this file is not, but from the parser's own node tree. viper lower-cases
// keys, takes null for absent, and forgets the lines; here null must not mean absent, and a person who gets twenty
// messages about a file of ten thousand tenants wants the line of each.
package file
