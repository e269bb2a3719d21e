package archive

import "errors"

// ErrUnreachable is wrapped by Store errors after which a later retry may
// succeed: the network, a 5xx answer, throttling or an expired deadline. The
// command line turns it into exit code 7.
var ErrUnreachable = errors.New("store unreachable")
