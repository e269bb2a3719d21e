package archive

import "context"

// Deleter is a Store whose objects can be removed. Only Prune needs one: the layers that a capture or a restore works through
// have no Delete, and their credentials need no right to it.
type Deleter interface {
	Store

	// Delete removes an object and returns once neither Open nor List knows of it, and it does not come back. A key that is not
	// there is no error. Errors are as those of Create; one that wraps fs.ErrPermission says that the store refuses, for lack of
	// a right or because the object is locked.
	Delete(ctx context.Context, key string) error
}
