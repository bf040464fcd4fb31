// Single values: what may stand for a duration, a number, a block of addresses.

package configs

import (
	"errors"
	"net/netip"
	"reflect"
	"strconv"
	"time"
)

// readScalar is the decoding hook: it turns a value of the file, or the text of a variable, into the type of its field, or
// says in plain words what should have been there. It repeats no value, which could be a secret in the wrong place. It takes
// all decisions, because mapstructure by itself would cut 1.5 down to 1 and take 5 for five nanoseconds.
func readScalar(_, to reflect.Type, data any) (any, error) {
	text, isText := data.(string)
	switch {
	case to == reflect.TypeFor[time.Duration]():
		return readDuration(text, isText)
	case to == reflect.TypeFor[netip.Prefix]():
		return readPrefix(text)
	case to.Kind() == reflect.Int:
		if isText { // a variable, or a number in quotes
			n, err := strconv.Atoi(text)
			data = n
			isText = err != nil
		}
		if _, ok := data.(int); !ok || isText {
			return nil, errors.New("must be a whole number")
		}
	case to.Kind() == reflect.Bool:
		if isText {
			data = text == "true"
			isText = text != "true" && text != "false"
		}
		if _, ok := data.(bool); !ok || isText {
			return nil, errors.New("must be true or false")
		}
	case to.Kind() == reflect.String && !isText:
		return nil, errors.New("must be text: put it in quotes if you mean just that")
	}
	return data, nil
}

func readDuration(text string, isText bool) (any, error) {
	_, err := strconv.ParseFloat(text, 64)
	if !isText || err == nil { // ParseDuration would let "0" pass
		return nil, errors.New("needs a unit, such as 15s or 4m30s")
	}
	d, err := time.ParseDuration(text)
	if err != nil {
		return nil, errors.New("must be a duration with its unit, such as 15s or 4m30s")
	}
	return d, nil
}

func readPrefix(text string) (any, error) {
	p, err := netip.ParsePrefix(text)
	if err == nil {
		return p, nil
	}
	if ip, err := netip.ParseAddr(text); err == nil && ip.Zone() == "" {
		return nil, errors.New("needs its length: /" + strconv.Itoa(ip.BitLen()) + " for a single address")
	}
	return nil, errors.New("must be an address block, such as 172.16.0.0/12")
}
