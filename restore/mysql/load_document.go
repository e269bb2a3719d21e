package mysql

import (
	"context"
	"encoding/json"
	"fmt"
	"io"

	"txreel/archive"
)

// maxDocument bounds a document of a base: a hundred thousand objects have room in it.
const maxDocument = 1 << 30

// readJSON reads and checks one of the base's documents.
func (l *loader) readJSON(ctx context.Context, name string, v any) error {
	var object *archive.BaseObject
	for i := range l.base.Objects {
		if l.base.Objects[i].Name == name {
			object = &l.base.Objects[i]
		}
	}
	key := l.base.Key(name)
	if object == nil {
		return fmt.Errorf("%w: %s: %w", archive.ErrCorrupt, key, errNoObject)
	}
	r, err := l.archive.OpenObject(ctx, l.base, *object)
	if err != nil {
		return err
	}
	defer r.Close()
	text, err := io.ReadAll(io.LimitReader(r, maxDocument+1))
	if err != nil {
		return err
	}
	if len(text) > maxDocument {
		return fmt.Errorf("%w: %s holds more than %d bytes", archive.ErrCorrupt, key, maxDocument)
	}
	if err := json.Unmarshal(text, v); err != nil {
		return fmt.Errorf("%w: %s: %w", archive.ErrCorrupt, key, err)
	}
	return nil
}
