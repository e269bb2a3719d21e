package archive

import (
	"context"
	"sync"
)

// Deleter is a Store whose objects can be removed. Only Prune and Compact need one: the layers that a capture or a restore works through
// have no Delete, and their credentials need no right to it.
type Deleter interface {
	Store

	// Delete removes an object and returns once neither Open nor List knows of it, and it does not come back. A key that is not
	// there is no error. Errors are as those of Create; one that wraps fs.ErrPermission says that the store refuses, for lack of
	// a right or because the object is locked.
	Delete(ctx context.Context, key string) error
}

// removeParallel is how many objects are removed at a time.
const removeParallel = 16

// removeAll removes objects, several at a time, and calls gone behind each, one call at a time. It begins no more after an error.
func removeAll(ctx context.Context, store Deleter, objects []Object, gone func()) error {
	var (
		wg   sync.WaitGroup // joined below
		mu   sync.Mutex
		next int
		fail error
	)
	for range min(removeParallel, len(objects)) {
		wg.Go(func() {
			for {
				mu.Lock()
				i := next
				next++
				stop := fail != nil || i >= len(objects)
				mu.Unlock()
				if stop {
					return
				}
				err := store.Delete(ctx, objects[i].Key)
				mu.Lock()
				if err == nil {
					gone()
				} else if fail == nil {
					fail = err
				}
				mu.Unlock()
			}
		})
	}
	wg.Wait()
	return fail
}
