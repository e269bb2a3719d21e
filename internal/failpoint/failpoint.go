// Package failpoint names the steps at which tests kill the program. A build with the tag failpoints dies by SIGKILL,
// or stands still until it is told to go on, when it reaches the step that its environment names. Of any other build
// it is no part: the calls are empty, and not even the names are left.
package failpoint

// Point names a step. It is reached right there where Hit or Step is called with it.
type Point string

// What a capture does before it streams. The slot and the choice are PostgreSQL's.
const (
	ArchiveCreating Point = "archive-creating"
	ArchiveCreated  Point = "archive-created"
	EpochCreating   Point = "epoch-creating"
	EpochCreated    Point = "epoch-created"
	SlotCreating    Point = "slot-creating"
	SlotCreated     Point = "slot-created"
	ChoiceCreating  Point = "choice-creating"
	ChoiceCreated   Point = "choice-created"
)

// The steps of a base.
const (
	BaseObjectCreating Point = "base-object-creating"
	BaseObjectCreated  Point = "base-object-created"
	BaseCommitting     Point = "base-committing"
	BaseCommitted      Point = "base-committed"
)

// The way of a transaction from reading to acknowledging, and what is written beside it.
const (
	CaptureRead     Point = "capture-read"     // a message, not kept yet
	CaptureAppended Point = "capture-appended" // to the segment being filled
	CaptureSealing  Point = "capture-sealing"
	CaptureSealed   Point = "capture-sealed"
	CaptureHanded   Point = "capture-handed" // to the uploader
	SegmentCreating Point = "segment-creating"
	SegmentCreated  Point = "segment-created"
	CaptureAcking   Point = "capture-acking"
	CaptureAcked    Point = "capture-acked" // the source has been told, and may not have told its server
	SourceAcking    Point = "source-acking" // the server is about to hear of it
	SourceAcked     Point = "source-acked"
	RollupCreating  Point = "rollup-creating"
	RollupCreated   Point = "rollup-created"
	GapCreating     Point = "gap-creating"
	GapCreated      Point = "gap-created"

	ProtectionCreating Point = "protection-creating"
	ProtectionCreated  Point = "protection-created"
	MarkCreating       Point = "mark-creating"
	MarkCreated        Point = "mark-created"
)

// What a directory does to keep an object.
const (
	DirWritten Point = "dir-written" // the temporary file
	DirSynced  Point = "dir-synced"
	DirLinked  Point = "dir-linked" // to its name
	DirSettled Point = "dir-settled"
)

// The steps of a spool that work when all goes well, by the names that its own tests have for them. Each is reached
// before the step is taken.
const (
	SpoolSyncMarker   Point = "spool-sync marker"
	SpoolRenameMarker Point = "spool-rename marker"
	SpoolWrite        Point = "spool-write"
	SpoolSync         Point = "spool-sync"
	SpoolRename       Point = "spool-rename"
	SpoolSyncFolder   Point = "spool-sync folder"
	SpoolPut          Point = "spool-put"
	SpoolUnlink       Point = "spool-unlink"
)

// The beginnings and ends of a restore's phases, of which Release is the end of the last.
const (
	RestoreBeginCheck  Point = "restore-begin-check"
	RestoreEndCheck    Point = "restore-end-check"
	RestoreBeginBase   Point = "restore-begin-base"
	RestoreEndBase     Point = "restore-end-base"
	RestoreBeginKeys   Point = "restore-begin-keys"
	RestoreEndKeys     Point = "restore-end-keys"
	RestoreBeginReplay Point = "restore-begin-replay"
	RestoreEndReplay   Point = "restore-end-replay"
	RestoreBeginFinish Point = "restore-begin-finish"
	RestoreEndFinish   Point = "restore-end-finish"
	RestoreBeginVerify Point = "restore-begin-verify"
	RestoreReleasing   Point = "restore-releasing"
	RestoreEndVerify   Point = "restore-end-verify"
)

// What a restore does within its phases, on every engine.
const (
	RestoreBookOpened     Point = "restore-book-opened"
	RestoreChunkSent      Point = "restore-chunk-sent" // not committed
	RestoreChunkCommitted Point = "restore-chunk-committed"
	RestoreMessageSent    Point = "restore-message-sent" // of a transaction
	RestoreTxnSent        Point = "restore-txn-sent"
)

// What only a restore into PostgreSQL does.
const (
	RestoreSchemaMade      Point = "restore-schema-made"  // not committed
	RestoreFoldFilling     Point = "restore-fold-filling" // rows of the record are about to be put in
	RestoreFoldFilled      Point = "restore-fold-filled"
	RestoreFoldDone        Point = "restore-fold-done" // not noted
	RestoreMerging         Point = "restore-merging"   // not committed
	RestoreMerged          Point = "restore-merged"
	RestoreBatchCommitting Point = "restore-batch-committing"
	RestoreBatchCommitted  Point = "restore-batch-committed"
	RestoreObjectMade      Point = "restore-object-made" // an index or a constraint, not committed
	RestoreObjectCommitted Point = "restore-object-committed"
	RestoreSequences       Point = "restore-sequences"
)

// What only a restore into MySQL or MariaDB does.
const (
	RestoreStepDone       Point = "restore-step-done" // of the base, and not noted
	RestoreStepNoted      Point = "restore-step-noted"
	RestoreForgotten      Point = "restore-forgotten" // what the target has executed by itself
	RestorePhaseNoted     Point = "restore-phase-noted"
	RestoreReplicaStarted Point = "restore-replica-started"
	RestoreReplicaDropped Point = "restore-replica-dropped"
	RestoreSettingBack    Point = "restore-setting-back"
)

// What a prune does, and what keeps it from doing so.
const (
	HoldCreating      Point = "hold-creating"
	PruneRecording    Point = "prune-recording"
	PruneRecorded     Point = "prune-recorded"
	PruneManifestGone Point = "prune-manifest-gone" // of a base whose objects are there
	PruneObjectGone   Point = "prune-object-gone"   // of a base
	PrunePackGone     Point = "prune-pack-gone"
	PruneSegmentGone  Point = "prune-segment-gone"
	PruneRollupGone   Point = "prune-rollup-gone"
	PruneEnding       Point = "prune-ending"
)

// What a compaction does.
const (
	CompactCreating   Point = "compact-creating" // a pack
	CompactCreated    Point = "compact-created"
	CompactObjectGone Point = "compact-object-gone" // of a segment that a pack holds
	CompactEnding     Point = "compact-ending"
)

// All returns every point there is, each list in an order in which a program that is killed at one of them, and
// started again, comes to the next.
func All() []Point {
	return append([]Point{
		ArchiveCreating, ArchiveCreated, EpochCreating, EpochCreated, SlotCreating, SlotCreated, ChoiceCreating, ChoiceCreated,
		BaseObjectCreating, BaseObjectCreated, BaseCommitting, BaseCommitted,
		CaptureRead, CaptureAppended, CaptureSealing, CaptureSealed, CaptureHanded, SegmentCreating,
		DirWritten, DirSynced, DirLinked, DirSettled,
		SegmentCreated, CaptureAcking, CaptureAcked, RollupCreating, RollupCreated,
		SpoolSyncMarker, SpoolRenameMarker, SpoolWrite, SpoolSync, SpoolRename, SpoolSyncFolder, SpoolPut, SpoolUnlink,
		SourceAcking, SourceAcked, ProtectionCreating, ProtectionCreated, MarkCreating, MarkCreated, GapCreating, GapCreated,
		RestoreBeginCheck, RestoreEndCheck,
		RestoreBeginBase, RestoreSchemaMade, RestoreBookOpened, RestoreStepDone, RestoreFoldFilling, RestoreFoldFilled, RestoreChunkSent, RestoreChunkCommitted, RestoreFoldDone, RestoreStepNoted, RestoreEndBase,
		RestoreBeginKeys, RestoreForgotten, RestorePhaseNoted, RestoreObjectMade, RestoreObjectCommitted, RestoreEndKeys,
		RestoreBeginReplay, RestoreReplicaStarted, RestoreMerging, RestoreMerged, RestoreMessageSent, RestoreTxnSent, RestoreBatchCommitting, RestoreBatchCommitted, RestoreEndReplay,
		RestoreBeginFinish, RestoreReplicaDropped, RestoreSettingBack, RestoreSequences, RestoreEndFinish,
		RestoreBeginVerify, RestoreReleasing, RestoreEndVerify,
	}, append(Pruning(), Compacting()...)...)
}

// Pruning returns those of All that only a prune, or a hold, comes to.
func Pruning() []Point {
	return []Point{HoldCreating, PruneRecording, PruneRecorded, PruneManifestGone, PruneObjectGone, PrunePackGone, PruneSegmentGone, PruneRollupGone, PruneEnding}
}

// Compacting returns those of All that only a compaction comes to.
func Compacting() []Point {
	return []Point{CompactCreating, CompactCreated, CompactObjectGone, CompactEnding}
}
