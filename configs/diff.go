// What differs between two configurations, by key.

package configs

import (
	"fmt"
	"reflect"
)

// Diff returns the paths of the keys whose values differ, in the order of the types, such as limits.clients and
// listeners[1].address. It never repeats a value, which may be secret. A list of another length is one key.
func Diff(old, now *Config) []string {
	return diff(nil, "", reflect.ValueOf(*old), reflect.ValueOf(*now))
}

func diff(keys []string, path string, a, b reflect.Value) []string {
	switch {
	case reflect.DeepEqual(a.Interface(), b.Interface()):
		return keys
	case isSection(a.Type()):
		for i := range a.NumField() {
			key := a.Type().Field(i).Tag.Get("mapstructure")
			if key == "-" {
				continue
			}
			if path != "" {
				key = path + "." + key
			}
			keys = diff(keys, key, a.Field(i), b.Field(i))
		}
		return keys
	case a.Kind() == reflect.Slice && isSection(a.Type().Elem()) && a.Len() == b.Len():
		for i := range a.Len() {
			keys = diff(keys, fmt.Sprintf("%s[%d]", path, i), a.Index(i), b.Index(i))
		}
		return keys
	}
	return append(keys, path)
}
