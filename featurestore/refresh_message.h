/* refresh_message.h - one Kafka message into what is to be done with it. Pure: no Kafka, no store.
 *
 * A message of a topic of embeddings becomes a record; one of a topic of rows becomes a row for the
 * encoder, checked as far as every row must be (key, JSON object, id, version, time); a message
 * without a value becomes a tombstone, whatever the topic; and what can never be written becomes a
 * rejection with a code and a reason.
 *
 * A message gets its version from, in this order: its value; the message header "mixrank-version"
 * (decimal digits), which is the one way for a message without a value to have one; the topic's
 * epoch and its own offset. A record (MRE1) is written as it is, with the version that stands in
 * it, and looks at no header.
 * Private to featurestore. Threads: pure functions.
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef MR_FEATURESTORE_REFRESH_MESSAGE_H
#define MR_FEATURESTORE_REFRESH_MESSAGE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "core/arena.h"
#include "core/error.h"
#include "featurestore/record.h"
#include "featurestore/store.h"

#define MR_REFRESH_VERSION_HEADER "mixrank-version"

/* How the messages of a topic are read. */
typedef struct {
    mr_entity entity;
    bool rows; /* JSON for an encoder; otherwise embeddings */
    uint64_t space;
    uint16_t dim; /* expected width of embeddings; 0: any */
    mr_record_dtype dtype;
    uint16_t epoch;
} mr_refresh_rule;

typedef struct {
    mr_bytes key, value;  /* data NULL: the message has none */
    mr_bytes version;     /* of the header; data NULL: the message has none */
    int64_t offset;       /* 0 or more */
    int64_t timestamp_ms; /* of the message; below 0: unknown */
} mr_refresh_message;

/* Why a message was rejected, in one word for metrics and headers. */
#define MR_REFRESH_CODE_MAP(X)                                    \
    X(KEY, "key")         /* none, or too long */                 \
    X(VALUE, "value")     /* neither protobuf, record nor JSON */ \
    X(VERSION, "version") /* not a number of 64 bits */           \
    X(SPACE, "space")     /* another encoder's */                 \
    X(SHAPE, "shape")     /* tokens, dim, bytes or dtype */       \
    X(VALUES, "values")   /* not finite, or too large */          \
    X(ENCODER, "encoder") /* the encoder cannot make a record */  \
    X(STORE, "store")     /* the store takes all others, not this */

typedef enum {
#define MR_REFRESH_CODE_ENUM(name, text) MR_REFRESH_CODE_##name,
    MR_REFRESH_CODE_MAP(MR_REFRESH_CODE_ENUM)
#undef MR_REFRESH_CODE_ENUM
        MR_REFRESH_CODE_COUNT
} mr_refresh_code;

const char *mr_refresh_code_name(mr_refresh_code code);

typedef enum { MR_REFRESH_RECORD, MR_REFRESH_ROW, MR_REFRESH_REJECTED } mr_refresh_kind;

typedef struct {
    mr_refresh_kind kind;
    mr_str id;       /* the message's key, borrowed from it */
    mr_bytes record; /* RECORD: in the arena, or the message's own value */
    mr_str json;     /* ROW: the message's own value, an object */
    uint64_t version;
    int64_t event_ms; /* 0: unknown */
    bool tombstone;
    mr_refresh_code code; /* REJECTED */
    char reason[256];
} mr_refresh_parsed;

/* Fills *out; the only failure is NO_MEMORY (the arena's limit included), after which the same
 * message may be tried again. scratch is rewound before it returns. */
MR_NODISCARD mr_status mr_refresh_parse(const mr_refresh_rule *rule,
                                        const mr_refresh_message *message, mr_arena *arena,
                                        mr_arena *scratch, mr_refresh_parsed *out, mr_error *err);

/* A tombstone under this version, in the arena. */
MR_NODISCARD mr_status mr_refresh_make_tombstone(const mr_refresh_rule *rule, uint64_t version,
                                                 int64_t event_ms, mr_arena *arena, mr_bytes *out,
                                                 mr_error *err);

#endif
