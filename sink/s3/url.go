package s3

import (
	"errors"
	"fmt"
	"maps"
	"net/url"
	"slices"
	"strconv"
	"strings"
)

// ParseURL reads a store's address:
//
//	s3://bucket/prefix?endpoint=https://host&region=eu-west-1&path-style=true&ca-file=/path&insecure-skip-verify=true&profile=name
//
// Every parameter is optional. Credentials are refused: they do not belong where
// process lists and histories show them.
func ParseURL(raw string) (Options, error) {
	u, err := url.Parse(raw)
	if err != nil {
		return Options{}, fmt.Errorf("archive %q is not a URL; write s3://bucket/prefix", redact(raw))
	}
	if u.User != nil {
		return Options{}, errors.New("archive URL: credentials do not belong into it; set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY")
	}
	if u.Scheme != "s3" || u.Host == "" || u.Fragment != "" {
		return Options{}, fmt.Errorf("archive %q: write s3://bucket/prefix", raw)
	}
	query, err := url.ParseQuery(u.RawQuery)
	if err != nil {
		return Options{}, fmt.Errorf("archive %q: %w", raw, err)
	}
	opts := Options{Bucket: u.Host, Prefix: strings.Trim(u.Path, "/")}
	for _, name := range slices.Sorted(maps.Keys(query)) {
		if len(query[name]) > 1 {
			return Options{}, fmt.Errorf("archive %s: parameter %s is given twice", nameOf(opts), name)
		}
		if err := opts.set(name, query.Get(name)); err != nil {
			return Options{}, fmt.Errorf("archive %s: %w", nameOf(opts), err)
		}
	}
	if _, err := checkOptions(&Options{Bucket: opts.Bucket, Prefix: opts.Prefix, Endpoint: opts.Endpoint}); err != nil {
		return Options{}, fmt.Errorf("archive %s: %w", nameOf(opts), err)
	}
	return opts, nil
}

// set sets one parameter of a URL.
func (o *Options) set(name, value string) error {
	if value == "" {
		return fmt.Errorf("parameter %s has no value", name)
	}
	switch name {
	case "endpoint":
		o.Endpoint = value
	case "region":
		o.Region = value
	case "ca-file":
		o.CAFile = value
	case "profile":
		o.Profile = value
	case "path-style":
		on, err := strconv.ParseBool(value)
		if err != nil {
			return fmt.Errorf("parameter path-style is %q; write true or false", value)
		}
		o.Addressing = AddressVirtual
		if on {
			o.Addressing = AddressPath
		}
	case "insecure-skip-verify":
		on, err := strconv.ParseBool(value)
		if err != nil {
			return fmt.Errorf("parameter insecure-skip-verify is %q; write true or false", value)
		}
		o.InsecureSkipVerify = on
	default:
		return fmt.Errorf("unknown parameter %s; there are endpoint, region, path-style, ca-file, insecure-skip-verify and profile", name)
	}
	return nil
}

// redact cuts what may be credentials out of a URL that cannot be parsed.
func redact(raw string) string {
	if i := strings.LastIndexByte(raw, '@'); i >= 0 {
		return "…" + raw[i:]
	}
	return raw
}
