package audit

// TablePattern compiles a pattern of table names as ReadOptions and `txreel log` have them.
func TablePattern(text string) (match func(schema, name string) bool, err error) {
	list, err := parsePatterns([]string{text})
	if err != nil {
		return nil, err
	}
	return list.match, nil
}
