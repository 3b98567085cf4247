/* session_private.h - what session.c, forward.c and attention.c share.
 *
 * A run is cut into passes of at most max_rows rows. A row of a pass is one position: of a prefix
 * (its K and V go into its timeline) or of a suffix (they go into scratch that the next layer
 * overwrites).
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef MR_ENGINE_SESSION_PRIVATE_H
#define MR_ENGINE_SESSION_PRIVATE_H

#include <stdbool.h>

#include "engine/session.h"
#include "engine/timeline_private.h"

/* A row sees the first `cached` positions of the timeline, then `own` rows of its suffix, itself
 * last: position + 1 keys in the order of their positions, however they came there. */
typedef struct {
    mr_timeline *timeline;
    size_t position;
    size_t cached;    /* position + 1 for a prefix row */
    size_t own;       /* 0 for a prefix row */
    size_t own_first; /* row of the pass at which its suffix starts */
    bool wanted;      /* its output was asked for */
} mr_row;

struct mr_session {
    const mr_model *model;
    mr_pool *pool;
    size_t max_prefix, max_rows, max_suffix;
    size_t n_positions;    /* that rotation tables exist for */
    mr_timeline *timeline; /* owned; NULL when every batch brings its own */
    mr_tap tap;
    void *tap_context;
    mr_session_stats stats;

    /* One allocation. R is max_rows; the other letters are model_config.h's. */
    void *memory; /* owned */
    size_t bytes;
    float *cos, *sin;     /* [n_positions][D/2] */
    mr_row *rows;         /* [R] */
    float *x;             /* [R][C], the residual stream */
    float *h;             /* [R][C], input or output of the linear in hand */
    float *q;             /* [R][H*D], queries, later the attention's output */
    float *heads;         /* [K][R][H/K][D], queries by kv head, rotated and scaled */
    float *own_k, *own_v; /* [K][R][D], of suffix rows, by kv head */
    float *k, *v;         /* [R][K*D], fresh from their linears; share memory with q, heads */
    float *gate, *up;     /* [R][F]; share memory with everything from q to own_v */
    void *gemm_scratch;
    float *attention_scratch; /* [threads][attention_floats] */
    size_t attention_floats;

    /* The pass in hand. */
    size_t n_rows;
    float *out; /* where the next wanted row goes */
};

/* Runs the pass that rows, n_rows and x (embeddings) describe; writes its wanted rows to out and
 * moves out behind them. */
void mr_forward_pass(mr_session *session);

/* heads, timelines and own_k, own_v -> q, for the first n_rows of rows. */
void mr_attention_run(mr_session *session, int layer, size_t n_rows);
/* Scratch per thread. max_keys: positions that a row can see. */
size_t mr_attention_floats(const mr_model_config *config, size_t max_keys);

#endif
