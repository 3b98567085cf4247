/* rank_wire.h - messages of the ranking service to and from the pipeline's structs.
 *
 *     mr_arena arena = {.limit = MR_RANK_WIRE_BYTES};
 *     mr_rank_wire wire;
 *     mr_rank_wire_read(&wire, message, &arena, &err);        wire.request is ready to be ranked
 *     mr_rank_wire_write(&wire, reply, &extra, &arena, &bytes, &err);
 *
 * Reading trusts nothing: a message that is not protobuf, tokens whose bytes do not fit their
 * shape, an id that is too long are INVALID and named ("candidate 7: tokens ..."). What only a
 * bundle can judge (widths, counts, UTF-8 of texts) is the pipeline's to say. All memory of a
 * request comes from the arena; a message that would take more than its limit is EXHAUSTED.
 * Fields: proto/mixrank/v1/ranking.proto.
 * Threads: pure functions.
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef MR_RANKER_SERVICE_RANK_WIRE_H
#define MR_RANKER_SERVICE_RANK_WIRE_H

#include "core/arena.h"
#include "ranker/pipeline/ranker.h"

#define MR_RANK_WIRE_BYTES          ((size_t)256 << 20)
#define MR_RANK_WIRE_REQUEST_ID_MAX 128

typedef struct {
    mr_rank_request request; /* deadline_us is the caller's to set */
    mr_str request_id, model;
    uint64_t item_space, user_space; /* that inline tokens claim; 0: none does */
} mr_rank_wire;

/* All of *out borrows from the arena, not from message. */
MR_NODISCARD mr_status mr_rank_wire_read(mr_rank_wire *out, mr_bytes message, mr_arena *arena,
                                         mr_error *err);

/* What the pipeline's reply does not know. */
typedef struct {
    const char *numerics_id;
    int64_t queue_us; /* from arrival to the start of ranking */
    bool partial;
    bool untrained;
} mr_rank_wire_extra;

/* The serialised RankReply; bytes live in the arena. */
MR_NODISCARD mr_status mr_rank_wire_write(const mr_rank_wire *wire, const mr_rank_reply *reply,
                                          const mr_rank_wire_extra *extra, mr_arena *arena,
                                          mr_bytes *out, mr_error *err);

#endif
