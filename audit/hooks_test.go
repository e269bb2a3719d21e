package audit

// LimitMessage makes an export refuse to decode messages above n bytes.
func LimitMessage(o *ExportOptions, n int64) { o.maxMessage = n }
