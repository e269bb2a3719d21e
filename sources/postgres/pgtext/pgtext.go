// Package pgtext pins how PostgreSQL writes values as text.
package pgtext

// Settings returns the parameters that every session which reads or writes values
// starts with: the source's and the target's alike, whatever ALTER ROLE, ALTER
// DATABASE or postgresql.conf say. What one session wrote another would otherwise read
// differently. The caller may add to the map.
func Settings() map[string]string {
	return map[string]string{
		"datestyle":                   "ISO, YMD",
		"intervalstyle":               "postgres",
		"timezone":                    "UTC",
		"extra_float_digits":          "3",
		"bytea_output":                "hex",
		"lc_monetary":                 "C",
		"search_path":                 "", // names come out qualified
		"standard_conforming_strings": "on",
		"row_security":                "off", // a filtered table is an error, never a smaller one
	}
}
