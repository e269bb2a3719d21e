// Package binlog reads the events of a binary log of MySQL or MariaDB: their frame,
// where transactions begin and end, and which tables they touch. It also builds
// the few events that frame a log. It does no I/O, and no bytes make it panic.
//
// Sources of the layouts: MySQL's source documentation of namespace
// mysql::binlog::event, MariaDB's knowledge base "Replication Protocol", and what
// real servers sent in the tests.
package binlog

import "fmt"

// Type is the type of an event.
type Type uint8

// The types of events of both vendors.
const (
	TypeUnknown            Type = 0
	TypeStartV3            Type = 1
	TypeQuery              Type = 2
	TypeStop               Type = 3
	TypeRotate             Type = 4
	TypeIntvar             Type = 5
	TypeLoad               Type = 6
	TypeSlave              Type = 7
	TypeCreateFile         Type = 8
	TypeAppendBlock        Type = 9
	TypeExecLoad           Type = 10
	TypeDeleteFile         Type = 11
	TypeNewLoad            Type = 12
	TypeRand               Type = 13
	TypeUserVar            Type = 14
	TypeFormatDescription  Type = 15
	TypeXID                Type = 16
	TypeBeginLoadQuery     Type = 17
	TypeExecuteLoadQuery   Type = 18
	TypeTableMap           Type = 19
	TypePreGAWriteRows     Type = 20
	TypePreGAUpdateRows    Type = 21
	TypePreGADeleteRows    Type = 22
	TypeWriteRowsV1        Type = 23
	TypeUpdateRowsV1       Type = 24
	TypeDeleteRowsV1       Type = 25
	TypeIncident           Type = 26
	TypeHeartbeat          Type = 27
	TypeIgnorable          Type = 28
	TypeRowsQuery          Type = 29
	TypeWriteRows          Type = 30
	TypeUpdateRows         Type = 31
	TypeDeleteRows         Type = 32
	TypeGTID               Type = 33
	TypeAnonymousGTID      Type = 34
	TypePreviousGTIDs      Type = 35
	TypeTransactionContext Type = 36
	TypeViewChange         Type = 37
	TypeXAPrepare          Type = 38
	TypePartialUpdateRows  Type = 39
	TypeTransactionPayload Type = 40
	TypeHeartbeatV2        Type = 41
	TypeGTIDTagged         Type = 42

	TypeAnnotateRows           Type = 160
	TypeBinlogCheckpoint       Type = 161
	TypeMariaDBGTID            Type = 162
	TypeGTIDList               Type = 163
	TypeStartEncryption        Type = 164
	TypeQueryCompressed        Type = 165
	TypeWriteRowsCompressedV1  Type = 166
	TypeUpdateRowsCompressedV1 Type = 167
	TypeDeleteRowsCompressedV1 Type = 168
	TypeWriteRowsCompressed    Type = 169
	TypeUpdateRowsCompressed   Type = 170
	TypeDeleteRowsCompressed   Type = 171
	TypePartialRowData         Type = 172
)

// String returns the type's name as the servers' documentation spells it.
func (t Type) String() string {
	if name := t.name(); name != "" {
		return name
	}
	return fmt.Sprintf("event type %d", uint8(t))
}

// Known reports whether this build knows the type.
func (t Type) Known() bool { return t.name() != "" && t != TypeUnknown }

func (t Type) name() string {
	switch t {
	case TypeUnknown:
		return "UNKNOWN"
	case TypeStartV3:
		return "START_V3"
	case TypeQuery:
		return "QUERY"
	case TypeStop:
		return "STOP"
	case TypeRotate:
		return "ROTATE"
	case TypeIntvar:
		return "INTVAR"
	case TypeLoad:
		return "LOAD"
	case TypeSlave:
		return "SLAVE"
	case TypeCreateFile:
		return "CREATE_FILE"
	case TypeAppendBlock:
		return "APPEND_BLOCK"
	case TypeExecLoad:
		return "EXEC_LOAD"
	case TypeDeleteFile:
		return "DELETE_FILE"
	case TypeNewLoad:
		return "NEW_LOAD"
	case TypeRand:
		return "RAND"
	case TypeUserVar:
		return "USER_VAR"
	case TypeFormatDescription:
		return "FORMAT_DESCRIPTION"
	case TypeXID:
		return "XID"
	case TypeBeginLoadQuery:
		return "BEGIN_LOAD_QUERY"
	case TypeExecuteLoadQuery:
		return "EXECUTE_LOAD_QUERY"
	case TypeTableMap:
		return "TABLE_MAP"
	case TypePreGAWriteRows:
		return "PRE_GA_WRITE_ROWS"
	case TypePreGAUpdateRows:
		return "PRE_GA_UPDATE_ROWS"
	case TypePreGADeleteRows:
		return "PRE_GA_DELETE_ROWS"
	case TypeWriteRowsV1:
		return "WRITE_ROWS_V1"
	case TypeUpdateRowsV1:
		return "UPDATE_ROWS_V1"
	case TypeDeleteRowsV1:
		return "DELETE_ROWS_V1"
	case TypeIncident:
		return "INCIDENT"
	case TypeHeartbeat:
		return "HEARTBEAT"
	case TypeIgnorable:
		return "IGNORABLE"
	case TypeRowsQuery:
		return "ROWS_QUERY"
	case TypeWriteRows:
		return "WRITE_ROWS"
	case TypeUpdateRows:
		return "UPDATE_ROWS"
	case TypeDeleteRows:
		return "DELETE_ROWS"
	case TypeGTID:
		return "GTID"
	case TypeAnonymousGTID:
		return "ANONYMOUS_GTID"
	case TypePreviousGTIDs:
		return "PREVIOUS_GTIDS"
	case TypeTransactionContext:
		return "TRANSACTION_CONTEXT"
	case TypeViewChange:
		return "VIEW_CHANGE"
	case TypeXAPrepare:
		return "XA_PREPARE"
	case TypePartialUpdateRows:
		return "PARTIAL_UPDATE_ROWS"
	case TypeTransactionPayload:
		return "TRANSACTION_PAYLOAD"
	case TypeHeartbeatV2:
		return "HEARTBEAT_V2"
	case TypeGTIDTagged:
		return "GTID_TAGGED"
	case TypeAnnotateRows:
		return "ANNOTATE_ROWS"
	case TypeBinlogCheckpoint:
		return "BINLOG_CHECKPOINT"
	case TypeMariaDBGTID:
		return "GTID (MariaDB)"
	case TypeGTIDList:
		return "GTID_LIST"
	case TypeStartEncryption:
		return "START_ENCRYPTION"
	case TypeQueryCompressed:
		return "QUERY_COMPRESSED"
	case TypeWriteRowsCompressedV1:
		return "WRITE_ROWS_COMPRESSED_V1"
	case TypeUpdateRowsCompressedV1:
		return "UPDATE_ROWS_COMPRESSED_V1"
	case TypeDeleteRowsCompressedV1:
		return "DELETE_ROWS_COMPRESSED_V1"
	case TypeWriteRowsCompressed:
		return "WRITE_ROWS_COMPRESSED"
	case TypeUpdateRowsCompressed:
		return "UPDATE_ROWS_COMPRESSED"
	case TypeDeleteRowsCompressed:
		return "DELETE_ROWS_COMPRESSED"
	case TypePartialRowData:
		return "PARTIAL_ROW_DATA"
	}
	return ""
}
