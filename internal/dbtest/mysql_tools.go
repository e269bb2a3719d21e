package dbtest

import "strings"

// quoteName writes a name as SQL wants it.
func quoteName(name string) string { return "`" + strings.ReplaceAll(name, "`", "``") + "`" }
